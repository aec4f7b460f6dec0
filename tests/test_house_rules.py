"""Rules that no linter knows."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "octedge"
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".cfg", ".html", ""}
MADE = {"__pycache__", "demo-out", "bench-out", "out", "runs", "dist", "build"}


def sources() -> list[Path]:
    """Every text file of the checkout but this one, without what commands leave behind."""
    top = [path for path in ROOT.iterdir() if path.is_dir() and (path.name == ".ci" or not path.name.startswith("."))]
    inside = [path for folder in top for path in folder.rglob("*") if MADE.isdisjoint(path.relative_to(ROOT).parts[:-1])]
    files = [path for path in [*ROOT.iterdir(), *inside] if path.is_file() and path.suffix in TEXT and path.name != ".coverage"]
    return sorted(set(files) - {Path(__file__)})


def hits(pattern: str, files: list[Path]) -> list[str]:
    """`file:line: text` of every line that holds the pattern."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in files
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_the_sources_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in sources()}
    assert {"Makefile", "LICENSE", "pyproject.toml", ".ci/run", "octedge/geometry.py", "tests/test_geometry.py"} <= names
    assert hits("grid", [PACKAGE / "geometry.py"])


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_of_the_package_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_no_path_of_a_machine_is_written_down() -> None:
    assert not hits(r"""(?<![\w.:/])/(home|root|work|Users|opt|mnt|tmp|srv)/|[A-Z]:\\{1,2}Users""", sources())


def test_no_package_index_and_no_private_host_is_written_down() -> None:
    assert not hits(r"(?i)pypi\.|pythonhosted|artifactory|nexus\.|index-url|find-links|\.(internal|corp|local|lan)\b[:/]", sources())
    assert not hits(r"https?://(localhost|(?!127\.0\.0\.1(:\{|/))\d+\.\d+\.\d+\.\d+)", sources())


def test_nothing_is_unpickled() -> None:
    python = [path for path in sources() if path.suffix == ".py"]
    assert not hits(r"allow_pickle\s*=\s*True|weights_only\s*=\s*False|^\s*(import|from) (pickle|dill|joblib|shelve)", python)
    assert not [hit for hit in hits(r"torch\.load\(", python) if "weights_only=True" not in hit]


def test_every_dependency_is_held_at_one_version() -> None:
    """Every requirement of the base, [cpu], [openvino] and [dev] has a line in constraints.txt, torch an exact one without label."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["cpu"], *extras["openvino"], *extras["train"], *extras["export"], *extras["dev"]]
    names = {re.split(r"[\[<>=; ]", requirement)[0] for requirement in wanted} - {"octedge"}
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert names <= {line.partition("==")[0] for line in lines}
    assert "torch==2.13.0" in lines


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_octedge_alone_and_all_of_it(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name.split("/")[0] for name in names if not re.match(r"octedge-[\d.]+\.dist-info/", name)} == {"octedge"}
    inside = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in inside} == {name for name in names if name.startswith("octedge/")}


def test_the_wheel_carries_its_licence_and_asks_for_torch_in_extras_only(wheel: zipfile.ZipFile) -> None:
    licence = next(name for name in wheel.namelist() if name.endswith("/licenses/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert needed
    assert not [line for line in needed if "torch" in line or "onnx" in line]
