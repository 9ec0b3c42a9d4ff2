"""``leakdet-tf explain``."""

from __future__ import annotations

from typing import Any

import click

from leakdet_tf.cli.options import inputs


@click.command("explain")
@click.argument("model", metavar="RUN")
@click.argument("pictures", nargs=-1, metavar="[PICTURE]...")
@click.option("--split", metavar="NAME", help="Instead of pictures the experiment's own: train, val or test; scored.")
@click.option("--masks", is_flag=True, help="Score pictures too, by the masks beside them or in their manifest.")
@click.option("--layer", metavar="NAME", help="Layer to weight; by default the last of the coarsest resolution.")
@click.option("--target", metavar="CLASS", help="Class to explain, or truth; by default the decided one.")
@inputs
@click.option("--out", default="explained", show_default=True, metavar="DIR", help="Folder for the answers.")
def command(model: str, pictures: tuple[str, ...], **asked: Any) -> int:
    """Draw where a run's model looked, and score it by masks.

    Grad-CAM heat over each PICTURE (a file, a folder, or a pattern in quotes): overlays, contact sheets, a CSV line
    each. With masks, how often the maximum lies on the thing, beside what a random point and the picture's middle get.
    Scored are pictures that show the explained class: by default only those that were decided rightly. --target truth
    explains the true class, whatever was decided. The report tells how many were left out, and why. Of a model with
    several inputs PICTURE is the first one's, as for predict.
    """
    from leakdet_tf.jobs.explain import explain

    done = explain(model, pictures, **asked, log=lambda line: click.echo(line, err=True))
    click.echo(f"{done.explained} explained, {done.refused} refused: {done.files[0]}")
    return 1 if done.refused else 0
