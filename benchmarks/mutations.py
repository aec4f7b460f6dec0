"""Damage to DICOM files, from their structure: what `benchmarks.fuzz` reads."""

import random
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames

from octedge.phantom import Phantom
from octedge.phantom_codings import Coding, encoder
from octedge.phantom_devices import Profile
from octedge.phantom_files import write_dicom
from octedge.phantom_look import LOOKS
from octedge.readers import read

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}  # PS3.5 table 7.1-1
_VRS = [*sorted(_LONG), b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"PN", b"SH", b"SL", b"SS",
        b"TM", b"UI", b"UL", b"US", b"??", b"\0\0"]  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_PIXELS = (0x7FE0, 0x0010)
_COUNTS = [(0x0028, element) for element in (0x0002, 0x0008, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103)]


class Seed(NamedTuple):
    """A sound file, its pixels uint8 (F, H, W), and whether every decoder must give just these."""

    name: str
    content: bytes
    frames: NDArray[np.uint8]
    bits: int
    exact: bool
    pieces: bool = False  # whether a frame is more than one fragment: in another order they make a frame nobody can tell from a sound one


class Spot(NamedTuple):
    """An element or item: where it begins, its VR (b"" for an item), where its length stands in how many bytes, its value."""

    start: int
    tag: tuple[int, int]
    vr: bytes
    length_at: int
    length_bytes: int
    value: int
    stop: int


Mutation = Callable[[bytes, list[Spot], random.Random], bytes]


def seeds() -> list[Seed]:
    """Sound files: every coding in 8 and 16 bit, every kind of device, the other native syntaxes, frames in two fragments."""
    look = replace(LOOKS["spectralis"], rows=40, columns=48, axial_um=24.0, lateral_um=120.0)
    phantom = Phantom(look, 3, 1, "L")
    made = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "seed.dcm"
        for coding in get_args(Coding):
            for bits in (8,) if coding == "JPEG" else (8, 16):
                write_dicom(phantom, path, coding=coding, bits=bits)
                made.append(_seed(f"{coding} {bits}", path, bits, encoder(coding, bits).lossy is None))
        for profile in get_args(Profile):
            write_dicom(phantom, path, profile=profile)
            made.append(_seed(profile, path, 8, True))
        for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"):
            write_dicom(phantom, path)
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
            pydicom.dcmwrite(path, dataset, implicit_vr=syntax == "1.2.840.10008.1.2", little_endian=True)
            made.append(_seed(pydicom.uid.UID(syntax).name, path, 8, True))
        for coding in ("JPEG-LS", "JPEG 2000"):
            for table in (True, False):
                write_dicom(phantom, path, coding=coding)  # type: ignore[arg-type]
                dataset = pydicom.dcmread(path)
                frames = list(generate_frames(dataset.PixelData, number_of_frames=3))
                dataset.PixelData = encapsulate(frames, 2, has_bot=table)
                dataset.save_as(path)
                made.append(_seed(f"{coding} in pieces", path, 8, True)._replace(pieces=True))
    return made


def _seed(name: str, path: Path, bits: int, exact: bool) -> Seed:
    return Seed(name, path.read_bytes(), np.stack(list(read(path))), bits, exact)


def mutated(number: int, seed: int, sources: list[Seed]) -> tuple[Seed, str, bytes, bool]:
    """File `number`: what it was made of, how, its bytes, and whether the frames' own bytes are as they were."""
    rng = random.Random(f"{seed} {number}")
    source = rng.choice(sources)
    spots = list(walk(source.content)) or [Spot(132, (2, 0), b"UL", 138, 2, 140, 144)]
    name, content, intact = "", source.content, True
    if rng.random() < 0.08:
        name, content, intact = "splice", _splice(source.content, rng.choice(sources).content, rng), False
    else:
        name = rng.choice([name for name in _MUTATIONS if name not in ("offset table", "fragments") or _fragments(content, spots)])
        mutation, whole = _MUTATIONS[name]
        for _ in range(1 if whole else rng.choice((1, 1, 2, 5))):
            if len(content) < 200:
                break
            content, intact = mutation(content, spots, rng), whole and not (name == "fragments" and source.pieces)
    return source, name, content, intact


def walk(content: bytes) -> Iterator[Spot]:
    """The elements and items of an explicit little endian file, those inside sequences and PixelData too; nothing for others."""
    position = 132
    while position + 8 <= len(content):
        group, element = struct.unpack_from("<HH", content, position)
        if group == 0xFFFE:
            length = struct.unpack_from("<I", content, position + 4)[0]
            stop = position + 8 + (0 if length == _UNDEFINED or element != 0xE000 else length)
            yield Spot(position, (group, element), b"", position + 4, 4, position + 8, min(stop, len(content)))
            inside = element == 0xE000 and not _is_fragment(content, position)
            position = position + 8 if inside else stop
            continue
        vr = content[position + 4 : position + 6]
        if vr not in _VRS[:-2]:
            return
        wide = vr in _LONG
        length = struct.unpack_from("<I" if wide else "<H", content, position + (8 if wide else 6))[0]
        value = position + (12 if wide else 8)
        stop = value if length == _UNDEFINED else value + length
        yield Spot(position, (group, element), vr, position + (8 if wide else 6), 4 if wide else 2, value, min(stop, len(content)))
        position = value if vr == b"SQ" or length == _UNDEFINED else stop


def _is_fragment(content: bytes, position: int) -> bool:
    """Whether an item holds pixels: those stand behind the last PixelData of the file."""
    mark = content.rfind(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff")
    return 0 < mark < position


def _put(content: bytes, place: int, what: bytes, instead_of: int) -> bytes:
    return content[:place] + what + content[place + instead_of :]


def _number(rng: random.Random, old: int, size: int) -> bytes:
    near = [old + step for step in (-2, -1, 1, 2, 8)] + [0, 1, 2, old * 2, old // 2, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, _UNDEFINED]
    return ((rng.choice(near) if rng.random() < 0.8 else rng.getrandbits(32)) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _length(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    spot = rng.choice(spots)
    old = int.from_bytes(content[spot.length_at : spot.length_at + spot.length_bytes], "little")
    return _put(content, spot.length_at, _number(rng, old, spot.length_bytes), spot.length_bytes)


def _vr(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    spot = rng.choice([spot for spot in spots if spot.vr] or spots)
    return _put(content, spot.start + 4, rng.choice(_VRS), 2)


def _tag(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    spot, other = rng.choice(spots), rng.choice(spots)
    return _put(content, spot.start, struct.pack("<HH", *other.tag), 4)


def _value(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    """Other bytes of the same length in an element of the header."""
    spot = rng.choice([spot for spot in spots if spot.vr and spot.tag != _PIXELS and spot.stop - spot.value in range(1, 200)] or spots)
    size = spot.stop - spot.value
    kind = rng.randrange(4)
    new = [rng.randbytes(size), b"\0" * size, bytes(rng.choice(b"0123456789.\\-+eE ") for _ in range(size)), b"9" * size][kind]
    return _put(content, spot.value, new, size)


def _drop(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    spot = rng.choice([spot for spot in spots if spot.tag != _PIXELS] or spots)
    return _put(content, spot.start, b"", spot.stop - spot.start)


def _twice(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    spot = rng.choice(spots)
    return _put(content, rng.choice((spot.start, rng.choice(spots).start)), content[spot.start : spot.stop], 0)


def _count(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    """Another number of frames, rows, columns, samples or bits."""
    spot = rng.choice([spot for spot in spots if spot.tag in _COUNTS] or spots)
    old, size = content[spot.value : spot.stop], spot.stop - spot.value
    if spot.vr == b"US" and size == 2:
        return _put(content, spot.value, _number(rng, int.from_bytes(old, "little"), 2), 2)
    text = rng.choice(("0", "1", "2", "4", "6", "-3", "99", "1e3", "3\\3", "2147483647", "")).encode()[:254]
    text += b" " * (len(text) % 2)
    return _put(_put(content, spot.length_at, len(text).to_bytes(spot.length_bytes, "little"), spot.length_bytes), spot.value, text, size)


def _fragments(content: bytes, spots: list[Spot]) -> list[Spot]:
    return [spot for spot in spots if spot.tag == (0xFFFE, 0xE000) and _is_fragment(content, spot.start)]


def _table(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    """Other offsets, or another number of them."""
    items = _fragments(content, spots)
    if not items:
        return content
    size = items[0].stop - items[0].value
    entries = [rng.choice((0, 8, 100, rng.getrandbits(32), *(spot.start - items[1].start for spot in items[1:]))) for _ in range(size // 4)]
    if rng.random() < 0.4:
        entries = entries[: rng.randrange(4)] + [0] * rng.randrange(3)
    new = struct.pack(f"<HHI{len(entries)}I", 0xFFFE, 0xE000, 4 * len(entries), *(entry & _UNDEFINED for entry in entries))
    return _put(content, items[0].start, new, 8 + size)


def _moved(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    """Fragments in another order, left out, doubled, cut in two."""
    items = _fragments(content, spots)
    if not items:
        return content
    pieces = [content[spot.value : spot.stop] for spot in items[1:]]
    kind, index = rng.randrange(4), rng.randrange(len(pieces))
    if kind == 0:
        rng.shuffle(pieces)
    elif kind == 1:
        del pieces[index]
    elif kind == 2:
        pieces.insert(index, rng.choice(pieces))
    else:
        cut = rng.randrange(len(pieces[index]) + 1) & ~1
        pieces[index : index + 1] = [pieces[index][:cut], pieces[index][cut:]]
    new = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(piece)) + piece for piece in pieces)
    return _put(content, items[1].start, new, items[-1].stop - items[1].start)


def _inside(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    """A few bytes of a frame, most often near its beginning, where its own header stands."""
    spot = rng.choice(_fragments(content, spots)[1:] or [spot for spot in spots if spot.tag == _PIXELS] or spots)
    reach = max(spot.stop - spot.value, 1)
    place = spot.value + rng.randrange(min(reach, 120) if rng.random() < 0.7 else reach)
    return _put(content, place, rng.randbytes(rng.choice((1, 1, 2, 4))), rng.choice((1, 1, 2, 4)))


def _bytes(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return _put(content, place, bytes([content[place] ^ 1 << rng.randrange(8)]), 1)


def _cut(content: bytes, spots: list[Spot], rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return content[: rng.randrange(len(content))]
    first = rng.randrange(len(content))
    return content[:first] + content[min(len(content), first + rng.choice((1, 2, 8, 100, 1000))) :]


def _splice(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


# What is done, and whether it leaves the bytes of every frame as they are (perhaps elsewhere, or missing).
_MUTATIONS: dict[str, tuple[Mutation, bool]] = {
    "length": (_length, False), "VR": (_vr, False), "tag": (_tag, False), "value": (_value, False), "element left out": (_drop, False),
    "element twice": (_twice, False), "count": (_count, False), "offset table": (_table, True), "fragments": (_moved, True),
    "inside a frame": (_inside, False), "bytes": (_bytes, False), "cut": (_cut, False),
}  # fmt: skip
