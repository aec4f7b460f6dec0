"""The workstation's export stage: from a run folder to a bundle. Not part of the installed package."""

import octedge.edge  # noqa: F401  # switches ONNX Runtime's telemetry off, before anything here imports it
