"""What the measuring process does, on a runtime that answers at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import BundleError
from leakdet_tf.core.images import ImageSpec, Pixels
from leakdet_tf.edge import Predictor
from leakdet_tf.edge import benchmark as edge
from leakdet_tf.edge.bundle import Bundle, GoldenFrame

CONTRACT = Contract(
    "classify", {"image": ImageSpec(8, 8), "heat": ImageSpec(8, 8, 1, "uint16")}, classes_of(["a", "b"])
)


class Counting:
    """A runtime that keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[dict[str, Pixels]] = []

    def run(self, inputs: Mapping[str, Pixels]) -> dict[str, np.ndarray]:
        self.given.append(dict(inputs))
        return {"output": np.array([0.25, 0.75], np.float32)}


def frame(value: int, size: tuple[int, int] = (12, 20)) -> dict[str, Pixels]:
    return {"image": np.full((*size, 3), value, np.uint8), "heat": np.full((*size, 1), 256 * value, np.uint16)}


@pytest.fixture
def runtime() -> Counting:
    return Counting()


@pytest.fixture
def predictor(runtime: Counting, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """Stands for whatever bundle is opened."""
    made = Predictor.over(runtime, CONTRACT)
    monkeypatch.setattr(edge, "open_again", lambda folder, digest: folder)
    monkeypatch.setattr(edge, "Predictor", lambda folder, *, threads: made)
    return made


@pytest.fixture
def frames(tmp_path: Path) -> str:
    (tmp_path / "frames.npz").write_bytes(edge.frame_bytes([frame(1), frame(2), frame(3)]))
    return str(tmp_path / "frames.npz")


@pytest.mark.usefixtures("predictor")
def test_warm_up_is_not_counted_and_frames_take_turns(runtime: Counting, frames: str) -> None:
    found = edge.measure(edge.Request("x", "0", 1, frames, runs=4, warm_up=2))
    assert len(found["invoke_ms"]) == len(found["predict_ms"]) == 4
    assert all(0 < inside < whole for inside, whole in zip(found["invoke_ms"], found["predict_ms"], strict=True))
    assert [int(one["image"][0, 0, 0]) for one in runtime.given] == [1, 2, 3, 1, 2, 3, 1]
    assert found["load_s"] > 0
    assert found["rss"]["before"] <= found["rss"]["peak"]
    assert found["rss"]["grow"] == found["rss"]["peak"] - found["rss"]["before"]
    assert found["windows"] == []


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_reaches_the_runtime(threads: int, frames: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def opened(*_: Any, threads: int, **__: Any) -> None:
        asked.append(threads)
        raise BundleError("enough")

    whole = Bundle(Path("x"), "model.onnx", b"", CONTRACT, {"golden": {"tolerance": 0}}, [], {})
    monkeypatch.setattr(edge, "open_again", lambda *_: whole)
    monkeypatch.setattr("leakdet_tf.edge.predictor.open_backend", opened)
    with pytest.raises(BundleError, match="enough"):
        edge.measure(edge.Request("x", whole.digest, threads, frames, runs=1, warm_up=0))
    assert asked == [threads]


def test_a_sustained_run_tells_windows_with_the_machine_s_sensors(predictor: Predictor, tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("48312")
    start, *windows = edge.sustain(predictor, [frame(1)], 0.05, root=tmp_path)
    assert (start["end_s"], start["answers"], start["temp_c"]) == (0.0, 0, 48.312)
    assert [one["temp_c"] for one in windows] == [48.312] * len(windows)
    assert windows[-1]["end_s"] >= 0.05
    assert all(one["answers"] > 0 and 0 < one["invoke_ms"][0] <= one["invoke_ms"][1] for one in windows)


def test_windows_follow_each_other(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "LEAST_WINDOW_S", 0.02)
    monkeypatch.setattr(edge, "WINDOWS", 3)
    ends = [one["end_s"] for one in edge.sustain(predictor, [frame(1)], 0.06, root=tmp_path)]
    assert ends == sorted(ends)
    assert 2 <= len(ends) <= 4


@pytest.mark.usefixtures("predictor")
def test_a_sustained_request_counts_no_single_answers(frames: str) -> None:
    found = edge.measure(edge.Request("x", "0", 1, frames, runs=5, warm_up=0, seconds=0.01))
    assert found["invoke_ms"] == []
    assert len(found["windows"]) >= 2


def test_golden_pictures_are_scaled_in_their_own_depth() -> None:
    (found,) = edge.golden_frames([GoldenFrame(frame(9), {})], (48, 64))
    assert {name: (image.shape, image.dtype.name, int(image.max())) for name, image in found.items()} == {
        "image": ((48, 64, 3), "uint8", 9),
        "heat": ((48, 64, 1), "uint16", 9 * 256),
    }


def test_frames_are_bounded_in_number_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "many.npz").write_bytes(edge.frame_bytes([frame(value) for value in range(40)]))
    assert len(edge._frames(tmp_path / "many.npz")) == edge.MAX_FRAMES
    monkeypatch.setattr(edge, "MAX_FRAME_BYTES", 1)
    (tmp_path / "large.npz").write_bytes(edge.frame_bytes([frame(1), frame(2)]))
    assert len(edge._frames(tmp_path / "large.npz")) == 1


def test_the_process_prints_one_line_of_json_and_loads_no_trainer(frames: str, tmp_path: Path) -> None:
    code = (
        "import sys, runpy\n"
        "try:\n"
        "    runpy.run_module('leakdet_tf.edge.benchmark', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    status = end.code\n"
        "heavy = {'tensorflow', 'keras', 'pydantic', 'rich', 'matplotlib', 'onnx', 'leakdet_tf.analysis'}\n"
        "sys.exit(9 if heavy & set(sys.modules) else status)\n"
    )
    request = edge.Request(str(tmp_path / "none"), "0", 1, frames, runs=1, warm_up=0)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=request.to_json(), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "not a bundle" in json.loads(done.stdout.splitlines()[-1])["error"]
    assert done.stderr == ""
