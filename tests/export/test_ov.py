"""Every family of candidate networks on OpenVINO: it compiles, and answers as ONNX Runtime does."""

import msgspec
import numpy as np
import pytest

from octedge.edge.ort import OrtEngine
from octedge.edge.ov import BACKEND, OpenVinoEngine
from octedge.edge.variant import Variant
from tests.edge.graphs import saved
from tests.export.graphs import exported
from tests.support import CARD
from tests.train.test_networks import CLASSES, every_family

BF16 = Variant("openvino", "bf16")


@every_family
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_compiles_every_family_and_gives_the_labels_of_onnx_runtime(shape, precision, tmp_path):
    if precision == "bf16" and BF16 not in BACKEND.variants():
        pytest.skip("this processor does not compute in bf16")
    card = msgspec.structs.replace(CARD, structures=CLASSES, downs=shape.downs)
    path = saved(exported(shape), tmp_path)
    engine, expected = OpenVinoEngine(path, card, precision=precision), OrtEngine(path, card)
    grid = card.windowing.grid
    equal: list[bool] = []
    for batch, rows, columns in ((1, 5, 7), (3, 8, 16), (1, 1, 1)):
        windows = np.random.default_rng(rows).integers(0, 256, (batch, 1, rows * grid, columns * grid), np.uint8)
        (scores, labels), (wanted, places) = engine(windows), expected(windows)
        if precision == "fp32":
            np.testing.assert_allclose(scores, wanted, atol=1e-3)
        equal += (labels == places).ravel().tolist()
    assert np.mean(equal) >= (0.9999 if precision == "fp32" else 0.9)
