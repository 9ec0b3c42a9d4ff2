"""``leakdet-tf evaluate``."""

from __future__ import annotations

import click

from leakdet_tf.cli.options import model, overrides


@click.command("evaluate")
@model
@click.option("--data", metavar="DIR", help="Pictures and masks to measure on, instead of the experiment's.")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--source", metavar="NAME", help="Of several sources the one to measure on, or that --data is like.")
@click.option("--experiment", metavar="FILE", help="Experiment file for a bundle that was carried away from its run.")
@click.option("--out", metavar="DIR", help="Where to write; by default inside the run.")
@overrides
def command(
    model: str,
    data: str | None,
    split: str,
    source: str | None,
    experiment: str | None,
    out: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Measure a run or a bundle on pictures with masks.

    Writes metrics.json, report.png and worst.png. Keras models and exported files are measured by the same code, at
    the pictures' own size, with bootstrap intervals over pictures.
    """
    from leakdet_tf.jobs.evaluate import evaluate

    done = evaluate(
        model,
        data=data,
        split=split,
        source=source,
        experiment=experiment,
        overrides=overrides,
        out=out,
        log=click.echo,
    )
    click.echo("written: " + ", ".join(map(str, done.files)))
