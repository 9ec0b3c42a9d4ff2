"""The training loop: Keras's ``fit`` on the model's logits, watched by our callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from leakdet_tf.config.schema import Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.registry import resolve
from leakdet_tf.training.callbacks import Board, History, Interrupt, InterruptedTraining, Keeper, Lines, Watch
from leakdet_tf.training.losses import Objective, Scheme, balanced
from leakdet_tf.training.measure import Confusion, Measure

MONITOR = "val_mean_iou"


@dataclass(frozen=True)
class Outcome:
    """How training ended. ``epochs`` were completed; ``best_epoch`` is 0 when none was."""

    reason: Literal["finished", "early", "interrupted"]
    epochs: int
    best_epoch: int
    best_value: float
    rows: list[dict[str, float]]


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


def compiled(
    model: Any,
    contract: Contract,
    settings: Train,
    *,
    labelling: Labelling | None = None,
    pixels: Sequence[int] = (),
    total: int = 1,
) -> tuple[Any, Confusion]:
    """The model that Keras fits, compiled with Adam, the summed losses and a confusion matrix.

    Args:
        model: from a factory.
        contract: classes and head activation.
        settings: the experiment's ``[train]``.
        labelling: what the targets' labels mean; the classes alone when left out.
        pixels: training pixels of each class, for ``class_weights = "pixels"``.
        total: steps over which the step size runs its course.
    """
    trained = logits_model(model)
    labelling = labelling or Labelling(len(contract.classes))
    metric = Confusion(labelling)
    scheme = Scheme(contract.activation, labelling, _class_weights(settings, labelling, pixels), settings.focal_gamma)
    objective = Objective([resolve("loss", name) for name in settings.loss], scheme, settings.loss_weights)
    optimizer = keras.optimizers.Adam(step_size(settings, total))
    # Variables that come up while a step is traced make TensorFlow trace it twice, which takes seconds.
    optimizer.build(trained.trainable_variables)
    trained.compile(optimizer=optimizer, loss=objective, metrics=[metric])
    return trained, metric


def _class_weights(settings: Train, labelling: Labelling, pixels: Sequence[int]) -> npt.NDArray[np.float32]:
    if settings.class_weights == "pixels":
        return balanced(pixels)
    if settings.class_weights == "none":
        return np.ones(labelling.classes, np.float32)
    given = np.asarray(settings.class_weights, np.float32)
    even: npt.NDArray[np.float32] = given / given.mean()
    return even


def train(
    model: Any,
    contract: Contract,
    settings: Train,
    *,
    training: Any,
    validation: Any,
    pictures: int,
    steps: int,
    folder: Path,
    log: Callable[[str], None],
    labelling: Labelling | None = None,
    pixels: Sequence[int] = (),
) -> Outcome:
    """Fit ``model`` in place; best and last models and the history are in ``folder`` after every epoch.

    Args:
        model: from a factory, with a layer named ``logits``.
        contract: class names and head activation.
        settings: the experiment's ``[train]``.
        training: one stream of batches over all epochs.
        validation: batches, read again after each epoch.
        pictures: training pictures an epoch.
        steps: training batches an epoch.
        folder: the run folder.
        log: takes one line an epoch.
        labelling: what the targets' labels mean; the classes alone when left out.
        pixels: training pixels of each class.

    Raises:
        TrainingError: the loss is not finite, or a model cannot be written. What earlier epochs wrote stays.
    """
    trained, metric = compiled(
        model, contract, settings, labelling=labelling, pixels=pixels, total=steps * settings.epochs
    )
    interrupt = Interrupt()
    last = folder / "checkpoints" / "last.keras"
    remedy = f"lower train.learning_rate (now {settings.learning_rate:g}); models of epochs before are in {last.parent}"
    keeper = Keeper(model, last.parent, monitor=MONITOR, patience=settings.patience)
    history = History(folder / "history.csv")
    lines = Lines(settings.epochs, pictures, settings.batch_size, log)
    callbacks = [
        Watch(interrupt, remedy),
        Measure(metric, contract.class_names),
        keeper,
        history,
        lines,
        Board(folder / "tensorboard"),
    ]
    reason: Literal["finished", "early", "interrupted"] = "finished"
    with interrupt.listening():
        try:
            trained.fit(
                training,
                validation_data=validation,
                epochs=settings.epochs,
                steps_per_epoch=steps,
                callbacks=callbacks,
                shuffle=False,  # the stream is shuffled already
                verbose=0,
            )
            reason = "early" if keeper.stopped_early else "finished"
        except InterruptedTraining:
            reason = "interrupted"
        finally:
            lines.close()
    return Outcome(reason, keeper.epochs, keeper.best_epoch, keeper.best_value, history.rows)
