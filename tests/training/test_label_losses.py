"""Training on labels of whole pictures: the losses' values, the counts, weight decay, and stages that freeze layers."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from leakdet_tf.config.data import Augment
from leakdet_tf.config.train import Train
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.pipeline import plain, steps, training
from leakdet_tf.models.initialize import draw_weights
from leakdet_tf.models.runtime import load_model
from leakdet_tf.training import label_losses
from leakdet_tf.training.loop import Account, Feed, Outcome, compiled, select, train
from leakdet_tf.training.losses import Objective, Scheme
from leakdet_tf.training.measure import LabelCounts

CLASSES = ["crack", "leak", "sound"]
SIZE = 16
_RNG = np.random.default_rng(3)
LOGITS = _RNG.normal(0, 2, (40, 3)).astype(np.float32)
ONE = np.eye(3, dtype=np.int32)[_RNG.integers(0, 3, 40)]
SEVERAL = _RNG.integers(0, 2, (40, 3)).astype(np.int32)


def scheme(activation: str = "softmax", weights: Sequence[float] = (1, 1, 1), **keys: float) -> Scheme:
    return Scheme(activation, Labelling(3), np.array(weights, np.float32), **keys)


def values(loss: Any, targets: np.ndarray, logits: np.ndarray, given: Scheme) -> np.ndarray:
    found = keras.ops.convert_to_numpy(loss(targets, logits, given))
    assert found.shape == targets.shape[:1]
    return np.asarray(found)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_cross_entropy_is_worked_out_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], np.float32))
    targets = np.array([[0, 1, 0], [0, 0, 1]], np.int32)
    plainly = values(label_losses.cross_entropy, targets, logits, scheme())
    assert plainly == pytest.approx([math.log(4), -math.log(0.7)], abs=1e-6)
    weighed = values(label_losses.cross_entropy, targets, logits, scheme(weights=(1, 2, 0.5)))
    assert weighed == pytest.approx([2 * math.log(4), -0.5 * math.log(0.7)], abs=1e-6)
    # 0.3 smoothed: 0.1 of every class's, and 0.7 more of the true one's.
    smooth = values(label_losses.cross_entropy, targets, logits, scheme(smoothing=0.3))
    each = [0.1 * -math.log(0.5 * 0.25 * 0.25), 0.1 * -math.log(0.1 * 0.2 * 0.7)]
    assert smooth == pytest.approx([each[0] + 0.7 * math.log(4), each[1] - 0.7 * math.log(0.7)], abs=1e-6)


def test_binary_cross_entropy_is_worked_out_by_hand() -> None:
    chances = np.array([[0.9, 0.2, 0.5]])
    logits = np.log(chances / (1 - chances)).astype(np.float32)
    targets = np.array([[1, 1, 0]], np.int32)
    parts = -np.log([0.9, 0.2, 0.5])
    assert values(label_losses.cross_entropy, targets, logits, scheme("sigmoid")) == pytest.approx(
        [parts.mean()], abs=1e-6
    )
    weighed = values(label_losses.cross_entropy, targets, logits, scheme("sigmoid", weights=(2, 1, 0.5)))
    assert weighed == pytest.approx([(2 * parts[0] + parts[1] + 0.5 * parts[2]) / 3.5], abs=1e-6)
    # 0.2 smoothed: nine tenths there, one tenth not.
    smooth = values(label_losses.cross_entropy, targets, logits, scheme("sigmoid", smoothing=0.2))
    other = -np.log([0.1, 0.8, 0.5])
    assert smooth == pytest.approx([(0.9 * parts + 0.1 * other).mean()], abs=1e-6)


def test_cross_entropy_is_scikit_learns() -> None:
    one = values(label_losses.cross_entropy, ONE, LOGITS, scheme())
    assert float(one.mean()) == pytest.approx(log_loss(ONE, softmax(LOGITS)), abs=1e-6)
    several = values(label_losses.cross_entropy, SEVERAL, LOGITS, scheme("sigmoid"))
    chances = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    each = [log_loss(SEVERAL[:, i], chances[:, i], labels=[0, 1]) for i in range(3)]
    assert float(several.mean()) == pytest.approx(np.mean(each), abs=1e-6)
    weights = np.array([0.5, 1.0, 1.5])
    weighed = values(label_losses.cross_entropy, ONE, LOGITS, scheme(weights=tuple(weights)))
    row_weights = weights[ONE.argmax(1)]
    expected = log_loss(ONE, softmax(LOGITS), sample_weight=row_weights) * row_weights.mean()
    assert float(weighed.mean()) == pytest.approx(expected, abs=1e-6)


def test_smoothing_is_kerass() -> None:
    for smoothing in (0.1, 0.5):
        expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
        ours = values(label_losses.cross_entropy, ONE, LOGITS, scheme(smoothing=smoothing))
        assert ours == pytest.approx(np.asarray(expected(ONE.astype(np.float32), LOGITS)), abs=1e-5)
        binary = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
        several = values(label_losses.cross_entropy, SEVERAL, LOGITS, scheme("sigmoid", smoothing=smoothing))
        assert several == pytest.approx(np.asarray(binary(SEVERAL.astype(np.float32), LOGITS)), abs=1e-5)


@pytest.mark.parametrize(("activation", "targets"), [("softmax", ONE), ("sigmoid", SEVERAL)])
def test_focal_without_gamma_is_cross_entropy_and_with_it_spares_what_is_easy(
    activation: str, targets: np.ndarray
) -> None:
    plainly = values(label_losses.cross_entropy, targets, LOGITS, scheme(activation))
    assert values(label_losses.focal, targets, LOGITS, scheme(activation, gamma=0.0)) == pytest.approx(
        plainly, abs=1e-7
    )
    found = values(label_losses.focal, targets, LOGITS, scheme(activation, gamma=2.0))
    true = (softmax(LOGITS) * targets).sum(1) if activation == "softmax" else None
    if true is not None:
        assert found == pytest.approx((1 - true) ** 2 * -np.log(true), abs=1e-6)
    else:
        chances = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
        right = np.where(targets == 1, chances, 1 - chances)
        assert found == pytest.approx(((1 - right) ** 2 * -np.log(right)).mean(1), abs=1e-6)
    assert (found < plainly).all()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_values_and_slopes_are_finite_however_sure_the_model_is(activation: str, gamma: float) -> None:
    import tensorflow as tf

    logits = tf.Variable([[200.0, -200.0, 0.0], [0.0, 0.0, 0.0], [-300.0, 300.0, 5.0]])
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.int32)
    with tf.GradientTape() as tape:
        found = label_losses.focal(targets, logits, scheme(activation, gamma=gamma))
    slopes = tape.gradient(found, logits).numpy()
    assert np.isfinite(found.numpy()).all()
    assert np.isfinite(slopes).all()
    assert float(found[2]) > 50


def test_padding_counts_for_nothing() -> None:
    targets = np.concatenate([ONE[:3], np.full((2, 3), IGNORE)]).astype(np.uint8)
    objective = Objective([label_losses.cross_entropy], scheme())
    weights = np.array([1, 1, 1, 0, 0], np.float32) * 5 / 3
    whole = float(objective(targets, LOGITS[:5], sample_weight=weights))
    assert whole == pytest.approx(float(objective(ONE[:3], LOGITS[:3])), abs=1e-6)


def counted(activation: str, targets: np.ndarray) -> LabelCounts:
    metric = LabelCounts(3, activation)
    padded = np.concatenate([targets, np.full((2, 3), IGNORE)]).astype(np.uint8)
    logits = np.concatenate([LOGITS, np.full((2, 3), 9, np.float32)])
    for start in range(0, len(padded), 14):
        metric.update_state(padded[start : start + 14], logits[start : start + 14])
    return metric


@pytest.mark.parametrize(("activation", "targets"), [("softmax", ONE), ("sigmoid", SEVERAL)])
def test_counts_give_scikit_learns_figures(activation: str, targets: np.ndarray) -> None:
    metric = counted(activation, targets)
    assert int(metric.result()) == 40
    found = metric.figures(tuple(CLASSES))
    answer = np.eye(3, dtype=int)[LOGITS.argmax(1)] if activation == "softmax" else (LOGITS >= 0).astype(int)
    assert found["accuracy"] == pytest.approx(accuracy_score(targets, answer))
    each = f1_score(targets, answer, average=None)
    assert [found[f"f1_{name}"] for name in CLASSES] == pytest.approx(list(each))
    assert found["mean_f1"] == pytest.approx(each.mean())
    metric.reset_state()
    assert np.isnan(metric.figures(tuple(CLASSES))["accuracy"])


def three_layers() -> Any:
    image = keras.Input((SIZE, SIZE, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(4, 3, strides=2, name="encoder_conv")(x)
    x = keras.layers.BatchNormalization(momentum=0.7, name="encoder_norm")(x)
    x = keras.layers.ReLU(name="encoder_relu")(x)
    x = keras.layers.Conv2D(6, 3, strides=2, name="encoder_deep_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.BatchNormalization(momentum=0.7, name="head_norm")(x)
    x = keras.layers.Dense(3, name="head_dense")(x)
    x = keras.layers.Activation("linear", name="logits")(x)
    model = keras.Model(image, keras.layers.Activation("softmax", name="probabilities")(x), name="three")
    draw_weights(model, 1)
    return model


CONTRACT = Contract("classify", {"image": ImageSpec(SIZE, SIZE, 1)}, classes_of(CLASSES))


def pictures(count: int, seed: int) -> Cache:
    """Grey pictures whose class is how bright they are."""
    rng = np.random.default_rng(seed)
    place = np.arange(count) % 3
    images = rng.integers(0, 40, (count, SIZE, SIZE, 1)) + (70 * place)[:, None, None, None]
    digests = (("0" * 64,),) * count
    return Cache(
        tuple(map(str, range(count))), {"image": images.astype(np.uint8)}, np.eye(3, dtype=np.uint8)[place], digests
    )


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {weight.path: np.array(weight) for weight in model.weights}


def learn(model: Any, folder: Path, log: Any = lambda line: None, **keys: Any) -> Outcome:
    settings = Train.model_validate({"batch_size": 6, "learning_rate": 1e-2, "patience": 0} | keys)
    cache = pictures(24, 0)
    return train(
        model,
        CONTRACT,
        settings,
        Feed(
            training=lambda first, end, step: training(
                cache, batch_size=6, seed=1, settings=Augment(), epochs=end, first_epoch=first
            ),
            validation=plain(pictures(9, 1), batch_size=6),
            pictures=24,
            steps=steps(24, 6),
        ),
        Account(folder, log),
    )


def test_decay_shrinks_kernels_and_leaves_biases_and_norms() -> None:
    model = three_layers()
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, 0.5, np.float32))
    settings = Train.model_validate({"learning_rate": 0.1, "weight_decay": 0.2})
    trained, _ = compiled(model, CONTRACT, settings)
    before = weights_of(trained)
    zeros = [np.zeros(weight.shape, np.float32) for weight in trained.trainable_weights]
    trained.optimizer.apply([keras.ops.convert_to_tensor(zero) for zero in zeros], trained.trainable_weights)
    after = weights_of(trained)
    shrunk = {path for path in before if not np.array_equal(before[path], after[path])}
    assert shrunk == {path for path in before if path.endswith("kernel")} != set()
    for path in shrunk:
        assert after[path] == pytest.approx(before[path] * (1 - 0.1 * 0.2), rel=1e-5)


@pytest.mark.parametrize(
    ("groups", "learning"),
    [
        (["head"], {"head_norm", "head_dense"}),
        (["encoder"], {"encoder_conv", "encoder_norm", "encoder_deep_conv"}),
        (["encoder_deep", "head_dense"], {"encoder_deep_conv", "head_dense"}),
        (["all"], {"encoder_conv", "encoder_norm", "encoder_deep_conv", "head_norm", "head_dense"}),
    ],
)
def test_what_is_not_named_stays_bit_for_bit(tmp_path: Path, groups: list[str], learning: set[str]) -> None:
    model = three_layers()
    before = weights_of(model)
    learn(model, tmp_path, stage=[{"epochs": 2, "train": groups}], weight_decay=0.1)
    after = weights_of(model)
    changed = {path.split("/")[0] for path in before if not np.array_equal(before[path], after[path])}
    assert changed == learning
    norms = {
        path.split("/")[0] for path in before if "moving" in path and not np.array_equal(before[path], after[path])
    }
    assert norms == {name for name in learning if "norm" in name}
    assert all(layer.trainable for layer in model.layers)


def test_select_counts_and_names_what_there_is() -> None:
    model = three_layers()
    assert select(model, ["head"]) == 3 * 6 + 3 + 2 * 6
    assert select(model, ["all"]) == sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    with pytest.raises(ModelError, match="model 'three' has no layers 'heads'; did you mean 'head'"):
        select(model, ["heads"])
    with pytest.raises(ModelError, match="has no layers 'enc'"):
        select(model, ["enc"])


def test_stages_go_on_where_the_one_before_ended(tmp_path: Path) -> None:
    model, lines = three_layers(), list[str]()
    stages = [{"epochs": 2, "train": ["head"]}, {"epochs": 3, "train": ["all"], "learning_rate": 1e-3}]
    outcome = learn(model, tmp_path, lines.append, stage=stages)
    assert (outcome.reason, outcome.epochs) == ("finished", 5)
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["epoch"] for row in outcome.rows] == [1, 2, 3, 4, 5]
    told = [line for line in lines if line.startswith("stage")]
    assert told[0].startswith("stage 1 of 2: head (33 weights) learn")
    assert told[1].startswith("stage 2 of 2: all (")
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == [f"{n}/5" for n in range(1, 6)]
    assert outcome.best_value == max(row["val_mean_f1"] for row in outcome.rows)
    last = load_model(tmp_path / "checkpoints" / "last.keras", CONTRACT)
    assert all(np.array_equal(a, b) for a, b in zip(last.get_weights(), model.get_weights(), strict=True))
    assert all(layer.trainable for layer in last.layers)


def test_a_stage_that_does_not_exist_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    model = three_layers()
    before = weights_of(model)
    with pytest.raises(ModelError, match="no layers 'decoder'"):
        learn(model, tmp_path, stage=[{"epochs": 1, "train": ["all"]}, {"epochs": 1, "train": ["decoder"]}])
    assert all(np.array_equal(before[path], now) for path, now in weights_of(model).items())
    assert not (tmp_path / "history.csv").exists()


def test_a_classifier_learns_and_its_history_is_of_f1(tmp_path: Path) -> None:
    outcome = learn(three_layers(), tmp_path, epochs=12, learning_rate=3e-2, label_smoothing=0.1)
    assert outcome.rows[-1]["loss"] < 0.7 * outcome.rows[0]["loss"]
    assert outcome.best_value > 0.9
    assert {"val_mean_f1", "val_accuracy", "val_f1_crack"} <= set(outcome.rows[0])
