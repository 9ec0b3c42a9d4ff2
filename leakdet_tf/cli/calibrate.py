"""``leakdet-tf calibrate``."""

from __future__ import annotations

import click

from leakdet_tf.cli.options import overrides


@click.command("calibrate")
@click.argument("run", metavar="RUN")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="SCORE",
    help="Of a detector: this score instead of the one with the best F1.",
)
@overrides
def command(run: str, threshold: float | None, overrides: tuple[str, ...]) -> None:
    """Make a model's scores mean what they say.

    Of a classifier it fits the temperature, and the score below which an answer is "unsure" (evaluate.max_risk); of a
    detector the score at which F1 is best. Both on the validation pictures alone, into a new contract that names the
    old one as its parent. fit does this itself; afterwards export again. Writes contract.json, and calibration.json or
    threshold.json.
    """
    from leakdet_tf.jobs.calibrate import calibrate_run

    click.echo(f"written: {calibrate_run(run, overrides=overrides, threshold=threshold, log=click.echo)}")
