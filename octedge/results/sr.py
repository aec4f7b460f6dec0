"""Thickness as a DICOM Structured Report: Comprehensive SR (PS3.3 A.35.3) after TID 1500 (PS3.16), a group for each layer and region.

The finding of a group is the layer, its site the retina of the eye with the region as topographical modifier, and its numbers are the
mean thickness, the share of the region it is known for, and the volume where that is all. The report belongs to the study of the scan,
and refers to its images. The same answer gives the same bytes.
"""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from octedge import __version__
from octedge.anatomy import members, structure
from octedge.errors import ScanError
from octedge.results._dicom import SCHEME, Kind, Origin, code, comments, derived_uid, inherit, item, label, write
from octedge.results.thickness import Region, Thickness, thickness
from octedge.scan import Scan
from octedge.segment import About, Layers

SR = Kind("sr", "1.2.840.10008.5.1.4.1.1.88.33", "SR", 9010, "Thickness of retinal layers", image=False)

CONTAINS, MODIFIES, OBSERVES = "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT"

Concept = tuple[str, str, str]  # code value, scheme, meaning

# PS3.16 CID 4262 has terms for two of the thicknesses, CID 4263 one for all others.
_THICKNESS: dict[str, Concept] = {
    "retina": ("111929", "DCM", "Total retinal thickness (ILM to BM)"),
    "nfl": ("111925", "DCM", "Retinal nerve fiber layer thickness"),
}
_ANY_THICKNESS = ("111930", "DCM", "Absolute ophthalmic thickness")
_PROCEDURE = ("thickness", SCHEME, "Measurement of retinal layers in optical coherence tomography")
_RETINA = ("5665001", "SCT", "Retina")
_EYES = {"R": ("24028007", "SCT", "Right"), "L": ("7771000", "SCT", "Left")}  # CID 244
_UNITS = {"um": ("um", "UCUM", "um"), "px": ("{pixels}", "UCUM", "pixels"), "mm3": ("mm3", "UCUM", "mm3"), "1": ("1", "UCUM", "no units")}


class ReportWriter:
    """Takes the answers to a scan's B-scans as they come, measures them, and writes the report.

    `fovea` is its column and frame where the user knows them better than the surfaces do.
    """

    def __init__(self, source: Origin, scan: Scan, fovea: tuple[float, float] | None = None) -> None:
        self._source, self._scan, self._fovea = source, scan, fovea
        self._surfaces: dict[int, NDArray[np.float32]] = {}

    def add(self, index: int, layers: Layers) -> None:
        """Take in the answer to B-scan `index` of the scan."""
        self._surfaces[index] = layers.surfaces

    def finish(self, about: About, file: BinaryIO) -> None:
        """Write the file; raises what `write_report` raises."""
        surfaces = np.stack([self._surfaces[index] for index in range(self._scan.frames)])
        write_report(file, self._source, about, thickness(self._scan, about, surfaces, self._fovea))


def write_report(file: BinaryIO, source: Origin, about: About, found: Thickness) -> None:
    """Write what was `found` in the answer to the scan that came from `source`.

    Raises `ScanError` if the source does not say when it was acquired, which a report must, or the model separates no layer.
    """
    if not all(source.content):
        raise ScanError(f"{about.name}: the file states no date and time: a structured report must have both")
    if not found.regions:
        raise ScanError(f"{about.name}: the model separates no layer whose thickness can be measured; there is nothing to report")
    dataset = inherit(source, about, SR)
    if found.fovea is not None and found.fovea.confidence is None:
        dataset.SOPInstanceUID = derived_uid("fovea", dataset.SOPInstanceUID, repr(found.fovea))  # the user's choice makes another report
    for keyword, value in _document(source, about).items():
        setattr(dataset, keyword, value)
    dataset.ContentSequence = _content(source, about, found, dataset)
    write(file, dataset)


def _document(source: Origin, about: About) -> dict[str, object]:
    """The SR Document Series and General modules, and the root of the content (PS3.3 C.17.1 to C.17.3)."""
    instances = [item(ReferencedSOPClassUID=each.sop_class, ReferencedSOPInstanceUID=each.instance) for each in source.instances]
    series = item(SeriesInstanceUID=source.series, ReferencedSOPSequence=instances)
    return {
        "ReferencedPerformedProcedureStepSequence": [], "PerformedProcedureCodeSequence": [],
        "CompletionFlag": "PARTIAL" if about.failed else "COMPLETE", "VerificationFlag": "UNVERIFIED", "PreliminaryFlag": "PRELIMINARY",
        "CurrentRequestedProcedureEvidenceSequence": [item(StudyInstanceUID=source.study, ReferencedSeriesSequence=[series])],
        "ValueType": "CONTAINER", "ContinuityOfContent": "SEPARATE",
        "ConceptNameCodeSequence": [code("126000", "DCM", "Imaging Measurement Report")],
        "ContentTemplateSequence": [item(MappingResource="DCMR", TemplateIdentifier="1500")],
    }  # fmt: skip


def _content(source: Origin, about: About, found: Thickness, dataset: Dataset) -> list[Dataset]:
    """The content of the root (TID 1500): language, observer, procedure, images, groups, remarks."""
    device = label(f"octedge {__version__}, model {about.model}, engine {about.engine}")
    groups = [_group(region, found, dataset) for region in found.regions if _reported(region, found)]
    return [
        _coded(MODIFIES, ("121049", "DCM", "Language of Content Item and Descendants"), ("en", "RFC5646", "English")),
        _coded(OBSERVES, ("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device")),  # TID 1004
        _node(OBSERVES, "UIDREF", ("121012", "DCM", "Device Observer UID"), UID=derived_uid("device", device)),
        _text(OBSERVES, ("121013", "DCM", "Device Observer Name"), "octedge"),
        _text(OBSERVES, ("121014", "DCM", "Device Observer Manufacturer"), "octedge"),
        _text(OBSERVES, ("121015", "DCM", "Device Observer Model Name"), device),
        _text(OBSERVES, ("121016", "DCM", "Device Observer Serial Number"), str(dataset.DeviceSerialNumber)),
        _coded(MODIFIES, ("121058", "DCM", "Procedure reported"), _PROCEDURE),
        _container(("111028", "DCM", "Image Library"), [_container(("126200", "DCM", "Image Library Group"), _images(source))]),
        _container(("126010", "DCM", "Imaging Measurements"), groups),
        *(_text(CONTAINS, ("121106", "DCM", "Comment"), remark) for remark in _remarks(source, about, found)),
    ]


def _reported(region: Region, found: Thickness) -> bool:
    """Regions of the eye; the means of single B-scans, hundreds of them, are for tables."""
    return found.grid != "b-scans" or region.region == "all"


def _images(source: Origin) -> list[Dataset]:
    """The images measured (TID 1600)."""
    files = [item(ReferencedSOPClassUID=each.sop_class, ReferencedSOPInstanceUID=each.instance) for each in source.instances]
    images = [_node(CONTAINS, "IMAGE", ("260753009", "SCT", "Source"), ReferencedSOPSequence=[file]) for file in files]
    return [_coded("HAS ACQ CONTEXT", ("121139", "DCM", "Modality"), ("OPT", "DCM", "Ophthalmic Tomography")), *images]


def _group(region: Region, found: Thickness, dataset: Dataset) -> Dataset:
    """One layer in one region (TID 1501)."""
    what = f"{region.layer}, {region.region}"
    uid = derived_uid("tracking", dataset.SOPInstanceUID, what)
    content = [
        _text(OBSERVES, ("112039", "DCM", "Tracking Identifier"), what),
        _node(OBSERVES, "UIDREF", ("112040", "DCM", "Tracking Unique Identifier"), UID=uid),
        _coded(CONTAINS, ("276214006", "SCT", "Finding category"), ("91723000", "SCT", "Anatomical structure")),
        _coded(CONTAINS, ("121071", "DCM", "Finding"), layer_code(region.layer)),
        _site(region, found),
    ]
    if region.mean is not None:
        name = _THICKNESS.get(region.layer, _ANY_THICKNESS)
        mean = _coded(MODIFIES, ("121401", "DCM", "Derivation"), ("373098007", "SCT", "Mean"))
        content.append(_number(name, region.mean, found.unit, [mean]))
    content.append(_number(("coverage", SCHEME, "Share of the region with values"), region.coverage, "1"))
    if region.volume_mm3 is not None:
        content.append(_number(("118565006", "SCT", "Volume"), region.volume_mm3, "mm3"))
    return _container(("125007", "DCM", "Measurement Group"), content)


def _site(region: Region, found: Thickness) -> Dataset:
    """The retina, with the eye and the region as its modifiers."""
    site = _coded(MODIFIES, ("363698007", "SCT", "Finding Site"), _RETINA)
    modifiers = []
    if found.laterality:
        modifiers.append(_coded(MODIFIES, ("272741003", "SCT", "Laterality"), _EYES[found.laterality]))
    if region.region != "all":
        modifiers.append(_coded(MODIFIES, ("106233006", "SCT", "Topographical modifier"), region_code(region.region, found.grid)))
    if modifiers:
        site.ContentSequence = modifiers
    return site


def _node(relationship: str, kind: str, name: Concept, **values: object) -> Dataset:
    """A content item (PS3.3 C.17.3)."""
    return item(RelationshipType=relationship, ValueType=kind, ConceptNameCodeSequence=[code(*name)], **values)


def _coded(relationship: str, name: Concept, value: Concept) -> Dataset:
    return _node(relationship, "CODE", name, ConceptCodeSequence=[code(*value)])


def _text(relationship: str, name: Concept, value: str) -> Dataset:
    return _node(relationship, "TEXT", name, TextValue=value)


def _number(name: Concept, value: float, unit: str, modifiers: Sequence[Dataset] = ()) -> Dataset:
    measured = item(NumericValue=str(value), MeasurementUnitsCodeSequence=[code(*_UNITS[unit])])
    number = _node(CONTAINS, "NUM", name, MeasuredValueSequence=[measured])
    if modifiers:
        number.ContentSequence = modifiers
    return number


def _container(name: Concept, content: list[Dataset]) -> Dataset:
    container = _node(CONTAINS, "CONTAINER", name, ContinuityOfContent="SEPARATE")
    if content:
        container.ContentSequence = content
    return container


def layer_code(layer: str) -> Concept:
    """The code of a layer: that of its structure where it has one, else octedge's own.

    >>> layer_code("inl")[:2], layer_code("gcl+ipl")
    (('0001791', 'UBERON'), ('gcl+ipl', '99OCTEDGE', 'ganglion cell layer + inner plexiform layer'))
    """
    if layer == "retina":
        return _RETINA
    parts = [structure(key) for key in members(layer)]
    if len(parts) == 1 and parts[0].code is not None:
        scheme, value, meaning = parts[0].code
        return value, scheme, meaning
    return layer, SCHEME, label(" + ".join(part.name for part in parts))


def region_code(region: str, grid: str) -> Concept:
    """The code of a region, by its initials.

    >>> region_code("inner superior", "etdrs")
    ('etdrs-IS', '99OCTEDGE', 'ETDRS inner superior')
    """
    meaning = f"ETDRS {region}" if grid == "etdrs" else f"{region} of the circle around the disc"
    return f"{grid}-{''.join(word[0].upper() for word in region.split())}", SCHEME, meaning


def _remarks(source: Origin, about: About, found: Thickness) -> list[str]:
    """What a reader must know, as text: use, model, failed B-scans, flags; then unit, fovea, and what limits the numbers."""
    lines = [f"Unit of thickness: {found.unit}."]
    if found.fovea is not None:
        sure = "" if found.fovea.confidence is None else f", confidence {found.fovea.confidence:.2f}"
        lines.append(f"Fovea at column {found.fovea.column + 1:.1f}, B-scan {found.fovea.frame + 1:.1f} ({found.fovea.source}{sure}).")
    if not all(_reported(region, found) for region in found.regions):
        lines.append("The means of single B-scans are in the tables written with format thickness.")
    lines += [note for note in found.notes if note not in about.notes]
    return [comments(source, about), "\r\n".join(label(line, 1000) for line in lines)]
