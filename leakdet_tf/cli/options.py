"""Options that several commands share."""

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
inputs = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Where another input's pictures are. Repeatable.",
)
model = click.argument("model", metavar="RUN_OR_BUNDLE")
