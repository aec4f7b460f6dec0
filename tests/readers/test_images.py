"""Pictures: pixels come back as they were saved; what is no grey B-scan is refused by name."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from octedge.errors import ScanError
from octedge.readers import read
from octedge.readers.images import read_image
from tests.readers.opt_files import frames


@pytest.mark.parametrize("ending", ["png", "tif", "tiff", "bmp", "PNG"])
def test_8_bit_grey_comes_back_as_saved(tmp_path: Path, ending: str) -> None:
    image = frames(1)[0]
    Image.fromarray(image).save(tmp_path / f"a.{ending}")
    scan = read(tmp_path / f"a.{ending}")
    assert np.array_equal(scan.frame(0), image)
    assert (scan.name, scan.frames, scan.notes, scan.spacing.source) == ("a", 1, (), "unknown")


def test_jpeg_is_read(tmp_path: Path) -> None:
    image = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (32, 1))
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read(tmp_path / "a.jpg").frame(0).astype(int) - image).max() < 8


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_grey_is_reduced_by_the_rule(tmp_path: Path, ending: str) -> None:
    image = frames(1, top=65536, dtype=np.uint16)[0]
    Image.fromarray(image).save(tmp_path / f"a.{ending}")
    scan = read(tmp_path / f"a.{ending}")
    assert np.array_equal(scan.frame(0), image >> 8)
    assert scan.notes == ("16 bit reduced to 8: value >> 8",)


@pytest.mark.parametrize(("compression", "order"), [(None, "<"), ("zlib", "<"), (None, ">")])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_of_several_pages_is_a_volume(tmp_path: Path, compression: str | None, order: Literal["<", ">"], dtype: type) -> None:
    array = frames(5, top=np.iinfo(dtype).max + 1, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, compression=compression, byteorder=order, photometric="minisblack")
    scan = read(tmp_path / "a.tif")
    assert np.array_equal(np.stack(list(scan)), array if dtype is np.uint8 else array >> 8)


def test_colour_whose_channels_are_equal_is_grey(tmp_path: Path) -> None:
    image = frames(1)[0]
    Image.fromarray(np.stack([image] * 3, axis=-1)).save(tmp_path / "a.png")
    scan = read(tmp_path / "a.png")
    assert np.array_equal(scan.frame(0), image)
    assert scan.notes == ("stored as RGB, all pixels grey: read as grey",)
    Image.fromarray(image).convert("P").save(tmp_path / "b.png")
    assert np.array_equal(read(tmp_path / "b.png").frame(0), image)


def refused(path: Path) -> str:
    with pytest.raises(ScanError) as caught:
        read(path).frame(0)
    assert str(caught.value).startswith(path.name)
    return str(caught.value)


def test_what_is_no_grey_picture_is_refused_by_name(tmp_path: Path) -> None:
    image = frames(1)[0]
    coloured = np.stack([image, image, image], axis=-1)
    coloured[3, 3] = (10, 20, 30)
    Image.fromarray(coloured).save(tmp_path / "rgb.png")
    assert "is in colour" in refused(tmp_path / "rgb.png")
    Image.fromarray(np.stack([image] * 4, axis=-1)).save(tmp_path / "rgba.png")
    assert "transparent" in refused(tmp_path / "rgba.png")
    Image.fromarray(image > 100).save(tmp_path / "mask.png")
    assert "1 bit per pixel: a mask" in refused(tmp_path / "mask.png")
    tifffile.imwrite(tmp_path / "float.tif", image.astype(np.float32))
    assert "floating point" in refused(tmp_path / "float.tif")
    tifffile.imwrite(tmp_path / "signed.tif", image.astype(np.int16))
    assert "signed" in refused(tmp_path / "signed.tif")
    tifffile.imwrite(tmp_path / "white.tif", image.astype(np.uint16), photometric="miniswhite")
    assert "white as zero" in refused(tmp_path / "white.tif")
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(image)
        file.write(image[:4])
    assert "pages of mixed size [(6, 4), (6, 8)]" in refused(tmp_path / "mixed.tif")
    (tmp_path / "empty.png").write_bytes(b"")
    assert "is no readable image" in refused(tmp_path / "empty.png")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, np.ndarray]]:
    """One small picture of each kind, and its pixels (F, H, W) as read whole."""
    folder = tmp_path_factory.mktemp("saved")
    array = frames(3, 9, 7)
    for ending in ("png", "bmp", "jpg"):
        Image.fromarray(array[0]).save(folder / f"a.{ending}")
    tifffile.imwrite(folder / "a.tif", array, photometric="minisblack")
    tifffile.imwrite(folder / "a.tiff", array, photometric="minisblack", compression="zlib", rowsperstrip=3)
    return {path.suffix: (path.read_bytes(), np.stack(list(read(path)))) for path in folder.iterdir()}


@given(data=st.data(), ending=st.sampled_from([".png", ".bmp", ".jpg", ".tif", ".tiff"]), overwrite=st.booleans())
@settings(max_examples=120, deadline=None)
def test_a_truncated_picture_is_refused_or_right(
    tmp_path_factory: pytest.TempPathFactory, saved: dict, data: st.DataObject, ending: str, overwrite: bool
) -> None:
    content, expected = saved[ending]
    place = data.draw(st.integers(0, len(content) - 1))
    path = tmp_path_factory.getbasetemp() / f"cut{ending}"
    path.write_bytes(content[:place] + (b"\x55" + content[place + 1 :] if overwrite else b""))
    try:
        got = np.stack(list(read_image(path, "a")))
    except ScanError:
        return
    assert overwrite or np.array_equal(got, expected)


def test_the_real_pictures_are_read(data: Path) -> None:
    path = data / "octlayers" / "images" / "Subject1_01.png"
    scan = read(path)
    assert (scan.rows, scan.columns) == (496, 610)
    assert np.array_equal(scan.frame(0), np.asarray(Image.open(path)))
    path = data / "duke-dme" / "images" / "sub01_slice11.png"
    assert np.array_equal(read(path).frame(0), np.asarray(Image.open(path)))
