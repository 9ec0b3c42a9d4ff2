"""Where a model's first weights come from when an experiment names another run or file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError
from leakdet_tf.core.files import sha256_file
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.jobs.runs import EXPERIMENT, MODEL, Log


def warm_start(model: Any, weights: str, *, log: Log) -> dict[str, Any]:
    """Take over the weights of a run or ``.keras`` file, and say what was not taken.

    Args:
        model: built; changed in place.
        weights: a run's folder, the folder of an experiment's runs (its newest finished one is taken), or a file.
        log: takes the account.

    Returns:
        The account as plain data for ``start.json``.

    Raises:
        LeakdetError: there is no such run or file, it is damaged, or nothing of it fits.
    """
    from leakdet_tf.models.runtime import load_model
    from leakdet_tf.models.transfer import transfer

    path, contract = _model_of(Path(weights))
    done = transfer(load_model(path, contract), model, where=str(path))
    for line in done.lines(str(path)):
        log(line)
    return {
        "weights": weights,
        "file": str(path),
        "sha256": sha256_file(path),
        "loaded": done.loaded,
        "total": done.total,
        "missing": list(done.missing),
        "unused": list(done.unused),
    }


def _model_of(place: Path) -> tuple[Path, Contract | None]:
    if place.is_file():
        if place.suffix != ".keras":
            raise ConfigError(f"model.weights: {place} is not a .keras file", remedy="give one, or a run's folder")
        return place, None
    if not place.is_dir():
        raise ConfigError(f"model.weights: {place}: no such run or file", remedy="check the path")
    run = place if (place / EXPERIMENT).is_file() else _newest(place)
    if not (run / MODEL).is_file():
        raise ConfigError(f"model.weights: {run} did not finish", remedy="train it to the end, or name a .keras file")
    return run / MODEL, Contract.load(run / CONTRACT)


def _newest(folder: Path) -> Path:
    # Run folders are named by date and time, and a second one of the same second by a number behind it.
    finished = [path for path in folder.iterdir() if (path / EXPERIMENT).is_file() and (path / MODEL).is_file()]
    if not finished:
        raise ConfigError(f"model.weights: {folder} holds no finished run", remedy="name a run or a .keras file")
    return max(finished, key=lambda path: (path.name[:15], len(path.name), path.name))
