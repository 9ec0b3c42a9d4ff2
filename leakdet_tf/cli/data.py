"""``leakdet-tf data``."""

from __future__ import annotations

import click

from leakdet_tf.cli import Table

COMMANDS = {
    "check": ("leakdet_tf.cli.data_check:command", "Look for what spoils training or its figures."),
    "split": ("leakdet_tf.cli.data_split:command", "Write down how [data.split] divides a folder."),
    "show": ("leakdet_tf.cli.data_show:command", "Draw samples before and after augmentation."),
    "convert": ("leakdet_tf.cli.data_convert:command", "Write boxes in another form: YOLO, VOC, COCO."),
}


@click.group("data", cls=Table, table=COMMANDS)
def command() -> None:
    """Check and divide pictures, convert boxes, show augmentation."""
