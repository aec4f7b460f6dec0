"""The sources of a cohort: where scans and annotations lie, and what is known of them. A cohort is a TOML file of sources."""

import difflib
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from octedge.anatomy import KEYS, check_classes, is_ordered
from octedge.errors import UsageError
from octedge.train.labelmaps import LabelMap

Part = Literal["train", "validation"]
HEADER = "header"
BELOW = {"ILM": "nfl", "NFL": "gcl", "BM": "choroid"}  # the structure below a device's line, top to bottom


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every source of real scans states. Paths are folders below the data folder.

    `patient` is a regular expression whose first group, searched in the scan's path without ending, is the patient; or
    "header": the PatientID of DICOM or .vol, of which only a hash is kept. `eye` is one whose first group is the eye
    (R, L, OD, OS, right, left); without it, what the file says. The patient alone decides the part, both eyes together.
    Sources with the same `people` share their patients; a source without it has patients of its own. `validation` names
    the patients held back; `part` puts the whole source into one part. `sha256` is the content when it was added.
    """

    name: str
    people: str = ""
    patient: str = ""
    eye: str = ""
    validation: tuple[str, ...] = ()
    part: Part | None = None
    vendor: str = "unknown"
    device: str = "unknown"
    mode: str = "unknown"  # of scanning: "line", "macular volume", "circle", ...
    range: str = "unknown"  # of depth and width, as the set states it: "1.9 x 8.8 mm"
    licence: str = "unknown"
    origin: str = ""
    sha256: str = ""
    share: float = 1.0


class Masks(Facts, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="masks", tag_field="kind"):
    """Scans of any kind octedge reads, with masks of the same file stem.

    A mask is a picture, NPY or NPZ of (H, W), or of (F, H, W), multi-page TIFF included; or one file per B-scan, named
    STEM_NUMBER, the number of the topmost being `first_frame`. B-scans without a mask or without an annotated pixel
    are left out of a volume. The frames of a DICOM file count by place, as octedge reads them, or as they are
    `stored`. Results of octedge say their classes themselves and need no `labels`.
    """

    images: str
    masks: str
    labels: LabelMap | None = None
    first_frame: int = 0
    stored: bool = False


class Archives(Facts, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="npz", tag_field="kind"):
    """NumPy archives that hold both: images (F, H, W) as octedge reads them, and an `array` of their masks' size."""

    files: str
    labels: LabelMap | None = None
    array: str = "labels"


class DeviceLines(Facts, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="vol", tag_field="kind"):
    """Heidelberg raw exports (.vol) with the device's own `lines`, top to bottom; columns without all of them are not graded."""

    files: str
    lines: tuple[str, ...] = ("ILM", "BM")

    @property
    def groups(self) -> tuple[str, ...]:
        """The regions between the lines: from one line to the next."""
        return between(self.lines)


class Boundaries(Facts, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="boundaries", tag_field="kind"):
    """A set of images with boundary tables, one file per patient and boundary: a line per column, a value per B-scan.

    `image` matches patient and B-scan number (first and second group) in the image's stem; `table` is the file name of
    boundary K of a patient, with {patient} and {boundary}; `groups` are the regions between the boundaries;
    `first_row` the number the set gives to the top row.
    """

    images: str
    tables: str
    image: str
    table: str
    groups: tuple[str, ...]
    first_row: float = 0.0


class Phantoms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="phantoms", tag_field="kind"):
    """Synthetic B-scans with every structure labelled: `count` to train on, `validation_count` others to validate on."""

    name: str = "phantoms"
    count: int = 200
    validation_count: int = 12
    share: float = 1.0


RealSource = Masks | Archives | DeviceLines | Boundaries
AnySource = RealSource | Phantoms


class Cohort(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sources that belong together, in a TOML file of their own; a recipe names it (`cohort = "cohort.toml"`)."""

    schema: int = 1
    name: str
    source: tuple[AnySource, ...] = ()


def read_cohort(path: Path) -> Cohort:
    """The cohort in a TOML file, its sources checked as far as that goes without the data.

    Raises `UsageError` naming the file and the key that is wrong.
    """
    cohort = decode(path, Cohort, "a cohort")
    if cohort.schema != 1:
        raise UsageError(f"{path.name}: the cohort has schema {cohort.schema}, this octedge reads schema 1; use a matching octedge")
    check_sources(cohort.source)
    return cohort


T = TypeVar("T", bound=msgspec.Struct)


def decode(path: Path, kind: type[T], what: str) -> T:
    """The Struct in a TOML or JSON file. Raises `UsageError` with the key, and for a mistyped key the one it resembles."""
    reader: Any = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
    try:
        found: T = reader(path.read_bytes(), type=kind, strict=False)
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read ({error.strerror}); needed is {what}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name}: not {what}: {error}{_suggestion(str(error), kind)}") from error
    return found


def _suggestion(message: str, kind: type) -> str:
    found = re.search(r"unknown field `([^`]+)`|Invalid value '([^']+)'", message)
    if found is None:
        return ""
    schema = msgspec.json.schema(kind)["$defs"].values()
    keys = {key for each in schema for key in each.get("properties", {})}
    values = {value for each in schema for field in each.get("properties", {}).values() for value in field.get("enum", ())}
    word, known = (found[1], keys) if found[1] else (found[2], {value for value in values if isinstance(value, str)})
    near = difflib.get_close_matches(word, sorted(known), 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_sources(sources: tuple[AnySource, ...]) -> None:
    """Names that are used once, and groups that keep the anatomical order.

    Raises `UsageError` naming source and key.
    """
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"source {name}: {names.count(name)} sources have this name; give each its own")
    for source in sources:
        if not isinstance(source, Phantoms):
            _check_source(source)


def _check_source(source: RealSource) -> None:
    if not isinstance(source, Boundaries) and not source.patient:
        what = f"source {source.name}: key `patient` is missing"
        raise UsageError(f"{what}; needed is a regular expression, or {HEADER!r} for DICOM and .vol")
    for key in ("patient", "eye", "image"):
        try:
            re.compile(getattr(source, key, ""))
        except re.error as error:
            raise UsageError(f"source {source.name}: key `{key}` is no regular expression ({error})") from None
    if isinstance(source, DeviceLines) and (set(source.lines) - set(BELOW) or not source.lines):
        raise UsageError(f"source {source.name}: key `lines` is {list(source.lines)}; known are {', '.join(BELOW)}")
    key = {Boundaries: "groups", DeviceLines: "lines"}.get(type(source), "labels")
    try:
        if isinstance(source, Boundaries | DeviceLines):
            check_classes(source.groups)
        elif source.labels is not None:
            _check_map(source.labels)
    except UsageError as error:
        raise UsageError(f"source {source.name}: key `{key}`: {error}{_resembling(str(error))}") from None


def _check_map(labels: LabelMap) -> None:
    """Known, ordered, disjoint groups; those above and below the layers really are above and below them."""
    groups = labels.groups()
    if labels.outside is None:
        return
    chain = [group for group in groups if is_ordered(group)]
    if chain[0] != labels.above or chain[-1] != labels.below:
        got = f"above = {labels.above!r} and below = {labels.below!r}, but the groups are {', '.join(chain)} from top to bottom"
        raise UsageError(f"{got}; name the first and the last of them")


def _resembling(message: str) -> str:
    found = re.search(r"no structure is called '([^']*)'; known are (.*)", message)
    if found is None:
        return ""
    known = found[2].split(", ")
    near = [key for key in known if sorted(key) == sorted(found[1])] or difflib.get_close_matches(found[1], known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def between(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The groups that a device's lines separate, top to bottom.

    >>> between(("ILM", "BM"))
    ('vitreous', 'nfl+gcl+ipl+inl+opl+onl+elm+mz+ez+os+rpe', 'choroid+sclera')
    """
    starts = [0, *(KEYS.index(BELOW[line]) for line in lines), KEYS.index("disc")]
    if starts != sorted(set(starts)):
        raise UsageError(f"lines {list(lines)} are not in order; they run {', '.join(BELOW)} from top to bottom")
    return tuple("+".join(KEYS[first:last]) for first, last in pairwise(starts))
