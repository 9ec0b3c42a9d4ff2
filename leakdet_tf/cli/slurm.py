"""``leakdet-tf slurm``."""

from __future__ import annotations

from typing import Any

import click

from leakdet_tf.cli.options import overrides


@click.command("slurm")
@click.argument("experiments", metavar="EXPERIMENT...", nargs=-1, required=True)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="KEY=VALUE,...",
    help="Train once with each value; repeat for the product of several keys.",
)
@click.option("--gpus", default=1, show_default=True, type=click.IntRange(min=0), help="GPUs of each job.")
@click.option("--time", default="04:00:00", show_default=True, help="Time limit, after which a job goes on again.")
@click.option("--partition", default="", help="Partition, or several with commas.  [default: the cluster's]")
@click.option("--cpus", default=8, show_default=True, type=click.IntRange(min=1), help="CPU cores of each job.")
@click.option("--mem", default="16G", show_default=True, help="Memory of each job.")
@click.option("--out", default="slurm", show_default=True, metavar="DIR", help="Where scripts and output go.")
@click.option("--submit", is_flag=True, help="Call sbatch with each script.")
@overrides
def command(
    experiments: tuple[str, ...],
    overrides: tuple[str, ...],
    sweeps: tuple[str, ...],
    out: str,
    submit: bool,
    **asked: Any,
) -> None:
    """Write sbatch scripts that survive the time limit.

    One script for each experiment, an array of jobs for a sweep. Before its time ends a job keeps what it has, has
    itself queued again and resumes; so it does when its node is lost. DIR also gets a copy of the experiment file:
    a later edit does not reach jobs that wait. Runs are in runs/NAME-DIGEST/NAME, one folder for each settings.
    """
    from leakdet_tf.jobs.slurm import Request, slurm

    slurm(experiments, overrides, sweeps=sweeps, request=Request(**asked), out=out, submit=submit, log=click.echo)
