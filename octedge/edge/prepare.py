"""Finding the fastest engine of a machine that gives the reference answers: build, certify, time, choose."""

import gc
import statistics
from collections.abc import Callable, Iterator

from octedge.edge import certificate as certificates
from octedge.edge.bundle import Bundle
from octedge.edge.engine import BACKENDS, backend, variant_named
from octedge.edge.machine import describe
from octedge.edge.places import engines_folder
from octedge.edge.prepared import Prepared, write_prepared
from octedge.edge.variant import Variant
from octedge.errors import ModelError

ROUNDS = 2  # every round goes through all variants: a machine that grows slower on the way is slower for all
Tell = Callable[[str], None]


def prepare(bundle: Bundle, names: tuple[str, ...], tell: Tell) -> Prepared:
    """Certify the variants of a bundle that this machine can run, choose the fastest, and keep both beside the engines.

    `names` restricts to engines or variants; each must then be possible. What an earlier, perhaps interrupted, call has built
    and certified is kept if it still holds. Raises `ModelError` if a named engine cannot run here, or no variant passes.
    """
    folder = engines_folder(bundle)
    passed: list[Variant] = []
    refused: dict[str, str] = {}
    for variant in _possible(bundle, names, tell):
        try:
            fault = _certify(bundle, variant, tell).fault()
        except ModelError as error:
            fault = str(error)
        gc.collect()  # one engine at a time in memory
        if fault:
            refused[str(variant)] = fault
            tell(f"{variant}: refused: {fault}")
        else:
            passed.append(variant)
    if not passed:
        raise ModelError(f"no engine of this machine may serve {bundle.card.id}; see octedge doctor")
    ms = _timed(bundle, passed, tell)
    chosen = min(ms, key=ms.__getitem__)
    prepared = Prepared(bundle=bundle.digest, machine=describe(), chosen=chosen, ms=ms, refused=refused)
    write_prepared(folder, prepared)
    return prepared


def _possible(bundle: Bundle, names: tuple[str, ...], tell: Tell) -> Iterator[Variant]:
    """What the machine can run of the bundle, or of what was named of it."""
    wanted = [variant_named(name) for name in names]
    for engine in dict.fromkeys(variant.engine for variant in wanted) if names else BACKENDS:
        try:
            here = backend(engine).variants()
        except ModelError as error:
            if names:
                raise
            tell(f"{engine}: not here: {error}")
            continue
        if names and engine not in names:
            own = [variant for variant in wanted if variant.engine == engine]
            if absent := [str(variant) for variant in own if variant not in here]:
                raise ModelError(f"{', '.join(absent)} cannot run on this machine; possible are {', '.join(map(str, here))}")
            here = tuple(own)
        for variant in here:
            if variant.file in bundle.sums:
                yield variant
            elif names and str(variant) in names:
                raise ModelError(f"{variant} needs {variant.file}, which {bundle.card.id} does not have; export the bundle with it")


def _certify(bundle: Bundle, variant: Variant, tell: Tell) -> certificates.Certificate:
    """Build what is missing, and check; a certificate that still holds is kept."""
    folder, engines = engines_folder(bundle), backend(variant.engine)
    engines.build(bundle, variant, folder, lambda words: tell(f"{variant}: {words}"))
    engine = engines.load(bundle, variant, folder)
    file = certificates.certificate_file(folder, variant)
    kept = certificates.read_certificate(file)
    if kept is not None and kept.identity == certificates.identify(bundle, variant, engine) and not kept.fault():
        tell(f"{variant}: certified before")
        return kept
    found = certificates.examine(bundle, variant, engine)
    certificates.write_certificate(file, found)
    if not found.fault():
        same = f"{found.equal:.3%} of the labels as the reference"
        tell(f"{variant}: certified: {same}, surfaces within {found.p99_px:.2f} px (99th percentile)")
    return found


def _timed(bundle: Bundle, variants: list[Variant], tell: Tell) -> dict[str, float]:
    """The median ms of each variant for one B-scan of 1024 x 512, over rounds that go through all, each opening the engine anew."""
    folder = engines_folder(bundle)
    times: dict[str, list[float]] = {str(variant): [] for variant in variants}
    for _ in range(ROUNDS):
        for variant in variants:
            times[str(variant)].append(certificates.latency(bundle, backend(variant.engine).load(bundle, variant, folder)))
            gc.collect()
    found = {name: round(statistics.median(each), 2) for name, each in times.items()}
    for name, ms in sorted(found.items(), key=lambda pair: pair[1]):
        tell(f"{name}: {ms:.1f} ms for a B-scan of 1024 x 512")
    return found
