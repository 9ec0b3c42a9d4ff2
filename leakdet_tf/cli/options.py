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
model = click.argument("model", metavar="RUN_OR_BUNDLE")
