"""``leakdet-tf benchmark``."""

from __future__ import annotations

import re
from typing import Any

import click

from leakdet_tf.cli.options import trusted


def _counts(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    if not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", text):
        raise click.BadParameter(f"'{text}' is not a list such as 1,2,4")
    return tuple(int(part) for part in text.split(","))


def _size(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise click.BadParameter(f"'{text}' is not a size such as 640x480")
    return int(found[2]), int(found[1])


@click.command("benchmark")
@click.argument("bundles", nargs=-1, required=True, metavar="RUN_OR_BUNDLE...")
@click.option("--threads", callback=_counts, metavar="N,N,...", help="CPU threads; by default 1, and one a core.")
@click.option("--frames", metavar="PLACE", help="Picture or folder; by default each bundle's golden frames.")
@click.option("--size", callback=_size, metavar="WxH", help="Scale frames; golden ones are 640x480 by default.")
@click.option("--runs", type=click.IntRange(min=1), default=60, show_default=True, help="Answers counted of each.")
@click.option("--warm-up", type=click.IntRange(min=0), default=5, show_default=True, help="Answers before, uncounted.")
@click.option("--seconds", type=click.FloatRange(min=0), default=0, help="Then answer so long without a pause.")
@trusted
@click.option("--json", "json_file", metavar="FILE", help="Write every time and the machine's facts.")
@click.option("--plot", metavar="FILE", help="Draw a PNG; needs matplotlib.")
def command(bundles: tuple[str, ...], **given: Any) -> int:
    """Time bundles on this machine, side by side.

    A run's folder stands for all that it exported. Tells p50, p95 and least time of invoke and of the whole of
    predict (frame in, answer at the frame's size out), the share outside invoke, memory, size, and the metric that the
    export measured. Each bundle and number of threads has processes of its own, by turns. --seconds tells how
    latency, temperature and clock change under load, with the most threads. A bundle that cannot be measured is named
    and passed over; the exit status is then 1. The base install is enough.
    """
    from leakdet_tf.jobs.benchmark import benchmark

    done = benchmark(bundles, log=lambda line: click.echo(line, err=True), **given)
    for line in done.lines:
        click.echo(line)
    return 1 if done.failed else 0
