"""``benchmark``: bundles by turns in processes of their own; what cannot be measured is one line, the rest go on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from leakdet_tf.cli import main
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError, LeakdetError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.backends.onnx import OnnxBackend
from leakdet_tf.edge.benchmark import Request, _frames
from leakdet_tf.edge.bundle import golden_bytes
from leakdet_tf.jobs import benchmark as job
from leakdet_tf.jobs.benchmark import ask, benchmark, find_bundles, names

HEAVY = ("tensorflow", "keras", "pydantic", "rich", "matplotlib", "tomli_w")
METRIC = {"name": "mean_iou", "value": 0.71, "low": 0.65, "high": 0.77}


def model(inputs: dict[str, ImageSpec]) -> bytes:
    """The softmax of a matrix product a pixel, over the pictures side by side."""
    channels = sum(spec.channels for spec in inputs.values())
    kernel = np.random.default_rng(0).normal(0, 0.02, (channels, 3)).astype(np.float32)
    types = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16}
    body = helper.make_graph(
        [
            *(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT) for name in inputs),
            helper.make_node("Concat", [f"{name}_float" for name in inputs], ["all"], axis=-1),
            helper.make_node("MatMul", ["all", "kernel"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["output"], axis=-1),
        ],
        "tiny",
        [helper.make_tensor_value_info(n, types[s.dtype], ["batch", *s.shape]) for n, s in inputs.items()],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 8, 16, 3])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    made: bytes = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    return made


def make(folder: Path, *, card: dict[str, Any] | None = None, inputs: dict[str, ImageSpec] | None = None) -> Path:
    """A bundle of a model of nine weights or so."""
    inputs = inputs or {"image": ImageSpec(8, 16)}
    contract, content = Contract("segment", inputs, classes_of(["background", "gas", "dust"])), model(inputs)
    folder.mkdir(parents=True)
    contract.save(folder / "contract.json")
    told = {"kind": folder.name, "golden": {"tolerance": 1e-3}, **(card or {})}
    (folder / "card.json").write_text(json.dumps(told))
    (folder / "model.onnx").write_bytes(content)
    maker = Predictor.over(OnnxBackend(content, contract), contract)
    frame = {name: np.full((24, 48, spec.channels), 9, spec.dtype) for name, spec in inputs.items()}
    (folder / "golden.npz").write_bytes(golden_bytes([maker.golden(frame)]))
    files = ("model.onnx", "contract.json", "golden.npz", "card.json")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two bundles. Read only."""
    folder = tmp_path_factory.mktemp("runs") / "gas"
    make(folder / "export" / "onnx_float32", card={"gate": {"metric": METRIC}})
    make(folder / "export" / "onnx_int8")
    (folder / "experiment.toml").write_text('name = "gas"\n')
    (folder / "export" / ".onnx_int8.x").mkdir()
    return folder


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    folder = make(tmp_path / "damaged")
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests of a benchmark whose children answer at once."""
    given: list[Request] = []

    def answer(request: Request) -> dict[str, Any]:
        given.append(request)
        windows = [{"end_s": 0.0, "answers": 0}] if request.seconds else []
        times = [1.0 + len(given)] * request.runs
        return {"load_s": 1.0, "invoke_ms": times, "predict_ms": [2 * one for one in times], "rss": None} | {
            "windows": windows,
            "engine": None,
        }

    monkeypatch.setattr(job, "ask", answer)
    return given


def told(*sources: Path, **given: Any) -> tuple[dict[str, Any], list[str], list[str]]:
    """A benchmark's report, its table, and what it logged."""
    logged: list[str] = []
    options = {"threads": [1], "runs": 1, "warm_up": 0, **given}
    done = benchmark([str(one) for one in sources], log=logged.append, **options)
    return done.report, done.lines, logged


def test_all_bundles_of_a_run_side_by_side(exported: Path, tmp_path: Path) -> None:
    report, lines, logged = told(exported, threads=[2, 1], runs=2, json_file=str(tmp_path / "new" / "found.json"))
    assert json.loads((tmp_path / "new" / "found.json").read_text()) == report
    assert [one["name"] for one in report["bundles"]] == ["onnx_float32", "onnx_int8"]
    assert [one["metric"] for one in report["bundles"]] == [METRIC, None]
    for bundle in report["bundles"]:
        assert bundle["model_bytes"] == (Path(bundle["folder"]) / "model.onnx").stat().st_size
        assert [one["threads"] for one in bundle["cases"]] == [1, 2]
        for one in bundle["cases"]:
            assert one["answers"] == len(one["times_ms"]["invoke"]) == 2
            assert 0 < one["invoke_ms"]["min"] <= one["invoke_ms"]["p50"] <= one["invoke_ms"]["p95"]
            assert 0 < one["outside"] < 1
            assert 1e6 < one["rss_grow_bytes"] < one["rss_peak_bytes"]
            assert any(line.startswith(bundle["name"]) and f"{one['invoke_ms']['p50']:.2f}" in line for line in lines)
    assert len(logged) == 2 * 2 * 2
    assert report["machine"]["cores"] >= 1
    assert report["failed"] == []


def test_memory_is_the_child_s_own_and_not_what_the_parent_holds(exported: Path) -> None:
    held = np.ones(50_000_000)
    report, _, _ = told(exported / "export" / "onnx_int8")
    assert report["bundles"][0]["cases"][0]["rss_peak_bytes"] < held.nbytes / 2


def test_bundles_take_turns_in_alternating_order(exported: Path, asked: list[Request]) -> None:
    told(exported, threads=[1, 2], runs=8, warm_up=7)
    order = [(Path(one.bundle).name, one.threads) for one in asked]
    once = [(name, count) for name in ("onnx_float32", "onnx_int8") for count in (1, 2)]
    assert order == once + once[::-1] + once
    assert [one.runs for one in asked[::4]] == [3, 3, 2], "eight answers in three rounds"
    assert {one.warm_up for one in asked} == {7}


def test_by_default_one_thread_and_all_cores(
    exported: Path, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "cores", lambda: 6)
    report, _, _ = told(exported, threads=[])
    assert {one.threads for one in asked} == {1, 6}
    assert report["settings"]["threads"] == [1, 6]


def frames_of(monkeypatch: pytest.MonkeyPatch, *sources: Path, **given: Any) -> list[dict[str, np.ndarray]]:
    """The frames that the children get."""
    found: list[dict[str, np.ndarray]] = []

    def answer(request: Request) -> dict[str, Any]:
        found[:] = _frames(Path(request.frames))
        return {"load_s": 1.0, "invoke_ms": [1.0], "predict_ms": [2.0], "rss": None, "windows": [], "engine": None}

    monkeypatch.setattr(job, "ask", answer)
    told(*sources, **given)
    return found


def test_frames_are_golden_ones_at_vga_or_what_is_asked_for(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = exported / "export" / "onnx_int8"
    assert [one["image"].shape for one in frames_of(monkeypatch, source)] == [(480, 640, 3)]
    assert [one["image"].shape for one in frames_of(monkeypatch, source, size=(30, 40))] == [(30, 40, 3)]
    for name, size in (("a", (20, 10)), ("b", (12, 34))):
        Image.new("RGB", size, "red").save(tmp_path / f"{name}.png")
    found = frames_of(monkeypatch, source, frames=str(tmp_path))
    assert [one["image"].shape for one in found] == [(10, 20, 3), (34, 12, 3)]
    assert found[0]["image"][0, 0].tolist() == [255, 0, 0]
    found = frames_of(monkeypatch, source, frames=str(tmp_path / "a.png"), size=(5, 6))
    assert [one["image"].shape for one in found] == [(5, 6, 3)]


def test_a_model_of_two_pictures_has_golden_frames_only(tmp_path: Path) -> None:
    folder = make(tmp_path / "both", inputs={"image": ImageSpec(8, 16), "heat": ImageSpec(8, 16, 1, "uint16")})
    assert told(folder)[0]["bundles"][0]["cases"][0]["answers"] == 1
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(LeakdetError, match=r"takes several pictures at once \(image, heat\); leave --frames out"):
        told(folder, frames=str(tmp_path / "a.png"))


def test_sustained_runs_are_with_the_most_threads_and_drawn(exported: Path, tmp_path: Path) -> None:
    plot = tmp_path / "x.png"
    report, lines, _ = told(exported / "export" / "onnx_int8", threads=[1, 2], seconds=0.2, plot=str(plot))
    assert plot.read_bytes().startswith(b"\x89PNG")
    run = report["bundles"][0]["sustained"]
    assert run["threads"] == 2
    assert run["windows"][-1]["end_s"] >= 0.2
    assert "onnx_int8, 2 threads, 0 s without a pause: invoke p50 " in lines[-1]


def test_a_damaged_bundle_is_one_line_and_the_others_go_on(exported: Path, damaged: Path) -> None:
    report, lines, logged = told(exported, damaged)
    assert len(report["bundles"]) == 2
    (failed,) = report["failed"]
    assert failed["folder"] == str(damaged)
    assert "SHA-256" in failed["reason"]
    assert logged.count(failed["reason"]) == 1
    assert not any("damaged" in line for line in lines)


def dying(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Children that run ``code`` for bundles called onnx_int8, and measure others."""
    whole = (
        "import io, os, runpy, sys\n"
        "text = sys.stdin.read()\n"
        f"if 'onnx_int8' in text:\n    {code}\n"
        "sys.stdin = io.StringIO(text)\n"
        "runpy.run_module('leakdet_tf.edge.benchmark', run_name='__main__')\n"
    )
    monkeypatch.setattr(job, "COMMAND", (sys.executable, "-c", whole))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os.kill(os.getpid(), 11)", "with 1 threads ended early (killed by SIGSEGV)"),
        ("os.kill(os.getpid(), 9)", "ended early (killed by SIGKILL)"),
        ("raise OverflowError('too much')", "ended early (OverflowError: too much)"),
        ("print('{}'); sys.exit(0)", "ended early (status 0)"),
        ("print('not JSON'); sys.exit(0)", "ended early (status 0)"),
        ('print(\'{"error": "no runtime; pip install it"}\'); sys.exit(2)', "onnx_int8: no runtime; pip install it"),
    ],
)
def test_a_child_s_death_is_one_line_and_the_others_go_on(
    code: str, says: str, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dying(monkeypatch, code)
    assert main(["benchmark", str(exported), "--threads", "1", "--runs", "1"]) == 1
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if not line.startswith("round ")]
    assert line.startswith(str(exported / "export" / "onnx_int8"))
    assert says in line
    assert [line.split()[0] for line in captured.out.splitlines() if line.startswith("onnx")] == ["onnx_float32"]


@pytest.mark.parametrize("kind", ["dies", "is damaged"])
def test_when_the_only_bundle_fails_the_command_refuses_with_its_line(
    kind: str, exported: Path, damaged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dying(monkeypatch, "os.kill(os.getpid(), 11)")
    place = damaged if kind == "is damaged" else exported / "export" / "onnx_int8"
    assert main(["benchmark", str(place), "--threads", "1", "--runs", "1"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("round ")]
    assert line.startswith(f"leakdet-tf: {place}")


def test_when_all_fail_each_has_its_line(damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(damaged, tmp_path / "other"))
    assert main(["benchmark", str(damaged), str(other)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[-1] == "leakdet-tf: none of 2 bundles could be measured"


@pytest.mark.parametrize("times", [[], [float("nan")], [0.0]])
def test_what_is_no_time_is_no_figure(exported: Path, monkeypatch: pytest.MonkeyPatch, times: list[float]) -> None:
    found = {"load_s": 1.0, "invoke_ms": times, "predict_ms": times, "rss": None, "windows": [], "engine": None}
    monkeypatch.setattr(job, "ask", lambda request: found)
    with pytest.raises(LeakdetError, match="onnx_float32: the times measured are no times"):
        told(exported)


def test_the_child_measures_nothing_but_the_bundle_that_it_was_told(damaged: Path, tmp_path: Path) -> None:
    (tmp_path / "frames.npz").write_bytes(job.frame_bytes([{"image": np.zeros((9, 9, 3), np.uint8)}]))
    own = hashlib.sha256((damaged / "SHA256SUMS").read_bytes()).hexdigest()
    for digest, says in (
        (own, r"model\.onnx: its SHA-256"),
        ("", "changed while it was opened"),
        ("0" * 64, "changed"),
    ):
        with pytest.raises(LeakdetError, match=says):
            ask(Request(str(damaged), digest, 1, str(tmp_path / "frames.npz"), 1, 0))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--threads", "0"], "not a list such as 1,2,4"),
        (["--threads", "1,,2"], "not a list such as 1,2,4"),
        (["--threads", "two"], "not a list such as 1,2,4"),
        (["--size", "640"], "not a size such as 640x480"),
        (["--size", "0x480"], "not a size such as 640x480"),
        (["--runs", "0"], "--runs"),
        (["--warm-up", "-1"], "--warm-up"),
        (["--seconds", "-1"], "--seconds"),
        (["--seconds", "nan"], "seconds"),
        (["--seconds", "inf"], "seconds"),
        (["--frames", "nowhere"], "nowhere: no such picture, folder or pattern"),
        (["--json", "."], ".: is a folder"),
    ],
)
def test_options_that_make_no_sense(
    arguments: list[str], says: str, exported: Path, asked: list[Request], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", str(exported), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert asked == []


def test_options_reach_the_job(exported: Path, asked: list[Request], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--threads", "3,1", "--runs", "5", "--warm-up", "2", "--size", "64x48"]
    assert main(["benchmark", str(exported), *arguments]) == 0
    assert {one.threads for one in asked} == {1, 3}
    assert sum(one.runs for one in asked) == 5 * 4
    assert "5 answers each in 3 rounds; frames: golden ones at 64x48" in capsys.readouterr().out


def test_what_is_no_bundle_and_what_exported_nothing(tmp_path: Path) -> None:
    with pytest.raises(LeakdetError, match="neither a run nor a bundle"):
        find_bundles([str(tmp_path)])
    (tmp_path / "experiment.toml").touch()
    with pytest.raises(LeakdetError, match="exported nothing; leakdet-tf export RUN"):
        find_bundles([str(tmp_path)])


def test_each_bundle_once_half_made_ones_never_and_names_that_tell_them_apart(exported: Path) -> None:
    found = find_bundles([str(exported / "export" / "onnx_int8"), str(exported)])
    assert [one.name for one in found] == ["onnx_int8", "onnx_float32"]
    places = ["/runs/a/1/export/int8", "/runs/a/2/export/int8", "/runs/a/2/export/float32", "/x/1/export/tiny"]
    assert names([Path(one) for one in places]) == ["1/int8", "2/int8", "float32", "tiny"]
    assert names([Path("/a/1/int8"), Path("/b/1/int8")]) == ["a/1/int8", "b/1/int8"]


def test_a_picture_that_cannot_be_read_is_named(exported: Path, tmp_path: Path, asked: list[Request]) -> None:
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"bad\.png"):
        told(exported, frames=str(tmp_path))
    assert asked == []


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command, in a Python that cannot find the packages of [train], nor can any that it starts."""
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {HEAVY!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "hide")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "leakdet_tf.cli", "benchmark", *arguments]
        return subprocess.run(whole, capture_output=True, text=True, env=environment, check=False)

    return run


def test_the_base_install_is_enough(exported: Path, command: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "found.json")
    small = ("--threads", "1", "--runs", "1", "--seconds", "0.1")
    done = command(str(exported / "export" / "onnx_int8"), *small, "--json", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(Path(out).read_text())["bundles"][0]["sustained"]["windows"]


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    exported: Path, command: Command, tmp_path: Path
) -> None:
    done = command(str(exported), "--plot", str(tmp_path / "x.png"))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "--plot needs matplotlib" in line and "pip install matplotlib" in line


def test_a_tflite_bundle_on_litert(bundle: Path) -> None:
    report, _, _ = told(bundle, runs=2)
    (found,) = report["bundles"]
    assert found["kind"] == "tflite_float32"
    assert found["cases"][0]["answers"] == 2
