"""`octedge data`: gather annotated scans in a cohort, check them, look at them."""

from pathlib import Path
from typing import Any

import click
import msgspec

from octedge.cli.console import complain, say, say_json
from octedge.cli.samples import samples
from octedge.errors import UsageError

TARGET = click.argument("target", type=click.Path(path_type=Path))
DATA = click.option("--data", "folder", default=".", show_default=True, type=click.Path(path_type=Path), help="Folder of the sources.")
TEXTS = ("name", "patient", "eye", "vendor", "device", "mode", "range", "licence", "origin")


@click.group()
def data() -> None:
    """Gather annotated scans in a cohort (a TOML file of sources), check them, look at them."""


data.add_command(samples)


@data.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--kind", required=True, type=click.Choice(["masks", "boundaries", "npz", "vol", "phantoms"]), help="How labels are kept.")
@click.argument("paths", nargs=-1, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), help="TOML file with [values], what mask values mean.")
@click.option("--set", "more", multiple=True, metavar="KEY=VALUE", help="Any other key of the source, its value in TOML.")
@DATA
def add(**given: Any) -> None:
    """Append a source to the cohort MANIFEST, which is made if need be; what is in it stays as it is.

    PATH: folders of images and masks; of images and tables; of the files. All lie below --data.
    """
    from octedge.train.gather import add as append

    keys: dict[str, Any] = {key: given[key] for key in TEXTS if given[key]}
    keys.setdefault("name", given["paths"][0].resolve().parent.name if given["paths"] else "phantoms")
    for each in given["more"]:
        keys |= _parsed(each, "--set")
    if given["labels"]:
        keys["labels"] = _parsed(given["labels"].read_text("utf-8"), "--labels")
    say(append(given["manifest"], given["kind"], given["paths"], keys, given["folder"]).splitlines()[0])
    complain(f"added {keys['name']}; next: octedge data check {given['manifest']} --data {given['folder']}")


for _text in reversed(TEXTS):
    click.option(f"--{_text}", help=f"Key `{_text}` of the source.")(add)


def _parsed(text: str, option: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.toml.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(f"{option}: {error}; needed is TOML, strings in quotes") from None
    return found


@data.command()
@TARGET
@DATA
@click.option("--json", "as_json", is_flag=True, help="One JSON line per finding on stdout.")
@click.pass_context
def check(ctx: click.Context, target: Path, folder: Path, as_json: bool) -> None:
    """Name everything that is wrong with the sources of TARGET, a cohort or a recipe. Ends with 0 if nothing is, else 1."""
    from octedge.train.check_data import check as find
    from octedge.train.recipe import read_sources

    number = 0
    for finding in find(read_sources(target), folder):
        number += 1
        if as_json:
            say_json(finding)
        else:
            place = ": ".join(part for part in (finding.source, finding.file) if part) or "split"
            say(f"{place}: {finding.what}; {finding.todo}")
    complain(f"{number} findings" if number else "nothing found")
    ctx.exit(1 if number else 0)


@data.command()
@TARGET
@DATA
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the pictures and datasheet.md.")
def preview(target: Path, folder: Path, out: Path) -> None:
    """Draw a few B-scans of every source of TARGET with their labels, and show the data sheet (Markdown)."""
    from octedge.train.preview import data_sheet, picture, sheets
    from octedge.train.recipe import read_sources

    out.mkdir(parents=True, exist_ok=True)
    found = []
    for sheet in sheets(read_sources(target).source, folder):
        path = out / f"{sheet.source.name}.png"
        picture(sheet.whole).save(path)
        complain(f"{path}")
        found.append(sheet)
    text = data_sheet(found)
    (out / "datasheet.md").write_text(text, "utf-8", newline="\n")
    for line in text.splitlines():
        say(line)
