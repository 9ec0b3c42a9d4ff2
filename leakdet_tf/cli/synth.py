"""``leakdet-tf synth``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("synth")
@click.argument("generator", metavar="GENERATOR")
@click.argument("root", metavar="DIR")
@click.option("--train", default=320, show_default=True, type=click.IntRange(min=0), help="Training pictures.")
@click.option("--val", default=80, show_default=True, type=click.IntRange(min=0), help="Validation pictures.")
@click.option("--test", default=80, show_default=True, type=click.IntRange(min=0), help="Test pictures.")
@click.option(
    "--size", default=(128, 128), show_default=True, nargs=2, type=click.IntRange(32, 2048), help="Height, width."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Same seed, same bytes.")
def command(generator: str, root: str, train: int, val: int, test: int, size: tuple[int, int], seed: int) -> None:
    """Render pictures with exact masks.

    GENERATOR is gas: infrared-like plant scenes with machines and a plume. DIR gets train, val and test folders and
    manifest.json with every picture's seed and parameters. A folder that exists is checked, never changed.
    """
    from leakdet_tf.jobs.data import render

    made = render(Path(root), generator, {"train": train, "val": val, "test": test}, size, seed)
    click.echo(f"{root}: {train + val + test} pictures {'rendered' if made else 'were there already'}")
