"""MLflow's account of a run, on a stand-in of its client; with MLflow itself where it is installed."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ConfigError, MissingExtraError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run import track as room
from leakdet_tf.jobs.run.track import ACCOUNT, parameters, require, tracking

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
CONTRACT = Contract("segment", {"image": ImageSpec(32, 48)}, classes_of(["background", "gas"]))
ROW = {"epoch": 1, "loss": 0.5, "val_mean_iou": 0.25}


class Refused(Exception):
    """Stands for MlflowException."""


class Param(NamedTuple):
    key: str
    value: str


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Client:
    """The calls of ``mlflow.MlflowClient`` that are made here; each is remembered, those named in ``broken`` fail."""

    def __init__(self, world: World, tracking_uri: str) -> None:
        self.world, self.uri = world, tracking_uri
        self._call("connect", tracking_uri)

    def _call(self, name: str, *given: Any) -> None:
        self.world.calls.append((name, *given))
        if self.world.broken(self.world.calls):
            raise Refused("the server\nis gone")

    def get_experiment_by_name(self, name: str) -> Any:
        self._call("get_experiment_by_name", name)

    def create_experiment(self, name: str) -> str:
        self._call("create_experiment", name)
        return "7"

    def create_run(self, experiment_id: str, *, run_name: str, tags: dict[str, str]) -> Any:
        self._call("create_run", experiment_id, run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def delete_run(self, run_id: str) -> None:
        self._call("delete_run", run_id)

    def update_run(self, run_id: str, *, status: str) -> None:
        self._call("update_run", run_id, status)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000
        assert len(params) <= 100
        self._call("log_batch", run_id, list(metrics), list(params))

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str = "") -> None:
        assert Path(local_path).is_file()
        self._call("log_artifact", run_id, Path(local_path).name, artifact_path)

    def log_dict(self, run_id: str, dictionary: dict[str, Any], artifact_file: str) -> None:
        self._call("log_dict", run_id, dictionary, artifact_file)

    def set_terminated(self, run_id: str, status: str) -> None:
        self._call("set_terminated", run_id, status)


class World:
    """All clients' calls, and whether the last of them fails."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.broken: Callable[[list[tuple[Any, ...]]], bool] = lambda calls: False

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A stand-in in MLflow's place."""
    made = World()
    mlflow, exceptions, entities = (ModuleType(f"mlflow{part}") for part in ("", ".exceptions", ".entities"))
    mlflow.__spec__ = ModuleSpec("mlflow", None)
    vars(exceptions)["MlflowException"] = Refused
    vars(entities).update(Param=Param, Metric=Metric)
    vars(mlflow).update(
        exceptions=exceptions,
        entities=entities,
        MlflowClient=lambda tracking_uri, registry_uri: Client(made, tracking_uri),
    )
    for module in (mlflow, exceptions, entities):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for MLflow is gone after the test."""
    for name in room._DEFAULTS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides for a run of seconds that is tracked."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from few_layers import OVERRIDES

    places = [f"data.root={tmp_path / 'data'}", f"runs={tmp_path / 'runs'}", f"track.mlflow={tmp_path / 'mlruns'}"]
    return [*OVERRIDES, *places, "train.epochs=2", "export.formats=[]"]


def tracked(place: str) -> Experiment:
    return load(EXPERIMENT, [f"track.mlflow={place}"])


def run_folder(tmp_path: Path) -> Path:
    """A folder with the files that a report hands over."""
    folder = tmp_path / "20260101-000000"
    folder.mkdir()
    for name in ("experiment.toml", "model.keras", "curves.png"):
        (folder / name).write_bytes(b"x")
    CONTRACT.save(folder / "contract.json")
    return folder


def test_a_run_is_told_from_its_parameters_to_its_model(world: World, small: list[str]) -> None:
    lines: list[str] = []
    folder = fit(EXPERIMENT, small, log=lines.append).folder
    assert world.of("connect") == [((folder.parents[2] / "mlruns").as_uri(),)]
    assert world.of("create_experiment") == [("gas_unet",)]
    assert world.of("create_run") == [("7", folder.name)]
    assert not [line for line in lines if line.startswith("warning")]
    params = {param.key: param.value for _, _, given in world.of("log_batch") for param in given}
    assert params["train.epochs"] == "2"
    assert params["task.classes"] == '["background", "gas", "machine"]'
    assert params["model.factory"] == "few_layers:few_layers"
    figured = [metrics for _, metrics, _ in world.of("log_batch") if metrics]
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    for row, told in zip(rows, figured[:2], strict=True):
        assert {metric.key: metric.value for metric in told} == {k: float(v) for k, v in row.items() if k != "epoch"}
        assert {metric.step for metric in told} == {int(row["epoch"])}
    report = json.loads((folder / "metrics.json").read_text())["metrics"]
    final = {metric.key: metric.value for metric in figured[2]}
    assert final["test/mean_iou"] == report["mean_iou"]["value"]
    assert final["test/mean_iou_low"] == report["mean_iou"]["low"]
    kept = {(name, place) for _, name, place in world.of("log_artifact")}
    assert {("contract.json", ""), ("metrics.json", ""), ("curves.png", ""), ("report.png", "")} <= kept
    assert {("model.keras", "model/data"), ("contract.json", "model")} <= kept
    ((_, said, place),) = world.of("log_dict")
    assert (place, said["run_id"]) == ("model/MLmodel", "abc")
    assert world.calls[-1] == ("set_terminated", "abc", "FINISHED")


def test_a_resumed_run_goes_on_in_its_account(world: World, small: list[str]) -> None:
    def log(line: str) -> None:
        if line.startswith("epoch 1/"):
            os.kill(os.getpid(), signal.SIGTERM)

    folder = fit(EXPERIMENT, small, log=log).folder
    assert world.calls[-1] == ("set_terminated", "abc", "KILLED")
    world.calls.clear()
    fit(EXPERIMENT, small, log=lambda line: None, resume=str(folder))
    assert not world.of("create_run")
    assert world.of("update_run") == [("abc", "RUNNING")]
    steps = [{metric.step for metric in metrics} for _, metrics, _ in world.of("log_batch")]
    assert steps == [{2}, {0}]
    assert world.calls[-1] == ("set_terminated", "abc", "FINISHED")


def test_a_server_that_fails_within_training_is_one_line(world: World, small: list[str]) -> None:
    world.broken = lambda calls: calls[-1][0] == "log_batch" and bool(calls[-1][2])
    lines: list[str] = []
    folder = fit(EXPERIMENT, small, log=lines.append).folder
    assert (folder / "finished.json").is_file()
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    (line,) = [line for line in lines if "MLflow fails" in line]
    assert line.startswith("warning: ")
    assert "the server is gone" in line
    assert world.calls[-1][0] == "log_batch"  # nothing was asked of it afterwards


def everything(experiment: Experiment, folder: Path, lines: list[str]) -> None:
    with tracking(experiment, folder, lines.append) as tracker:
        tracker.epoch(ROW)
        tracker.report(folder, CONTRACT, {"mean_iou": {"value": 0.5}}, [folder / "curves.png"])


@pytest.mark.parametrize("number", range(1, 15))
def test_whatever_call_fails_it_is_one_line(world: World, tmp_path: Path, number: int) -> None:
    world.broken = lambda calls: len(calls) >= number
    lines: list[str] = []
    everything(tracked("http://tracking.example"), run_folder(tmp_path), lines)
    assert len(world.calls) == number
    assert sum(line.startswith("warning: MLflow fails") for line in lines) == 1
    assert all("\n" not in line for line in lines)


def test_fourteen_calls_are_all(world: World, tmp_path: Path) -> None:
    everything(tracked("http://tracking.example"), run_folder(tmp_path), [])
    assert len(world.calls) == 14


@pytest.mark.parametrize("text", ["{}", "[]", '"x"', "", '{"run_id": "abc"}'])
def test_an_account_that_names_no_run_is_one_line(world: World, tmp_path: Path, text: str) -> None:
    folder, lines = run_folder(tmp_path), list[str]()
    (folder / ACCOUNT).write_text(text)
    everything(tracked("http://tracking.example"), folder, lines)
    (line,) = lines
    assert line.isprintable()
    assert line.startswith(f"warning: {folder / ACCOUNT} does not name an MLflow run")
    assert not world.calls


def test_another_place_has_a_run_of_its_own(world: World, tmp_path: Path) -> None:
    folder, said = run_folder(tmp_path), []
    for place in ("http://one.example", "http://other.example", "http://other.example"):
        with tracking(tracked(place), folder, lambda line: None):
            said.append(json.loads((folder / ACCOUNT).read_text())["place"])
    assert said == ["http://one.example", "http://other.example", "http://other.example"]
    assert len(world.of("create_run")) == 2
    assert world.of("update_run") == [("abc", "RUNNING")]


def test_a_full_disk_is_no_fault_of_mlflow_and_leaves_no_run_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(room, "write_json", full)
    folder, lines = run_folder(tmp_path), list[str]()
    with pytest.raises(OSError, match="No space left") as caught:
        everything(tracked("http://tracking.example"), folder, lines)
    assert caught.value.filename == str(folder / ACCOUNT)
    assert world.calls[-1] == ("delete_run", "abc")
    assert not lines


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_an_error_in_training_is_told_and_passes(
    world: World, tmp_path: Path, error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), tracking(tracked("http://tracking.example"), run_folder(tmp_path), lambda line: None):
        raise error
    assert world.calls[-1] == ("set_terminated", "abc", status)


def test_it_is_not_imported_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import of it fails
    experiment, folder, lines = load(EXPERIMENT), run_folder(tmp_path), list[str]()
    require(experiment.track)
    everything(experiment, folder, lines)
    assert not lines
    assert not (folder / ACCOUNT).exists()


def test_what_is_missing_is_one_line_with_what_to_type(monkeypatch: pytest.MonkeyPatch, small: list[str]) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'leakdet_tf\[mlflow\]'") as caught:
        fit(EXPERIMENT, small, log=lambda line: None)
    assert str(caught.value).isprintable()


def test_a_password_does_not_get_into_the_run_s_files() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD"):
        tracked("https://me:secret@tracking.example")


def test_what_the_user_set_for_mlflow_stays(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "99")
    everything(tracked("http://tracking.example"), run_folder(tmp_path), [])
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "99"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


# --- with MLflow itself ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlflow() -> Any:
    """MLflow, or a skip."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        reason = "MLflow is not installed; runs again after: pip install 'leakdet_tf[mlflow]'"
        return pytest.importorskip("mlflow", reason=reason)


@pytest.mark.filterwarnings("default")
def test_mlflow_keeps_it_in_a_folder(mlflow: Any, tmp_path: Path) -> None:
    from mlflow.types import Schema

    folder, lines = run_folder(tmp_path), list[str]()
    experiment = tracked(str(tmp_path / "mlruns"))
    everything(experiment, folder, lines)
    assert [line[:17] for line in lines] == ["tracked by MLflow"]
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    run_id = json.loads((folder / ACCOUNT).read_text())["run_id"]
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", folder.name)
    assert run.data.params == parameters(experiment)
    assert [(one.step, one.value) for one in client.get_metric_history(run_id, "val_mean_iou")] == [(1, 0.25)]
    assert run.data.metrics["test/mean_iou"] == 0.5
    assert {file.path for file in client.list_artifacts(run_id, "model")} == {
        "model/MLmodel",
        "model/contract.json",
        "model/data",
    }
    place = Path(client.download_artifacts(run_id, "model", str(tmp_path)))
    said = json.loads((place / "MLmodel").read_text())
    (given,) = Schema.from_json(said["signature"]["inputs"]).inputs
    assert (given.name, given.type.name, given.shape) == ("image", "uint8", (-1, 32, 48, 3))
    assert (place / said["flavors"]["keras"]["data"] / "model.keras").is_file()
    with tracking(experiment, folder, lines.append) as tracker:  # resumed
        tracker.epoch(ROW | {"epoch": 2})
    assert len(client.get_metric_history(run_id, "loss")) == 2
    assert client.get_run(run_id).info.status == "KILLED"


@pytest.fixture
def server() -> Iterator[Callable[[bytes], str]]:
    """``server(body)``: the address of a server that gives everyone this answer."""
    running: list[HTTPServer] = []

    def serve(body: bytes) -> str:
        class Same(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *given: Any) -> None:
                pass

        running.append(HTTPServer(("127.0.0.1", 0), Same))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}"

    yield serve
    for one in running:
        one.shutdown()
        one.server_close()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"null", b"3", b'{"experiment": 3}', b'{"experiment": {}}', b"{}"])
def test_a_server_that_talks_nonsense_is_one_line(
    mlflow: Any, tmp_path: Path, server: Callable[[bytes], str], body: bytes
) -> None:
    lines: list[str] = []
    everything(tracked(server(body)), run_folder(tmp_path), lines)
    assert [line for line in lines if line.startswith("warning: MLflow fails")]
    assert len(lines) == 1


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("place", ["http://127.0.0.1:9", "nonsense://here"])
def test_a_server_that_is_not_there_is_one_line(mlflow: Any, tmp_path: Path, place: str) -> None:
    lines: list[str] = []
    everything(tracked(place), run_folder(tmp_path), lines)
    assert len(lines) == 1
    assert lines[0].startswith("warning: MLflow fails")
