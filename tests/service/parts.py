"""Real parts for the service's tests: dcmtk, Orthanc, free ports, small objects; whatever a test starts ends with it."""

import json
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from octedge.phantom import LOOKS, Phantom
from octedge.phantom_files import write_dicom, write_series

LOOK = replace(LOOKS["spectralis"], rows=64, columns=96, span_mm=0.5)
SEG, LABELMAP, HEIGHTMAP = (f"1.2.840.10008.5.1.4.1.1.66.{number}" for number in (4, 7, 8))


def dcmtk(tool: str) -> str:
    """The path of one of dcmtk's tools; skips the test where it is not installed."""
    return _installed(tool, "dcmtk")


def _installed(tool: str, package: str) -> str:
    path = shutil.which(tool) or shutil.which(tool, path="/usr/sbin")
    if path is None:
        pytest.skip(f"{tool} is not installed on this machine (Debian: apt-get install {package})")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, seconds: float = 30.0):
    """What the condition gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.05)
    return value


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(*command: str | Path, port: int, **options) -> Iterator[subprocess.Popen]:
    """A process that listens on the port of this machine."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
    with subprocess.Popen([str(word) for word in command], **quiet) as process:
        try:
            wait_for(lambda: listens(port) or process.poll() is not None, 60)
            yield process
        finally:
            process.kill()


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[int]:
    """dcmtk's archive on a free port; it writes into the folder."""
    folder.mkdir(exist_ok=True)
    with running(dcmtk("storescp"), "-aet", "PACS", "-od", folder, *options, port := free_port(), port=port):
        yield port


@contextmanager
def orthanc(folder: Path) -> Iterator[tuple[int, int]]:
    """Orthanc on free ports: DICOM and HTTP."""
    program = _installed("Orthanc", "orthanc")
    folder.mkdir()
    dicom, http = free_port(), free_port()
    plugins = [str(path) for path in sorted(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so"))]
    settings = {
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomPort": dicom, "HttpPort": http, "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": plugins,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings), "utf-8")
    with running(program, folder / "orthanc.json", port=dicom):
        wait_for(lambda: listens(http), 60)
        yield dicom, http


def storescu(port: int, *files: Path, options: Sequence[str] = (), called: str = "OCTEDGE") -> subprocess.CompletedProcess:
    command = [dcmtk("storescu"), "-v", "-R", "-aec", called, *options, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def volume(path: Path, seed: int = 1, frames: int = 2, **attributes) -> Path:
    """A multi-frame OPT, with attributes set."""
    write_dicom(Phantom(LOOK, frames, seed), path)
    if attributes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are wrong on purpose
            dataset = dcmread(path)
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)
            dataset.save_as(path)
    return path


def series(folder: Path, seed: int = 2, frames: int = 3) -> list[Path]:
    return write_series(Phantom(LOOK, frames, seed), folder)


def result(path: Path, sop_class: str, instance: str = "") -> Path:
    """A small DICOM file of a class, as results are."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance or generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.Modality = "nobody", "nobody", "SEG"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def instance(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def certificate_of(folder: Path) -> tuple[Path, Path]:
    """A key and its self-signed certificate for this machine; skips the test where openssl is not installed."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = [_installed("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate
