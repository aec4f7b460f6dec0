"""What runs beside the scanner: bundles, engines, certificates, the model."""

import os

# From 1.29 on, ONNX Runtime tells its makers over the network about every session, unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
