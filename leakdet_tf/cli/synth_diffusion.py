"""``leakdet-tf synth diffusion``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("diffusion")
@click.argument("prompts", metavar="PROMPTS")
@click.argument("root", metavar="DIR")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of PROMPTS, such as steps=20. Repeatable.",
)
def command(prompts: str, root: str, overrides: tuple[str, ...]) -> None:
    """Have a diffusion model paint pictures of leaks, whole or into photographs.

    PROMPTS is a TOML file such as experiments/paper/leak_diffusion.toml, which explains every key. DIR gets a train
    folder with images, masks where leaks are painted into photographs, and labels.csv; and manifest.json. A picture
    takes about a minute on a CPU: Ctrl-C keeps what is painted, and the same command goes on from there. Invented
    pictures are for training: they stand in val or test only where the file's parts says so.
    """
    from leakdet_tf.synth.diffusion.painter import require

    require()
    from leakdet_tf.jobs.synth_diffusion import diffuse

    made = diffuse(prompts, Path(root), overrides, log=click.echo)
    click.echo(f"{root}: {'painted' if made else 'was there already'}")
