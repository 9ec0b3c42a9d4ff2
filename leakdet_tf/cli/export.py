"""``leakdet-tf export``."""

from __future__ import annotations

import click

from leakdet_tf.cli.options import overrides


@click.command("export")
@click.argument("run", metavar="RUN")
@overrides
def command(run: str, overrides: tuple[str, ...]) -> None:
    """Make bundles for devices from a run.

    Each format of the experiment's [export] table becomes RUN/export/FORMAT. The exported file is compared with the
    Keras model on validation pictures; beyond export.max_changed nothing is written.
    """
    from leakdet_tf.jobs.export import export

    for made in export(run, overrides=overrides, log=click.echo):
        click.echo(f"bundle: {made.folder}")
