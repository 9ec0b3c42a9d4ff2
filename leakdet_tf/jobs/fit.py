"""``leakdet-tf fit``: from an experiment to a run folder with its model, evidence and bundles."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leakdet_tf.config.load import dump, load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.files import sync_folder, whole_file, write_json, write_text
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.readers import Item, find_splits
from leakdet_tf.data.splits import save_manifest
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.jobs.data import contract_of, decode_all, render_if_absent, samples, specs
from leakdet_tf.jobs.quiet import start_tensorflow
from leakdet_tf.jobs.runs import EXPERIMENT, MODEL, Log, Opened, create_run, environment, logger, program

_EXAMPLES = 6


@dataclass(frozen=True)
class Fitted:
    """A run: its folder, whether it ran to its end, and its bundles."""

    folder: Path
    interrupted: bool
    bundles: list[Path]


def fit(path: str, overrides: Sequence[str], *, echo: Log) -> Fitted:
    """Do everything that an experiment file asks for.

    Raises:
        LeakdetError: one of its kinds, naming the file or key and the remedy. What was written before stays.
    """
    experiment = load(path, overrides)
    start_tensorflow()
    from leakdet_tf.models.build import activation_of, build

    classes = len(experiment.task.classes)
    model = build(
        experiment.model.factory,
        experiment.model.arguments,
        inputs=specs(experiment),
        classes=classes,
        seed=experiment.seed,
    )
    contract = contract_of(experiment, activation_of(model))
    render_if_absent(experiment)
    parts = find_splits(experiment.data)
    caches = decode_all(experiment, parts, contract)

    folder = create_run(experiment.runs, experiment.name)
    log = logger(folder / "log.txt", echo)
    log(f"run folder: {folder}")
    _write_inputs(folder, experiment, contract, parts, caches)
    outcome = _train(model, contract, experiment, caches, folder, log)
    if not outcome.epochs and outcome.reason == "interrupted":
        log("interrupted before the first epoch was complete: the weights so far are kept")
    opened = _finish(folder, contract, model, outcome.best_epoch)
    _draw(folder, experiment, opened, parts["val"], outcome)
    if outcome.reason == "interrupted":
        log(f"interrupted after {outcome.epochs} epochs; best epoch {outcome.best_epoch or '-'}. Next:")
        log(f"  {program()} evaluate {folder}")
        log(f"  {program()} export {folder}")
        return Fitted(folder, True, [])
    return _conclude(folder, experiment, opened, parts, caches, outcome, log)


def _write_inputs(
    folder: Path, experiment: Experiment, contract: Contract, parts: dict[str, list[Item]], caches: dict[str, Cache]
) -> None:
    write_text(folder / EXPERIMENT, dump(experiment))
    write_json(folder / "environment.json", environment())
    write_json(
        folder / "data.json",
        {
            name: {
                "pictures": len(cache),
                "sha256": cache.sha256,
                "rendered": sum(item.origin.kind == "rendered" for item in parts[name]),
                "files": dict(zip(cache.ids, map(list, cache.digests), strict=True)),
            }
            for name, cache in caches.items()
        },
    )
    if experiment.data.split is not None:
        ids = {name: [item.id for item in items] for name, items in parts.items()}
        save_manifest(folder / "split.json", ids, experiment.data.split, experiment.data.root)
    contract.save(folder / CONTRACT)


def _train(
    model: Any, contract: Contract, experiment: Experiment, caches: dict[str, Cache], folder: Path, log: Log
) -> Any:
    from leakdet_tf.data.pipeline import plain, steps, training
    from leakdet_tf.training.callbacks import save_model
    from leakdet_tf.training.loop import train

    settings, cache = experiment.train, caches["train"]
    log(
        f"training {model.name}: {model.count_params():,} parameters, {len(cache)} pictures, "
        f"up to {settings.epochs} epochs"
    )
    outcome = train(
        model,
        contract,
        settings,
        training=training(
            cache,
            batch_size=settings.batch_size,
            seed=experiment.seed,
            settings=experiment.data.augment,
            epochs=settings.epochs,
        ),
        validation=plain(caches["val"], batch_size=settings.batch_size),
        pictures=len(cache),
        steps=steps(len(cache), settings.batch_size),
        folder=folder,
        log=log,
    )
    if not outcome.epochs:
        save_model(model, folder / "checkpoints" / "last.keras")
    return outcome


def _finish(folder: Path, contract: Contract, model: Any, best_epoch: int) -> Opened:
    """Give the best model (the last, when none was best) its final name, and its contract the weights' digest."""
    from leakdet_tf.models.runtime import KerasBackend, load_model, weights_sha256

    chosen = folder / "checkpoints" / ("best.keras" if best_epoch else "last.keras")
    best = load_model(chosen, contract)
    final = replace(contract, weights_sha256=weights_sha256(best))
    final.save(folder / CONTRACT)
    with whole_file(folder / MODEL) as temporary:
        shutil.copyfile(chosen, temporary)
    sync_folder(folder)
    return Opened(Predictor.over(KerasBackend(best, final), final), "keras", folder, folder / EXPERIMENT)


def _draw(folder: Path, experiment: Experiment, opened: Opened, items: Sequence[Item], outcome: Any) -> None:
    from leakdet_tf.analysis.figures import curves, examples, save

    if outcome.rows:
        save(curves(outcome.rows, outcome.best_epoch, f"{experiment.name}: {folder.name}"), folder / "curves.png")
    stride = max(1, len(items) // _EXAMPLES)
    shown = list(samples(experiment, items[::stride][:_EXAMPLES]))
    answers = [opened.predictor.predict(sample.images) for sample in shown]
    title = f"{experiment.name}: validation pictures, epoch {outcome.best_epoch or outcome.epochs}"
    save(examples(shown, answers, opened.predictor.contract, title), folder / "examples.png")


def _conclude(
    folder: Path,
    experiment: Experiment,
    opened: Opened,
    parts: dict[str, list[Item]],
    caches: dict[str, Cache],
    outcome: Any,
    log: Log,
) -> Fitted:
    from leakdet_tf.jobs.evaluate import write_report
    from leakdet_tf.jobs.export import write_bundles

    how = "stopped early" if outcome.reason == "early" else "finished"
    log(
        f"training {how} after {outcome.epochs} epochs; best epoch {outcome.best_epoch}, "
        f"val mean IoU {outcome.best_value:.4f}"
    )
    done = write_report(
        opened, experiment, parts["test"], root=experiment.data.root, split="test", folder=folder, log=log
    )
    facts = {
        "data": {name: {"pictures": len(cache), "sha256": cache.sha256} for name, cache in caches.items()},
        "keras_test_metrics": done.report["metrics"],
    }
    bundles = write_bundles(opened, experiment, parts["val"], facts=facts, log=log)
    log(f"model, report and pictures: {folder}  (curves.png, examples.png, report.png, worst.png, metrics.json)")
    first = parts["test"][0].images[opened.predictor.contract.primary]
    log("next:")
    for bundle in bundles[:1]:
        log(f"  {program()} predict {bundle.folder} {first} --out predictions")
        log(f"  {program()} evaluate {bundle.folder}")
    log(f"  {program('tensorboard')} --logdir {folder / 'tensorboard'}")
    return Fitted(folder, False, [bundle.folder for bundle in bundles])
