"""Results on their way out, to dcmtk and to Orthanc."""

import gc
import json
import urllib.request

import pytest
from pydicom import dcmread

from octedge.errors import UsageError
from octedge.service.send import Archive, DicomWeb, Folder, Parcel, Refused, Unreachable, destinations, dicom_items
from octedge.service.settings import Peer, Settings, Tls, Web
from octedge.service.spool import Spool
from tests.service.parts import HEIGHTMAP, LABELMAP, SEG, certificate_of, free_port, instance, orthanc, result, storescp, wait_for
from tests.service.test_worker import put

# pynetdicom leaves the socket of a connection that was refused to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def _sockets():
    yield
    gc.collect()


@pytest.fixture
def spool(tmp_path):
    with Spool(tmp_path / "spool") as opened:
        yield opened


@pytest.fixture
def job(spool):
    """A job whose results are written: a segmentation in two alternatives, and files for people."""
    job = put(spool)
    spool.begin(job, "received")
    folder = spool.empty_results(job)
    result(folder / f"{job}.seg.dcm", LABELMAP)
    result(folder / f"{job}.seg-binary.dcm", SEG)
    (folder / f"{job}.npz").write_bytes(b"numbers")
    (folder / job).mkdir()
    (folder / job / "overlay_000.png").write_bytes(b"picture")
    spool.written(job)
    return job


def parcel(spool, job, destination):
    return Parcel(spool, job, destination.name, dicom_items(spool.results / job))


def files(spool, job):
    return spool.results / job / f"{job}.seg.dcm", spool.results / job / f"{job}.seg-binary.dcm"


def peer(port, **options):
    return Archive(Peer(ae_title="PACS", host="127.0.0.1", port=port, timeout_s=5, **options))


def kept(folder):
    return [instance(path) for path in sorted(folder.iterdir())]


def test_files_of_a_kind_are_alternatives_in_order(spool, job):
    assert dicom_items(spool.results / job) == {"seg": files(spool, job)}


def test_a_peer_that_refuses_label_maps_gets_the_binary_segmentation_and_nothing_twice(spool, job, tmp_path):
    _, binary = files(spool, job)
    with storescp(tmp_path / "pacs") as port:  # dcmtk's default does not agree to label maps
        archive = peer(port)
        assert [archive.deliver(parcel(spool, job, archive)) for _ in range(2)] == [[], []]
    assert kept(tmp_path / "pacs") == [instance(binary)]
    assert spool.chosen(job, archive.name) == {"seg": (binary.name, True)}


def test_a_peer_that_takes_label_maps_gets_only_that(spool, job, tmp_path):
    labelmap, _ = files(spool, job)
    with storescp(tmp_path / "pacs", "-pm") as port:
        peer(port).deliver(parcel(spool, job, peer(port)))
    assert kept(tmp_path / "pacs") == [instance(labelmap)]


def test_bytes_arrive_as_they_are_in_the_file(spool, job, tmp_path):
    labelmap, _ = files(spool, job)
    with storescp(tmp_path / "pacs", "-pm", "+B") as port:  # bit by bit
        peer(port).deliver(parcel(spool, job, peer(port)))
    (arrived,) = (tmp_path / "pacs").iterdir()
    assert dcmread(arrived) == dcmread(labelmap)


def test_what_was_chosen_before_a_crash_is_not_replaced_by_its_alternative(spool, job, tmp_path):
    labelmap, _ = files(spool, job)
    with storescp(tmp_path / "pacs") as port:
        archive = peer(port)
        spool.choose(job, archive.name, "seg", labelmap.name)  # it may have arrived, before the answer was recorded
        with pytest.raises(Refused, match=LABELMAP):
            archive.deliver(parcel(spool, job, archive))
    assert kept(tmp_path / "pacs") == []


def test_a_height_map_that_nobody_takes_is_left_out_and_said(spool, job, tmp_path):
    result(spool.results / job / f"{job}.heightmap.dcm", HEIGHTMAP)
    with storescp(tmp_path / "pacs") as port:
        archive = peer(port)
        assert archive.deliver(parcel(spool, job, archive)) == [f"heightmap left out: {archive.name} does not take it"]
    assert len(kept(tmp_path / "pacs")) == 1


def test_a_result_that_is_not_optional_is_refused_by_name(spool, job, tmp_path):
    result(spool.results / job / f"{job}.odd.dcm", "1.2.840.10008.5.1.4.1.1.66.99")
    with storescp(tmp_path / "pacs") as port, pytest.raises(Refused, match=r"takes no odd \(1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.99"):
        peer(port).deliver(parcel(spool, job, peer(port)))


def test_by_tls_both_sides_show_certificates_and_a_strange_one_is_refused(spool, job, tmp_path):
    key, certificate = certificate_of(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = certificate_of(tmp_path / "other")
    tls = Tls(certificate=str(certificate), key=str(key), ca=str(certificate))
    with storescp(tmp_path / "pacs", "+tls", str(key), str(certificate), "+cf", str(certificate)) as port:
        with pytest.raises(Unreachable):
            peer(port, tls=Tls(certificate=str(certificate), key=str(key), ca=str(other))).deliver(parcel(spool, job, peer(port)))
        peer(port, tls=tls).deliver(parcel(spool, job, peer(port)))
    assert len(kept(tmp_path / "pacs")) == 1


def test_nobody_there_and_being_rejected_can_change(spool, job, tmp_path):
    with pytest.raises(Unreachable, match="nobody answers"):
        peer(free_port()).deliver(parcel(spool, job, peer(free_port())))
    with storescp(tmp_path / "pacs", "--refuse") as port:
        wait_for(lambda: "it rejects us" in why_not(spool, job, peer(port)))  # storescp may still be busy with whoever looked for it


def why_not(spool, job, archive):
    with pytest.raises(Unreachable) as raised:
        archive.deliver(parcel(spool, job, archive))
    return str(raised.value)


def test_orthanc_gets_results_by_c_store_and_by_stow_rs_under_the_same_uid(spool, job, tmp_path):
    labelmap, binary = files(spool, job)
    with orthanc(tmp_path / "orthanc") as (dicom, http):
        archive = Archive(Peer(ae_title="ORTHANC", host="127.0.0.1", port=dicom))
        archive.deliver(parcel(spool, job, archive))
        assert _uids(http) == [instance(binary)]
        if not (tmp_path / "orthanc" / "orthanc.json").read_text("utf-8").count("libOrthancDicomWeb"):
            pytest.skip("Orthanc's DICOMweb plugin is not on this machine (Debian: apt-get install orthanc-dicomweb)")
        web = DicomWeb(Web(url=f"http://127.0.0.1:{http}/dicom-web/"))
        for _ in range(2):
            assert web.deliver(parcel(spool, job, web)) == []
        assert _uids(http) == sorted([instance(binary), instance(labelmap)])
        wrong = DicomWeb(Web(url=f"http://127.0.0.1:{http}/elsewhere"))
        with pytest.raises(Unreachable, match="status 404"):
            wrong.deliver(parcel(spool, job, wrong))
    with pytest.raises(Unreachable, match="refused"):
        wrong.deliver(parcel(spool, job, wrong))


def test_a_folder_gets_files_named_as_the_job_and_one_of_the_alternatives(spool, job, tmp_path):
    Folder(tmp_path / "out").deliver(parcel(spool, job, Folder(tmp_path / "out")))
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {f"{job}.npz", f"{job}.seg.dcm", f"{job}/overlay_000.png"}


def test_destinations_are_what_the_settings_name(tmp_path):
    peers = (Peer(ae_title="PACS", host="127.0.0.1", port=104),)
    web = (Web(url="http://127.0.0.1/dicom-web"),)
    assert [one.name for one in destinations(Settings(spool="", out="out", peer=peers, web=web))] == [
        "folder",
        "PACS@127.0.0.1:104",
        "http://127.0.0.1/dicom-web",
    ]
    with pytest.raises(UsageError, match="tls"):
        peer(104, tls=Tls(ca=str(tmp_path / "missing.pem")))


def _uids(http):
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/instances?expand", timeout=10) as answer:
        return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in json.load(answer))
