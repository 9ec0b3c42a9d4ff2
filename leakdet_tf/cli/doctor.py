"""``leakdet-tf doctor``."""

from __future__ import annotations

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print all that was found as JSON.")
def command(as_json: bool) -> int:
    """Say what this installation can do.

    Python, packages against the lock, the processor's instructions, threads, memory, disk, which extras are installed
    and what to type for the others. Every installed runtime (LiteRT, ONNX Runtime, TensorFlow, JAX, PyTorch, Keras)
    runs a tiny model in a process of its own and names its devices. Changes nothing. The base install is enough. The
    exit status is 1 when something that is installed does not work.
    """
    import json

    from leakdet_tf.jobs.doctor import diagnose

    found = diagnose()
    for line in [json.dumps(found.facts, indent=2)] if as_json else found.lines:
        click.echo(line)
    return 0 if found.works else 1
