"""``leakdet-tf fit``."""

from __future__ import annotations

import click

from leakdet_tf.cli.options import overrides


@click.command("fit")
@click.argument("experiment", metavar="EXPERIMENT")
@click.option("--quarantine", is_flag=True, help="Go on without faulty files; list them in the run's quarantine.csv.")
@click.option("--resume", metavar="RUN", help="Go on in an unfinished run, or in the newest one of a folder of runs.")
@overrides
def command(experiment: str, quarantine: bool, resume: str | None, overrides: tuple[str, ...]) -> int:
    """Train from an experiment file; evaluate and export the result.

    EXPERIMENT is a TOML file; docs/experiment-file.md says what may stand in it. Everything is written into a new
    folder under runs/. Ctrl-C once finishes the step and keeps a usable run; twice leaves at once.

    SIGTERM or SIGUSR1 ends with status 75 after the step and its checkpoint; --resume goes on from there to the same
    weights as without the break, on the same machine. It takes the same EXPERIMENT, --set and data.
    """
    from leakdet_tf.jobs.fit import fit
    from leakdet_tf.training.interrupt import AGAIN

    done = fit(experiment, overrides, log=click.echo, quarantine=quarantine, resume=resume)
    if done.terminated:
        return AGAIN
    return 130 if done.interrupted else 0
