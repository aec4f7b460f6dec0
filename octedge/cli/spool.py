"""`octedge spool`: what serve and watch have under way."""

from pathlib import Path

import click

from octedge.cli.console import complain, say, say_json
from octedge.service.spool import Job, Spool

FOLDER = click.option("--spool", "folder", required=True, type=click.Path(path_type=Path), help="The spool's folder.")
JSON = click.option("--json", "as_json", is_flag=True, help="One machine-readable line per job on stdout.")


@click.group()
def spool() -> None:
    """Show what `serve` and `watch` have under way, and retry it; they may be running meanwhile."""


@spool.command("list")
@FOLDER
@click.option("--state", type=click.Choice(["pending", "delivered", "quarantined"]), help="Only jobs in this state.")
@JSON
def list_jobs(folder: Path, state: str | None, as_json: bool) -> None:
    """The jobs, the oldest first."""
    with Spool(folder, own=False) as opened:
        jobs = [job for job in opened.jobs() if state in (None, job.state)]
        counts = opened.counts()
    for job in jobs:
        _tell(job, as_json)
    complain(f"objects: {', '.join(f'{count} {name}' for name, count in counts.items())}")


@spool.command()
@FOLDER
@click.argument("job")
@JSON
def show(folder: Path, job: str, as_json: bool) -> None:
    """One JOB: its step, its tries, and why it waits."""
    with Spool(folder, own=False) as opened:
        _tell(opened.job(job), as_json)


@spool.command()
@FOLDER
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@JSON
def retry(folder: Path, jobs: tuple[str, ...], as_json: bool) -> None:
    """Take JOBs out of quarantine, or out of a long wait; each goes on from the step it had reached."""
    with Spool(folder, own=False) as opened:
        for job in jobs:
            _tell(opened.retry(job), as_json)


def _tell(job: Job, as_json: bool) -> None:
    if as_json:
        say_json(job)
        return
    words = [job.id, f"{job.state:11}", f"{job.step:9}", f"{job.objects:3} objects", f"{job.bytes / 1e6:8.1f} MB", job.added]
    say(
        "  ".join(words)
        + (f"  tries {job.tries}" if job.tries else "")
        + "".join(f"  {words}" for words in (job.reason, job.note) if words)
    )
