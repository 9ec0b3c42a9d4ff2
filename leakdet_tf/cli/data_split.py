"""``leakdet-tf data split``."""

from __future__ import annotations

import click

from leakdet_tf.cli.options import overrides


@click.command("split")
@click.argument("experiment", metavar="EXPERIMENT")
@click.option("--out", default="split.json", show_default=True, metavar="FILE", help="The manifest to write.")
@overrides
def command(experiment: str, out: str, overrides: tuple[str, ...]) -> None:
    """Write down how [data.split] divides a folder.

    The manifest names every picture of train, val and test, and data.split.manifest takes it: the division then stays
    what it is when pictures are looked for elsewhere or the seed is changed, and other programs can read it. Prints
    how many pictures and groups of each class each part has. With several sources there is a manifest for each that
    is divided. A manifest of another division is never overwritten.
    """
    from leakdet_tf.jobs.data_split import split

    files = split(experiment, overrides, out=out, log=click.echo)
    click.echo("written: " + ", ".join(map(str, files)))
