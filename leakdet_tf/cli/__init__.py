"""The command line: a table of commands, each imported when it is called."""

from __future__ import annotations

import importlib
from typing import Any

import click

from leakdet_tf.core.errors import LeakdetError, missing_extra
from leakdet_tf.core.version import __version__

COMMANDS = {
    "fit": ("leakdet_tf.cli.fit:command", "Train from an experiment file; evaluate and export the result."),
    "evaluate": ("leakdet_tf.cli.evaluate:command", "Measure a run or a bundle on pictures with their truth."),
    "calibrate": ("leakdet_tf.cli.calibrate:command", "Make a model's scores mean what they say."),
    "explain": ("leakdet_tf.cli.explain:command", "Draw where a run's model looked, and score it by masks."),
    "compare": ("leakdet_tf.cli.compare:command", "Put runs side by side, with intervals and a paired test."),
    "data": (
        "leakdet_tf.cli.data:command",
        "Check and divide pictures, convert boxes, show augmentation.",
    ),
    "predict": ("leakdet_tf.cli.predict:command", "Answer for pictures: overlays, masks, labels or boxes, CSV lines."),
    "export": ("leakdet_tf.cli.export:command", "Make bundles for devices from a run."),
    "sign": ("leakdet_tf.cli.sign:command", "Sign bundles, so that devices know whose they are."),
    "benchmark": ("leakdet_tf.cli.benchmark:command", "Time bundles on this machine, side by side."),
    "engine": ("leakdet_tf.cli.engine:command", "Build a bundle's TensorRT engine on this device."),
    "synth": ("leakdet_tf.cli.synth:command", "Render pictures with exact truth, paint or filter them."),
    "doctor": ("leakdet_tf.cli.doctor:command", "Say what this installation can do."),
    "slurm": ("leakdet_tf.cli.slurm:command", "Write sbatch scripts that survive the time limit."),
}


class Table(click.Group):
    """A group that imports a command's module when the command is called, so that ``--help`` stays fast.

    ``table`` maps a command's name to ``module:attribute`` and its summary.
    """

    def __init__(self, *arguments: Any, table: dict[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, or for help texts only its summary."""
        if cmd_name not in self.table:
            return None
        path, summary = self.table[cmd_name]
        if ctx.resilient_parsing or getattr(ctx, "_listing", False):
            return click.Command(cmd_name, help=summary)
        module, _, attribute = path.partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's summaries, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.table.items()])


@click.group(
    cls=Table, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="leakdet-tf")
@click.option("--debug", is_flag=True, help="Show Python's traceback when something fails.")
def cli(debug: bool) -> None:
    """Leak detection for industrial inspection: an experiment file goes in, a model for a robot comes out."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns 0 done, 1 incomplete, 2 refused, 75 to be resumed, 130 interrupted."""
    import sys

    given = sys.argv[1:] if arguments is None else arguments
    try:
        result = cli.main(given, prog_name="leakdet-tf", standalone_mode=False)
    except LeakdetError as error:
        return _refused(str(error), debug="--debug" in given)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror or error}; is the disk full, or the folder not yours to write?"
        return _refused(text, debug="--debug" in given)
    except ModuleNotFoundError as error:
        missing = missing_extra(error, "this command")
        if missing is None:
            raise
        return _refused(str(missing), debug="--debug" in given)
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    return result if isinstance(result, int) else 0


def _refused(text: str, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"leakdet-tf: {text}", err=True)
    return 2
