"""``leakdet-tf fit``: from an experiment to a run folder with its model, evidence and bundles."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leakdet_tf.config.fields import SPLITS
from leakdet_tf.config.loading import dump, load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.files import sync_folder, whole_file, write_bytes, write_json, write_text
from leakdet_tf.core.tasks import task_of
from leakdet_tf.data.cache import Cache, amounts_of
from leakdet_tf.data.findings import survey
from leakdet_tf.data.items import Item, count_rendered
from leakdet_tf.data.readers import find_splits, labelling_of
from leakdet_tf.data.splits import save_manifest
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.export.bundle import require, tidy
from leakdet_tf.jobs.run import backend
from leakdet_tf.jobs.run.data import check_places, contributions, decode_all, often, render_if_absent, samples
from leakdet_tf.jobs.run.parts import QUARANTINE, refuse_leaks, usable_parts
from leakdet_tf.jobs.run.resume import (
    DATA,
    ENVIRONMENT,
    as_begun,
    drop_dead_lock,
    find_run,
    identity,
    is_finished,
    killed_before,
    locked,
    mark_finished,
    same_data,
    same_experiment,
    same_identity,
    so_far,
    tell_machine,
    told_again,
)
from leakdet_tf.jobs.run.runs import EXPERIMENT, MODEL, Log, Opened, create_run, environment, logger, program
from leakdet_tf.jobs.run.start import encoder_weights, new_model, settle, warm_start
from leakdet_tf.jobs.run.throughput import decided
from leakdet_tf.jobs.run.track import Tracker, tracking
from leakdet_tf.jobs.run.track import require as require_tracking
from leakdet_tf.jobs.tasks import jobs_task
from leakdet_tf.training.interrupt import leaving_at_once


@dataclass(frozen=True)
class Fitted:
    """A run: its folder, whether Ctrl-C or SIGTERM ended it, and its bundles."""

    folder: Path
    interrupted: bool
    bundles: list[Path]
    terminated: bool = False


def fit(
    path: str, overrides: Sequence[str], *, echo: Log, quarantine: bool = False, resume: str | None = None
) -> Fitted:
    """Do everything that an experiment file asks for.

    With ``quarantine``, files that are at fault are left out and listed in the run's ``quarantine.csv``. With
    ``resume``, a run or a folder of runs, it goes on in an unfinished run after its newest checkpoint that is whole;
    what was trained after it is repeated. On SIGTERM or SIGUSR1 training ends after its step, with a checkpoint; a
    second one, and one at any other time, leaves at once.

    Raises:
        LeakdetError: one of its kinds, naming the file or key and the remedy. What was written before stays.
        SystemExit: with status 75, by SIGTERM or SIGUSR1 outside of training: what is there can be resumed.
    """
    experiment = load(path, overrides)
    folder = None if resume is None else find_run(resume)
    if folder is not None and is_finished(folder):
        drop_dead_lock(folder)
        echo(f"{folder}: finished already, nothing is left to do")
        return Fitted(folder, False, sorted(path.parent for path in folder.glob(f"export/*/{CONTRACT}")))
    told: list[str] = []  # for the log, once there is a run folder
    with ExitStack() as held:
        held.enter_context(leaving_at_once())
        if folder is None:
            check_places(experiment)
        else:
            killed = held.enter_context(locked(folder))
            experiment = as_begun(folder, experiment)
            same_experiment(folder, experiment)
            told += [killed_before(killed, experiment.train.batch_size)] if killed else []
        try:
            done = _fit(experiment, folder, quarantine, echo, held, told)
        except SystemExit:
            echo("terminated at once; a run that has its folder can be resumed")
            raise
        if done.terminated or done.interrupted:
            how = f"{program()} fit {shlex.join([path, *(part for one in overrides for part in ('--set', one))])}"
            echo(f"  {how} --resume {shlex.quote(str(done.folder))}")
        return done


def _fit(
    experiment: Experiment, folder: Path | None, quarantine: bool, echo: Log, held: ExitStack, told: list[str]
) -> Fitted:
    require(experiment.export.formats)
    require_tracking(experiment.track)
    shown: list[str] = []  # so too, but the user had to see it at once

    def show(line: str) -> None:
        shown.append(line)
        echo(line)

    experiment = decided(experiment, log=show)
    settings = experiment.train
    if not backend.start(settings.backend, deterministic=settings.deterministic, xla=settings.xla):
        told.append("TensorFlow was at work otherwise before: the weights' last bits may differ from run to run")
    from leakdet_tf.training.best import lost_best
    from leakdet_tf.training.checkpoint import clean, newest

    model, contract = new_model(experiment)
    if fault := backend.slow(experiment.train.precision):
        told.append(fault)
    resumed, checkpoint = folder is not None, None
    if folder is not None:
        clean(folder / "checkpoints")
        tidy(folder / "export")
        best = folder / "checkpoints" / "best.keras"
        checkpoint = newest(best.parent, log=told.append, lacks=lambda one: lost_best(one, best))
        quarantine = quarantine or (folder / QUARANTINE).is_file()
    warm = bool(experiment.model.weights) and checkpoint is None
    start = warm_start(model, experiment.model.weights, log=told.append) if warm else None
    begun = {"run": start, "encoder": encoder_weights(model, log=told.append)} if checkpoint is None else {}
    render_if_absent(experiment)
    with TemporaryDirectory() as scratch:
        left_out = Path(scratch) / QUARANTINE
        if quarantine:
            parts = usable_parts(experiment, quarantine=left_out, log=told.append)
        else:
            parts = find_splits(experiment.data)
        caches = decode_all(experiment, parts, contract, log=told.append)
        if store := caches["train"].store:
            held.callback(store.release)
        refuse_leaks(experiment, parts, caches, log=told.append)

        if folder is None:
            folder = create_run(experiment.runs, experiment.name)
            held.enter_context(locked(folder))
        same_data(folder, caches)
        log = logger(folder / "log.txt", echo)
        log(f"run folder: {folder}")
        for line in shown:
            logger(folder / "log.txt", lambda _: None)(line)
        for line in told:
            log(line)
        if quarantine:
            write_bytes(folder / QUARANTINE, left_out.read_bytes())
    given = {name: contributions(experiment, parts[name], cache.targets) for name, cache in caches.items()}
    if not (folder / CONTRACT).is_file():  # the last of them
        _write_inputs(folder, experiment, contract, parts, caches, given)
    if any(begun.values()):
        write_json(folder / "start.json", {key: value for key, value in begun.items() if value})
    if experiment.data.source:
        _tell_sources(given["train"], log)
    if checkpoint is not None:
        same_identity(folder, checkpoint.state.identity, identity(folder, caches))
        tell_machine(folder, log)
        already = so_far(checkpoint.state.epoch, checkpoint.state.step)
        again = told_again(folder, checkpoint.state.epoch)
        log(f"resumed from checkpoint {checkpoint.folder.name}: {already} done{again}")
    elif resumed:
        log("resumed: there is no checkpoint yet, training begins anew in this folder")
    if checkpoint is None:
        settle(model, caches["train"], log=log)
    tracker = held.enter_context(tracking(experiment, folder, log))
    outcome = _train(model, contract, experiment, parts["train"], caches, folder, log, checkpoint, tracker)
    if outcome.reason == "terminated":
        log(f"terminated after {so_far(outcome.epochs, outcome.steps)}; nothing is lost. Go on with:")
        return Fitted(folder, False, [], terminated=True)
    if not outcome.epochs and outcome.reason == "interrupted":
        log("interrupted before the first epoch was complete: the weights so far are kept")
    opened = _finish(folder, contract, model, outcome)
    _draw(folder, experiment, opened, parts["val"], outcome)
    if outcome.reason == "interrupted":
        log(f"interrupted after {so_far(outcome.epochs, outcome.steps)}; best epoch {outcome.best_epoch or '-'}. Next:")
        log(f"  {program()} evaluate {folder}")
        log(f"  {program()} export {folder}")
        return Fitted(folder, True, [])
    done = _conclude(folder, experiment, opened, parts, caches, outcome, log, tracker)
    mark_finished(folder, outcome.epochs, outcome.reason)
    return done


def _write_inputs(
    folder: Path,
    experiment: Experiment,
    contract: Contract,
    parts: dict[str, list[Item]],
    caches: dict[str, Cache],
    given: dict[str, dict[str, Any]],
) -> None:
    write_text(folder / EXPERIMENT, dump(experiment))
    write_json(folder / ENVIRONMENT, environment())
    write_json(
        folder / DATA,
        {
            name: {
                "pictures": len(cache),
                "sha256": cache.sha256,
                "rendered": count_rendered(parts[name]),
                "sources": given[name],
                "files": dict(zip(cache.ids, map(list, cache.digests), strict=True)),
            }
            for name, cache in caches.items()
        },
    )
    for source in experiment.data.sources:
        if source.split is not None:
            # All of the folder stands in its manifest: also what quarantine, take and parts leave out.
            whole = source.model_copy(update={"take": 0, "parts": list(SPLITS)})
            divided = survey(experiment.data.model_copy(update={"source": [whole]}))[0]
            prefix, several = f"{source.name}/", bool(experiment.data.source)
            ids = {name: [item.id.removeprefix(prefix) for item in items] for name, items in divided.items()}
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
    checkpoint: Any,
    tracker: Tracker,
) -> Any:
    from leakdet_tf.data.pipeline import epoch_length, failing_plainly, plain, steps, training
    from leakdet_tf.training.callbacks import save_model
    from leakdet_tf.training.loop import train

    settings, cache = backend.obeyed(experiment.train, log), caches["train"]
    labelling = labelling_of(experiment.data, experiment.task.classes)
    weights = often(experiment, items)
    length = epoch_length(weights)

    def stream(first: int, end: int, step: int) -> Any:
        return training(
            cache,
            batch_size=settings.batch_size,
            seed=experiment.seed,
            settings=experiment.data.augment,
            epochs=end,
            first_epoch=first,
            first_step=step,
            weights=weights,
            last_epoch=settings.total_epochs,
        )

    log(
        f"training {model.name} under {settings.backend}: {model.count_params():,} parameters, {len(cache)} pictures, "
        f"up to {settings.total_epochs} epochs of {length}"
    )
    with failing_plainly(caches.values()):
        outcome = train(
            model,
            contract,
            settings,
            training=stream,
            validation=plain(caches["val"], batch_size=settings.batch_size),
            pictures=length,
            steps=steps(length, settings.batch_size),
            folder=folder,
            log=log,
            labelling=labelling,
            pixels=[int(count) for count in amounts_of(task_of(contract), cache.targets)[: labelling.classes]],
            identity=identity(folder, caches),
            start=checkpoint,
            score=jobs_task(contract.task).validation_score(contract, caches["val"]),
            tell=tracker.epoch,
        )
    if not outcome.epochs:
        save_model(model, folder / "checkpoints" / "last.keras")
    return outcome


def _finish(folder: Path, contract: Contract, model: Any, outcome: Any) -> Opened:
    """Give the best model (the last, when none was best) its final name, and its contract the weights' digest."""
    from leakdet_tf.export.precision import in_float32
    from leakdet_tf.models.runtime import KerasBackend, load_model, weights_sha256
    from leakdet_tf.training.callbacks import save_model

    chosen = folder / "checkpoints" / ("best.keras" if outcome.best_epoch else "last.keras")
    trained = load_model(chosen, replace(contract, weights_sha256=outcome.best_sha256))
    best = in_float32(trained)
    final = replace(contract, weights_sha256=weights_sha256(best))
    final.save(folder / CONTRACT)
    if best is trained:
        with whole_file(folder / MODEL) as temporary:
            shutil.copyfile(chosen, temporary)
    else:
        save_model(best, folder / MODEL)
    sync_folder(folder)
    return Opened(Predictor.over(KerasBackend(best, final), final), "keras", folder, folder / EXPERIMENT)


def _draw(folder: Path, experiment: Experiment, opened: Opened, items: Sequence[Item], outcome: Any) -> None:
    from leakdet_tf.analysis.figures import curves, save
    from leakdet_tf.training.tasks import training_task

    if outcome.rows:
        title = f"{experiment.name}: {folder.name}"
        key, called = training_task(experiment.task.kind).MONITOR
        figure = curves(outcome.rows, outcome.best_epoch, title, key=key.removeprefix("val_"), called=called)
        save(figure, folder / "curves.png")
    task = jobs_task(experiment.task.kind)
    number = task.EXAMPLES
    shown = list(samples(experiment, items[:: max(1, len(items) // number)][:number]))
    predictions = [opened.predictor.predict(sample.images) for sample in shown]
    title = f"{experiment.name}: validation pictures, epoch {outcome.best_epoch or outcome.epochs}"
    figure = task.draw_examples(shown, predictions, experiment, opened.predictor.contract, title)
    save(figure, folder / "examples.png")


def _conclude(
    folder: Path,
    experiment: Experiment,
    opened: Opened,
    parts: dict[str, list[Item]],
    caches: dict[str, Cache],
    outcome: Any,
    log: Log,
    tracker: Tracker,
) -> Fitted:
    from leakdet_tf.jobs.evaluate import write_report
    from leakdet_tf.jobs.export import write_bundles
    from leakdet_tf.training.tasks import training_task

    how = "stopped early" if outcome.reason == "early" else "finished"
    log(
        f"training {how} after {outcome.epochs} epochs; best epoch {outcome.best_epoch}, "
        f"val {training_task(experiment.task.kind).MONITOR[1]} {outcome.best_value:.4f}"
    )
    calibrating = jobs_task(experiment.task.kind).CALIBRATING
    if calibrating and experiment.evaluate.calibrate:
        opened = calibrating.run(opened, experiment, parts["val"], log=log)
    done = write_report(
        opened, experiment, parts["test"], root=experiment.data.where, split="test", folder=folder, log=log
    )
    facts = {
        "data": {name: {"pictures": len(cache), "sha256": cache.sha256} for name, cache in caches.items()},
        "keras_test_metrics": done.report["metrics"],
    }
    bundles = write_bundles(opened, experiment, parts, facts=facts, log=log)
    drawn = [folder / name for name in ("curves.png", "examples.png")]
    tracker.report(folder, opened.predictor.contract, done.report["metrics"], [*drawn, *done.files])
    names = [file.name for file in (*drawn, *done.files)]
    log(f"model, report and pictures: {folder}  ({', '.join(names)})")
    first = parts["test"][0].images[opened.predictor.contract.primary]
    log("next:")
    for bundle in bundles[:1]:
        log(f"  {program()} predict {bundle.folder} {first} --out predictions")
        log(f"  {program()} evaluate {bundle.folder}")
    log(f"  {program('tensorboard')} --logdir {folder / 'tensorboard'}")
    return Fitted(folder, False, [bundle.folder for bundle in bundles])
