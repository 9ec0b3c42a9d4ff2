"""Options that several commands share."""

from collections.abc import Sequence
from typing import Any

import click

overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the experiment file, such as train.epochs=3. Repeatable.",
)
threads = click.option("--threads", type=click.IntRange(min=1), help="CPU threads for an exported model.")
trusted = click.option("--trusted", metavar="KEY", help="Take only bundles that this public key has signed.")


def _folders(_: Any, option: Any, given: Sequence[str]) -> dict[str, str]:
    parts = [text.partition("=") for text in given]
    if wrong := [text for text, (name, _, folder) in zip(given, parts, strict=True) if not (name and folder)]:
        raise click.BadParameter(f"{wrong[0]} is not of the form NAME=FOLDER", param=option)
    return {name: folder for name, _, folder in parts}


inputs = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FOLDER",
    callback=_folders,
    help="Where another input's pictures are. Repeatable.",
)
model = click.argument("model", metavar="RUN_OR_BUNDLE")
