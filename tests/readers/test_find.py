"""From files and folders to named scans."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from octedge.errors import ScanError, UsageError
from octedge.readers import Source, find, read
from tests.readers.opt_files import frames, opt, save, write


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frames(1)[0]).save(path)
    return path


def single(path: Path, number: int, series: str = "1.2.3.2") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = opt(frames(1))
    dataset.InstanceNumber, dataset.SeriesInstanceUID = number, series
    return save(path, dataset)


def fundus(dataset: Dataset) -> None:
    dataset.Modality, dataset.SOPClassUID = "OP", "1.2.840.10008.5.1.4.1.1.77.1.5.1"


def names(*inputs: Path) -> list[str]:
    return [source.name for source in find(inputs)]


def test_folders_are_searched_through_and_sorted(tmp_path: Path) -> None:
    for name in ("b.png", "sub folder/deep/c.tif", "a.JPG", "sub folder/1.2.840.1"):
        if name[-1] != "1":
            picture(tmp_path / name)
        else:
            write(tmp_path / name, frames())
    assert names(tmp_path) == ["a", "b", "sub folder/1.2.840.1", "sub folder/deep/c"]
    assert [source.read().name for source in find([tmp_path])] == names(tmp_path)
    assert names(tmp_path / "sub folder") == ["1.2.840.1", "deep/c"]


def test_other_files_are_passed_over_in_folders(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "a.overlay.png")
    picture(tmp_path / "v" / "overlay_003.png")
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / ".git" / "b.png")
    for name in ("notes.txt", "table.csv", "README", "empty"):
        (tmp_path / name).write_bytes(b"text" if name != "empty" else b"")
    write(tmp_path / "fundus.dcm", frames(), fundus)
    np.savez(tmp_path / "result.npz", labels=frames(), surfaces=np.zeros(3))
    assert names(tmp_path) == ["a"]


def test_what_is_named_is_never_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    write(tmp_path / "fundus.dcm", frames(), fundus)
    for path, reason in ((tmp_path / "notes.txt", "not a kind of file that is read: DICOM"), (tmp_path / "fundus.dcm", "only OCT")):
        (source,) = find([path])
        with pytest.raises(ScanError, match=reason):
            source.read()


def test_a_damaged_file_in_a_folder_is_a_source_that_raises(tmp_path: Path) -> None:
    write(tmp_path / "good.dcm", frames())
    content = (tmp_path / "good.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[:-30])
    (tmp_path / "cut without ending").write_bytes(content[:200])
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    found = {source.name: source for source in find([tmp_path])}
    assert set(found) == {"good", "cut", "cut without ending", "empty", "bad.png", "bad.npz"}
    assert found.pop("good").read().frames == 3
    for source in found.values():
        with pytest.raises(ScanError, match="^" + source.paths[0].name):
            source.read()


def test_scans_of_one_name_are_called_by_their_whole_file_names(tmp_path: Path) -> None:
    write(tmp_path / "scan7.dcm", frames())
    picture(tmp_path / "Scan7.png")
    picture(tmp_path / "scan8.png")
    assert names(tmp_path) == ["Scan7.png", "scan7.dcm", "scan8"]


def test_scans_of_one_name_from_two_folders_are_told_apart_by_them(tmp_path: Path) -> None:
    picture(tmp_path / "left" / "a.png")
    picture(tmp_path / "right" / "a.png")
    assert names(tmp_path / "left", tmp_path / "right") == ["left/a.png", "right/a.png"]
    picture(tmp_path / "other" / "left" / "a.png")
    with pytest.raises(UsageError, match=r"two inputs would both get the result 'left/a\.png'"):
        names(tmp_path / "left", tmp_path / "other" / "left")


def test_a_file_given_twice_is_one_scan(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    assert names(path, tmp_path, path) == ["a"]


def test_single_frames_of_one_series_in_one_folder_are_one_scan(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        single(tmp_path / "exam" / f"IM{number}", number)
    single(tmp_path / "exam" / "other.dcm", 1, series="1.2.3.4")
    single(tmp_path / "second" / "IM1", 1)
    picture(tmp_path / "picture.png")
    found = find([tmp_path])
    assert [(source.name, len(source.paths)) for source in found] == [("exam", 3), ("exam/other", 1), ("picture", 1), ("second/IM1", 1)]
    assert found[0].read().frames == 3
    assert names(tmp_path / "exam") == ["exam", "other"]
    assert find(sorted((tmp_path / "exam").glob("IM*"))) == [Source(tuple(sorted((tmp_path / "exam").glob("IM*"))), "exam")]


def test_two_series_in_one_folder_are_named_by_their_first_files(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        single(tmp_path / f"IM{number}", number, series=f"1.2.{number % 2}")
    assert names(tmp_path) == ["IM1", "IM2"]


def test_multi_frame_files_of_one_series_stay_apart(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", frames())
    write(tmp_path / "b.dcm", frames())
    assert names(tmp_path) == ["a", "b"]


def test_nothing_to_read_is_an_error_of_the_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.dcm' does not exist"):
        find([tmp_path / "missing.dcm"])
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(UsageError, match=rf"{tmp_path.name}' holds no scans; what is read: DICOM .*\.vol"):
        find([tmp_path])
    with pytest.raises(UsageError, match="no input given"):
        find([])


def test_read_takes_a_folder_only_if_it_is_one_scan(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert read(tmp_path).name == "a"
    picture(tmp_path / "b.png")
    with pytest.raises(UsageError, match="holds 2 scans, one is needed"):
        read(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        read(tmp_path / "c.png")
