"""``leakdet-tf fit``."""

from __future__ import annotations

import click

from leakdet_tf.cli.options import overrides


@click.command("fit")
@click.argument("experiment", metavar="EXPERIMENT")
@click.option("--quarantine", is_flag=True, help="Go on without faulty files; list them in the run's quarantine.csv.")
@overrides
def command(experiment: str, quarantine: bool, overrides: tuple[str, ...]) -> int:
    """Train from an experiment file; evaluate and export the result.

    EXPERIMENT is a TOML file; docs/experiment-file.md says what may stand in it. Everything is written into a new
    folder under runs/. Ctrl-C once finishes the step and keeps a usable run; twice leaves at once.
    """
    from leakdet_tf.jobs.fit import fit

    done = fit(experiment, overrides, echo=click.echo, quarantine=quarantine)
    return 130 if done.interrupted else 0
