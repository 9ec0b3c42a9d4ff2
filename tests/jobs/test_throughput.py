"""``train.backend = "auto"``: what is measured, what is taken, what is told, and that it is asked once a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.config.loading import dump, load, parse
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ConfigError, TrainingError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.records import BOX_COLUMNS
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run import backend, throughput
from leakdet_tf.jobs.run.throughput import (
    LateError,
    Throughput,
    choose_backend,
    fastest,
    measure_backend,
    noise,
    rate,
    stepper,
)

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
RUNNING = keras.config.backend()
OTHER = next(name for name in backend.BACKENDS if name != RUNNING)
AUTO = "train.backend=auto"


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What makes an experiment small; the modules of this folder are found."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from few_layers import OVERRIDES

    return [*OVERRIDES, AUTO]


@pytest.fixture
def experiment(models: list[str]) -> Experiment:
    return load(EXPERIMENT, models)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float | str]], list[str]]:
    """``fresh(speeds)``: a process without Keras where those backends are installed and so fast, or fail so."""

    def made(speeds: dict[str, float | str]) -> list[str]:
        asked: list[str] = []

        def fake(name: str, experiment: Experiment) -> Throughput:
            asked.append(name)
            speed = speeds[name]
            if isinstance(speed, str):
                raise (LateError if "in time" in speed else TrainingError)(speed)
            return Throughput(speed, 1.25)

        monkeypatch.setattr(backend, "at_work", lambda: None)
        monkeypatch.setattr(throughput, "find_spec", speeds.get)
        monkeypatch.setattr(throughput, "measure_backend", fake)
        return asked

    return made


@pytest.mark.parametrize(
    ("speeds", "taken"),
    [
        ({"tensorflow": 10, "jax": 10.5, "torch": 10.4}, "tensorflow"),
        ({"tensorflow": 10, "jax": 10.51, "torch": 10.52}, "torch"),
        ({"tensorflow": 10, "jax": 3, "torch": 2}, "tensorflow"),
        ({"jax": 3, "torch": 3.01}, "torch"),
        ({"torch": 3}, "torch"),
    ],
)
def test_the_fastest_is_taken_and_tensorflow_unless_it_is_clearly_slower(speeds: dict[str, float], taken: str) -> None:
    assert fastest({name: Throughput(speed, 1) for name, speed in speeds.items()}) == taken


def test_pictures_a_second_leave_out_the_first_steps_and_one_disturbance() -> None:
    steps = [30.0, 20.0, *[0.5] * 4, 9.0, *[0.5] * 7]  # seconds of each
    assert rate(list(np.cumsum(steps)), batch_size=8) == pytest.approx(16)
    assert rate([0.0, 5.0, 7.0, 8.0, 12.0], batch_size=8) == pytest.approx(4)


def test_all_are_measured_and_each_is_told(experiment: Experiment, fresh: Any) -> None:
    asked, lines = fresh({"tensorflow": 20.0, "jax": 31.26, "torch": 8.0}), []
    done = choose_backend(experiment, log=lines.append)
    assert done.train.backend == "jax"
    assert done.model_copy(update={"train": experiment.train}) == experiment
    assert asked == ["tensorflow", "jax", "torch"]
    assert lines == [
        "train.backend: measuring tensorflow, jax, torch on noise, one after the other",
        "backend tensorflow: 20.0 pictures/s, first step 1.2 s",
        "backend jax: 31.3 pictures/s, first step 1.2 s",
        "backend torch: 8.0 pictures/s, first step 1.2 s",
        "train.backend: jax is taken",
    ]


def test_one_that_fails_is_named_and_left_out(experiment: Experiment, fresh: Any) -> None:
    fresh({"tensorflow": "killed its process by SIGKILL", "jax": "gave no answer in 300 s", "torch": 1.0})
    lines: list[str] = []
    assert choose_backend(experiment, log=lines.append).train.backend == "torch"
    assert lines[1:3] == [
        "backend tensorflow is left out: killed its process by SIGKILL",
        "backend jax is left out: gave no answer in 300 s",
    ]


@pytest.mark.parametrize(
    ("speeds", "taken"),
    [
        ({"tensorflow": "not in time", "jax": "not in time", "torch": "not in time"}, "tensorflow"),
        ({"tensorflow": "died", "jax": "not in time", "torch": "not in time"}, "jax"),
        ({"tensorflow": "not in time", "jax": 1.0}, "jax"),
    ],
)
def test_where_all_take_long_one_is_taken_unmeasured(
    experiment: Experiment, fresh: Any, speeds: dict[str, float | str], taken: str
) -> None:
    fresh(speeds)
    lines: list[str] = []
    assert choose_backend(experiment, log=lines.append).train.backend == taken
    unmeasured = f"train.backend: {taken} is taken unmeasured, for steps of this model take long"
    assert (lines[-1] == unmeasured) == (1.0 not in speeds.values())


def test_none_left_is_one_error(experiment: Experiment, fresh: Any) -> None:
    fresh({"tensorflow": "model 'x': no", "torch": "model 'x': no"})
    with pytest.raises(TrainingError) as caught:
        choose_backend(experiment, log=lambda line: None)
    remedy = 'fix that, or set train.backend = "tensorflow" to see more of it'
    assert str(caught.value) == f"train.backend: none of tensorflow, torch trains this model (model 'x': no); {remedy}"
    fresh({"tensorflow": "this", "torch": "that"})
    with pytest.raises(TrainingError, match=r"\(tensorflow: this; torch: that\)"):
        choose_backend(experiment, log=lambda line: None)


@pytest.mark.parametrize(
    ("speeds", "taken"), [({"torch": 1.0}, "torch"), ({"tensorflow": 1.0}, "tensorflow"), ({}, "tensorflow")]
)
def test_where_one_is_installed_nothing_is_measured(
    experiment: Experiment, fresh: Any, speeds: dict[str, float], taken: str
) -> None:
    asked, lines = fresh(speeds), []
    assert choose_backend(experiment, log=lines.append).train.backend == taken
    assert (asked, lines) == ([], [f"train.backend: {taken}, there is no other installed"])


def test_where_keras_is_at_work_its_backend_stays(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "measure_backend", lambda *_: pytest.fail("was measured"))
    lines: list[str] = []
    assert choose_backend(experiment, log=lines.append).train.backend == RUNNING
    assert lines == [f"train.backend: {RUNNING}, under which Keras is at work in this process already"]


def test_one_that_is_named_is_not_measured(experiment: Experiment, fresh: Any) -> None:
    asked, named = fresh({"tensorflow": 1.0, "jax": 9.0}), backend.under("torch", experiment)
    assert choose_backend(named, log=pytest.fail) is named
    assert asked == []


@pytest.mark.skipif(
    any(find_spec(name) for name in ("jax", "torch")),
    reason="this environment has another backend than TensorFlow; runs where it is alone, as in `make test`",
)
def test_tensorflow_alone_is_taken_in_a_real_environment(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "at_work", lambda: None)
    lines: list[str] = []
    assert choose_backend(experiment, log=lines.append).train.backend == "tensorflow"
    assert lines == ["train.backend: tensorflow, there is no other installed"]


def test_a_child_measures_whatever_keras_backend_says(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "nonsense")
    found = measure_backend("tensorflow", experiment, block_s=0.02)
    assert 0 < found.pictures_per_s < 1e6
    assert 0 < found.first_step_s < throughput.LIMIT_S


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "killed its process by SIGILL"),
        ("raise ImportError('libcuda.so: cannot open')", "ImportError: libcuda.so: cannot open"),
    ],
)
def test_a_backend_that_dies_does_not_take_us_along(
    experiment: Experiment, text: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jax.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TrainingError) as caught:
        measure_backend("jax", experiment)
    assert str(caught.value) == fault


def test_a_backend_that_hangs_is_given_up(experiment: Experiment) -> None:
    with pytest.raises(LateError, match=r"^gave no answer in 0\.2 s$"):
        measure_backend("tensorflow", experiment, limit_s=0.2)


def test_too_little_memory_is_one_plain_line(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "too_large.py").write_text("def build(input_shape, classes):\n    raise MemoryError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    large = experiment.model_copy(update={"model": type(experiment.model)(factory="too_large:build")})
    with pytest.raises(TrainingError) as caught:
        throughput.measure(large, 1.0)
    assert str(caught.value).startswith("train.batch_size = 4 did not fit into memory; try train.batch_size = 2")


def test_what_a_user_can_mend_is_the_childs_last_line(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment.toml").write_text(dump(experiment), encoding="utf-8")
    assert throughput._main("torhc", str(tmp_path / "experiment.toml"), "1") != 0
    assert capsys.readouterr().err == "backend 'torhc': is unknown; did you mean 'torch'?\n"


def test_figures_that_are_none_are_no_figures(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"ok": True, "pictures_per_s": float("nan"), "first_step_s": 1.0}
    monkeypatch.setattr(throughput, "ask", lambda *_, **__: said)
    with pytest.raises(TrainingError, match="said nan pictures/s"):
        measure_backend("jax", experiment)


TABLES: dict[str, dict[str, Any]] = {
    "segment": {
        "task": {"classes": ["none", "gas", "smoke"]},
        "data": {"values": {"0": "none", "1": ["gas", "smoke"], "2": "smoke"}},
        "model": {"factory": "few_layers:few_layers"},
        "train": {"class_weights": "pixels", "accumulate": 3, "warmup": 5, "schedule": "cosine"},
    },
    "classify": {
        "task": {"kind": "classify", "classes": ["none", "oil"]},
        "data": {"labels": "folders"},
        "model": {"factory": "few_layers:few_labels"},
        "train": {"stage": [{"epochs": 1, "train": ["all"]}, {"epochs": 9, "train": ["head"]}]},
    },
    "detect": {
        "task": {"kind": "detect", "classes": ["hot"]},
        "data": {"labels": "yolo", "augment": {"mosaic": 1.0, "mixup": 0.5}},
        "model": {"factory": "few_layers:few_grids"},
    },
}


def of_task(task: str) -> Experiment:
    given = TABLES[task]
    data = {"root": "nowhere", "inputs": {"image": {"size": [32, 32]}}, **given["data"]}
    return parse({"name": task, **given, "data": data, "train": {"batch_size": 2, **given.get("train", {})}})


@pytest.mark.parametrize("task", TABLES)
def test_every_task_takes_steps_on_noise(task: str) -> None:
    found = throughput.measure(of_task(task), 0.01)
    assert 0 < found.pictures_per_s < 1e6


def test_of_several_stages_the_longest_is_measured() -> None:
    names: list[str] = []
    watch = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: names.extend(weight.path for weight in watch.model.trainable_weights)
    )
    stepper(of_task("classify"))(1, watch)
    assert names and all(name.startswith("head_") for name in names)


@pytest.mark.parametrize(
    ("task", "shape", "dtype", "most"),
    [("segment", (5, 16, 24), "uint8", 3), ("classify", (5, 2), "uint8", 1), ("detect", (5, 4, 6), "float32", 33)],
)
def test_noise_is_as_an_experiments_pictures_are(task: Any, shape: tuple[int, ...], dtype: str, most: int) -> None:
    size = (32, 32) if task == "detect" else (16, 24)
    specs = {"rgb": ImageSpec(*size), "thermal": ImageSpec(*size, 1, "uint16")}
    activation: Any = "linear" if task == "detect" else "softmax"
    found = noise(Contract(task, specs, classes_of(["one", "two"]), activation), 4, 5)
    assert {name: (array.shape, str(array.dtype)) for name, array in found.inputs.items()} == {
        "rgb": ((5, *size, 3), "uint8"),
        "thermal": ((5, *size, 1), "uint16"),
    }
    assert found.inputs["thermal"].max() > 255
    assert (found.targets.shape, str(found.targets.dtype)) == (shape, dtype)
    assert 1 <= found.targets.max() <= most
    if task == "detect":
        rows = dict(zip(BOX_COLUMNS, np.moveaxis(found.targets, -1, 0), strict=True))
        x1, y1, x2, y2, label, ignored = (rows[name] for name in BOX_COLUMNS)
        assert (x1 < x2).all() and (y1 < y2).all() and set(label.ravel()) == {0, 1} and not ignored.any()


@pytest.fixture
def stopped(
    models: list[str], fresh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """A run of two epochs on ``auto``, ended after its first: its folder, overrides, and what was printed."""
    monkeypatch.setenv(backend.VARIABLE, OTHER)  # which fit does not heed
    fresh({RUNNING: 9.0, OTHER: 1.0})
    sets = [
        *models,
        "train.epochs=2",
        "export.formats=[]",
        f"data.root={tmp_path / 'data'}",
        f"runs={tmp_path / 'runs'}",
    ]
    lines: list[str] = []

    def echo(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 1/"):
            os.kill(os.getpid(), signal.SIGTERM)

    done = fit(EXPERIMENT, sets, log=echo)
    assert done.terminated
    yield done.folder, sets, lines


def test_the_choice_stands_in_the_run_and_a_resumed_one_goes_on_with_it(
    stopped: tuple[Path, list[str], list[str]], fresh: Any
) -> None:
    folder, sets, lines = stopped
    kept = folder / "experiment.toml"
    assert load(kept).train.backend == RUNNING
    told = [
        f"train.backend: measuring {', '.join(sorted((RUNNING, OTHER), key=list(backend.BACKENDS).index))} on noise, "
        "one after the other",
        f"backend {RUNNING}: 9.0 pictures/s, first step 1.2 s",
        f"backend {OTHER}: 1.0 pictures/s, first step 1.2 s",
        f"train.backend: {RUNNING} is taken",
    ]
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert [lines.count(line) for line in told] == [log.count(line) for line in told] == [1] * 4
    assert f"under {RUNNING}: " in log

    with pytest.raises(ConfigError, match=f'was started with train.backend = "{RUNNING}", not "{OTHER}"'):
        fit(EXPERIMENT, [*sets, f"train.backend={OTHER}"], log=print, resume=str(folder))
    before, asked = kept.read_bytes(), fresh({OTHER: 99.0, RUNNING: 1.0})
    done = fit(EXPERIMENT, sets, log=lines.append, resume=str(folder))
    assert (done.folder, asked, kept.read_bytes()) == (folder, [], before)
    assert any(line.startswith("resumed from checkpoint epoch-0001") for line in lines)
    assert (folder / "finished.json").is_file()


def test_a_run_that_was_killed_before_it_had_its_file_is_measured_anew(experiment: Experiment, tmp_path: Path) -> None:
    from leakdet_tf.jobs.run.resume import with_its_backend

    assert with_its_backend(tmp_path, experiment) is experiment
    (tmp_path / "experiment.toml").write_text((Path(EXPERIMENT)).read_text(encoding="utf-8"), encoding="utf-8")
    assert with_its_backend(tmp_path, experiment).train.backend == "tensorflow"
    named = backend.under("jax", experiment)
    assert with_its_backend(tmp_path, named) is named


def test_nothing_of_keras_is_loaded_before_the_choice(tmp_path: Path) -> None:
    code = "import sys, leakdet_tf.jobs.fit; print([name for name in ('keras', 'tensorflow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
