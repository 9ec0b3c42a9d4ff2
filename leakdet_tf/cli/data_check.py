"""``leakdet-tf data check``."""

from __future__ import annotations

from typing import Any

import click

from leakdet_tf.cli.options import overrides


@click.command("check")
@click.argument("experiment", metavar="EXPERIMENT")
@click.option("--quarantine", is_flag=True, help="List faulty files in quarantine.csv; fail only for what remains.")
@click.option("--near/--no-near", default=True, show_default=True, help="Look for near-duplicates across splits.")
@click.option("--inflation", metavar="RUN_OR_BUNDLE", help="Tell its test score with and without leaked pictures.")
@click.option("--out", metavar="DIR", help="Where to write; by default runs/NAME/check.")
@overrides
def command(experiment: str, overrides: tuple[str, ...], **asked: Any) -> int:
    """Look for what spoils training or its figures.

    Files that are undecodable, mis-sized, mis-valued, unpaired or empty, boxes that lie outside of their picture, hold
    nothing or stand twice, classes that no training truth holds, and pictures that stand in two splits are errors: the
    exit status is 1. Near-duplicates across splits (re-compressed, relit, turned, shifted or cropped) are warnings.
    Writes check.json, findings.csv, near_duplicates.csv and .png.
    """
    from leakdet_tf.jobs.data_check import check

    done = check(experiment, overrides, **asked, log=click.echo)
    click.echo("written: " + ", ".join(map(str, done.files)))
    return 1 if done.standing else 0
