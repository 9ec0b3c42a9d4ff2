"""A training in mixed precision ends in a float32 model, which is what is reported and exported."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from leakdet_tf.core.contract import Contract
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run import backend as room
from leakdet_tf.models.runtime import load_model

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")


def test_the_finished_model_is_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from few_layers import OVERRIDES

    monkeypatch.setattr(room.machine, "features", lambda: ["avx2", "fma"])
    given = [*OVERRIDES, "train.precision=mixed_bfloat16", "train.epochs=2", "export.pictures=2"]
    told: list[str] = []
    done = fit(EXPERIMENT, [*given, f"runs={tmp_path / 'runs'}", f"data.root={tmp_path / 'data'}"], log=told.append)
    assert any(line.endswith("slower than float32 on a CPU without avx512_bf16 or amx_bf16 or bf16") for line in told)
    kept = load_model(done.folder / "checkpoints" / "best.keras", None)
    model = load_model(done.folder / "model.keras", Contract.load(done.folder / "contract.json"))
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert "mixed_bfloat16" in {layer.dtype_policy.name for layer in kept.layers}
    for one, other in zip(model.weights, kept.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert done.bundles, "its file decides as it does, or there would be none"
    assert keras.config.dtype_policy().name == "float32", "only this model was meant"


@pytest.mark.parametrize(
    ("precision", "features", "slow"),
    [
        ("float32", [], False),
        ("mixed_bfloat16", ["avx2", "amx_bf16"], False),
        ("mixed_bfloat16", ["avx2"], True),
        ("mixed_bfloat16", None, False),  # not told: nothing is claimed
        ("mixed_float16", ["avx512_bf16"], True),
    ],
)
def test_what_slows_down_here_is_told(
    monkeypatch: pytest.MonkeyPatch, precision: str, features: list[str] | None, slow: bool
) -> None:
    monkeypatch.setattr(room.machine, "features", lambda: features)
    said = room.slow(precision)
    assert (f"train.precision = {precision} is slower" in said) is slow
    assert bool(said) is slow
