"""``leakdet-tf data show``."""

from __future__ import annotations

from typing import Any

import click

from leakdet_tf.cli.options import overrides


@click.command("show")
@click.argument("experiment", metavar="EXPERIMENT")
@click.option("--split", default="train", show_default=True, help="train, val or test.")
@click.option("--number", default=6, show_default=True, help="Pictures, spread over the split and its sources.")
@click.option("--versions", default=4, show_default=True, help="Changed versions of each: one an epoch.")
@click.option("--epoch", default=0, show_default=True, help="The first epoch to show.")
@click.option("--alone", is_flag=True, help="Instead a row for each change in the file, alone, at its full strength.")
@click.option("--out", default="augmented.png", show_default=True, metavar="FILE", help="The PNG file to write.")
@overrides
def command(experiment: str, overrides: tuple[str, ...], **asked: Any) -> None:
    """Draw samples before and after augmentation.

    Each row is a picture as read, then the versions of it that training sees in one epoch after the other, all with
    their masks or boxes outlined. TensorFlow is not needed.
    """
    from leakdet_tf.jobs.data_show import show

    click.echo(f"written: {show(experiment, overrides, **asked, log=click.echo)}")
