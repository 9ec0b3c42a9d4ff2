"""The training loop: Keras's ``fit`` on the model's logits, watched by our callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras

from leakdet_tf.config.schema import Train
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.registry import resolve
from leakdet_tf.training.callbacks import Board, History, Interrupt, InterruptedTraining, Keeper, Lines, Watch
from leakdet_tf.training.losses import Objective
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


def compiled(model: Any, contract: Contract, settings: Train) -> tuple[Any, Confusion]:
    """The model that Keras fits, compiled with Adam, the summed losses and a confusion matrix."""
    trained = logits_model(model)
    metric = Confusion(len(contract.classes))
    objective = Objective([resolve("loss", name) for name in settings.loss], contract.activation)
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    # Variables that come up while a step is traced make TensorFlow trace it twice, which takes seconds.
    optimizer.build(trained.trainable_variables)
    trained.compile(optimizer=optimizer, loss=objective, metrics=[metric])
    return trained, metric


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

    Raises:
        TrainingError: the loss is not finite, or a model cannot be written. What earlier epochs wrote stays.
    """
    trained, metric = compiled(model, contract, settings)
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
