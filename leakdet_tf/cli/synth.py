"""``leakdet-tf synth``."""

from __future__ import annotations

import click

from leakdet_tf.cli import Table

COMMANDS = {
    "GENERATOR": (
        "leakdet_tf.cli.synth_render:command",
        "gas, leak, crack, hotspot or package.module:function: render.",
    ),
    "diffusion": ("leakdet_tf.cli.synth_diffusion:command", "Have a diffusion model paint pictures of leaks."),
    "filter": ("leakdet_tf.cli.synth_filter:command", "Keep the pictures that a classifier of real ones believes."),
}


class Generators(Table):
    """A table in which every other name is a generator's."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or the one that renders with the generator of that name."""
        return super().get_command(ctx, cmd_name if cmd_name in self.table else "GENERATOR")


@click.group("synth", cls=Generators, table=COMMANDS)
def command() -> None:
    """Render pictures with exact truth, paint or filter them."""
