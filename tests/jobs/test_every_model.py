"""Every registered encoder and every head goes the whole road: built, trained, saved, exported, compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from leakdet_tf.core.registry import names
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.fit import fit

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
ROADS = [f"model.encoder={name}" for name in names("encoder")] + ["model.activation=sigmoid", "model.activation=linear"]


@pytest.mark.slow
@pytest.mark.parametrize("override", ROADS)
def test_the_whole_road(override: str, overrides: list[str], tmp_path: Path) -> None:
    lines: list[str] = []
    done = fit(EXPERIMENT, [*overrides, f"runs={tmp_path}", "train.epochs=1", override], echo=lines.append)
    predictor = Predictor(done.bundles[0])
    assert predictor.card["parity"]["changed_share"] <= 1e-5
    if "activation" in override:
        assert predictor.contract.activation == override.split("=")[1]


@pytest.mark.parametrize("family", names("model"))
def test_every_family_is_walked_by_a_quick_test(family: str, run: Path) -> None:
    """The session's run stands for its family; a new family needs a quick road of its own."""
    from leakdet_tf.config.load import load

    assert load(run / "experiment.toml").model.factory == family
