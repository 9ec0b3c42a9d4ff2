"""``leakdet-tf export``."""

from __future__ import annotations

import click

from leakdet_tf.cli.options import overrides


@click.command("export")
@click.argument("run", metavar="RUN")
@overrides
def command(run: str, overrides: tuple[str, ...]) -> None:
    """Make bundles for devices from a run.

    Each format of the experiment's [export] table becomes RUN/export/FORMAT, held against the Keras model on validation
    pictures: float32 files decide as it does (export.max_changed), others keep its accuracy and most decisions
    (export.max_drop, export.max_turned), int8 with a few layers in float if it must. A file that does not is refused
    and leaves nothing. With export.key each bundle is signed.
    """
    from leakdet_tf.jobs.export import export

    for made in export(run, overrides=overrides, log=click.echo):
        click.echo(f"bundle: {made.folder}")
