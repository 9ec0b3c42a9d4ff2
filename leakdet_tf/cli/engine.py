"""``leakdet-tf engine``."""

from __future__ import annotations

from typing import Any

import click


@click.command("engine")
@click.argument("bundle", metavar="BUNDLE")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float16",
    show_default=True,
    help="What the GPU computes in; int8 takes the bundle's calibration pictures.",
)
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Scratch memory of a layer, in MiB.")
@click.option("--trtexec", metavar="PROGRAM", help="Build by NVIDIA's trtexec instead of the Python API.")
@click.option(
    "--cache", metavar="DIR", help="Folder for engines, as LEAKDET_CACHE names it; ~/.cache/leakdet_tf if not."
)
@click.option("--trusted", metavar="KEY", help="Take only a bundle that this public key has signed.")
@click.option("--max-changed", type=click.FloatRange(0, 1), metavar="SHARE", help="Golden decisions that may change.")
@click.option("--anew", is_flag=True, help="Build even if there is an engine for this device.")
def command(
    bundle: str, precision: str, workspace: int | None, cache: str | None, trusted: str | None, **asked: Any
) -> None:
    """Build a bundle's TensorRT engine on this device.

    It answers the bundle's golden frames before it is kept, and is what Predictor runs from then on. It is good for
    this GPU and this TensorRT version alone. Needs the base install and JetPack.
    """
    from leakdet_tf.edge.bundle import open_bundle
    from leakdet_tf.edge.tensorrt import Settings
    from leakdet_tf.edge.tensorrt_build import build

    built = build(
        open_bundle(bundle, trusted=trusted),
        Settings(precision, workspace),
        cache=cache,
        **asked,
        log=lambda line: click.echo(line, err=True),
    )
    agreement = built.engine.card["agreement"]
    click.echo(f"golden frames: {agreement['changed']} of {agreement['decisions']} decisions changed")
    click.echo(f"{'built' if built.new else 'there already'}: {built.engine.path}")
    if cache is not None:
        click.echo(f"programs that run it need LEAKDET_CACHE={cache}")
