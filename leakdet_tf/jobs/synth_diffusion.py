"""``synth diffusion``: from a prompt file to a folder of painted pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from leakdet_tf.config.diffusion import load
from leakdet_tf.jobs.run.runs import Log
from leakdet_tf.synth.diffusion import painter as diffusion
from leakdet_tf.synth.diffusion import prompted
from leakdet_tf.synth.diffusion.prompted import Painter, asks, paint_folder
from leakdet_tf.synth.folder.writer import MANIFEST
from leakdet_tf.training.progress import track


def diffuse(path: str | Path, root: Path, overrides: Sequence[str] = (), *, log: Log) -> bool:
    """Paint what a prompt file asks for, or what of it a stopped call has left to do. False when all was there.

    Args:
        path: the prompt file.
        root: the folder to make.
        overrides: ``table.key=value`` for the file.
        log: takes a line when the model is loaded, and one when Ctrl-C ends the work.

    Raises:
        LeakdetError: the file, the model or the folder cannot be used as asked.
    """
    order = load(path, overrides)
    wanted = asks(order)
    there = (root / MANIFEST).is_file()

    def start() -> Painter:
        painter = diffusion.load(order, dict.fromkeys(ask.text for ask in wanted))
        about = painter.about
        log(f"{about['model']}: {about['pipeline']} on {about['device']}, {about['dtype']}, {about['scheduler']}")
        return painter

    work: Iterable[int] = paint_folder(root, order, start)
    try:
        for _ in work if there else track(work, f"painting {root}", len(wanted)):
            pass
    except KeyboardInterrupt:
        log(f"{prompted.kept(root)} of {len(wanted)} pictures are painted; the same command goes on from there")
        raise
    return not there
