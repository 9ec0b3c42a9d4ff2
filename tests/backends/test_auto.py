"""``train.backend = "auto"`` where all are installed: each is measured, and the run holds the one that was taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from leakdet_tf.config.loading import load
from leakdet_tf.jobs.run.backend import BACKENDS
from leakdet_tf.jobs.run.throughput import Throughput, fastest

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "gas_unet.toml"
Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def all_of_them() -> None:
    """Skips where one is absent."""
    if absent := [name for name in BACKENDS if find_spec(name) is None]:
        pytest.skip(f"{absent[0]} is not installed; runs again in `make test-backends`, which installs all")


def test_a_run_is_trained_under_the_fastest_and_opened_under_it(call: Call, tmp_path: Path) -> None:
    sets = (
        "model={factory = 'few_layers:few_layers'}",
        "data.synth.counts={train = 8, val = 2, test = 2}",
        "data.synth.size=[32, 32]",
        "data.inputs.image.size=[32, 32]",
        f"data.root={tmp_path / 'data'}",
        f"runs={tmp_path / 'runs'}",
        "train.batch_size=4",
        "train.epochs=1",
        "train.backend=auto",
        "evaluate.resamples=100",
        "export.formats=[]",
    )
    overrides = [part for one in sets for part in ("--set", one)]
    printed = call("-m", "leakdet_tf.cli", "fit", str(EXPERIMENT), *overrides).stdout
    (run,) = (tmp_path / "runs" / "gas_unet").iterdir()
    log = (run / "log.txt").read_text(encoding="utf-8")
    told = re.findall(r"backend (\w+): ([0-9.]+) pictures/s, first step ([0-9.]+) s$", log, re.M)
    found = {name: Throughput(float(speed), float(first)) for name, speed, first in told}
    assert sorted(found) == sorted(BACKENDS)
    assert all(one.pictures_per_s > 0 and one.first_step_s > 0 for one in found.values())
    taken = fastest(found)
    for text in (printed, log):
        assert text.count(f"train.backend: {taken} is taken") == 1
        assert f"under {taken}: " in text
    assert load(run / "experiment.toml").train.backend == taken
    named = "import keras; print(keras.config.backend())"
    opened = call("-c", f"from leakdet_tf.jobs.run.runs import open_model; open_model({str(run)!r}); {named}")
    assert opened.stdout.split() == [taken]


def test_one_that_cannot_train_the_model_is_left_out(call: Call, tmp_path: Path) -> None:
    (tmp_path / "particular.py").write_text(PARTICULAR, encoding="utf-8")
    script = tmp_path / "decide.py"
    script.write_text(DECIDE.format(experiment=str(EXPERIMENT)), encoding="utf-8")
    lines = call(str(script)).stdout.splitlines()
    for name in ("tensorflow", "jax"):
        fault = f"model 'particular:of_torch': not under {name}; check the arguments in [model]"
        assert f"backend {name} is left out: {fault}" in lines
    assert lines[-2:] == ["train.backend: torch is taken", "[]"]


PARTICULAR = """import keras
from few_layers import few_layers

def of_torch(input_shape, classes):
    if keras.config.backend() != "torch":
        raise ValueError(f"not under {keras.config.backend()}")
    return few_layers(input_shape, classes)
"""
DECIDE = """import sys
from leakdet_tf.config.loading import load
from leakdet_tf.jobs.run.throughput import choose_backend

sets = ["model={{factory = 'particular:of_torch'}}", "data.inputs.image.size=[32, 32]", "train.backend=auto"]
choose_backend(load({experiment!r}, sets), log=print)
print([name for name in ("keras", "tensorflow", "jax", "torch") if name in sys.modules])
"""
