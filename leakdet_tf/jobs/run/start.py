"""A model before it is trained: built, and its first weights from another run or file where an experiment names one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError
from leakdet_tf.core.files import sha256_file
from leakdet_tf.data.cache import Cache
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.jobs.run.data import contract_of, specs
from leakdet_tf.jobs.run.runs import EXPERIMENT, MODEL, Log

_SETTLING, _BATCH = 256, 32  # pictures for the statistics of batch norms, and at a time


def new_model(experiment: Experiment) -> tuple[Any, Contract]:
    """The model that an experiment asks for, with weights drawn from its seed, and its contract.

    Raises:
        LeakdetError: an argument that the factory does not have, or a model that does not fit the experiment.
    """
    from leakdet_tf.models.factories import activation_of, build

    model = build(
        experiment.model.factory,
        experiment.model.arguments,
        inputs=specs(experiment),
        classes=len(experiment.task.classes),
        seed=experiment.seed,
        task=experiment.task.kind,
        precision=experiment.train.precision,
    )
    return model, contract_of(experiment, activation_of(model))


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
    from leakdet_tf.models.weight_transfer import transfer

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


def encoder_weights(model: Any, *, log: Log) -> dict[str, Any] | None:
    """What a factory put into its encoder from published weights, told and as plain data; None where it did not."""
    from leakdet_tf.models.pretrained import encoder_source

    source = encoder_source(model)
    if source is None:
        return None
    for line in source.lines():
        log(line)
    return asdict(source)


def settle(model: Any, cache: Cache, *, log: Log) -> None:
    """Give folded batch norms the statistics of training pictures, which leaves the model's answers as they are."""
    from leakdet_tf.models.norms import reestimate_batch_norm
    from leakdet_tf.models.pretrained import encoder_source

    source = encoder_source(model)
    if source is None or not source.folded:
        return
    chosen = np.linspace(0, len(cache) - 1, min(len(cache), _SETTLING)).astype(np.int64)
    chosen = np.resize(chosen, -(-len(chosen) // _BATCH) * _BATCH).reshape(-1, _BATCH)  # batches of one shape
    layers = reestimate_batch_norm(model, ({n: a[rows] for n, a in cache.inputs.items()} for rows in chosen))
    log(f"{len(layers)} batch norms took their statistics from {min(len(cache), _SETTLING)} training pictures")


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
