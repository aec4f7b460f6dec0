"""What tests share."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import octedge.edge  # noqa: F401  # switches ONNX Runtime's telemetry off, before any test imports it
from tests.shared import folder_of

# Tests that press Ctrl-C start processes that inherit how it is met: a shell has those it starts in the background ignore it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real scans; they are not part of the repository."""
    if not DATA.is_dir():
        pytest.skip("the real scans (../shared/data) are not on this machine")
    return DATA


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates that engines give themselves are kept among the tests', not the user's."""
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle whose network answers at once."""
    from tests.support import tiny_bundle

    return tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A volume of three B-scans, and a picture."""
    from PIL import Image

    from octedge.phantom import Phantom
    from octedge.phantom_files import write_dicom
    from tests.support import LOOK

    folder = tmp_path / "my scans"
    folder.mkdir()
    write_dicom(Phantom(LOOK, 3, 1), folder / "scan7.dcm")
    Image.fromarray(Phantom(LOOK, 1, 2).bscan(0).image).save(folder / "picture.png")
    return folder


@pytest.fixture(autouse=True)
def _quick_timing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates state the latency for a large B-scan; in tests a small one does."""
    if "real_timing" not in request.keywords:
        monkeypatch.setattr("octedge.edge.certificate.timed_frame", lambda: np.zeros((32, 48), np.uint8))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The process that started the others takes away what all of them shared."""
    starter = session.config.pluginmanager.getplugin("dsession")
    if starter is not None:
        shutil.rmtree(folder_of(starter.nodemanager.testrunuid), ignore_errors=True)
