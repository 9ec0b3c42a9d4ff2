"""``leakdet-tf compare``."""

from __future__ import annotations

import click


@click.command("compare")
@click.argument("folders", nargs=-1, required=True, metavar="RUN_OR_EVALUATION...")
@click.option(
    "--metric",
    default="",
    metavar="NAME",
    help="What is tested: mean_iou (the default), mean_dice, pixel_accuracy, mean_boundary_f1 or iou:CLASS; of "
    "detectors map50 (the default), map or ap50:CLASS.",
)
@click.option("--out", default="comparison", show_default=True, metavar="DIR", help="Folder for what is written.")
def command(folders: tuple[str, ...], metric: str, out: str) -> None:
    """Put runs side by side, with intervals and a paired test.

    The runs must have been measured on the same pictures. Prints what differs between their settings and their
    figures with intervals, then each pair's difference: paired bootstrap, paired permutation test, Holm's correction.
    Writes comparison.json, comparison.md and comparison.png; a single run is only shown.
    """
    from leakdet_tf.jobs.compare import compare_runs

    done = compare_runs(folders, metric=metric, out=out, log=click.echo)
    if done.files:
        click.echo("written: " + ", ".join(map(str, done.files)))
