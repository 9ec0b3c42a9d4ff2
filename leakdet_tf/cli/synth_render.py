"""``leakdet-tf synth GENERATOR``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

_FIXED = {
    "train": "--train",
    "val": "--val",
    "test": "--test",
    "size": "--size",
    "seed": "--seed",
    "options": "--option",
    "clip": "--clip",
}


@click.command("GENERATOR")
@click.argument("root", metavar="DIR")
@click.option("--train", default=320, show_default=True, type=click.IntRange(min=0), help="Training pictures.")
@click.option("--val", default=80, show_default=True, type=click.IntRange(min=0), help="Validation pictures.")
@click.option("--test", default=80, show_default=True, type=click.IntRange(min=0), help="Test pictures.")
@click.option(
    "--size", default=(128, 128), show_default=True, nargs=2, type=click.IntRange(32, 2048), help="Height, width."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Same seed, same bytes.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="The generator's own option, such as look=visible; repeat for more.",
)
@click.option("--clip", default=1, show_default=True, type=click.IntRange(1), help="Consecutive frames of each scene.")
@click.option("--workers", type=click.IntRange(1), help="Processes that render.  [default: all cores]")
@click.option("--like", metavar="MANIFEST", help="Render what this manifest lists, and count the equal pictures.")
@click.option("--freeze", metavar="MANIFEST", help="Also write a short manifest, for --like elsewhere.")
def command(root: str, workers: int | None, like: str, freeze: str, **asked: Any) -> None:
    """Render pictures with exact truth.

    GENERATOR is gas (plant scenes with machines and a plume, infrared or, with --option look=visible, in colour), leak
    (oil and water on floors, walls and pipes), crack (concrete, asphalt and paint from near, cracked or not) or hotspot
    (solar modules in the infrared, with hot cells and strings or without; --option look=grey or rainbow for another
    palette). All but gas also label every picture and give boxes (labels.csv, coco.json); leak and crack take --option
    backgrounds=DIR to draw on photographs, leak --option textures=DIR to cover the floors and walls of its rooms with
    textures; the files are divided among train, val and test.

    DIR gets train, val and test folders and manifest.json with every picture's seed and parameters. A folder that
    exists is checked, never changed.
    """
    generator = str(click.get_current_context().info_name)
    from leakdet_tf.jobs.synth_render import render
    from leakdet_tf.synth.folder import frozen
    from leakdet_tf.synth.folder.request import SPLITS, Request
    from leakdet_tf.synth.folder.writer import shared_photographs

    if like:
        request = frozen.read_request(Path(like))
        _only_like(generator, request.generator)
    else:
        counts = {split: asked[split] for split in SPLITS}
        request = Request(generator, counts, asked["size"], asked["seed"], _options(asked["options"]), asked["clip"])
    folder = Path(root)
    made = render(
        request.generator,
        folder,
        counts=request.counts,
        size=request.size,
        seed=request.seed,
        options=request.options,
        clip=request.clip,
        workers=workers,
    )
    click.echo(f"{root}: {made.pictures} pictures {'rendered' if made.new else 'were there already'}")
    if told := shared_photographs(folder):
        click.echo(f"warning: {told}; give at least as many files as splits")
    if like:
        click.echo(frozen.compare(folder, Path(like)).as_text())
    if freeze:
        frozen.freeze(folder, Path(freeze))
        click.echo(f"{freeze}: written")


def _options(words: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE`` words as a table; a value is JSON where it can be, else text."""
    from leakdet_tf.core.errors import ConfigError

    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise ConfigError(f"--option {word}: not KEY=VALUE", remedy="write, for example, --option look=visible")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _only_like(generator: str, listed: str) -> None:
    """Refuse what a manifest says already."""
    from leakdet_tf.core.errors import ConfigError

    context = click.get_current_context()
    for name, option in _FIXED.items():
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise ConfigError(f"{option}: the manifest of --like says it", remedy=f"leave out {option} or --like")
    if generator != listed:
        raise ConfigError(f"the manifest of --like is of generator '{listed}'", remedy=f"write synth {listed}")
