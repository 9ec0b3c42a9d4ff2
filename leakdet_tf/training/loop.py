"""The training loop: Keras's ``fit`` on the model's logits, watched by our callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from leakdet_tf.config.train import Stage, Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ModelError, TrainingError, did_you_mean
from leakdet_tf.core.labels import Labelling
from leakdet_tf.training.best import restore_best
from leakdet_tf.training.callbacks import Board, History, Keeper, Lines, Pace, Watch
from leakdet_tf.training.checkpoint import Checkpoint
from leakdet_tf.training.faults import Explosion, plain_training_errors
from leakdet_tf.training.interrupt import Interrupt, InterruptedTraining
from leakdet_tf.training.measure import Measure, Score, Scored
from leakdet_tf.training.saver import Saver, finish_epoch
from leakdet_tf.training.tasks import training_task
from leakdet_tf.training.tasks.protocol import Metric
from leakdet_tf.training.waiting import Waiting

ALL = "all"
"""The group of every layer."""


@dataclass(frozen=True)
class Outcome:
    """How training ended. ``epochs`` were completed, and ``steps`` of the next; ``best_epoch`` is 0 when none was.

    ``interrupted`` is Ctrl-C; ``terminated`` is SIGTERM or SIGUSR1, also when it came in the last epoch's end.
    ``best_sha256`` is of the weights in ``best.keras``.
    """

    reason: Literal["finished", "early", "interrupted", "terminated"]
    epochs: int
    best_epoch: int
    best_value: float
    best_sha256: str
    rows: list[dict[str, float]]
    steps: int = 0


@dataclass(frozen=True, eq=False)
class Feed:
    """What training learns from, and what it is watched on.

    Attributes:
        training: from first and last epoch (from 0, the last left out), and how many batches of the first are left out,
            to one stream of their batches.
        validation: batches, read again after each epoch.
        pictures: training pictures an epoch.
        steps: training batches an epoch.
        labelling: what the targets' labels mean; the classes alone when left out.
        amounts: training pixels (or pictures) of each class.
        score: of a task that needs it: after each epoch it takes every validation picture's output, one after the
            other in the stream's order, and gives figures by name, the one that is watched among them.
    """

    training: Callable[[int, int, int], Any]
    validation: Any
    pictures: int
    steps: int
    labelling: Labelling | None = None
    amounts: Sequence[int] = ()
    score: Score | None = None


@dataclass(frozen=True, eq=False)
class Account:
    """Where training tells what it does.

    Attributes:
        folder: the run folder.
        log: takes one line an epoch.
        identity: digests of what the run was started with, by name, for its checkpoints.
        tell: takes each epoch's row of ``history.csv``.
    """

    folder: Path
    log: Callable[[str], None]
    identity: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[Mapping[str, float]], None] | None = None


def logits_model(model: Any) -> Any:
    """The same layers up to the one named ``logits``: losses are computed there, where they are stable.

    Raises:
        ModelError: the factory's model has no such layer, or its output is not of the model's shape.
    """
    if "logits" not in {layer.name for layer in model.layers}:
        raise ModelError(
            f"model '{model.name}' has no layer named 'logits'",
            remedy="give the float32 layer before the last activation the name 'logits'",
        )
    logits = model.get_layer("logits").output
    if logits.shape != model.output.shape:
        raise ModelError(
            f"model '{model.name}': its layer 'logits' is {logits.shape[1:]}, its output {model.output.shape[1:]}",
            remedy="only the last activation stands between them",
        )
    return keras.Model(model.inputs, logits, name="trained")


def step_size(settings: Train, total: int) -> Any:
    """Adam's step size over ``total`` steps: a number, or Keras's schedule of warm-up and cosine (arXiv 1608.03983)."""
    rate, rise = settings.learning_rate, min(settings.warmup, total - 1)
    if settings.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            rate / 100 if rise else rate,
            decay_steps=total - rise,
            alpha=0.01,
            warmup_target=rate if rise else None,
            warmup_steps=rise,
        )
    if rise:
        return keras.optimizers.schedules.PolynomialDecay(rate / 100, rise, end_learning_rate=rate)
    return rate


class PerChange(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that counts changes of the weights. Keras 3.15 asks it by steps, however many make one change.

    Args:
        schedule: by changes, from 0.
        accumulate: steps to a change.
    """

    def __init__(self, schedule: Any, accumulate: int) -> None:
        super().__init__()
        self._schedule, self._accumulate = schedule, accumulate

    def __call__(self, step: Any) -> Any:
        """The step size of the change that step ``step``, from 0, belongs to."""
        return self._schedule(keras.ops.floor_divide(step, self._accumulate))


def adam(settings: Train, total: int) -> Any:
    """Adam for ``total`` steps, which changes the weights at every ``settings.accumulate``-th.

    Raises:
        TrainingError: there are fewer steps than one change takes.
    """
    every = settings.accumulate
    if every > total:
        raise TrainingError(
            f"train.accumulate: {every} steps make one change of the weights, and there are {total} in all",
            remedy="lower it, or train.batch_size",
        )
    size = step_size(settings, total // every)
    if every > 1 and isinstance(size, keras.optimizers.schedules.LearningRateSchedule):
        size = PerChange(size, every)
    optimizer = keras.optimizers.Adam(
        size,
        weight_decay=settings.weight_decay or None,
        gradient_accumulation_steps=every if every > 1 else None,
    )
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def compiled(
    model: Any,
    contract: Contract,
    settings: Train,
    *,
    labelling: Labelling | None = None,
    pixels: Sequence[int] = (),
    total: int = 1,
) -> tuple[Any, Metric | None]:
    """The model that Keras fits, compiled with Adam, the summed losses and the counts that figures are drawn from.

    A detector has no such counts: what is found is known after all of its boxes were sorted.

    Args:
        model: from a factory.
        contract: classes and head activation.
        settings: the experiment's ``[train]``.
        labelling: what the targets' labels mean; the classes alone when left out.
        pixels: training pixels (or pictures) of each class, for ``class_weights``.
        total: steps over which the step size runs its course.

    Raises:
        TrainingError: ``settings.accumulate`` is more than that.
    """
    trained = logits_model(model)
    labelling = labelling or Labelling(len(contract.classes))
    objective, metric = training_task(contract.task).objective(contract, settings, labelling, pixels)
    optimizer = adam(settings, total)
    if settings.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # Variables that come up while a step is traced make TensorFlow trace it twice, which takes seconds.
    optimizer.build(trained.trainable_variables)
    xla = {"jit_compile": settings.xla} if keras.backend.backend() == "tensorflow" else {}
    trained.compile(optimizer=optimizer, loss=objective, metrics=[metric] if metric else [], **xla)
    return trained, metric


def train(
    model: Any, contract: Contract, settings: Train, feed: Feed, account: Account, *, start: Checkpoint | None = None
) -> Outcome:
    """Fit ``model`` in place, stage by stage.

    Best and last models and a checkpoint are in ``folder`` after every epoch, or as often as ``settings`` says, and
    whenever training ends other than by a kill; where a signal ends it, the checkpoint is of its last step. The history
    is there after every epoch.

    From ``start`` it goes on as if it had not been stopped: on one machine's CPU the weights are the same bit for bit,
    of a large model where TensorFlow computes a step's operations one after the other
    (TF_NUM_INTEROP_THREADS=1) or compiles it (``settings.xla``).

    Args:
        model: from a factory, with a layer named ``logits``.
        contract: class names and head activation.
        settings: the experiment's ``[train]``.
        feed: what is learnt from.
        account: where it is told.
        start: the run's checkpoint to go on from.

    Raises:
        ValueError: a task that needs a ``score`` has none.
        TrainingError: the loss is not finite, a model cannot be written, or ``start`` is of another model or the best
            model that it names is lost. What earlier epochs wrote stays.
    """
    task = training_task(contract.task)
    if task.SCORED and feed.score is None:
        raise ValueError(f"to {contract.task}, training takes a score")
    folder, log, score, validation, steps = account.folder, account.log, feed.score, feed.validation, feed.steps
    interrupt = Interrupt()
    last = folder / "checkpoints" / "last.keras"
    remedy = f"lower train.learning_rate (now {settings.learning_rate:g}); models of epochs before are in {last.parent}"
    monitor, called = task.MONITOR
    pace = Pace(settings.checkpoint_every, settings.checkpoint_seconds, settings.keep, settings.checkpoint_steps)
    keeper = Keeper(model, last.parent, monitor=monitor, patience=settings.patience, pace=pace)
    history, waiting = History(folder / "history.csv", account.tell), Waiting()
    lines = Lines(settings.total_epochs, feed.pictures, settings.batch_size, log, monitor=monitor, called=called)
    exploding = (
        f"lower train.learning_rate (now {settings.learning_rate:g}), or set train.loss_limit = 0 if it is as it should"
    )
    explosion, watch = Explosion(settings.loss_limit, exploding), Watch(interrupt, remedy)
    saver = Saver(model, last.parent, keeper, history, dict(account.identity), pace, explosion)
    # behind the history, whose rows are the same from run to run
    lasting = [keeper, history, waiting, lines, Board(folder / "tensorboard"), saver]
    stages = settings.stage or [Stage(epochs=settings.epochs, train=[ALL])]
    for stage in stages:
        select(model, stage.train)
    if start is not None:
        restore_best(start, model, last.with_name("best.keras"), log=log)
        start.restore(model)
        keeper.restore(start.state)
        history.restore(start.state)
    pace.begin(keeper.epochs)
    interrupted = False
    with interrupt.listening():
        try:
            for number, stage in enumerate(stages, start=1):
                within = number == keeper.stage  # of the checkpoint
                if number < keeper.stage or (within and _is_over(keeper, stage)):
                    continue
                learning = select(model, stage.train)
                if settings.stage:
                    log(f"stage {number} of {len(stages)}: {', '.join(stage.train)} ({learning:,} weights) learn")
                trained, metric = compiled(
                    model,
                    contract,
                    _of_stage(settings, stage),
                    labelling=feed.labelling,
                    pixels=feed.amounts,
                    total=steps * stage.epochs,
                )
                if within and start is not None:
                    start.restore(model, trained.optimizer)
                    watch.steps = start.state.step
                    lines.begin(start.state.step)
                    explosion.begin(
                        start.state.first_loss, start.state.above, steps=start.state.step, loss=start.state.mean_loss
                    )
                else:
                    keeper.begin(number)
                    explosion.begin()
                first, end = keeper.epochs, keeper.begun + stage.epochs
                counts = [*trained.metrics[0].variables, *(metric.variables if metric else [])]
                saver.begin(counts, start if within else None)
                measures: list[Any] = [Measure(metric, contract.class_names)] if metric else []
                measures += [Scored(score, validation)] if score else []
                callbacks = [explosion, watch, *measures, *lasting]
                with plain_training_errors(settings.batch_size):
                    if within and start is not None and start.state.step:
                        rest = waiting.timed(feed.training(first, first + 1, start.state.step))
                        finish_epoch(
                            trained, rest, validation, steps=steps, start=start, callbacks=callbacks, counts=counts
                        )
                        first += 1
                    if first < end and not keeper.stopped_early:
                        trained.fit(
                            waiting.timed(feed.training(first, end, 0)),
                            validation_data=validation,
                            initial_epoch=first,
                            epochs=end,
                            steps_per_epoch=steps,
                            callbacks=callbacks,
                            shuffle=False,  # the stream is shuffled already
                            verbose=0,
                        )
        except InterruptedTraining:
            interrupted = True
            saver.save(watch.steps)
        except Exception:  # whatever it is, epochs in memory are not lost by it
            saver.flush()
            raise
        finally:
            lines.close()
            select(model, [ALL])
    reason: Literal["finished", "early", "interrupted", "terminated"] = "early" if keeper.stopped_early else "finished"
    if interrupted or interrupt.terminated:
        reason = "terminated" if interrupt.terminated else "interrupted"
    best = (keeper.best_epoch, keeper.best_value, keeper.best_sha256)
    return Outcome(reason, keeper.epochs, *best, history.rows, watch.steps)


def _is_over(keeper: Keeper, stage: Stage) -> bool:
    return keeper.stopped_early or keeper.epochs - keeper.begun >= stage.epochs


def _of_stage(settings: Train, stage: Stage) -> Train:
    own = {key: value for key in ("learning_rate", "warmup") if (value := getattr(stage, key)) is not None}
    return settings.model_copy(update=own)


def select(model: Any, groups: Sequence[str]) -> int:
    """Let the layers of some groups learn and freeze all others, batch-norm statistics too; how many weights learn.

    A layer belongs to a group when its name is the group's, or begins with it and an underscore; ``all`` has every one.

    Raises:
        ModelError: a group has no layer.
    """
    layers = [layer for layer in model.layers if layer.weights]
    for group in groups:
        if group != ALL and not any(_belongs(layer.name, group) for layer in layers):
            known = sorted({layer.name.split("_")[0] for layer in layers} | {ALL})
            raise ModelError(
                f"train.stage: model '{model.name}' has no layers '{group}'", remedy=did_you_mean(group, known)
            )
    for layer in layers:
        layer.trainable = any(group == ALL or _belongs(layer.name, group) for group in groups)
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def _belongs(name: str, group: str) -> bool:
    return name == group or name.startswith(f"{group}_")
