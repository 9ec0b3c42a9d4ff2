"""``leakdet-tf fit``: from an experiment to a run folder with its model, evidence and bundles."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from leakdet_tf.config.load import dump, load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.files import sync_folder, whole_file, write_bytes, write_json, write_text
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.readers import Item, find_splits, labelling_of
from leakdet_tf.data.splits import save_manifest
from leakdet_tf.data.survey import survey
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.jobs.check import QUARANTINE, refuse_leaks, usable_parts
from leakdet_tf.jobs.data import contract_of, contributions, decode_all, often, render_if_absent, samples, specs
from leakdet_tf.jobs.quiet import start_tensorflow
from leakdet_tf.jobs.runs import EXPERIMENT, MODEL, Log, Opened, create_run, environment, logger, program
from leakdet_tf.jobs.start import warm_start

_EXAMPLES = 6


@dataclass(frozen=True)
class Fitted:
    """A run: its folder, whether it ran to its end, and its bundles."""

    folder: Path
    interrupted: bool
    bundles: list[Path]


def fit(path: str, overrides: Sequence[str], *, echo: Log, quarantine: bool = False) -> Fitted:
    """Do everything that an experiment file asks for.

    With ``quarantine``, files that are at fault are left out and listed in the run's ``quarantine.csv``.

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
    told: list[str] = []  # for the log, once there is a run folder
    start = warm_start(model, experiment.model.weights, log=told.append) if experiment.model.weights else None
    render_if_absent(experiment)
    with TemporaryDirectory() as scratch:
        left_out = Path(scratch) / QUARANTINE
        if quarantine:
            parts = usable_parts(experiment, quarantine=left_out, log=told.append)
        else:
            parts = find_splits(experiment.data)
        caches = decode_all(experiment, parts, contract)
        refuse_leaks(experiment, parts, caches, log=told.append)

        folder = create_run(experiment.runs, experiment.name)
        log = logger(folder / "log.txt", echo)
        log(f"run folder: {folder}")
        for line in told:
            log(line)
        if quarantine:
            write_bytes(folder / QUARANTINE, left_out.read_bytes())
    given = {name: contributions(experiment, parts[name], cache.targets) for name, cache in caches.items()}
    _write_inputs(folder, experiment, contract, parts, caches, given)
    if start is not None:
        write_json(folder / "start.json", start)
    if experiment.data.source:
        _tell_sources(given["train"], log)
    outcome = _train(model, contract, experiment, parts["train"], caches, folder, log)
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
    folder: Path,
    experiment: Experiment,
    contract: Contract,
    parts: dict[str, list[Item]],
    caches: dict[str, Cache],
    given: dict[str, dict[str, Any]],
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
                "sources": given[name],
                "files": dict(zip(cache.ids, map(list, cache.digests), strict=True)),
            }
            for name, cache in caches.items()
        },
    )
    for source in experiment.data.sources:
        if source.split is not None:
            if (folder / QUARANTINE).is_file():  # what was left out lies in the folder still: the manifest names it
                parts = survey(experiment.data)[0]
            several = bool(experiment.data.source)
            prefix = f"{source.name}/" if several else ""
            ids = {
                name: [item.id.removeprefix(prefix) for item in items if item.source == source.name]
                for name, items in parts.items()
            }
            manifest = folder / (f"split-{source.name}.json" if several else "split.json")
            save_manifest(manifest, ids, source.split, source.root)
    contract.save(folder / CONTRACT)


def _tell_sources(given: dict[str, Any], log: Log) -> None:
    for name, part in given.items():
        total = max(1, sum(part["pixels"].values()))
        shares = ", ".join(f"{label} {count / total:.1%}" for label, count in part["pixels"].items())
        log(f"source {name}: {part['pictures']} training pictures, {part['epoch_share']:.1%} of an epoch; {shares}")


def _train(
    model: Any,
    contract: Contract,
    experiment: Experiment,
    items: Sequence[Item],
    caches: dict[str, Cache],
    folder: Path,
    log: Log,
) -> Any:
    from leakdet_tf.data.pipeline import epoch_length, plain, steps, training
    from leakdet_tf.training.callbacks import save_model
    from leakdet_tf.training.loop import train

    settings, cache = experiment.train, caches["train"]
    labelling = labelling_of(experiment.data, experiment.task.classes)
    weights = often(experiment, items)
    length = epoch_length(weights)
    log(
        f"training {model.name}: {model.count_params():,} parameters, {len(cache)} pictures, "
        f"up to {settings.epochs} epochs of {length}"
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
            weights=weights,
        ),
        validation=plain(caches["val"], batch_size=settings.batch_size),
        pictures=length,
        steps=steps(length, settings.batch_size),
        folder=folder,
        log=log,
        labelling=labelling,
        pixels=[int(count) for count in np.bincount(cache.targets.ravel(), minlength=256)[: labelling.classes]],
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
    labelling = labelling_of(experiment.data, experiment.task.classes)
    save(examples(shown, answers, opened.predictor.contract, title, labelling), folder / "examples.png")


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
        opened, experiment, parts["test"], root=experiment.data.where, split="test", folder=folder, log=log
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
