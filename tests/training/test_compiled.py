"""How a step is computed: compiled by XLA, or in mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.train import Train
from leakdet_tf.models.runtime import load_model, weights_sha256
from leakdet_tf.training.checkpoint import newest
from leakdet_tf.training.loop import compiled

Job = Any


@pytest.fixture
def policy() -> Iterator[Callable[[str], None]]:
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def weights(model: Any) -> list[Any]:
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


@pytest.mark.parametrize("xla", [False, True])
def test_the_setting_reaches_keras(job: Job, xla: bool) -> None:
    assert compiled(job.model, job.contract, Train(xla=xla))[0].jit_compile is xla


def test_xla_learns_the_same(job: Job, make_job: Callable[..., Job], tmp_path: Path) -> None:
    plain = make_job(tmp_path / "plain")
    rows, wanted = job.run(xla=True).rows, plain.run().rows
    for row, want in zip(rows, wanted, strict=True):
        assert row.keys() == want.keys()
        np.testing.assert_allclose(list(row.values()), list(want.values()), rtol=1e-4)
    for one, other in zip(weights(job.model), weights(plain.model), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


# of a float16 step the gradients may overflow, which only lowers the scale
@pytest.mark.parametrize(
    "settings",
    [{"xla": True}, {"precision": "mixed_bfloat16"}, {"precision": "mixed_float16", "accumulate": 2}],
    ids=str,
)
def test_resumed_it_ends_as_the_unbroken(
    settings: dict[str, Any], make_job: Callable[..., Job], tmp_path: Path, policy: Callable[[str], None]
) -> None:
    policy(settings.get("precision", "float32"))
    settings = {"epochs": 4, **settings}
    whole, broken = make_job(tmp_path / "whole"), make_job(tmp_path / "broken")
    before = weights(whole.model)
    wanted = whole.run(**settings)
    assert not any(np.array_equal(one, other) for one, other in zip(before, weights(whole.model), strict=True))
    broken.break_off(3)
    with pytest.raises(KeyboardInterrupt):
        broken.run(**settings)
    again = make_job(broken.folder)
    for variable in again.model.variables:
        variable.assign(keras.ops.zeros_like(variable))
    assert again.run(start=newest(broken.folder / "checkpoints", log=pytest.fail), **settings) == wanted
    assert weights_sha256(again.model) == weights_sha256(whole.model)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_float32_weights(
    precision: str, job: Job, make_job: Callable[..., Job], tmp_path: Path, policy: Callable[[str], None]
) -> None:
    exact = make_job(tmp_path / "exact").run(epochs=3)
    policy(precision)
    mixed = make_job(tmp_path / "mixed")
    rows = mixed.run(epochs=3, precision=precision).rows
    assert {weight.dtype for weight in mixed.model.trainable_weights} == {"float32"}
    losses, wanted = [row["loss"] for row in rows], [row["loss"] for row in exact.rows]
    assert losses != wanted, "low precision rounds, or this test shows nothing"
    np.testing.assert_allclose(losses, wanted, rtol=0.05)
    assert rows[-1]["loss"] < rows[0]["loss"]
    kept = load_model(mixed.folder / "checkpoints" / "last.keras", None)
    assert weights_sha256(kept) == weights_sha256(mixed.model)


def test_only_float16_scales_the_loss(job: Job) -> None:
    scaled = keras.optimizers.LossScaleOptimizer
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        optimizer = compiled(job.model, job.contract, Train(precision=precision))[0].optimizer
        assert isinstance(optimizer, scaled) is (precision == "mixed_float16")
