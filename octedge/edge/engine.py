"""Opening an engine: the one asked for or none, and only with a certificate from this machine."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from octedge.edge import certificate as certificates
from octedge.edge.bundle import Bundle
from octedge.edge.places import cache_folder, engines_folder
from octedge.edge.prepared import read_prepared
from octedge.edge.variant import FILES, FIRST, Backend, NamedEngine, Variant
from octedge.errors import ModelError, OutputError, UsageError

# Engine -> where its backend is; imported when it is asked for.
BACKENDS = {
    "ort": "octedge.edge.ort:BACKEND",
    "openvino": "octedge.edge.ov:BACKEND",
    "tensorrt": "octedge.edge.trt:TENSORRT",
    "rtx": "octedge.edge.trt:RTX",
}
PREPARE = "run octedge prepare BUNDLE"


def quiet(_: str) -> None:
    """Tells nobody."""


def variant_named(name: str) -> Variant:
    """The variant of a name like "ort-cuda-fp16"; of an engine's name alone, its fp32 one; of "auto", the first one.

    >>> variant_named("openvino-bf16")
    Variant(engine='openvino', precision='bf16', device='')

    Raises `UsageError` for any other name.
    """
    words = (str(FIRST) if name == "auto" else name).split("-")
    engine, *device, precision = words if len(words) > 1 else (*words, "fp32")
    if engine not in BACKENDS or precision not in FILES or len(device) > 1:
        raise UsageError(
            f"no engine is called {name!r}; known are auto, {', '.join(BACKENDS)}, and these with one of {', '.join(FILES)}, like rtx-fp16"
        )
    return Variant(engine, precision, *device)


def backend(engine: str) -> Backend:
    """The backend of an engine. Raises `ModelError` if its library cannot be imported."""
    module, _, name = BACKENDS[engine].partition(":")
    try:
        found: Backend = getattr(import_module(module), name)
    except ImportError as error:
        raise ModelError(f"{error.name or engine} cannot be imported ({error}); pip install octedge[{_extra(engine)}]") from error
    return found


def _extra(engine: str) -> str:
    return "cpu" if engine == "ort" else engine


def open_engine(bundle: Bundle, name: str = "auto", tell: Callable[[str], None] = quiet, allow_fallback: bool = False) -> NamedEngine:
    """The engine called `name` (an engine, a variant, or what `octedge prepare` chose), if its certificate holds here and now.

    The first variant, ONNX Runtime in fp32 on the CPU, is checked on first use. Raises `ModelError` if the engine is missing or not
    certified; with `allow_fallback` the first variant answers instead, and `tell` hears of it.
    """
    return open_certified(bundle, name, tell, allow_fallback)[0]


def open_certified(
    bundle: Bundle, name: str = "auto", tell: Callable[[str], None] = quiet, allow_fallback: bool = False
) -> tuple[NamedEngine, certificates.Certificate]:
    """`open_engine`, and the certificate that holds."""
    try:
        return _open(bundle, _wanted(bundle, name), tell)
    except ModelError as error:
        if not allow_fallback or name == str(FIRST):
            raise
        tell(f"{error}; falling back to {FIRST}, as allowed")
        return _open(bundle, FIRST, tell)


def load_engine(bundle: Bundle, name: str = "auto") -> NamedEngine:
    """The engine as it is, without a certificate: for whoever is about to check it."""
    variant = variant_named(name)
    return backend(variant.engine).load(bundle, variant, engines_folder(bundle))


def _wanted(bundle: Bundle, name: str) -> Variant:
    """The variant that a name means for this bundle on this machine."""
    wanted = variant_named(name)
    if "-" in name:
        return wanted
    prepared = read_prepared(engines_folder(bundle))
    if prepared is not None:
        found = prepared.chosen if name == "auto" else prepared.fastest(name)
        if found is not None:
            return variant_named(found)
    if wanted != FIRST:
        reason = f" ({why})" if prepared is not None and (why := prepared.refused.get(str(wanted))) else ""
        raise ModelError(f"{name} is not prepared for {bundle.card.id} on this machine{reason}; {PREPARE} --engine {name}")
    return wanted


def _open(bundle: Bundle, variant: Variant, tell: Callable[[str], None]) -> tuple[NamedEngine, certificates.Certificate]:
    folder = engines_folder(bundle)
    engine = backend(variant.engine).load(bundle, variant, folder)
    kept = certificates.read_certificate(certificates.certificate_file(folder, variant))
    if kept is None and variant == FIRST:
        return engine, _certify_itself(bundle, engine, tell)
    if kept is None:
        raise ModelError(f"{variant} has no certificate for {bundle.card.id} on this machine; {PREPARE} --engine {variant}")
    if changed := certificates.changes(kept.identity, certificates.identify(bundle, variant, engine)):
        if variant == FIRST:
            return engine, _certify_itself(bundle, engine, tell)
        raise ModelError(f"the certificate of {variant} does not hold any more: {changed}; {PREPARE} --engine {variant}")
    if fault := kept.fault():
        raise ModelError(f"{variant} may not serve {bundle.card.id}: {fault}; use another engine, or another version of its library")
    return engine, kept


def _certify_itself(bundle: Bundle, engine: NamedEngine, tell: Callable[[str], None]) -> certificates.Certificate:
    """The first variant's certificate, kept from an earlier first use if all is as it was then; else check now, and keep it.

    Raises `ModelError` if the engine fails the check.
    """
    identity = certificates.identify(bundle, FIRST, engine)
    try:
        file = certificates.self_certificate_file(cache_folder(), identity)
    except RuntimeError:
        file = None
    kept = None if file is None else certificates.read_certificate(file)
    if kept is not None and kept.identity == identity and not kept.fault():
        return kept
    found = certificates.examine(bundle, FIRST, engine)
    fault = found.fault()
    tell(f"checking the engine against {found.frames} golden frames ... {'failed' if fault else 'passed'}, {found.seconds:.1f} s")
    if fault:
        raise ModelError(f"{engine.name} may not serve {bundle.card.id}: {fault}; use another engine, or another version of its library")
    if file is not None:
        _keep(file, found)
    return found


def _keep(file: Path, found: certificates.Certificate) -> None:
    """Keep it for the next process; where the folder cannot be written, that one checks again."""
    try:
        certificates.write_certificate(file, found)
    except OutputError:
        return
