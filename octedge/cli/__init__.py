"""The command line: `octedge COMMAND`; a command imports what it needs when it is called."""

from importlib import import_module

import click

import octedge
from octedge.cli.console import complain
from octedge.errors import OctedgeError, UsageError

# Name -> where it is, and its line in the overview: neither is imported before the command is called.
COMMANDS = {
    "demo": ("octedge.cli.demo:demo", "Segment synthetic scans with known truth, and compare."),
    "doctor": ("octedge.cli.doctor:doctor", "Say what works on this machine, and how to repair what does not."),
    "check": ("octedge.cli.check:check", "Say what scans are, and whether they can be segmented."),
    "prepare": ("octedge.cli.prepare:prepare", "Find the fastest engine of this machine that gives the reference answers."),
    "segment": ("octedge.cli.segment:segment", "Segment scans: files and folders in, one result per scan out."),
    "bench": ("octedge.cli.bench:bench", "Measure speed from file to result, and whether it keeps up with a device."),
    "serve": ("octedge.cli.serve:serve", "Receive scans by DICOM, segment them, send the results: nothing is lost."),
    "watch": ("octedge.cli.watch:watch", "Segment what a device exports into a folder, each scan once."),
    "spool": ("octedge.cli.spool:spool", "Show what serve and watch have under way, and retry it."),
    "inspect": ("octedge.cli.inspect_bundle:inspect", "Show what a model bundle is."),
    "data": ("octedge.cli.data:data", "Workstation: gather annotated scans in a cohort, check and look at them."),
    "deid": ("octedge.cli.deid:deid", "Workstation: copy DICOM scans for training, without patient data."),
    "train": ("octedge.cli.workstation:train", "Workstation: train the candidate networks of a recipe."),
    "select": ("octedge.cli.workstation:select", "Workstation: choose the target network by IoU."),
    "report": ("octedge.cli.report:report", "Workstation: a run as one page, with its errors and worst B-scans."),
    "tune": ("octedge.cli.tune:tune", "Workstation: vary the target's shape within a budget of milliseconds."),
    "export": ("octedge.cli.workstation:export", "Workstation: make a bundle of a trained network."),
}
EXTRAS = {"pynetdicom": "octedge[serve]", "prometheus_client": "octedge[serve]"}
STOPPED = 130  # 128 + SIGINT, as shells count


class LazyGroup(click.Group):
    """A group whose commands are imported when called; expected errors end in one line and their exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except OctedgeError as error:
            complain(f"error: {error}")
            ctx.exit(error.exit_status)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("octedge"):
                raise
            install = EXTRAS.get(error.name.partition(".")[0], "octedge[train,export] in a checkout")
            complain(f"error: this command needs {error.name}, which is not installed; pip install {install}")
            ctx.exit(UsageError.exit_status)
        except KeyboardInterrupt:
            complain("stopped: results written so far are whole, the others are not there")
            ctx.exit(STOPPED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(octedge.__version__, prog_name="octedge")
def main() -> None:
    """Retinal OCT layer segmentation for the machine beside the scanner. Research use only."""
