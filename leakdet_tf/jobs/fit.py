"""``leakdet-tf fit``: from an experiment to a run folder with its model, evidence and bundles."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leakdet_tf.config.loading import load
from leakdet_tf.core.files import sync_folder, whole_file, write_bytes, write_json
from leakdet_tf.core.tasks import task_of
from leakdet_tf.data.cache import amounts_of
from leakdet_tf.data.readers import find_splits, labelling_of
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.formats.bundle import require, tidy
from leakdet_tf.jobs.evaluate import write_report
from leakdet_tf.jobs.export import write_bundles
from leakdet_tf.jobs.run import backend
from leakdet_tf.jobs.run.data import check_places, contributions, decode_all, often, render_if_absent, samples
from leakdet_tf.jobs.run.notebook import figure_rows, shown
from leakdet_tf.jobs.run.parts import QUARANTINE, refuse_leaks, usable_parts
from leakdet_tf.jobs.run.resume import (
    drop_dead_lock,
    find_run,
    identity,
    is_finished,
    locked,
    mark_finished,
    note_on_kill,
    note_on_repeated_epochs,
    same_experiment,
    same_identity,
    so_far,
    tell_machine,
    with_its_backend,
)
from leakdet_tf.jobs.run.run import Run, open_folder, tell_sources, write_inputs
from leakdet_tf.jobs.run.runs import EXPERIMENT, MODEL, Log, Opened, program, say
from leakdet_tf.jobs.run.start import encoder_weights, new_model, settle, warm_start
from leakdet_tf.jobs.run.throughput import choose_backend
from leakdet_tf.jobs.run.track import require as require_tracking
from leakdet_tf.jobs.run.track import tracking
from leakdet_tf.jobs.tasks import jobs_task
from leakdet_tf.training.interrupt import leaving_at_once


@dataclass(frozen=True)
class Fitted:
    """A run: its folder, whether Ctrl-C or SIGTERM ended it, and its bundles. A notebook shows its report."""

    folder: Path
    interrupted: bool
    bundles: list[Path]
    terminated: bool = False

    @property
    def report(self) -> dict[str, Any]:
        """What ``metrics.json`` holds; empty where training was ended before there was one."""
        path = self.folder / "metrics.json"
        return dict(json.loads(path.read_bytes())) if path.is_file() else {}

    def _repr_html_(self) -> str:
        rows = figure_rows(self.report.get("metrics", {}))
        pictures = [self.folder / name for name in ("curves.png", "examples.png")]
        return shown(str(self.folder), ("on test", "value", "low", "high"), rows, pictures)


def fit(
    experiment: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    log: Log = say,
    quarantine: bool = False,
    resume: str | Path | None = None,
    **tables: Any,
) -> Fitted:
    """Do everything that an experiment asks for: train, evaluate and export.

    On SIGTERM or SIGUSR1 training ends after its step, with a checkpoint; a second one, and one at any other time,
    leaves at once.

    Args:
        experiment: a TOML file, or what one holds as plain data.
        overrides: ``table.key=value``, as ``--set`` takes them.
        log: takes lines for the user.
        quarantine: leave files out that are at fault, and list them in the run's ``quarantine.csv``.
        resume: a run or a folder of runs: go on in an unfinished one after its newest checkpoint that is whole; what
            was trained after it is repeated.
        **tables: keys and tables that are put over the experiment's, such as ``train={"epochs": 3}``.

    Raises:
        LeakdetError: one of its kinds, naming the file or key and the remedy. What was written before stays.
        SystemExit: with status 75, by SIGTERM or SIGUSR1 outside of training: what is there can be resumed.
    """
    asked = load(experiment, overrides, tables)
    folder = None if resume is None else find_run(str(resume))
    if folder is not None and is_finished(folder):
        drop_dead_lock(folder)
        log(f"{folder}: finished already, nothing is left to do")
        return Fitted(folder, False, sorted(path.parent for path in folder.glob(f"export/*/{CONTRACT}")))
    with ExitStack() as held:
        held.enter_context(leaving_at_once())
        run = Run(asked, echo=log, held=held, quarantine=quarantine, resumed=folder)
        _take_up(run)
        try:
            done = _fit(run)
        except SystemExit:
            log("terminated at once; a run that has its folder can be resumed")
            raise
        if done.terminated or done.interrupted:
            log(f"  {_how_to_go_on(experiment, overrides, tables, done.folder)}")
        return done


def _how_to_go_on(
    experiment: str | Path | Mapping[str, Any], overrides: Sequence[str], tables: Mapping[str, Any], folder: Path
) -> str:
    if isinstance(experiment, Mapping) or tables:
        return f"leakdet_tf.fit(…, resume={str(folder)!r}), with the same experiment and tables"
    words = [str(experiment), *(part for one in overrides for part in ("--set", one))]
    return f"{program()} fit {shlex.join(words)} --resume {shlex.quote(str(folder))}"


def _fit(run: Run) -> Fitted:
    _choose_backend(run)
    _build(run)
    _read_data(run)
    _go_on(run)
    _train(run)
    outcome = run.outcome
    if outcome.reason == "terminated":
        run.log(f"terminated after {so_far(outcome.epochs, outcome.steps)}; nothing is lost. Go on with:")
        return Fitted(run.folder, False, [], terminated=True)
    if not outcome.epochs and outcome.reason == "interrupted":
        run.log("interrupted before the first epoch was complete: the weights so far are kept")
    _finish(run)
    _draw(run)
    if outcome.reason == "interrupted":
        best = outcome.best_epoch or "-"
        run.log(f"interrupted after {so_far(outcome.epochs, outcome.steps)}; best epoch {best}. Next:")
        run.log(f"  {program()} evaluate {run.folder}")
        run.log(f"  {program()} export {run.folder}")
        return Fitted(run.folder, True, [])
    done = _conclude(run)
    mark_finished(run.folder, outcome.epochs, outcome.reason)
    return done


def _take_up(run: Run) -> None:
    """Check the places of a new run; of one that is resumed lock the folder, and check that it is the same."""
    if run.resumed is None:
        check_places(run.experiment)
        return
    killed = run.held.enter_context(locked(run.resumed))
    run.experiment = with_its_backend(run.resumed, run.experiment)
    same_experiment(run.resumed, run.experiment)
    if killed:
        run.told.append(note_on_kill(killed, run.experiment.train.batch_size))


def _choose_backend(run: Run) -> None:
    """Refuse what is not installed, and choose Keras's backend, before Keras is imported."""
    require(run.experiment.export.formats)
    require_tracking(run.experiment.track)
    run.experiment = choose_backend(run.experiment, log=run.show)
    settings = run.experiment.train
    if not backend.start(settings.backend, deterministic=settings.deterministic, xla=settings.xla):
        run.told.append("TensorFlow was at work otherwise before: the weights' last bits may differ from run to run")


def _build(run: Run) -> None:
    """Build the model, and find its first weights, or the checkpoint that has its last."""
    from leakdet_tf.training.best import lost_best
    from leakdet_tf.training.checkpoint import clean, newest

    run.model, run.contract = new_model(run.experiment)
    if fault := backend.slow(run.experiment.train.precision):
        run.told.append(fault)
    run.checkpoint, run.started = None, {}
    if run.resumed is not None:
        clean(run.resumed / "checkpoints")
        tidy(run.resumed / "export")
        best = run.resumed / "checkpoints" / "best.keras"
        run.checkpoint = newest(best.parent, log=run.told.append, lacks=lambda one: lost_best(one, best))
        run.quarantine = run.quarantine or (run.resumed / QUARANTINE).is_file()
    if run.checkpoint is None:
        weights = run.experiment.model.weights
        run.started["run"] = warm_start(run.model, weights, log=run.told.append) if weights else None
        run.started["encoder"] = encoder_weights(run.model, log=run.told.append)


def _read_data(run: Run) -> None:
    """Render, read and check every split; then there is a folder, and a log that takes what was told so far."""
    experiment = run.experiment
    render_if_absent(experiment)
    with TemporaryDirectory() as scratch:
        left_out = Path(scratch) / QUARANTINE
        if run.quarantine:
            run.parts = usable_parts(experiment, quarantine=left_out, log=run.told.append)
        else:
            run.parts = find_splits(experiment.data)
        run.caches = decode_all(experiment, run.parts, run.contract, log=run.told.append)
        if store := run.caches["train"].store:
            run.held.callback(store.release)
        refuse_leaks(experiment, run.parts, run.caches, log=run.told.append)
        open_folder(run)
        if run.quarantine:
            write_bytes(run.folder / QUARANTINE, left_out.read_bytes())


def _go_on(run: Run) -> None:
    """Write what the run is made from, and say where training begins."""
    experiment, caches, log = run.experiment, run.caches, run.log
    given = {name: contributions(experiment, run.parts[name], cache.targets) for name, cache in caches.items()}
    if not (run.folder / CONTRACT).is_file():  # the last of them
        write_inputs(run, given)
    if any(run.started.values()):
        write_json(run.folder / "start.json", {key: value for key, value in run.started.items() if value})
    if experiment.data.source:
        tell_sources(given["train"], log)
    if run.checkpoint is not None:
        state = run.checkpoint.state
        same_identity(run.folder, state.identity, identity(run.folder, caches))
        tell_machine(run.folder, log)
        already, again = so_far(state.epoch, state.step), note_on_repeated_epochs(run.folder, state.epoch)
        log(f"resumed from checkpoint {run.checkpoint.folder.name}: {already} done{again}")
    elif run.resumed is not None:
        log("resumed: there is no checkpoint yet, training begins again in this folder")
    if run.checkpoint is None:
        settle(run.model, caches["train"], log=log)


def _train(run: Run) -> None:
    """Train, to its end or to a signal."""
    from leakdet_tf.data.pipeline import epoch_length, plain, plain_disk_errors, steps, training
    from leakdet_tf.training.callbacks import save_model
    from leakdet_tf.training.loop import Account, Feed, train

    run.tracker = run.held.enter_context(tracking(run.experiment, run.folder, run.log))
    experiment, cache = run.experiment, run.caches["train"]
    settings = backend.drop_useless_xla(experiment.train, run.log)
    labelling = labelling_of(experiment.data, experiment.task.classes)
    weights = often(experiment, run.parts["train"])
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

    run.log(
        f"training {run.model.name} under {settings.backend}: {run.model.count_params():,} parameters, "
        f"{len(cache)} pictures, up to {settings.total_epochs} epochs of {length}"
    )
    feed = Feed(
        training=stream,
        validation=plain(run.caches["val"], batch_size=settings.batch_size),
        pictures=length,
        steps=steps(length, settings.batch_size),
        labelling=labelling,
        amounts=[int(count) for count in amounts_of(task_of(run.contract), cache.targets)[: labelling.classes]],
        score=jobs_task(run.contract.task).validation_score(run.contract, run.caches["val"]),
    )
    account = Account(run.folder, run.log, identity(run.folder, run.caches), run.tracker.epoch)
    with plain_disk_errors(run.caches.values()):
        run.outcome = train(run.model, run.contract, settings, feed, account, start=run.checkpoint)
    if not run.outcome.epochs:
        save_model(run.model, run.folder / "checkpoints" / "last.keras")


def _finish(run: Run) -> None:
    """Give the best model (the last, when none was best) its final name, and its contract the weights' digest."""
    from leakdet_tf.formats.precision import in_float32
    from leakdet_tf.models.runtime import KerasBackend, load_model, weights_sha256
    from leakdet_tf.training.callbacks import save_model

    folder = run.folder
    chosen = folder / "checkpoints" / ("best.keras" if run.outcome.best_epoch else "last.keras")
    trained = load_model(chosen, replace(run.contract, weights_sha256=run.outcome.best_sha256))
    best = in_float32(trained)
    final = replace(run.contract, weights_sha256=weights_sha256(best))
    final.save(folder / CONTRACT)
    if best is trained:
        with whole_file(folder / MODEL) as temporary:
            shutil.copyfile(chosen, temporary)
    else:
        save_model(best, folder / MODEL)
    sync_folder(folder)
    run.opened = Opened(Predictor.over(KerasBackend(best, final), final), "keras", folder, folder / EXPERIMENT)


def _draw(run: Run) -> None:
    """Draw the curves of training, and some validation pictures with what is predicted."""
    from leakdet_tf.analysis.figures import curves, save
    from leakdet_tf.training.tasks import training_task

    experiment, outcome, predictor = run.experiment, run.outcome, run.opened.predictor
    if outcome.rows:
        title = f"{experiment.name}: {run.folder.name}"
        key, called = training_task(experiment.task.kind).MONITOR
        figure = curves(outcome.rows, outcome.best_epoch, title, key=key.removeprefix("val_"), called=called)
        save(figure, run.folder / "curves.png")
    task, items = jobs_task(experiment.task.kind), run.parts["val"]
    chosen = items[:: max(1, len(items) // task.EXAMPLES)][: task.EXAMPLES]
    shown = list(samples(experiment, chosen))
    predictions = [predictor.predict(sample.images) for sample in shown]
    title = f"{experiment.name}: validation pictures, epoch {outcome.best_epoch or outcome.epochs}"
    save(task.draw_examples(shown, predictions, experiment, predictor.contract, title), run.folder / "examples.png")


def _conclude(run: Run) -> Fitted:
    """Calibrate, report on the test pictures, and export."""
    from leakdet_tf.training.tasks import training_task

    experiment, folder, outcome, log = run.experiment, run.folder, run.outcome, run.log
    how = "stopped early" if outcome.reason == "early" else "finished"
    log(
        f"training {how} after {outcome.epochs} epochs; best epoch {outcome.best_epoch}, "
        f"val {training_task(experiment.task.kind).MONITOR[1]} {outcome.best_value:.4f}"
    )
    calibrating = jobs_task(experiment.task.kind).CALIBRATING
    if calibrating and experiment.evaluate.calibrate:
        run.opened = calibrating.run(run.opened, experiment, run.parts["val"], log=log)
    done = write_report(
        run.opened, experiment, run.parts["test"], root=experiment.data.where, split="test", folder=folder, log=log
    )
    facts = {
        "data": {name: {"pictures": len(cache), "sha256": cache.sha256} for name, cache in run.caches.items()},
        "keras_test_metrics": done.report["metrics"],
    }
    bundles = write_bundles(run.opened, experiment, run.parts, facts=facts, log=log)
    drawn = [folder / name for name in ("curves.png", "examples.png")]
    contract = run.opened.predictor.contract
    run.tracker.report(folder, contract, done.report["metrics"], [*drawn, *done.files])
    names = [file.name for file in (*drawn, *done.files)]
    log(f"model, report and pictures: {folder}  ({', '.join(names)})")
    log("next:")
    for bundle in bundles[:1]:
        log(f"  {program()} predict {bundle.folder} {run.parts['test'][0].images[contract.primary]} --out predictions")
        log(f"  {program()} evaluate {bundle.folder}")
    log(f"  {program('tensorboard')} --logdir {folder / 'tensorboard'}")
    return Fitted(folder, False, [bundle.folder for bundle in bundles])
