"""Height maps: the surfaces as they are, where the source's geometry can carry them, and nothing elsewhere."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from octedge.anatomy import KEYS, surface_names
from octedge.errors import ScanError
from octedge.results._dicom import Origin, surface_code
from octedge.results.heightmap import HeightMapWriter
from octedge.segment import About, Layers
from tests.results import oracles
from tests.results.dicom_sources import COLUMNS, FRAMES, ROWS, about, answers, make, origin_of

REGULAR = ["conformant", "sized per frame", "shuffled", "series"]


def written(source: Origin, layers: list[Layers], said: About | None = None) -> bytes:
    writer = HeightMapWriter(source)
    for index, each in enumerate(layers):
        writer.add(index, each)
    file = BytesIO()
    writer.finish(said or about(source), file)
    return file.getvalue()


@pytest.mark.parametrize("name", REGULAR)
def test_the_file_holds_the_surfaces_as_they_are_and_meets_the_module_tables(tmp_path: Path, name: str) -> None:
    source = origin_of(make(name, tmp_path))
    layers = answers(FRAMES)
    data = pydicom.dcmread(BytesIO(written(source, layers)))
    assert np.array_equal(data.pixel_array, np.stack([each.surfaces for each in layers], axis=1))
    assert data.pixel_array.dtype == np.float32
    assert [each.SegmentLabel for each in data.SegmentSequence] == list(surface_names(KEYS))
    assert oracles.module_faults(data) == []
    images = data.SharedFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    numbers = [(each.ReferencedSOPInstanceUID, number) for each in images for number in np.atleast_1d(each.ReferencedFrameNumber)]
    assert numbers == [(each.instance, each.frame) for each in source.references]  # row after row


def test_the_real_world_mapping_makes_mm_of_rows(tmp_path: Path) -> None:
    data = pydicom.dcmread(BytesIO(written(origin_of(make("conformant", tmp_path)), answers(FRAMES))))
    mapping = data.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (0.015, 0)
    assert (mapping.DoubleFloatRealWorldValueFirstValueMapped, mapping.DoubleFloatRealWorldValueLastValueMapped) == (0, ROWS)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "mm"


@pytest.mark.parametrize("name", REGULAR)
def test_the_plane_is_that_of_the_first_rows(tmp_path: Path, name: str) -> None:
    """Every pixel's place, computed from the map's own plane, is that of the A-scan's first pixel in the source."""
    source = origin_of(make(name, tmp_path))
    shared = pydicom.dcmread(BytesIO(written(source, answers(FRAMES)))).SharedFunctionalGroupsSequence[0]
    start = np.array(shared.PlanePositionSequence[0].ImagePositionPatient, float)
    along, down = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    row, column = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    for index, place in enumerate(source.places):
        lateral = np.array(place.orientation)[:3]
        for scan in (0, COLUMNS - 1):
            expected = np.array(place.position) + scan * np.array(place.pixel)[1] * lateral
            assert np.allclose(start + scan * column * along + index * row * down, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unplaced", "does not state frame of reference"),
        ("nowhere", "does not state frame of reference"),
        ("turned", "not parallel"),
        ("in one place", "not evenly spaced"),
        ("uneven", "not evenly spaced"),
        ("sheared", "shifted against each other"),
        ("single", "one B-scan is no area"),
    ],
)
def test_where_the_geometry_cannot_carry_it_there_is_none(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ScanError, match=reason):
        HeightMapWriter(origin_of(make(name, tmp_path)))


def test_pixels_of_several_sizes_or_of_none_that_an_eye_has_carry_none(tmp_path: Path) -> None:
    source = origin_of(make("conformant", tmp_path))
    places = (replace(source.places[0], pixel=(0.015, 0.08)), *source.places[1:])
    with pytest.raises(ScanError, match="not of one pixel size"):
        HeightMapWriter(replace(source, places=places))


def test_what_has_no_answer_is_padding(tmp_path: Path) -> None:
    source = origin_of(make("conformant", tmp_path))
    layers = answers(FRAMES)
    layers[1].surfaces[2, 5] = np.nan
    layers[2] = Layers(np.full((ROWS, COLUMNS), 255, np.uint8), np.full_like(layers[2].surfaces, np.nan))
    data = pydicom.dcmread(BytesIO(written(source, layers, about(source, failed={2: "why"}))))
    pixels = data.pixel_array
    assert data.FloatPixelPaddingValue == -1.0
    assert (pixels[:, 2] == -1).all()
    assert pixels[2, 1, 5] == -1
    assert np.count_nonzero(pixels == -1) == 1 + pixels.shape[0] * COLUMNS
    assert pixels.max() <= ROWS


def test_without_any_answer_there_is_none(tmp_path: Path) -> None:
    source = origin_of(make("conformant", tmp_path))
    with pytest.raises(ScanError, match="no B-scan was segmented"):
        written(source, answers(FRAMES), about(source, failed=dict.fromkeys(range(FRAMES), "why")))


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    made = make("conformant", tmp_path)
    assert written(origin_of(made), answers(FRAMES)) == written(origin_of(made), answers(FRAMES))


def test_the_codes_of_surfaces_are_those_of_context_group_4273() -> None:
    public = {(code.value, code.scheme_designator): code.meaning for code in codes.cid4273.concepts.values()}
    coded = [surface_code(name) for name in surface_names(KEYS)]
    found = [each for each in coded if each.CodingSchemeDesignator != "99OCTEDGE"]
    assert len(found) == 11
    for each in found:
        assert public[each.CodeValue, each.CodingSchemeDesignator] == each.CodeMeaning


def test_a_surface_between_merged_or_distant_classes_has_a_code_of_octedge() -> None:
    for name in ("nfl|inl", "mz|ez", "onl|ez"):
        assert (surface_code(name).CodeValue, surface_code(name).CodingSchemeDesignator) == (name, "99OCTEDGE")
