"""``leakdet-tf data convert``."""

from __future__ import annotations

from typing import Any

import click


@click.command("convert")
@click.argument("source", metavar="FOLDER")
@click.argument("out", metavar="OUT")
@click.option("--from", "given", required=True, metavar="FORM", help="yolo, voc, coco (coco.json) or NAME.json.")
@click.option("--to", "wanted", required=True, metavar="FORM", help="Likewise.")
@click.option("--classes", required=True, metavar="A,B,...", help="Names; YOLO's numbers count them from 0.")
@click.option("--images", default="images", show_default=True, help="Name of FOLDER's folders of pictures.")
@click.option("--annotations", default="labels", show_default=True, help="Name of its folders of text or XML files.")
@click.option("--ignored", default="refuse", show_default=True, help="Difficult, crowds: to YOLO refuse, drop or keep.")
def command(source: str, out: str, classes: str, **asked: Any) -> None:
    """Write boxes in another form: YOLO's text, Pascal VOC's XML or COCO's JSON.

    OUT is whole: train, val and test as in FOLDER, each with images and labels or coco.json, ready for data.root.
    Pictures are hard links, or copies where the disk has none. VOC's edges are rounded to whole pixels; outlines,
    poses and other fields are lost.
    """
    from leakdet_tf.jobs.data_convert import convert

    click.echo(f"written: {convert(source, out, classes=classes.split(','), **asked, log=click.echo)}")
