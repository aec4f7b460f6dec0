"""A bundle: the folder a model travels in, checked against its SHA256SUMS when it is opened."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from octedge.card import ModelCard, decode_card
from octedge.errors import ModelError

SUMS = "SHA256SUMS"
NEEDED = ("card.json", "model.onnx", "golden.npz")
REFERENCE = Path(__file__).parents[1] / "models" / "reference"


@dataclass(frozen=True, slots=True)
class Golden:
    """A B-scan uint8 (H, W) with the reference answer: labels uint8 (H, W), surfaces float32 (L, W), after the ordered decode."""

    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    surfaces: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An intact bundle: its folder, its card, and the SHA-256 of every listed file."""

    path: Path
    card: ModelCard
    sums: dict[str, str]

    @property
    def digest(self) -> str:
        """One SHA-256 for the whole bundle: of its SHA256SUMS."""
        return hashlib.sha256(_sums_text(self.sums)).hexdigest()

    def golden(self) -> list[Golden]:
        """The golden B-scans with their reference answers.

        Raises `ModelError` if `golden.npz` does not hold them.
        """
        try:
            with (self.path / "golden.npz").open("rb") as stream, NpzFile(stream, allow_pickle=False) as file:
                count = sum(key.startswith("frame_") for key in file.files)
                answers = [Golden(*(file[f"{part}_{index}"] for part in ("frame", "labels", "surfaces"))) for index in range(count)]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ModelError(f"{self.path.name}/golden.npz cannot be read ({error}); export the bundle anew") from error
        if not answers:
            raise ModelError(f"{self.path.name}/golden.npz holds no frames; an engine is checked with at least one; export it anew")
        return answers


def open_bundle(path: Path | str | None = None) -> Bundle:
    """Open a bundle's folder, or the shipped reference bundle; every file in SHA256SUMS must be there, unchanged.

    Raises `ModelError` naming the file that is missing, changed or not understood.
    """
    folder = REFERENCE if path is None else Path(path)
    if not folder.is_dir():
        what = "this octedge ships no reference model" if path is None else f"{folder}: not a folder"
        raise ModelError(f"{what}; give a bundle, the folder with card.json and model.onnx (--model BUNDLE)")
    sums = _read_sums(folder)
    for name, expected in sums.items():
        if _sha256(folder, name) != expected:
            raise ModelError(f"{folder.name}/{name} was changed since the bundle was made (SHA-256 differs); copy or export it anew")
    card = decode_card((folder / "card.json").read_bytes(), f"{folder.name}/card.json")
    if card.golden and card.golden != sums["golden.npz"]:
        raise ModelError(f"{folder.name}/golden.npz holds other golden answers than {card.id} was exported with; copy or export it anew")
    return Bundle(folder, card, sums)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over the files that lie directly in `folder`; `sha256sum -c` can check it."""
    names = sorted(file.name for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    (folder / SUMS).write_bytes(_sums_text({name: _sha256(folder, name) for name in names}))


def _sums_text(sums: dict[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def _read_sums(folder: Path) -> dict[str, str]:
    """The lines of SHA256SUMS as file name -> digest; names stay inside the folder, the needed files are among them."""
    try:
        lines = (folder / SUMS).read_bytes().decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder.name}: no readable {SUMS}; a bundle lists its files there; is this the right folder?") from error
    sums = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        parts = PurePosixPath(name).parts
        if len(digest) != 64 or not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or ":" in name:
            raise ModelError(f"{folder.name}/{SUMS}: {line[:100]!r} is not a line of '<SHA-256>  <file>'; copy or export the bundle anew")
        sums[name] = digest.lower()
    missing = [name for name in NEEDED if name not in sums]
    if missing:
        raise ModelError(f"{folder.name}/{SUMS} does not list {', '.join(missing)}; a bundle needs {', '.join(NEEDED)}; export it anew")
    return sums


def _sha256(folder: Path, name: str) -> str:
    try:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{folder.name}/{name} cannot be read ({error.strerror}); copy or export the bundle anew") from error
