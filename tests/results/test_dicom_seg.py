"""DICOM Segmentation of every kind of scan: read back by others as it was written, conformant, and true to the source."""

import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageCms
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from octedge.anatomy import KEYS, structure
from octedge.errors import ScanError
from octedge.results import _rle, dicom_seg
from octedge.results._dicom import Kind, Origin
from octedge.results.dicom_seg import BINARY, LABELMAP, SegWriter
from octedge.segment import About, Layers
from tests.results import oracles
from tests.results.dicom_sources import COLUMNS, FRAMES, PROFILES, ROWS, SOURCES, about, answers, make, origin_of

KINDS = pytest.mark.parametrize("kind", [LABELMAP, BINARY], ids=lambda kind: kind.name)


def written(source: Origin, layers: list[Layers], kind: Kind = LABELMAP, said: About | None = None) -> bytes:
    writer = SegWriter(source, kind)
    for index, each in enumerate(layers):
        writer.add(index, each)
    file = BytesIO()
    writer.finish(said or about(source), file)
    return file.getvalue()


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(BytesIO(data))


def source_frames(dataset: pydicom.Dataset) -> list[tuple[str, int]]:
    """(SOPInstanceUID, frame number) of the source of every frame."""
    images = [groups.DerivationImageSequence[0].SourceImageSequence[0] for groups in dataset.PerFrameFunctionalGroupsSequence]
    return [(image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber) for image in images]


def labels_of(dataset: pydicom.Dataset) -> dict[tuple[str, int], np.ndarray]:
    """Labels (H, W) by the source's frame, as pydicom decodes them; of bit planes the number of the one that is set."""
    frames, labels = source_frames(dataset), {}
    pixels = dataset.pixel_array.reshape(len(frames), dataset.Rows, dataset.Columns)
    for pixel, frame, groups in zip(pixels, frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if dataset.SegmentationType == "BINARY":
            number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            labels[frame] = labels.get(frame, 0) + pixel.astype(np.uint8) * np.uint8(number)
        else:
            labels[frame] = pixel
    return labels


@pytest.mark.parametrize("name", SOURCES)
@KINDS
def test_every_kind_of_scan_is_read_back_by_others_frame_for_frame(tmp_path: Path, name: str, kind: Kind) -> None:
    """highdicom, pydicom and dciodvfy; the frames stand in the order of the source's."""
    import highdicom

    source = origin_of(make(name, tmp_path))
    layers = answers(len(source.references))
    path = tmp_path / "seg.dcm"
    path.write_bytes(written(source, layers, kind))
    seg = highdicom.seg.segread(path)
    for reference, each in zip(source.references, layers, strict=True):
        got = seg.get_pixels_by_source_frame(reference.instance, [reference.frame], combine_segments=True)
        assert np.array_equal(got[0], each.labels + 1)
    found = labels_of(read(path.read_bytes()))
    expected = {(each.instance, each.frame): each_layers.labels + 1 for each, each_layers in zip(source.references, layers, strict=True)}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)
    if len(source.instances) == 1:
        assert list(found) == sorted(found, key=lambda key: key[1])
    assert oracles.dciodvfy(path) == []
    assert oracles.module_faults(read(path.read_bytes())) == []


@pytest.mark.parametrize("name", ["conformant", "shuffled", "series", "sized per frame"])
@KINDS
def test_where_the_source_has_geometry_dcmqi_reads_the_same_at_the_same_place(tmp_path: Path, name: str, kind: Kind) -> None:
    source = origin_of(make(name, tmp_path))
    layers = answers(FRAMES)
    path = tmp_path / "seg.dcm"
    path.write_bytes(written(source, layers, kind))
    labels, places = oracles.dcmqi(path, tmp_path)
    for index, each in enumerate(layers):
        nearest = np.abs(places - source.places[index].position).sum(axis=1)
        assert nearest.min() < 1e-6
        assert np.array_equal(labels[nearest.argmin()], each.labels + 1)


@pytest.mark.parametrize("name", ["unplaced", "nowhere"])
@KINDS
def test_geometry_that_the_source_does_not_state_is_not_made_up(tmp_path: Path, name: str, kind: Kind) -> None:
    data = read(written(origin_of(make(name, tmp_path)), answers(FRAMES), kind))
    keywords = {element.keyword for element in data.iterall()}
    assert keywords.isdisjoint({"ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "PositionReferenceIndicator"})
    assert "PixelSpacing" in keywords  # which it does state


@pytest.mark.parametrize("name", ["turned", "in one place", "uneven", "conformant", "shuffled"])
def test_geometry_is_that_of_each_source_frame(tmp_path: Path, name: str) -> None:
    made = make(name, tmp_path)
    original = pydicom.dcmread(made.paths[0])
    data = read(written(origin_of(made), answers(FRAMES)))
    assert data.FrameOfReferenceUID == original.FrameOfReferenceUID
    for groups, (_, number) in zip(data.PerFrameFunctionalGroupsSequence, source_frames(data), strict=True):
        for macro, keyword in (("PlanePositionSequence", "ImagePositionPatient"), ("PlaneOrientationSequence", "ImageOrientationPatient")):
            own, shared = groups.get(macro), data.SharedFunctionalGroupsSequence[0].get(macro)
            theirs = original.PerFrameFunctionalGroupsSequence[number - 1].get(macro) or original.SharedFunctionalGroupsSequence[0][macro]
            assert list((own or shared)[0][keyword].value) == list(theirs[0][keyword].value)


@KINDS
def test_the_same_answers_give_the_same_bytes_in_whatever_order_they_come(tmp_path: Path, kind: Kind) -> None:
    made = make("shuffled", tmp_path)
    layers = answers(FRAMES)
    first = written(origin_of(made), layers, kind)
    writer = SegWriter(origin_of(made), kind)
    for index in reversed(range(FRAMES)):
        writer.add(index, layers[index])
    file = BytesIO()
    writer.finish(about(origin_of(made)), file)
    assert file.getvalue() == first
    assert written(origin_of(made), answers(FRAMES, seed=4), kind) != first


@KINDS
def test_a_bscan_that_could_not_be_decoded_has_no_frame_and_is_named(tmp_path: Path, kind: Kind) -> None:
    source = origin_of(make("conformant", tmp_path))
    layers = answers(FRAMES)
    layers[1] = Layers(np.full((ROWS, COLUMNS), 255, np.uint8), np.full_like(layers[1].surfaces, np.nan))
    path = tmp_path / "seg.dcm"
    said = about(source, failed={1: "secret-name.dcm: cut off"}, notes=("the first: secret-name.dcm: cut off",))
    path.write_bytes(written(source, layers, kind, said))
    data = read(path.read_bytes())
    assert {number for _, number in source_frames(data)} == {1, 3, 4}
    assert np.array_equal(labels_of(data)[source.references[3].instance, 4], layers[3].labels + 1)
    assert "could not be decoded: B-scans 2 (counted from 1)." in data.ImageComments
    assert "secret" not in data.ImageComments
    assert [groups.FrameContentSequence[0].DimensionIndexValues[-1] for groups in data.PerFrameFunctionalGroupsSequence][:3] == [1, 2, 3]
    assert oracles.dciodvfy(path) == []


def test_a_scan_without_any_answer_is_no_segmentation(tmp_path: Path) -> None:
    source = origin_of(make("single", tmp_path))
    with pytest.raises(ScanError, match="no B-scan was segmented"):
        written(source, answers(1), said=about(source, failed={0: "why"}))


@KINDS
def test_classes_are_segments_with_stable_labels_and_codes(tmp_path: Path, kind: Kind) -> None:
    classes = ("vitreous", "nfl", "gcl+ipl", "inl", "opl+onl+elm+mz+ez", "os+rpe", "choroid", "fluid")
    source = origin_of(make("conformant", tmp_path))
    path = tmp_path / "seg.dcm"
    layers = answers(FRAMES, classes)
    path.write_bytes(written(source, layers, kind, about(source, classes)))
    segments = read(path.read_bytes()).SegmentSequence
    assert [(each.SegmentNumber, each.SegmentLabel) for each in segments] == list(enumerate(classes, start=1))
    codes = [each.SegmentedPropertyTypeCodeSequence[0] for each in segments]
    assert [code.CodingSchemeDesignator for code in codes] == ["SCT", "SCT", "99OCTEDGE", "UBERON", *["99OCTEDGE"] * 2, "SCT", "99OCTEDGE"]
    assert codes[1].CodeValue == "45950005"
    assert codes[2].CodeValue == "gcl+ipl"
    assert codes[4].LongCodeValue == "opl+onl+elm+mz+ez"  # too long for a CodeValue
    category = [each.SegmentedPropertyCategoryCodeSequence[0].CodeValue for each in segments]
    assert category == [*["91723000"] * 7, "49755003"]
    algorithm = segments[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmFamilyCodeSequence[0].CodeValue) == ("octedge", "123110")
    assert "model-1" in algorithm.AlgorithmVersion
    assert np.array_equal(labels_of(read(path.read_bytes()))[source.references[0].instance, 1], layers[0].labels + 1)
    assert oracles.dciodvfy(path) == []
    assert oracles.module_faults(read(path.read_bytes())) == []


def test_colours_are_those_of_the_structures_as_littlecms_has_them(tmp_path: Path) -> None:
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    source = origin_of(make("conformant", tmp_path))
    for segment, key in zip(read(written(source, answers(FRAMES))).SegmentSequence, KEYS, strict=True):
        pixel = ImageCms.applyTransform(Image.new("RGB", (1, 1), structure(key).colour), transform).tobytes()
        expected = [pixel[0] / 255, (pixel[1] + 128) % 256 / 255, (pixel[2] + 128) % 256 / 255]
        assert np.abs(np.array(segment.RecommendedDisplayCIELabValue) / 65535 - expected).max() <= 1.2 / 255


def test_the_validator_sees_what_is_missing(tmp_path: Path) -> None:
    data = read(written(origin_of(make("conformant", tmp_path)), answers(FRAMES)))
    del data.SegmentSequence[2].SegmentLabel
    data.StudyComments = "not of this image"
    data.save_as(tmp_path / "seg.dcm")
    assert any("SegmentLabel" in line for line in oracles.dciodvfy(tmp_path / "seg.dcm"))
    assert oracles.module_faults(data) == ["segmentation-image: SegmentSequence/SegmentLabel type 1", "unknown: StudyComments"]


def test_label_maps_are_compressed_and_bit_planes_are_not(tmp_path: Path) -> None:
    source = origin_of(make("conformant", tmp_path))
    small, large = read(written(source, answers(FRAMES))), read(written(source, answers(FRAMES), BINARY))
    assert (small.SOPClassUID, small.file_meta.TransferSyntaxUID) == ("1.2.840.10008.5.1.4.1.1.66.7", RLELossless)
    assert (large.SOPClassUID, large.file_meta.TransferSyntaxUID) == ("1.2.840.10008.5.1.4.1.1.66.4", ExplicitVRLittleEndian)
    assert large.NumberOfFrames == FRAMES * len(KEYS)  # empty ones included
    assert len(large.PixelData) == (FRAMES * len(KEYS) * ROWS * COLUMNS + 15) // 16 * 2
    assert small.SOPInstanceUID != large.SOPInstanceUID


def test_bit_planes_too_large_for_a_file_are_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = origin_of(make("conformant", tmp_path))
    monkeypatch.setattr(dicom_seg, "_MOST", 3000)
    with pytest.raises(ScanError, match="write format seg, which is small"):
        written(source, answers(FRAMES), BINARY)
    assert written(source, answers(FRAMES))


@pytest.mark.parametrize("kind", [LABELMAP, BINARY], ids=lambda kind: kind.name)
def test_memory_holds_a_small_part_of_the_labels(tmp_path: Path, kind: Kind) -> None:
    source = origin_of(make("conformant", tmp_path))
    labels = np.repeat(np.arange(16, dtype=np.uint8), 32 * 512).reshape(512, 512)
    surfaces = np.zeros((14, 512), np.float32)
    written(source, answers(FRAMES), kind)
    with (tmp_path / "seg.dcm").open("wb") as file:
        tracemalloc.start()
        try:
            writer = SegWriter(source, kind)
            for index in range(FRAMES):
                writer.add(index, Layers(labels, surfaces))
            writer.finish(about(source), file)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    planes = FRAMES * len(KEYS) * labels.size // 8
    assert kind is LABELMAP or (tmp_path / "seg.dcm").stat().st_size > planes
    assert peak < planes / 1.5 if kind is BINARY else peak < 2.5 * labels.size + 300_000


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=300), elements=st.integers(0, 3) | st.integers(0, 255), fill=st.just(7))
)
def test_runs_are_decoded_by_pydicom_and_end_with_their_row(labels: np.ndarray) -> None:
    fragment = _rle.encode(labels)
    rows, columns = labels.shape
    options = {
        "rows": rows, "columns": columns, "samples_per_pixel": 1, "bits_allocated": 8, "bits_stored": 8, "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2", "number_of_frames": 1, "pixel_keyword": "PixelData",
    }  # fmt: skip
    decoded, _ = get_decoder(RLELossless).as_array(encapsulate([fragment]), decoding_plugin="pydicom", **options)
    assert np.array_equal(decoded, labels)
    assert np.array_equal(_rle.decode(fragment, rows, columns), labels)
    ends = np.cumsum([1 - np.int8(np.uint8(count).view(np.int8)).astype(int) for count in fragment[64::2]])
    assert set(range(columns, labels.size + 1, columns)) <= set(ends.tolist())
    assert len(fragment) % 2 == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(arrays(np.bool_, st.just((3, 5))), min_size=1, max_size=9))
def test_bits_follow_each_other_without_gaps(planes: list[np.ndarray]) -> None:
    file = BytesIO()
    size = (15 * len(planes) + 7) // 8
    dicom_seg._write_bits(file, size, iter(planes))
    bits = np.unpackbits(np.frombuffer(file.getvalue()[12:], np.uint8), bitorder="little")
    assert np.array_equal(bits[: 15 * len(planes)], np.concatenate(planes).reshape(-1))
    assert not bits[15 * len(planes) :].any()
    assert len(file.getvalue()) == 12 + size + size % 2


def test_the_profiles_of_phantoms_are_among_the_sources() -> None:
    assert {"conformant", "shuffled"} <= set(PROFILES)
