"""What the tests of TensorRT share: variants, what a plan is known by, and who listens."""

import pytest

from octedge.edge.gpu import gpus
from octedge.edge.trt_build import Profile
from octedge.edge.trt_files import Key
from octedge.edge.variant import Variant

FP16 = Variant("rtx", "fp16")
FP32 = Variant("rtx", "fp32")
PROFILES = (Profile(64, (1, 4), (1, 768), (1, 16384)),)
KEY = Key(
    bundle="b" * 64, onnx="0" * 64, precision="fp16", profiles=PROFILES, library="tensorrt_rtx 1.7.1.116",
    gpu="NVIDIA RTX 4090", capability="8.9", driver="580.65.06", capabilities=("CURRENT",), workspace=1 << 30,
)  # fmt: skip

without_gpu = pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")


def quiet(_):
    pass
