"""``leakdet-tf evaluate``."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from leakdet_tf.cli.options import overrides

_OF_ONE_MODEL = {
    "data": "--data",
    "split": "--split",
    "source": "--source",
    "experiment": "--experiment",
    "overrides": "--set",
}


@click.command("evaluate")
@click.argument("models", nargs=-1, required=True, metavar="RUN_OR_BUNDLE...")
@click.option("--data", metavar="DIR", help="Pictures and truth to measure on, instead of the experiment's.")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--source", metavar="NAME", help="Of several sources the one to measure on, or that --data is like.")
@click.option("--experiment", metavar="FILE", help="Experiment file for a bundle that was carried away from its run.")
@click.option("--out", metavar="DIR", help="Where to write; by default inside the run.")
@click.option("--matrix", is_flag=True, help="Classifiers: every model on every model's test split.")
@click.option(
    "--test", "tests", multiple=True, metavar="NAME=PLACE", help="A further test set of --matrix: FILE or DIR."
)
@click.option("--strangers", multiple=True, metavar="NAME=DIR", help="Pictures of no class, for --matrix.")
@overrides
def command(
    models: tuple[str, ...],
    out: str | None,
    matrix: bool,
    tests: tuple[str, ...],
    strangers: tuple[str, ...],
    **of_one: Any,
) -> None:
    """Measure a run or a bundle on pictures with their truth.

    Writes metrics.json, what was answered, and figures. Keras models and exported files are measured by the same
    code, at the pictures' own size, with bootstrap intervals over pictures or the groups they belong to. --matrix
    takes several classifiers and writes matrix.json, matrix.md and matrix.png.
    """
    if matrix:
        given = click.get_current_context().get_parameter_source
        if odd := [text for key, text in _OF_ONE_MODEL.items() if given(key) is not ParameterSource.DEFAULT]:
            raise click.UsageError(
                f"{odd[0]}: not with --matrix, which takes each run's own; further test sets: --test NAME=PLACE"
            )
        from leakdet_tf.jobs.evaluate import matrix as across

        files = across(models, tests=tests, strangers=strangers, out=out or "matrix", log=click.echo)[1]
        click.echo("written: " + ", ".join(map(str, files)))
        return
    if len(models) > 1 or tests or strangers:
        raise click.UsageError("several models, --test and --strangers belong to --matrix")
    from leakdet_tf.jobs.evaluate import evaluate

    done = evaluate(models[0], **of_one, out=out, log=click.echo)
    click.echo("written: " + ", ".join(map(str, done.files)))
