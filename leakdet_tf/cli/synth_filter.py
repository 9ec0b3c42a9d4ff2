"""``leakdet-tf synth filter``."""

from __future__ import annotations

from typing import Any

import click

from leakdet_tf.cli.options import overrides


@click.command("filter")
@click.argument("root", metavar="DIR")
@click.option("--experiment", metavar="FILE", help="Train the classifier of this experiment file first.")
@click.option("--run", metavar="RUN_OR_BUNDLE", help="Or take one that is trained.")
@click.option("--threshold", default=0.4, show_default=True, help="Least probability of a picture's own label.")
@click.option("--out", metavar="DIR", help="The folder to make; by default DIR_filtered.")
@click.option("--plant", "share", type=float, metavar="SHARE", help="Measure the filter with so many wrong labels.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Which labels --plant makes wrong."
)
@overrides
def command(root: str, **asked: Any) -> None:
    """Keep the rendered pictures that a classifier of real ones believes.

    DIR is a rendered folder with labels. The new folder has its layout with the pictures whose own label is likely
    enough to the model (hard links where the disk makes them), a manifest that says what was done, kept.csv,
    dropped.csv with what the model saw instead, and contact sheets of what was dropped. --plant 0.2 also gives a fifth
    of the pictures a wrong label, in memory, and tells how many of these the filter finds: planted.json.
    """
    from leakdet_tf.jobs.synth_filter import filter_pictures

    done = filter_pictures(root, **asked, log=click.echo)
    click.echo(f"{done.folder}: {done.kept} pictures kept, {done.dropped} dropped")
