"""The best model's file, held to what a checkpoint says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leakdet_tf.core.errors import ModelError, TrainingError
from leakdet_tf.models.runtime import load_model, weights_sha256
from leakdet_tf.training.callbacks import save_model
from leakdet_tf.training.checkpoint import Checkpoint, of_epoch


def restore_best(start: Checkpoint, model: Any, path: Path, *, log: Callable[[str], None]) -> None:
    """See that ``best.keras`` holds the weights that a checkpoint names, or write it again from its epoch's checkpoint.

    It can be damaged, or newer than the checkpoint: written in an epoch that was killed, or whose own checkpoint is
    damaged. Training that is not repeated bit for bit, as on a GPU, may then never come by a better one.

    Args:
        start: training goes on from here.
        model: the served one; its weights are changed when the file is written again.
        path: the file.
        log: told when it is written again.

    Raises:
        TrainingError: it cannot be written again, because the best epoch's checkpoint is damaged or not there either.
    """
    state = start.state
    if not state.best_epoch or _digest(path) == state.best_sha256:
        return
    best = _of_best(start)
    if best is not None:
        best.restore(model)
    if best is None or weights_sha256(model) != state.best_sha256:
        raise TrainingError(
            f"{path}: is not the model of epoch {state.best_epoch}, the best, whose checkpoint is lost too",
            remedy="restore one of them from a copy, or train again in a new run",
        )
    save_model(model, path)
    log(f"{path.name} was not that of epoch {state.best_epoch}: written again from checkpoint {best.folder.name}")


def lost_best(start: Checkpoint, path: Path) -> str:
    """Of a checkpoint whose best model is neither in ``path`` nor in its epoch's checkpoint, to say so; or nothing."""
    state = start.state
    if not state.best_epoch or _of_best(start) is not None or _digest(path) == state.best_sha256:
        return ""
    return f"the model of epoch {state.best_epoch}, the best, is lost: in its checkpoint and in {path.name}"


def _of_best(start: Checkpoint) -> Checkpoint | None:
    at_it = (start.state.best_epoch, 0) == (start.state.epoch, start.state.step)
    return start if at_it else of_epoch(start.folder.parent, start.state.best_epoch)


def _digest(path: Path) -> str:
    try:
        return weights_sha256(load_model(path, None))
    except ModelError:
        return ""
