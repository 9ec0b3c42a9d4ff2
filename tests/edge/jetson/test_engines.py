"""The cache of engines: what is found, what is built again, what is refused, and what a killed build leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.errors import BundleError
from leakdet_tf.edge import Predictor, engines, open_bundle
from leakdet_tf.edge.bundle import GoldenFrame
from leakdet_tf.edge.golden import gap
from leakdet_tf.edge.tensorrt import Settings, open_engine
from leakdet_tf.edge.tensorrt_build import build

CHILD = """
import sys, time
from pathlib import Path
import standin_world
device = standin_world.install()
from leakdet_tf.edge import engines
from leakdet_tf.edge.tensorrt_build import build
place = sys.argv[2]
def pause():
    print("ready", flush=True)
    time.sleep(60)
if place == "building":
    device.world.pause = pause
else:
    whole = engines.write_bytes if place == "plan" else engines.write_json
    def slow(path, value, **how):
        if place == "plan":
            (path.parent / f".1.{path.name}").write_bytes(value[: len(value) // 2])
        pause()
    setattr(engines, "write_bytes" if place == "plan" else "write_json", slow)
build(sys.argv[1])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "engines"


def test_a_second_build_finds_the_first(device: Any, bundle: Path) -> None:
    first, second = build(bundle), build(bundle)
    assert (first.new, second.new) == (True, False)
    assert len(device.world.log) == 1
    assert second.engine.plan == first.engine.plan
    assert build(bundle, anew=True).new


CHANGES = {
    "gpu": lambda d: setattr(d.cuda, "gpu", ("Thor", (8, 7), 8)),
    "capability": lambda d: setattr(d.cuda, "gpu", ("Orin", (8, 6), 8)),
    "multiprocessors": lambda d: setattr(d.cuda, "gpu", ("Orin", (8, 7), 16)),
    "tensorrt": lambda d: d.trt.behave("10.3.1"),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_another_machine_builds_its_own_and_runs_no_other(device: Any, bundle: Path, changed: str) -> None:
    first = build(bundle).engine
    CHANGES[changed](device)
    with pytest.raises(BundleError, match="no engine has been built for") as caught:
        open_engine(open_bundle(bundle))
    assert f"run on this device first: leakdet-tf engine {bundle}" in str(caught.value)
    assert "\n" not in str(caught.value)
    second = build(bundle)
    assert second.new
    assert second.engine.key.name != first.key.name
    assert first.path.exists()


def test_another_model_precision_memory_contract_or_calibration_is_another_engine(device: Any, bundle: Path) -> None:
    keys = [build(bundle, Settings(*given)).engine.key.name for given in [(), ("int8",), ("float16", 64), ("float32",)]]
    np.savez(bundle / "calibration.npz", image=np.full((2, 8, 16, 3), 7, np.uint8))
    device.make.seal(bundle)
    assert not build(bundle).new
    int8 = build(bundle, Settings("int8"))
    assert int8.new
    keys.append(int8.engine.key.name)
    (bundle / "model.onnx").write_bytes(device.make.graph(seed=4))
    device.make.seal(bundle)
    with pytest.raises(BundleError, match="no engine has been built"):
        open_engine(open_bundle(bundle))
    with pytest.raises(BundleError, match="answers otherwise than the golden frames"):
        build(bundle)
    other = device.make.bundle(bundle.parent / "other", model=device.make.graph(seed=4))
    keys.append(build(other).engine.key.name)
    named = replace(open_bundle(other), contract=replace(device.make.CONTRACT, experiment="again"))
    keys.append(build(named).engine.key.name)
    assert len(set(keys)) == 7


def test_the_engine_that_was_asked_for_last_is_opened(device: Any, bundle: Path) -> None:
    for precision in ("float16", "int8", "float16"):
        build(bundle, Settings(precision))
        backend, told = open_engine(open_bundle(bundle))
        assert told.card["engine"]["precision"] == precision
        assert "table" not in told.card["engine"]
        backend.close()
    assert len(device.world.log) == 2


def test_golden_answers_are_the_engine_s_own_and_its_answers_later_are_held_to_them(device: Any, bundle: Path) -> None:
    device.world.noise["float16"] = 5e-3
    build(bundle)
    backend, own = open_engine(open_bundle(bundle))
    predictor = Predictor.over(backend, own.contract)

    def furthest(golden: list[GoldenFrame]) -> float:
        found = []
        for frame in golden:
            geometry = predictor.prepare(frame.images)[1]
            answered = predictor.outputs(frame.images)["output"]
            found.append(gap(frame.outputs["output"], answered, own.contract, geometry))
        return max(found)

    assert furthest(own.golden) == 0
    assert furthest(open_bundle(bundle).golden) > own.golden_tolerance
    device.world.noise["float16"] = 0.0
    assert furthest(own.golden) > own.golden_tolerance


@pytest.mark.parametrize("suffix", [".plan", ".npz", ".json"])
@pytest.mark.parametrize("damage", ["bit", "half", "empty", "gone"])
def test_a_damaged_engine_is_refused_before_tensorrt_sees_it(
    device: Any, bundle: Path, folder: Path, suffix: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build(bundle).engine.plan
    (path,) = folder.glob(f"*{suffix}")
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 3] ^= 1
        path.write_bytes({"bit": bytes(data), "half": bytes(data[: len(data) // 2]), "empty": b""}[damage])
    with monkeypatch.context() as patch:
        patch.setattr(device.trt.Runtime, "deserialize_cuda_engine", lambda *_: pytest.fail("TensorRT saw it"))
        with pytest.raises(BundleError) as caught:
            open_engine(open_bundle(bundle))
    assert "leakdet-tf engine" in str(caught.value)
    assert "\n" not in str(caught.value)
    lines: list[str] = []
    built = build(bundle, log=lines.append)
    assert built.new
    assert built.engine.plan == before
    assert any("building it again" in line for line in lines) == (damage != "gone" or suffix != ".json")
    assert open_engine(open_bundle(bundle))


@pytest.mark.parametrize("place", range(0, 100, 9))
def test_no_flipped_bit_of_the_key_file_passes(device: Any, bundle: Path, folder: Path, place: int) -> None:
    build(bundle)
    (path,) = folder.glob("*.json")
    data = bytearray(path.read_bytes())
    data[len(data) * place // 100] ^= 4
    path.write_bytes(data)
    with pytest.raises(BundleError, match="damaged"):
        open_engine(open_bundle(bundle))


@pytest.mark.parametrize("content", [b"", b"../../etc/passwd\n", b"\xff" * 32, b"0" * 31, b"Z" * 32])
def test_a_damaged_pointer_is_refused(device: Any, bundle: Path, folder: Path, content: bytes) -> None:
    build(bundle)
    (path,) = folder.glob("*.current")
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"\.current"):
        open_engine(open_bundle(bundle))
    assert not build(bundle).new
    assert open_engine(open_bundle(bundle))


def test_another_s_engine_under_this_name_is_refused(device: Any, bundle: Path, folder: Path) -> None:
    first, second = build(bundle).engine, build(bundle, Settings("int8")).engine
    path = folder / f"{second.key.name}.json"
    path.write_bytes((folder / f"{first.key.name}.json").read_bytes())
    with pytest.raises(BundleError, match="damaged, or of another engine"):
        open_engine(open_bundle(bundle))
    with pytest.raises(BundleError, match="damaged, or of another engine"):
        engines.find(folder, second.key)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702], ids=oct)
def test_a_folder_that_others_may_write_is_not_trusted(device: Any, bundle: Path, folder: Path, mode: int) -> None:
    build(bundle)
    folder.chmod(mode)
    for call in (lambda: build(bundle), lambda: open_engine(open_bundle(bundle))):
        with pytest.raises(BundleError, match=f"engines: others may write it, .*; chmod go-w {folder}$"):
            call()
    folder.chmod(0o755)
    assert open_engine(open_bundle(bundle))


@pytest.mark.parametrize("suffix", [".plan", ".npz", ".json", ".current"])
@pytest.mark.parametrize("mode", [0o660, 0o602], ids=oct)
def test_nor_is_a_file_that_others_may_write(
    device: Any, bundle: Path, folder: Path, suffix: str, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle)
    (path,) = folder.glob(f"*{suffix}")
    path.chmod(mode)
    monkeypatch.setattr(device.trt.Runtime, "deserialize_cuda_engine", lambda *_: pytest.fail("TensorRT saw it"))
    with pytest.raises(BundleError, match=f"others may write it, .*; chmod go-w {path}$"):
        open_engine(open_bundle(bundle))


@pytest.mark.parametrize("which", ["folder", ".plan", ".npz", ".json", ".current"])
def test_nor_is_what_belongs_to_another_user(
    device: Any, bundle: Path, folder: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle)
    path = folder if which == "folder" else next(folder.glob(f"*{which}"))
    if os.geteuid() == 0:
        os.chown(path, 54321, -1)
    else:
        monkeypatch.setattr(engines.os, "geteuid", lambda: 54321)
    with pytest.raises(BundleError, match=r": belongs to user \d+, and an engine is machine code"):
        open_engine(open_bundle(bundle))


def test_what_is_made_here_is_private_whatever_the_umask(device: Any, bundle: Path, folder: Path) -> None:
    before = os.umask(0o002)
    try:
        build(bundle)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        [path.name for path in folder.iterdir()], 0o600
    )
    assert open_engine(open_bundle(bundle))


def test_a_pipe_in_the_folder_is_not_waited_for(device: Any, bundle: Path, folder: Path) -> None:
    build(bundle)
    (path,) = folder.glob("*.plan")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleError, match=r"\.plan: not a regular file"):
        open_engine(open_bundle(bundle))


def test_the_cache_lies_where_it_is_asked_for(
    device: Any, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(bundle, cache=tmp_path / "own").engine.path.parent == tmp_path / "own" / "engines"
    assert open_engine(open_bundle(bundle), cache=tmp_path / "own")
    assert engines.home() == tmp_path / "cache" / "engines"
    monkeypatch.delenv("LEAKDET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert engines.home() == tmp_path / "xdg" / "leakdet_tf" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert engines.home() == tmp_path / ".cache" / "leakdet_tf" / "engines"


def test_an_engine_inside_the_bundle_s_folder_is_not_looked_at(device: Any, bundle: Path, tmp_path: Path) -> None:
    """A bundle may be signed, and what lies beside its files is not."""
    build(bundle, cache=bundle)
    with pytest.raises(BundleError, match="no engine has been built"):
        open_engine(open_bundle(bundle))


def test_an_older_engine_of_the_same_key_leaves_no_files(device: Any, bundle: Path, folder: Path) -> None:
    first = build(bundle).engine
    device.world.noise["float16"] = 1e-3
    other = build(bundle, Settings("int8")).engine
    device.trt.MAGIC += b"2"
    second = build(bundle, anew=True).engine
    assert second.path != first.path
    assert {path.name for path in folder.glob("*.plan")} == {second.path.name, other.path.name}
    assert len(list(folder.glob("*.npz"))) == 2


@pytest.mark.parametrize("place", ["building", "plan", "key"])
def test_a_killed_build_leaves_nothing_that_is_seen(
    device: Any, bundle: Path, folder: Path, standins: Path, place: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(standins)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(bundle), place], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    with pytest.raises(BundleError, match="no engine has been built"):
        open_engine(open_bundle(bundle))
    if place == "plan":
        assert list(folder.glob(".*"))
    assert build(bundle).new
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".current", ".json", ".npz", ".plan"]
    assert open_engine(open_bundle(bundle))


def test_two_builds_at_once_make_one_engine(device: Any, bundle: Path) -> None:
    started, go = threading.Event(), threading.Event()

    def pause() -> None:
        started.set()
        assert go.wait(30)

    device.world.pause = pause
    made: list[Any] = []
    lines: list[str] = []
    first = threading.Thread(target=lambda: made.append(build(bundle)))
    first.start()
    assert started.wait(30)
    second = threading.Thread(target=lambda: made.append(build(bundle, log=lines.append)))
    second.start()
    while not lines:
        time.sleep(0.01)
    assert lines == ["another build is running here; waiting for it"]
    go.set()
    first.join(30)
    second.join(30)
    assert sorted(one.new for one in made) == [False, True]
    assert made[0].engine.plan == made[1].engine.plan
    assert len(device.world.log) == 1


def test_the_engine_s_card_says_how_it_differs_and_the_bundle_s_stays(device: Any, bundle: Path, folder: Path) -> None:
    build(bundle)
    (path,) = folder.glob("*.json")
    told = json.loads(path.read_text())
    assert told["key"]["gpu"] == "Orin"
    assert told["card"]["agreement"]["frames"] == 2
    assert told["card"]["agreement"]["decisions"] == 2 * 8 * 16
    assert 0 < told["card"]["agreement"]["largest"] < 1e-3
    _, opened = open_engine(open_bundle(bundle))
    assert opened.card["kind"] == "tensorrt"
    assert opened.card["engine"]["agreement"] == told["card"]["agreement"]
