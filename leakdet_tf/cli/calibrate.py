"""``leakdet-tf calibrate``."""

from __future__ import annotations

import click

from leakdet_tf.cli.options import overrides


@click.command("calibrate")
@click.argument("run", metavar="RUN")
@overrides
def command(run: str, overrides: tuple[str, ...]) -> None:
    """Make a classifier's scores mean what they say.

    Fits the temperature, and the score below which an answer is "unsure" (evaluate.max_risk), on the validation
    pictures alone, and writes them into a new contract that names the old one as its parent. fit does this itself;
    afterwards export again. Writes contract.json and calibration.json.
    """
    from leakdet_tf.jobs.classify import calibrate_run

    click.echo(f"written: {calibrate_run(run, overrides=overrides, log=click.echo)}")
