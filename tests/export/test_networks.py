"""Every family of candidate networks, exported: the runtime answers as torch does."""

from collections import Counter

import numpy as np
import onnxruntime

from export.to_onnx import to_graph
from octedge.train.validate import TorchEngine
from tests.train.test_networks import every_family, network


def unfolded(model):
    """Batch norms whose input is a convolution that nothing else reads; one after a sum has nothing to be folded into."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    reads = Counter(name for node in model.graph.node for name in node.input)
    norms = [node.input[0] for node in model.graph.node if node.op_type == "BatchNormalization"]
    return [name for name in norms if made_by.get(name) in ("Conv", "ConvTranspose") and reads[name] == 1]


@every_family
def test_the_exported_graph_gives_torchs_labels_at_sizes_it_was_not_exported_with(shape):
    model = to_graph(network(shape), shape.downs)
    assert "MaxUnpool" not in {node.op_type for node in model.graph.node}  # not known to every runtime
    assert not unfolded(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    grid = 1 << shape.downs
    for batch, rows, columns in ((1, 5, 7), (3, 8, 16), (1, 1, 1)):
        image = np.random.default_rng(rows).integers(0, 256, (batch, 1, rows * grid, columns * grid), np.uint8)
        scores, labels = session.run(["scores", "labels"], {"image": image})
        expected, places = TorchEngine(network(shape))(image)
        np.testing.assert_allclose(scores, expected, atol=1e-3)
        np.testing.assert_array_equal(labels, places)
