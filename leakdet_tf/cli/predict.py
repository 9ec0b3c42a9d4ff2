"""``leakdet-tf predict``."""

from __future__ import annotations

import click

from leakdet_tf.cli.options import inputs, model, threads, trusted


@click.command("predict")
@model
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...")
@click.option("--out", default="predictions", show_default=True, metavar="DIR", help="Folder for the answers.")
@inputs
@threads
@trusted
def command(
    model: str,
    pictures: tuple[str, ...],
    out: str,
    inputs: dict[str, str],
    threads: int | None,
    trusted: str | None,
) -> int:
    """Answer for pictures: overlays, masks, labels or boxes, CSV lines.

    PICTURE is a file, a folder that is searched through, or a pattern in quotes such as 'frames/*.jpg'. A picture
    that cannot be read is named and passed over; the exit status is then 1. A bundle needs the base install only.

    Of a model with several inputs PICTURE is the first one's, such as visual/a.png. The others' have the same name in
    the folders that the run's experiment file names, such as thermal/a.tif, or with --input in FOLDER.
    """
    from leakdet_tf.jobs.predict import predict

    done = predict(
        model,
        pictures,
        out=out,
        threads=threads,
        trusted=trusted,
        inputs=inputs,
        log=lambda line: click.echo(line, err=True),
    )
    click.echo(f"{done.answered} answered, {done.refused} refused: {done.table}")
    return 1 if done.refused else 0
