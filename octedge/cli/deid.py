"""`octedge deid`."""

import os
import secrets
from collections import Counter
from pathlib import Path

import click

from octedge.cli.console import complain
from octedge.errors import ScanError, UsageError
from octedge.results.files import make_folder, output_error


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--secret",
    type=click.Path(path_type=Path),
    help="File with your secret, made if it is not there: with it later runs give a patient the same pseudonym. Keep it from whoever"
    " gets the copies.  [default: a new secret, forgotten at the end]",
)
@click.pass_context
def deid(ctx: click.Context, source: Path, out: Path, secret: Path | None) -> None:
    """Copy the DICOM OCT scans of IN (a file or a folder tree) into the folder OUT without patient data, for training.

    Follows the Basic Application Confidentiality Profile of PS3.15: what a scan needs stays (pixels bit for bit, geometry, eye, make of
    the device), UIDs and the patient's number become pseudonyms, dates move by one distance per patient, all else goes, private
    elements included. Copies are called OUT/PATIENT/INSTANCE.dcm.

    What no program can take away: the picture of a retina is itself biometric and can be matched with another one of the same eye;
    text burned into pixels stays (a warning says where it is stated or not denied); so do remarks inside compressed frames. Share
    copies under the same agreements as scans.

    Ends with 0 if all are copied, 1 if some DICOM files were refused (each named), 2 on a wrong call.
    """
    from octedge.deid import Pseudonyms, copy, is_dicom

    files = _files(source, out)
    pseudonyms = Pseudonyms(_secret(secret, out))
    make_folder(out)
    ends: Counter[str] = Counter()
    made: set[Path] = set()
    for file in files:
        if not is_dicom(file):
            ends["other"] += 1
            continue
        try:
            copied = copy(file, out, pseudonyms, made)
        except ScanError as error:
            ends["refused"] += 1
            complain(f"refused: {error}")
            continue
        made.add(copied.path)
        ends["copied"] += 1
        for warning in copied.warnings:
            complain(f"warning: {file.name}: {warning}")
    others = f", {ends['other']} other files left alone" if ends["other"] else ""
    complain(f"scan files: {ends['copied']} copied, {ends['refused']} refused{others}; pictures of a retina are biometric")
    ctx.exit(1 if ends["refused"] or not ends["copied"] else 0)


def _files(source: Path, out: Path) -> list[Path]:
    """The files of a tree, hidden ones left out. Raises `UsageError` where there are none, or where OUT would be among them."""
    if not source.exists():
        raise UsageError(f"{os.fspath(source)!r} does not exist; give a file or a folder with DICOM scans")
    inside, folder = out.resolve(), source.resolve() if source.is_dir() else source.resolve().parent
    if source.is_dir() and (inside == folder or folder in inside.parents):
        raise UsageError(f"{os.fspath(out)!r} lies in {os.fspath(source)!r}: copies would be copied again; choose a folder outside")
    if source.is_file():
        return [source]

    def refuse(error: OSError) -> None:
        raise UsageError(f"a folder in {os.fspath(source)!r} cannot be listed ({error.strerror}); check its permissions")

    found = sorted(Path(here, name) for here, _, names in os.walk(source, onerror=refuse) for name in names)
    files = [path for path in found if path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts)]
    if not files:
        raise UsageError(f"{os.fspath(source)!r} holds no files; give a file or a folder with DICOM scans")
    return files


def _secret(path: Path | None, out: Path) -> bytes:
    """The secret in the file, made by chance if there is none; without a file one that nobody keeps."""
    made = secrets.token_hex(32).encode()
    if path is None:
        return made
    if out.resolve() in path.resolve().parents:
        raise UsageError(f"{path}: lies among the copies, whose pseudonyms it gives away; keep the secret elsewhere")
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made + b"\n")
    except FileExistsError:
        try:
            return path.read_bytes().strip()
        except OSError as error:
            raise UsageError(f"{path}: the secret cannot be read ({error.strerror})") from error
    except OSError as error:
        raise output_error(path, error) from error
    return made
