"""The whole way with real servers: storescu -> octedge serve -> Orthanc, by C-STORE and STOW-RS; what arrives equals the NPZ."""

import json
import os
import urllib.request
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread

from tests.service.parts import HEIGHTMAP, LABELMAP, SEG, free_port, listens, orthanc, storescu, volume, wait_for
from tests.service.test_process import listed, started
from tests.support import tiny_bundle

SR = "1.2.840.10008.5.1.4.1.1.88.33"


def fetched(http):
    """Every instance that Orthanc holds, by SOP class."""
    root = f"http://127.0.0.1:{http}/instances"
    with urllib.request.urlopen(root, timeout=10) as answer:
        ids = json.loads(answer.read())
    found = {}
    for each in ids:
        with urllib.request.urlopen(f"{root}/{each}/file", timeout=30) as answer:
            dataset = dcmread(BytesIO(answer.read()))
        found.setdefault(dataset.SOPClassUID, []).append(dataset)
    return found


def labels_of(seg, frames):
    """Labels (F, H, W) from a LABELMAP or BINARY SEG, by the frames of the source that it refers to."""
    import highdicom

    read = highdicom.seg.Segmentation.from_dataset(seg)
    uid = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
    pixels = read.get_pixels_by_source_frame(uid, list(range(1, frames + 1)), combine_segments=True, ignore_spatial_locations=True)
    return pixels - 1  # segment n is class n - 1


@pytest.mark.skipif(os.name != "posix", reason="ends processes with POSIX' signals")
@pytest.mark.parametrize("way", ["C-STORE", "STOW-RS"])
def test_what_orthanc_gets_is_what_the_npz_holds(tmp_path, way):
    bundle = tiny_bundle(tmp_path / "tiny")
    source = volume(tmp_path / "a.dcm", frames=3)
    spool, out, port = tmp_path / "spool", tmp_path / "out", free_port()
    with orthanc(tmp_path / "orthanc") as (dicom, http):
        to = ("--peer", f"ORTHANC@127.0.0.1:{dicom}") if way == "C-STORE" else ("--web", f"http://127.0.0.1:{http}/dicom-web")
        words = ("serve", "--spool", spool, "--out", out, "--model", bundle, "--engine", "ort", "--port", port, *to)
        with started(tmp_path / "log", *words):
            wait_for(lambda: listens(port), 60)
            assert storescu(port, source).returncode == 0
            (job,) = wait_for(lambda: [each for each in listed(spool) if each["state"] != "pending"], 90)
        assert job["state"] == "delivered", job
        found = fetched(http)
    original = dcmread(source)
    seg = SEG if way == "C-STORE" else LABELMAP  # Orthanc agrees to no label maps by C-STORE
    assert set(found) == ({SEG, SR} if way == "C-STORE" else {LABELMAP, HEIGHTMAP, SR})
    assert all(len(each) == 1 for each in found.values())
    for (dataset,) in found.values():
        assert (dataset.StudyInstanceUID, dataset.PatientID) == (original.StudyInstanceUID, original.PatientID)
    with np.load(next(out.glob("*.npz")), allow_pickle=False) as result:
        assert np.array_equal(labels_of(found[seg][0], 3), result["labels"])
        if way == "STOW-RS":
            heights = found[HEIGHTMAP][0].pixel_array
            assert np.array_equal(heights, result["surfaces"].transpose(1, 0, 2))
