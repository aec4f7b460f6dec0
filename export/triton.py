"""A bundle to models of a Triton inference server: a folder per precision, with the ONNX file unchanged and what a client must know."""

import re
import shutil
import tempfile
from pathlib import Path

from octedge.card import ModelCard
from octedge.edge.bundle import Bundle
from octedge.edge.variant import FILES
from octedge.results.files import make_folder, output_error
from octedge.segment import PIXELS_PER_CALL

PRECISIONS = tuple(precision for precision in FILES if precision != "bf16")  # which has no file of its own


def write_triton(bundle: Bundle, repository: Path) -> list[Path]:
    """Write `<card id>-<precision>/config.pbtxt` and `.../1/model.onnx` for every precision of the bundle; returns the models' folders.

    A model of the same name is replaced as a whole, others stay as they are. Raises `OutputError` where the repository cannot be written.
    """
    make_folder(repository)
    return [_write(bundle, precision, repository) for precision in PRECISIONS if FILES[precision] in bundle.sums]


def _write(bundle: Bundle, precision: str, repository: Path) -> Path:
    """Fill a temporary folder in the repository, then let it take the model's place."""
    model = repository / model_name(bundle.card, precision)
    try:
        with tempfile.TemporaryDirectory(prefix=".octedge-", dir=repository) as temporary:
            new = Path(temporary) / "new"
            (new / "1").mkdir(parents=True)
            shutil.copyfile(bundle.path / FILES[precision], new / "1" / "model.onnx")
            (new / "config.pbtxt").write_text(config(bundle, precision), encoding="ascii", newline="\n")
            if model.is_dir():
                model.rename(Path(temporary) / "old")
            new.rename(model)
    except OSError as error:
        raise output_error(model, error) from error
    return model


def model_name(card: ModelCard, precision: str) -> str:
    """The model's name at the server, in letters that every file system takes too."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{card.id}-{precision}")


def config(bundle: Bundle, precision: str) -> str:
    """The model's configuration in protobuf's text format: its tensors, and as parameters what a client needs to tile as octedge does.

    A request holds windows of one size, height and width on the grid; a batch of the server no more pixels than a call of octedge.
    """
    card = bundle.card
    batch = max(1, PIXELS_PER_CALL // (card.window * max(card.heights)))
    facts = {
        "use": card.use,
        "card": card.id,
        "precision": precision,
        "sha256": bundle.sums[FILES[precision]],
        "structures": " ".join(card.structures),
        "window": str(card.window),
        "overlap": str(card.overlap),
        "grid": str(card.windowing.grid),
        "exact": str(card.exact).lower(),
        "heights": " ".join(map(str, card.heights)),
        "axial_um": " ".join(map(str, card.axial_um)),
    }
    lines = [
        f"name: {_quoted(model_name(card, precision))}",
        'backend: "onnxruntime"',
        f"max_batch_size: {batch}",
        'input { name: "image" data_type: TYPE_UINT8 dims: [1, -1, -1] }',
        f'output {{ name: "scores" data_type: TYPE_FP32 dims: [{len(card.structures)}, -1, -1] }}',
        'output { name: "labels" data_type: TYPE_UINT8 dims: [-1, -1] }',
        "dynamic_batching { }",
        *(f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(fact)} }} }}" for key, fact in facts.items()),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of protobuf's text format: its UTF-8 bytes, all but plain characters as octal escapes."""
    return '"' + "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode()) + '"'
