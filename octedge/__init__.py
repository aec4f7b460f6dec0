"""octedge: retinal OCT layer segmentation for the machine beside the scanner. Research use only.

import octedge
model = octedge.open_model()                 # the reference model; or a bundle's folder
result = model.segment(octedge.read("scan.dcm"))
result.surfaces                              # float32 (F, L, W), rows
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["open_model", "read"]

_HOME = {"open_model": "octedge.edge.model", "read": "octedge.readers"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'octedge' has no attribute {name!r}")
