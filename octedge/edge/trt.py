"""TensorRT and TensorRT-RTX: one backend, two libraries. Both build for the GPU of this machine and run on it alone."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from octedge.edge.bundle import Bundle
from octedge.edge.contract import sha256_of, source
from octedge.edge.gpu import gpus, missing
from octedge.edge.trt_build import CURRENT, WORKSPACE, Options, build_plan, capabilities, profiles
from octedge.edge.trt_files import Key, plan_file, read_plan, write_plan
from octedge.edge.variant import NamedEngine, Variant
from octedge.errors import ModelError

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class TensorRt:
    """A library by its engine's name and its module, the oldest version that will do, and what GPUs its plans are for."""

    engine: str
    module: str
    oldest: tuple[int, int]
    capabilities: tuple[str, ...] = ()

    def variants(self) -> tuple[Variant, ...]:
        """Its precisions, if there is a GPU that it has code for, the library, and CUDA's Python package."""
        self._library()
        return tuple(Variant(self.engine, precision) for precision in PRECISIONS)

    def build(self, bundle: Bundle, variant: Variant, folder: Path, tell: Callable[[str], None]) -> None:
        """Build the plan for this machine's GPU, unless the one in `folder` is for exactly this."""
        trt = self._library()
        key = _key(trt, bundle, variant, self.capabilities)
        try:
            read_plan(folder, variant, key)
            return
        except ModelError as error:
            if plan_file(folder, variant).exists():
                tell(f"building anew: {str(error).rpartition(';')[0]}")
        timings = None if self.capabilities else folder / f"{self.engine}.timings"
        options = Options(key.profiles, self.capabilities, key.workspace, timings)
        write_plan(folder, variant, build_plan(trt, source(bundle, variant), bundle.card, options, tell), key)

    def load(self, bundle: Bundle, variant: Variant, folder: Path) -> NamedEngine:
        """The plan of `folder`, ready to run; `ModelError` if it is not for exactly this bundle, library, GPU and driver."""
        from octedge.edge.trt_run import PlanEngine

        trt = self._library()
        plan = read_plan(folder, variant, _key(trt, bundle, variant, self.capabilities))
        return PlanEngine(trt, plan, bundle.card, folder / f"{variant}.kernels")

    def _library(self) -> Any:
        """The library; the driver is asked first, for without one an import or a call may end the process."""
        if why := missing():
            raise ModelError(f"{self.engine} needs an NVIDIA GPU: {why}; install its driver, or use --engine ort")
        try:
            trt = import_module(self.module)
            import_module("cuda.bindings.runtime")
        except (ImportError, OSError) as error:
            where = " (its libraries come from NVIDIA's own package index)" if self.engine == "tensorrt" else ""
            raise ModelError(f"{self.engine} cannot be imported ({error}); pip install octedge[{self.engine}]{where}") from error
        if tuple(int(part) for part in trt.__version__.split(".")[:2]) < self.oldest:
            what = f"{self.module} {trt.__version__} is too old; needed is {'.'.join(map(str, self.oldest))}"
            raise ModelError(f"{what}; pip install --upgrade octedge[{self.engine}]")
        known, here = capabilities(trt), "SM{}{}".format(*gpus()[0].capability)
        if known and here not in known:
            what = f"{self.module} {trt.__version__} has no code for {gpus()[0].name} ({here}), only for {', '.join(known)}"
            raise ModelError(f"{what}; use --engine tensorrt or ort")
        return trt


def _key(trt: Any, bundle: Bundle, variant: Variant, targets: tuple[str, ...]) -> Key:
    """What a plan must have been made from and for to run here; besides the card's heights it takes those of the golden frames."""
    file, gpu = source(bundle, variant), gpus()[0]
    return Key(
        bundle=bundle.digest,
        onnx=bundle.sums.get(variant.file) or sha256_of(file),
        precision=variant.precision,
        profiles=profiles(bundle.card, tuple(len(known.frame) for known in bundle.golden())),
        library=f"{trt.__name__} {trt.__version__}",
        gpu=gpu.name,
        capability="{}.{}".format(*gpu.capability),
        driver=gpu.driver,
        capabilities=targets,
        workspace=WORKSPACE,
    )


TENSORRT = TensorRt("tensorrt", "tensorrt", (10, 3))
RTX = TensorRt("rtx", "tensorrt_rtx", (1, 5), CURRENT)
