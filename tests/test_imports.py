"""What a device needs imports and runs without torch, onnx or anything else of the workstation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "octedge"

# Of the workstation or of development; a device has none of it.
ABSENT = ["torch", "onnx", "onnxscript", "onnxslim", "highdicom", "scipy", "matplotlib", "pytest", "hypothesis", "export", "benchmarks"]
# Each comes with an extra of its own; the module that wraps it may need it.
ENGINES = ["openvino", "tensorrt", "tensorrt_rtx", "cuda", "pynetdicom"]

IMPORT_ALL = """
import sys
blocked, engines, modules = (text.split(",") for text in sys.argv[1:4])
sys.modules.update(dict.fromkeys(blocked))  # None: "import of ... halted"
from importlib import import_module
for module in modules:
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] not in engines:
            raise SystemExit(f"{module} imports {error.name}")
"""


def modules() -> list[str]:
    """Every module of the package outside `octedge.train`."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in sorted(PACKAGE.rglob("*.py"))]
    return [name for name in names if name.split(".")[1:2] != ["train"]]


def python(*arguments: str | Path, executable: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run([executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def edge_python() -> str:
    """The interpreter of an environment without torch."""
    path = os.environ.get("OCTEDGE_EDGE_PYTHON")
    if not path:
        pytest.skip("OCTEDGE_EDGE_PYTHON does not name the Python of an environment without torch; `make test` makes one")
    return path


def test_the_list_of_modules_is_the_package_without_training() -> None:
    assert {"octedge", "octedge.geometry", "octedge.segment", "octedge.readers", "octedge.edge.ort"} <= set(modules())
    assert not [name for name in modules() if "train" in name]


def test_everything_but_training_imports_with_torch_and_onnx_blocked() -> None:
    done = python("-c", IMPORT_ALL, ",".join(ABSENT), ",".join(ENGINES), ",".join(modules()))
    assert done.returncode == 0, done.stderr


def test_a_blocked_import_is_noticed() -> None:
    done = python("-c", IMPORT_ALL, "onnxruntime", ",".join(ENGINES), "octedge.edge.ort")
    assert done.returncode == 1
    assert "imports onnxruntime" in done.stderr


def test_importing_octedge_is_light() -> None:
    done = python("-c", "import sys; before = set(sys.modules); import octedge; print(*(set(sys.modules) - before))")
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded <= {"octedge", "numpy"} | set(sys.stdlib_module_names)


def test_the_overview_of_commands_imports_no_engine() -> None:
    code = "import sys; from octedge.cli import main; main(['--help'], standalone_mode=False); print('\\n', *sys.modules)"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "segment" in done.stdout
    assert {"torch", "onnxruntime", "pydicom", "PIL"}.isdisjoint(done.stdout.splitlines()[-1].split())


def test_an_environment_without_torch_imports_everything_but_training(edge_python: str) -> None:
    done = python("-c", "from importlib.util import find_spec; print(find_spec('torch'))", executable=edge_python)
    assert done.stdout.strip() == "None", f"{edge_python} has torch, or does not run: {done.stderr}"
    done = python("-c", IMPORT_ALL, "torch", ",".join(ENGINES), ",".join(modules()), executable=edge_python)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_environment_without_torch_runs_the_demo(edge_python: str, tmp_path: Path) -> None:
    if not list((PACKAGE / "models").glob("*/card.json")):
        pytest.skip("octedge/models holds no bundle; `make reference` trains one")
    done = python("-c", "from octedge.cli import main; main()", "demo", "--out", tmp_path / "demo out", executable=edge_python)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "demo out").rglob("*.npz"))
