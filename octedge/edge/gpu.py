"""The NVIDIA GPUs of this machine, asked of the driver alone.

TensorRT may end the whole process where it finds no driver, so this is asked before any of its libraries is imported.
Nothing but the driver's own libraries is loaded, and no CUDA package is needed.
"""

import ctypes
import sys
from dataclasses import dataclass
from functools import cache

DRIVER, MANAGEMENT = ("nvcuda.dll", "nvml.dll") if sys.platform == "win32" else ("libcuda.so.1", "libnvidia-ml.so.1")
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its name, compute capability (major, minor), driver version and memory in bytes."""

    name: str
    capability: tuple[int, int]
    driver: str
    memory: int


def gpus() -> tuple[Gpu, ...]:
    """The GPUs this process may use, in CUDA's order; none if `missing` says why."""
    return probe()[0]


def missing() -> str:
    """Why this process has no GPU; empty if it has one."""
    return probe()[1]


@cache
def probe(driver: str = DRIVER, management: str = MANAGEMENT) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs, and why there are none: what the driver's library and the one for management say."""
    try:
        library = ctypes.CDLL(driver)
    except OSError:
        return (), f"no NVIDIA driver on this machine ({driver} cannot be loaded)"
    try:
        _ask(library, "cuInit", 0)
        count, level = ctypes.c_int(), ctypes.c_int()
        _ask(library, "cuDeviceGetCount", ctypes.byref(count))
        _ask(library, "cuDriverGetVersion", ctypes.byref(level))
        version = _version(management) or f"of CUDA {level.value // 1000}.{level.value % 1000 // 10}"
        found = tuple(_gpu(library, index, version) for index in range(count.value))
    except _DriverError as error:
        return (), str(error)
    return found, "" if found else "the NVIDIA driver finds no GPU that this process may use"


class _DriverError(Exception):
    """What the driver refused, in words."""


def _ask(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = getattr(library, function)(*arguments)
    if code == NO_DEVICE:
        raise _DriverError("the NVIDIA driver finds no GPU that this process may use")
    if code:
        name = ctypes.c_char_p()
        library.cuGetErrorName(code, ctypes.byref(name))
        raise _DriverError(f"the NVIDIA driver refuses: {function} gives error {code} ({(name.value or b'without a name').decode()})")


def _gpu(library: ctypes.CDLL, index: int, driver: str) -> Gpu:
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _ask(library, "cuDeviceGet", ctypes.byref(device), index)
    _ask(library, "cuDeviceGetName", name, len(name), device)
    _ask(library, "cuDeviceGetAttribute", ctypes.byref(major), MAJOR, device)
    _ask(library, "cuDeviceGetAttribute", ctypes.byref(minor), MINOR, device)
    _ask(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value), driver, memory.value)


def _version(management: str) -> str:
    """The driver's version, like 580.65.06; empty where the library for management is missing or refuses (Jetson, containers)."""
    try:
        library = ctypes.CDLL(management)
    except OSError:
        return ""
    if library.nvmlInit_v2():
        return ""
    text = ctypes.create_string_buffer(96)
    refused = library.nvmlSystemGetDriverVersion(text, len(text))
    library.nvmlShutdown()
    return "" if refused else text.value.decode(errors="replace")
