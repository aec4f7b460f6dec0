"""From an ONNX file to a plan: one builder for TensorRT 10.3 to 11 and for TensorRT-RTX, which builds without a GPU, too.

The network is strongly typed: the precision is that of the ONNX file, and nothing else decides about it. The library is
handed in, for a machine is asked for its GPU (`octedge.edge.gpu`) before any of them may be imported.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from octedge.card import ModelCard
from octedge.edge.contract import check_graph
from octedge.edge.trt_progress import Progress, Tell
from octedge.errors import ModelError, OutputError
from octedge.geometry import padded_height
from octedge.results.files import write_bytes
from octedge.segment import plan, windows_per_call

USUAL = 768  # columns; kernels are chosen for a B-scan of this width
WORKSPACE = 1 << 30  # bytes a single kernel may take beside its tensors
PORTABLE = ("SM80", "SM86", "SM89", "SM120")  # what an RTX engine built for any machine runs on, and on later ones
CURRENT = ("CURRENT",)  # this machine's GPU alone


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The calls an engine gets with windows of `height` rows, as (N, V): the least, the usual and the most of each."""

    height: int
    least: tuple[int, int]
    usual: tuple[int, int]
    most: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.height} rows ({', '.join(f'{count} x {width}' for count, width in (self.least, self.usual, self.most))})"


def profiles(card: ModelCard, rows: tuple[int, ...] = ()) -> tuple[Profile, ...]:
    """What `segment` may ask for, one profile for each padded height: those of the card, and those of B-scans of `rows` rows.

    Raises `ModelError` if there is no height.
    """
    grid = card.windowing.grid
    heights = sorted({padded_height(each, grid) for each in (*card.heights, *rows)})
    if not heights:
        raise ModelError(f"the card of {card.id} names no heights, and an engine is built for some; export the bundle anew")
    return tuple(_profile(card, height) for height in heights)


def _profile(card: ModelCard, height: int) -> Profile:
    rule = plan(card, height).windowing
    batch = windows_per_call(height, rule.window)

    def call(columns: int) -> tuple[int, int]:
        tiling = rule.tiling(height, columns)
        return min(len(tiling.starts), windows_per_call(height, tiling.window)), tiling.window

    return Profile(height, call(1), call(USUAL), call(batch * rule.window))


@dataclass(frozen=True, slots=True)
class Options:
    """What a build may be told besides the ONNX file.

    `capabilities` names the GPUs an RTX engine is for (empty: TensorRT, which knows its own GPU only); `workspace` in bytes;
    `timings` keeps TensorRT's measurements of kernels for the next build. RTX has no use for these, and would look for a GPU.
    """

    profiles: tuple[Profile, ...]
    capabilities: tuple[str, ...] = ()
    workspace: int = WORKSPACE
    timings: Path | None = None


def build_plan(trt: Any, file: Path, card: ModelCard, how: Options, tell: Tell) -> bytes:
    """The plan, a plain engine that any tool of this library's version can load; `tell` hears how long it will take.

    Raises `ModelError` with the library's own reason if it cannot be built, or if the graph is not what the card says.
    """
    log = messages(trt)
    log.errors.clear()
    try:
        builder = trt.Builder(log)
        network = builder.create_network(_typed(trt))
        parser = trt.OnnxParser(network, log)
        read = parser.parse(file.read_bytes())
    except (TypeError, RuntimeError) as error:  # what its constructors make of a library that refuses
        raise _refused(trt, file, "cannot start", error) from error
    except OSError as error:
        raise ModelError(f"{file.name} cannot be read ({error.strerror}); copy or export the bundle anew") from error
    if not read:
        raise _refused(trt, file, "cannot read the graph")
    check_graph(file.name, _ends(trt, network), card)
    config = builder.create_builder_config()
    timings = _configure(trt, builder, config, how)
    progress = Progress(tell)
    monitor = _monitor(trt, progress)  # a name of its own: it has to outlive the configuration, as the timings have
    config.progress_monitor = monitor
    built = builder.build_serialized_network(network, config)
    progress.check()
    if built is None:
        raise _refused(trt, file, "cannot build it")
    if how.timings is not None:
        with suppress(OutputError):  # the next build measures again
            write_bytes(how.timings, bytes(timings.serialize()))
    return bytes(built)


def reason(trt: Any) -> str:
    """What the library gave as errors since the last build or call began: the first, which is nearest to the cause, and the last."""
    found = [" ".join(line.split())[:400] for line in messages(trt).errors]
    return "; ".join(dict.fromkeys(found[:1] + found[-1:])) or "it gives no reason"


@cache
def messages(trt: Any) -> Any:
    """The library's one logger of this process: it keeps the errors and prints nothing."""

    class Messages(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(msg)

    return Messages()


def _refused(trt: Any, file: Path, what: str, error: Exception | None = None) -> ModelError:
    why = reason(trt) if messages(trt).errors or error is None else str(error)
    return ModelError(f"{file.name}: {trt.__name__} {trt.__version__} {what} ({why}); use another engine, or export the model anew")


def _typed(trt: Any) -> int:
    """The flag that makes a network strongly typed: needed by TensorRT 10, without effect later, one day gone."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _ends(trt: Any, network: Any) -> dict[str, tuple[str, list[int | None]]]:
    """Type and shape of each input and output by name; None for a side of any length."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    kinds = {trt.DataType.UINT8: "uint8", trt.DataType.FLOAT: "float32"}
    sides = ([None if side < 0 else side for side in tensor.shape] for tensor in tensors)
    return {tensor.name: (kinds.get(tensor.dtype, tensor.dtype.name.lower()), each) for tensor, each in zip(tensors, sides, strict=True)}


def _configure(trt: Any, builder: Any, config: Any, how: Options) -> Any:
    """Set all options; what is given back has to live as long as the configuration."""
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, how.workspace)
    if how.capabilities:
        config.num_compute_capabilities = len(how.capabilities)
        for index, name in enumerate(how.capabilities):
            capability = getattr(trt.ComputeCapability, name, None)
            if capability is None or not config.set_compute_capability(capability, index):
                raise ModelError(f"{trt.__name__} {trt.__version__} cannot build for {name}; it knows {', '.join(capabilities(trt))}")
    timings = None
    if how.timings is not None:
        timings = config.create_timing_cache(kept(how.timings))
        if timings is None or not config.set_timing_cache(timings, False):  # of another GPU, driver or version
            timings = config.create_timing_cache(b"")
            config.set_timing_cache(timings, False)
    for each in how.profiles:
        profile = builder.create_optimization_profile()
        shapes = [(count, 1, each.height, width) for count, width in (each.least, each.usual, each.most)]
        profile.set_shape("image", *shapes)
        if config.add_optimization_profile(profile) < 0:
            raise ModelError(f"{trt.__name__} {trt.__version__} refuses the shapes {shapes} ({reason(trt)}); export the model anew")
    return timings


def capabilities(trt: Any) -> list[str]:
    """The GPUs an RTX library has code for, by the names of their compute capabilities; empty for TensorRT, which does not say."""
    return [name for name in getattr(getattr(trt, "ComputeCapability", None), "__members__", ()) if name.startswith("SM")]


def kept(file: Path) -> bytes:
    """What an earlier process kept in a file; nothing where there is none."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

    return Monitor()
