"""`octedge inspect`."""

import hashlib
from pathlib import Path

import click
import msgspec

from octedge.card import ModelCard, Precision, Score
from octedge.cli.console import say, say_json
from octedge.edge.bundle import SUMS, Bundle, open_bundle
from octedge.edge.certificate import Certificate, Identity, changes, read_certificate
from octedge.edge.machine import describe
from octedge.edge.places import cache_folder, engines_folder
from octedge.edge.prepared import Prepared, read_prepared
from octedge.edge.variant import FILES

CERTIFICATE = "*.certificate.json"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file, its size in bytes and its SHA-256."""

    name: str
    bytes: int
    sha256: str


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate of this machine; `changed` says what is not as it was then, `fault` why the engine may not serve."""

    certificate: Certificate
    changed: str
    fault: str


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is: its card and digest, its files as listed, the file of each precision, and what this machine has made of it."""

    card: ModelCard
    digest: str
    files: tuple[File, ...]
    precisions: dict[str, str]
    golden_frames: int
    engines: tuple[File, ...]
    certificates: tuple[Kept, ...]
    prepared: Prepared | None


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The same on one line of JSON.")
def inspect(bundle: Path | None, as_json: bool) -> None:
    """Show what the model bundle in the folder BUNDLE is [default: the shipped reference]; its files are checked.

    Also what this machine has made of it: engines and their certificates. No engine is opened.
    """
    found = _findings(open_bundle(bundle))
    if as_json:
        return say_json(found)
    _show_card(found.card)
    _show_precisions(found)
    _show_certificates(found.certificates)
    if found.prepared is not None:
        say(f"{'chosen':<11}{found.prepared.chosen}, {found.prepared.ms[found.prepared.chosen]:.1f} ms for a B-scan of 1024 x 512")
    say()
    _show_scores(found.card.scores)
    _show_files(found)


def _findings(bundle: Bundle) -> Findings:
    made = (file for file in sorted(engines_folder(bundle).glob("*")) if file.is_file() and not file.match(CERTIFICATE))
    return Findings(
        card=bundle.card,
        digest=bundle.digest,
        files=tuple(_file(bundle.path / name, name) for name in bundle.sums),
        precisions={precision: file for precision, file in FILES.items() if file in bundle.sums and precision != "bf16"},
        golden_frames=len(bundle.golden()),
        engines=tuple(_file(file, file.name) for file in made),
        certificates=_certificates(bundle),
        prepared=read_prepared(engines_folder(bundle)),
    )


def _file(path: Path, name: str) -> File:
    with path.open("rb") as file:
        return File(name=name, bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _certificates(bundle: Bundle) -> tuple[Kept, ...]:
    """Those beside the engines, and those of checks on first use in the cache that are of this bundle."""
    try:
        cached = sorted((cache_folder() / "certificates").glob("*.json"))
    except RuntimeError:
        cached = []
    beside = [read_certificate(file) for file in sorted(engines_folder(bundle).glob(CERTIFICATE))]
    first = [each for each in map(read_certificate, cached) if each is not None and each.identity.bundle == bundle.digest]
    return tuple(_kept(bundle, each) for each in (*first, *beside) if each is not None)


def _kept(bundle: Bundle, certificate: Certificate) -> Kept:
    """Whether it still holds, as far as can be told without opening the engine."""
    then = certificate.identity
    now = Identity(bundle=bundle.digest, variant=then.variant, file=then.file, engine=then.engine, machine=describe())
    return Kept(certificate=certificate, changed=changes(then, now), fault=certificate.fault())


def _show_card(card: ModelCard) -> None:
    low, nominal, high = card.axial_um
    rule = "exact: any window width gives the same answer" if card.exact else "not exact: windows as trained"
    lines = {
        "model": card.id,
        "use": card.use,
        "licence": card.licence or "not stated",
        "network": f"{card.architecture or 'not stated'}, {card.parameters} parameters",
        "structures": f"{len(card.structures)}: {' '.join(card.structures)}",
        "surfaces": f"{len(card.surfaces)}: {' '.join(card.surfaces)}",
        "windows": f"{card.window} columns, overlap {card.overlap}, grid {card.windowing.grid}; {rule}",
        "sees": f"{card.receptive_field} columns to each side",
        "rows": f"{low:g} .. {high:g} um apart, most at {nominal:g}; others are scaled to that",
        "heights": " ".join(map(str, card.heights)),
        "made with": ", ".join(f"{name} {version}" for name, version in card.software.items()) or "not stated",
    }
    for title, text in lines.items():
        say(f"{title:<11}{text}")
    for source in card.sources:
        amount = f"{source.patients} patients, {source.bscans} B-scans"
        say(f"{'trained on':<11}{source.name} ({source.licence}): {amount}; labels {' '.join(source.labels)}")
    for caveat in card.caveats:
        say(f"{'caveat':<11}{caveat}")


def _show_scores(scores: tuple[Score, ...]) -> None:
    if not scores:
        return
    width = max(len(score.source) for score in scores) + 2
    say(f"{'source':<{width}}{'class':<16}{'IoU':>7}{'Dice':>7}{'boundary px':>13}")
    for score in scores:
        boundary = "-" if score.boundary_px is None else f"{score.boundary_px:.2f}"
        say(f"{score.source:<{width}}{score.label:<16}{score.iou:>7.3f}{score.dice:>7.3f}{boundary:>13}")
    say()


def _show_precisions(found: Findings) -> None:
    """The file of each precision, and what the card says of it."""
    stated = {each.name: each for each in found.card.precisions}
    sizes = {file.name: file.bytes for file in found.files}
    for name, file in found.precisions.items():
        words = f"; {_told(stated[name])}" if name in stated else ""
        say(f"{'precision':<11}{name}: {file}, {sizes[file]} bytes{words}")


def _told(precision: Precision) -> str:
    words = f"{precision.equal:.3%} of the labels as in fp32, surfaces within {precision.p99_px:.2f} px (99th percentile)"
    if precision.iou_loss is not None:
        words += f", {precision.iou_loss:.4f} of mean IoU lost on labelled scans"
    return words + (f", {len(precision.in_float)} convolutions left in floating point" if precision.in_float else "")


def _show_certificates(certificates: tuple[Kept, ...]) -> None:
    for each in certificates:
        then = each.certificate
        words = f"{then.equal:.3%} of the labels as the reference, surfaces within {then.p99_px:.2f} px (99th percentile), {then.ms:.1f} ms"
        say(f"{'certified':<11}{then.identity.variant} on {then.identity.engine}: {words}")
        for title, why in (("does not hold any more", each.changed), ("may not serve", each.fault)):
            if why:
                say(f"{'':<11}{title}: {why}")
    if not certificates:
        say(f"{'certified':<11}nothing on this machine yet; see octedge prepare")


def _show_files(found: Findings) -> None:
    """The listed files, which opening has compared with their sums, and what was built from them here."""
    for file in (*found.files, *found.engines):
        say(f"{file.bytes:>12} bytes  {file.sha256}  {file.name}")
    built = f", {len(found.engines)} made on this machine" if found.engines else ""
    say(f"{len(found.files)} files as listed in {SUMS}{built}; {found.golden_frames} golden frames")
    say(f"SHA-256 of the bundle: {found.digest}")
