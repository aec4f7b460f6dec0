"""The GPU probe, against drivers made for the test: what each of them says is found, or said in words."""

import shutil
import subprocess
import sys

import pytest

from octedge.edge.gpu import Gpu, gpus, missing, probe

SOURCE = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDriverGetVersion(int *version) { *version = 12090; return 0; }
int cuDeviceGet(int *device, int index) { *device = index + 7; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, device == 7 ? "First" : "Second", length); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 75 ? 8 : which == 76 ? 6 + 3 * (device - 7) : -1;
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)6 << 30; return TOTAL; }
int cuGetErrorName(int code, const char **name) { *name = code == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : 0; return 0; }
int nvmlInit_v2(void) { return NVML; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.65.06", length); return 0; }
int nvmlShutdown(void) { return 0; }
"""


@pytest.fixture
def driver(tmp_path):
    """A driver's library: what cuInit gives, how many GPUs, what cuDeviceTotalMem and nvmlInit give."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform == "win32":
        pytest.skip("no C compiler to make a driver for the test with")

    def make(init=0, count=2, total=0, nvml=0):
        names = {"INIT": init, "COUNT": count, "TOTAL": total, "NVML": nvml}
        library = tmp_path / f"{init}-{count}-{total}-{nvml}.so"
        (tmp_path / "driver.c").write_text(SOURCE, encoding="ascii")
        flags = [f"-D{name}={value}" for name, value in names.items()]
        subprocess.run([compiler, "-shared", "-fPIC", *flags, str(tmp_path / "driver.c"), "-o", str(library)], check=True)
        return str(library)

    return make


def test_every_gpu_is_found_with_name_capability_driver_and_memory(driver):
    library = driver()
    found, why = probe(library, library)
    assert found == (Gpu("First", (8, 6), "580.65.06", 6 << 30), Gpu("Second", (8, 9), "580.65.06", 6 << 30))
    assert why == ""


def test_without_the_library_for_management_the_driver_is_named_by_its_cuda_level(driver):
    assert probe(driver(), "no-such-library")[0][0].driver == "of CUDA 12.9"
    refusing = driver(nvml=9)
    assert probe(refusing, refusing)[0][0].driver == "of CUDA 12.9"


def test_a_machine_without_driver_is_told_so():
    assert probe("no-such-driver", "no-such-library") == ((), "no NVIDIA driver on this machine (no-such-driver cannot be loaded)")


@pytest.mark.parametrize("what", [{"init": 100}, {"count": 0}])
def test_a_driver_without_gpu_is_told_apart(driver, what):
    library = driver(**what)
    assert probe(library, library) == ((), "the NVIDIA driver finds no GPU that this process may use")


def test_what_the_driver_refuses_is_named_with_its_number(driver):
    words = "the NVIDIA driver refuses: cuInit gives error 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"
    assert probe(driver(init=803), "no-such-library") == ((), words)
    words = "the NVIDIA driver refuses: cuDeviceTotalMem_v2 gives error 999 (without a name)"
    assert probe(driver(total=999), "no-such-library") == ((), words)


def test_this_machine_has_a_gpu_or_a_reason_and_asking_loads_no_library_of_nvidias_but_the_drivers():
    assert bool(gpus()) != bool(missing())
    script = "import sys; from octedge.edge.gpu import gpus; gpus(); print([n for n in sys.modules if n.startswith(('tensorrt', 'cuda'))])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.gpu
@pytest.mark.skipif(not gpus(), reason=missing())
def test_a_real_gpu_has_a_name_and_at_least_a_gibibyte():
    for gpu in gpus():
        assert gpu.name
        assert gpu.capability >= (5, 0)
        assert gpu.memory >= 1 << 30
        assert gpu.driver[0].isdigit() or gpu.driver.startswith("of CUDA")
