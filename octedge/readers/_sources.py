"""From files and folders to scans: which files are scans, which belong together, and what their results are called."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octedge.errors import ScanError, UsageError
from octedge.scan import Scan

IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
DICOM = (".dcm", ".dicom")
_PICTURE = re.compile(r"(\.overlay|^overlay_\d{3,})\.png$")  # what `segment` draws
KINDS = "DICOM (.dcm or without ending), PNG, TIFF, JPEG, BMP, NPZ, Heidelberg .vol"


@dataclass(frozen=True, slots=True)
class Source:
    """One scan to come: its files, and the name of its result (a path relative to the input folder, without ending)."""

    paths: tuple[Path, ...]
    name: str

    def read(self) -> Scan:
        """The scan. Raises `ScanError` if its files cannot be used."""
        path = self.paths[0]
        kind = _kind(path)
        if kind == "dicom":
            from octedge.readers.dicom import read_dicom  # pydicom is loaded by those who need it

            return read_dicom(self.paths, self.name)
        if kind == "image":
            from octedge.readers.images import read_image

            return read_image(path, self.name)
        if kind == "npz":
            from octedge.readers.npz import read_npz

            return read_npz(path, self.name)
        if kind == "vol":
            from octedge.readers.vol import read_vol

            return read_vol(path, self.name)
        raise ScanError(f"{path.name}: not a kind of file that is read: {KINDS}")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file that may be a scan or a part of one: the input folder it was found in, its series if it is a single frame."""

    path: Path
    root: Path
    series: str


@dataclass(frozen=True, slots=True)
class _Found:
    """The files of one scan, and the input folder they were found in."""

    paths: tuple[Path, ...]
    root: Path

    def name(self, level: int) -> str:
        """Level 0: file without ending, or folder of a series; 1: the whole file name; 2: with the input folder before it."""
        first = self.paths[0].relative_to(self.root)
        if level == 0 and len(self.paths) == 1:
            return first.with_name(stem(first)).as_posix()
        if level == 0:
            return first.parent.as_posix() if first.parent != Path() else self.root.resolve().name
        return first.as_posix() if level == 1 else (Path(self.root.resolve().name) / first).as_posix()


def read(path: Path | str) -> Scan:
    """One scan: a file, or a folder that holds the single-frame DICOM files of one series (or any one scan).

    Raises `ScanError` if it cannot be used, `UsageError` if the path is missing or holds several scans.
    """
    sources = find([Path(path)])
    if len(sources) > 1:
        raise UsageError(f"{os.fspath(path)!r} holds {len(sources)} scans, one is needed; name a file, or use octedge.readers.find")
    return sources[0].read()


def find(inputs: Sequence[Path]) -> list[Source]:
    """The scans in files and folders (searched through), in the order given, then by name.

    In folders, hidden files and files of other kinds are passed over; a damaged scan is not: reading it raises.
    Single-frame DICOM files of one series in one folder are one scan. Two scans that would get the same name are
    called by their whole file names. Raises `UsageError` for a missing path or a folder without scans.
    """
    candidates: dict[Path, _Candidate] = {}
    for path in map(Path, inputs):
        if not path.exists():
            raise UsageError(f"{os.fspath(path)!r} does not exist; give files or folders with scans")
        if path.is_dir():
            here = [candidate for file in _walk(path) if (candidate := listed(file, path)) is not None]
        else:
            here = [_Candidate(path, path.parent, _series(path) or "")]
        if not here:
            raise UsageError(f"{os.fspath(path)!r} holds no scans; what is read: {KINDS}")
        for candidate in here:
            candidates.setdefault(candidate.path.resolve(), candidate)
    if not candidates:
        raise UsageError(f"no input given; name files or folders. What is read: {KINDS}")
    groups: dict[tuple[Path, str], list[_Candidate]] = defaultdict(list)
    for resolved, candidate in candidates.items():
        groups[(resolved.parent if candidate.series else resolved, candidate.series)].append(candidate)
    return _named([_Found(tuple(candidate.path for candidate in group), group[0].root) for group in groups.values()])


def _walk(folder: Path) -> list[Path]:
    """The files below `folder`, sorted, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"a folder in {os.fspath(folder)!r} cannot be listed ({error.strerror}); check its permissions")

    files = []
    for here, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(here, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


def _kind(path: Path) -> str | None:
    """By ending, where that tells; else by DICOM's mark at byte 128 (PS3.10 section 7.1)."""
    ending = path.suffix.lower()
    if ending in IMAGES:
        return "image"
    if ending in (".npz", ".vol"):
        return ending[1:]
    if ending in DICOM:
        return "dicom"
    try:
        with path.open("rb") as file:
            return "dicom" if file.read(132)[128:] == b"DICM" else None
    except OSError:
        return "dicom"  # cannot be looked into: reading it will say why


def stem(path: Path) -> str:
    """The name without a known ending; `1.2.840.1` has none."""
    known = (*IMAGES, *DICOM, ".npz", ".vol")
    return path.name[: -len(path.suffix)] if path.suffix.lower() in known else path.name


def listed(file: Path, root: Path) -> _Candidate | None:
    """The file as a listing takes it: None for files of other kinds, and what is sound but no OCT scan (fundus pictures, results)."""
    kind = _kind(file)
    if kind is None or _PICTURE.search(file.name):
        return None
    if kind == "npz":
        from octedge.readers.npz import holds_scan

        return _Candidate(file, root, "") if holds_scan(file) else None
    series = _series(file)
    return None if series is None else _Candidate(file, root, series)


def _series(file: Path) -> str | None:
    """The series a single-frame DICOM file belongs to, "" for a scan of its own, None for a DICOM file that is no OCT."""
    if _kind(file) != "dicom":
        return ""
    from octedge.readers.dicom import summary

    try:
        told = summary(file)
    except ScanError:
        return ""  # reading it will say what is wrong
    if not told.tomography:
        return None
    return told.series if told.single else ""


def _named(found: Sequence[_Found]) -> list[Source]:
    """Give every scan a name of its own; names that differ in case only count as the same (some file systems think so)."""
    levels = [0] * len(found)
    while True:
        names = [item.name(level) for item, level in zip(found, levels, strict=True)]
        users: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(names):
            users[name.casefold()].append(index)
        clashes = [index for same in users.values() if len(same) > 1 for index in same]
        if not clashes:
            return [Source(item.paths, name) for item, name in zip(found, names, strict=True)]
        if all(levels[index] == 2 for index in clashes):
            raise UsageError(f"two inputs would both get the result {names[clashes[0]]!r}; run them apart, into different folders")
        for index in clashes:
            levels[index] = min(levels[index] + 1, 2)
