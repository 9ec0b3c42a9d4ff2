"""MLflow's account of a run: what it was told, its figures epoch by epoch, its report and its model.

A run does not need it: what MLflow cannot take is told in one line, and training goes on without it. MLflow is imported
when ``track.mlflow`` names a place, not before.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import Any

from leakdet_tf.config.loading import flatten
from leakdet_tf.config.schema import Experiment, Track
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import MissingExtraError
from leakdet_tf.core.files import write_json
from leakdet_tf.core.tasks import task_of
from leakdet_tf.core.version import __version__
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.jobs.run.runs import EXPERIMENT, MODEL, Log

ACCOUNT = "mlflow.json"
"""The run's file that names its MLflow run, so that a resumed one goes on in it."""
_MODEL = "model"  # of the model, among the artifacts
_AT_ONCE = 100  # parameters that MLflow takes in one call
_LONGEST_NAME, _LONGEST_VALUE = 250, 6000
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it tells its makers what is called
    "MLFLOW_ALLOW_FILE_STORE": "true",  # MLflow wants to be asked for folders, and the experiment file did
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # by default 7, minutes in which training would stand still
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",  # no complaint where there is no git
}


def require(settings: Track) -> None:
    """Raise MissingExtraError, with the line to type, when MLflow is asked for and not installed."""
    if settings.mlflow and find_spec("mlflow") is None:
        raise MissingExtraError(
            "track.mlflow needs the package 'mlflow-skinny', which is not installed",
            remedy="pip install 'leakdet_tf[mlflow]', or leave track.mlflow empty",
        )


class Tracker:
    """Hands a run's account to MLflow. After its first failure, or without a client, it does nothing.

    Args:
        connect: gives the ``mlflow.MlflowClient``, always the same one; or None.
        failures: the exceptions by which making or asking it fails.
        log: takes the line that tells a failure.
    """

    def __init__(self, connect: Callable[[], Any] | None, failures: tuple[type[Exception], ...], log: Log) -> None:
        self._connect, self._failures, self._log = connect, failures, log
        self._run_id = ""
        self._reported = False

    def begin(self, experiment: Experiment, folder: Path) -> None:
        """Begin a run in MLflow with the resolved experiment as its parameters, or go on in that of a resumed run.

        Raises:
            OSError: the run's folder cannot take its file, and MLflow has no run of it then.
        """
        if self._connect is None:
            return
        account, place = folder / ACCOUNT, experiment.track.mlflow
        try:
            known = _known(account, place)
        except (KeyError, TypeError, ValueError):
            self._log(
                f"warning: {account} does not name an MLflow run, so that none is told of this; delete it for one"
            )
            self._connect = None
            return

        def act(client: Any) -> None:
            if known:
                client.update_run(known, status="RUNNING")
            self._run_id = known or _begun(client, experiment, folder)

        if not self._try(act):
            return
        if not known:
            try:
                write_json(account, {"place": place, "run_id": self._run_id})
            except OSError:  # a resumed run would begin a second one
                self._try(lambda client: client.delete_run(self._run_id))
                raise
        self._log(f"tracked by MLflow: {place}, run {self._run_id}")

    def epoch(self, row: Mapping[str, float]) -> None:
        """A row of ``history.csv``: its figures, its epoch as the step."""
        values = {key: value for key, value in row.items() if key != "epoch"}
        self._try(lambda client: _log_figures(client, self._run_id, values, int(row["epoch"])))

    def report(self, folder: Path, contract: Contract, metrics: Mapping[str, Any], files: Sequence[Path]) -> None:
        """The report's figures, files of the run, and its model with a signature.

        The model is a folder that ``mlflow.keras`` reads; in it are the run's own ``model.keras`` and contract.

        Args:
            folder: the run's.
            contract: the model's.
            metrics: of the report on the test pictures.
            files: which of the run's files are kept beside its experiment and contract.
        """

        def act(client: Any) -> None:
            _log_figures(client, self._run_id, figures(metrics), 0)
            for file in (folder / EXPERIMENT, folder / CONTRACT, *files):
                client.log_artifact(self._run_id, str(file))
            client.log_artifact(self._run_id, str(folder / MODEL), f"{_MODEL}/data")
            client.log_artifact(self._run_id, str(folder / CONTRACT), _MODEL)
            client.log_dict(self._run_id, described(contract, self._run_id), f"{_MODEL}/MLmodel")

        self._try(act)
        self._reported = True

    def end(self, status: str = "") -> None:
        """Say how the run ended: ``status``, or else ``FINISHED`` when it has its report and ``KILLED`` when not."""
        how = status or ("FINISHED" if self._reported else "KILLED")
        self._try(lambda client: client.set_terminated(self._run_id, how))

    def _try(self, act: Callable[[Any], None]) -> bool:
        # whether it was done
        if self._connect is None:
            return False
        try:
            act(self._connect())
        except self._failures as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._log(f"warning: MLflow fails and gets no more of this run, whose folder has it all ({reason})")
            self._connect = None
        return self._connect is not None


@contextmanager
def tracking(experiment: Experiment, folder: Path, log: Log) -> Iterator[Tracker]:
    """A tracker for the run in ``folder``, which says how the run ended when the block is left.

    It does nothing when ``track.mlflow`` is empty.
    """
    tracker = _opened(experiment.track.mlflow, log)
    tracker.begin(experiment, folder)
    try:
        yield tracker
    except BaseException as error:
        tracker.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.end()


def _opened(place: str, log: Log) -> Tracker:
    if not place:
        return Tracker(None, (), log)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow
    from google.protobuf.json_format import Error

    address = place if "://" in place or place == "databricks" else Path(place).resolve().as_uri()
    connect = functools.cache(lambda: mlflow.MlflowClient(tracking_uri=address, registry_uri=address))
    # those of requests are OSErrors; an answer that is no JSON, or other JSON than expected, has its own kinds
    return Tracker(connect, (mlflow.exceptions.MlflowException, Error, OSError, ValueError), log)


def _known(account: Path, place: str) -> str:
    # The MLflow run that a resumed run goes on in; empty where there is none at this place.
    if not account.is_file():
        return ""
    said = json.loads(account.read_text(encoding="utf-8"))
    return str(said["run_id"]) if said["place"] == place else ""


def _begun(client: Any, experiment: Experiment, folder: Path) -> str:
    from mlflow.entities import Param

    name = experiment.track.experiment or experiment.name
    known = client.get_experiment_by_name(name)
    place = known.experiment_id if known else client.create_experiment(name)
    tags = {"mlflow.source.name": "leakdet-tf fit", "leakdet_tf.run_folder": str(folder.resolve())}
    run_id = str(client.create_run(place, run_name=folder.name, tags=tags).info.run_id or "")
    if not run_id:
        raise ValueError("its answer names no run")
    params = [Param(key, value) for key, value in parameters(experiment).items()]
    for first in range(0, len(params), _AT_ONCE):
        client.log_batch(run_id, params=params[first : first + _AT_ONCE])
    return run_id


def _log_figures(client: Any, run_id: str, values: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric

    now = int(time() * 1000)
    client.log_batch(run_id, metrics=[Metric(_named(key), float(value), now, step) for key, value in values.items()])


def parameters(experiment: Experiment) -> dict[str, str]:
    """The resolved experiment as text by dotted key (``train.learning_rate``), and the version of this package."""
    keys = {_named(key): _said(value)[:_LONGEST_VALUE] for key, value in flatten(experiment.model_dump()).items()}
    return {**keys, "leakdet_tf": __version__}


def figures(metrics: Mapping[str, Any], prefix: str = "test") -> dict[str, float]:
    """A report's numbers by path: ``test/mean_iou``, and ``test/mean_iou_low`` and ``_high`` of its interval."""
    found: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found |= figures(value, f"{prefix}/{key.replace('/', '_')}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[{"value": prefix, "low": f"{prefix}_low", "high": f"{prefix}_high"}.get(key, f"{prefix}/{key}")] = (
                value
            )
    return found


def described(contract: Contract, run_id: str) -> dict[str, Any]:
    """What an ``MLmodel`` file says: how ``mlflow.keras`` reads the model, and what goes in and comes out.

    The signature is of tensors: pixels of each input's dtype (-1, h, w, C) by name, float32 (-1, …) out.
    """
    import keras

    inputs = [_tensor(spec.dtype, spec.shape, name) for name, spec in contract.inputs.items()]
    shape = task_of(contract).output_shape(contract.inputs[contract.primary].size, len(contract.classes))
    return {
        "artifact_path": _MODEL,
        "run_id": run_id,
        "flavors": {
            "keras": {
                "data": "data",
                "keras_version": keras.__version__,
                "keras_backend": keras.backend.backend(),
                "save_exported_model": False,
            }
        },
        "signature": {"inputs": json.dumps(inputs), "outputs": json.dumps([_tensor("float32", shape)]), "params": None},
    }


def _tensor(dtype: str, shape: Sequence[int], name: str = "") -> dict[str, Any]:
    named = {"name": name} if name else {}
    return {**named, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}


def _named(key: str) -> str:
    # MLflow takes these characters alone.
    return re.sub(r"[^\w./ -]", "_", key, flags=re.ASCII)[:_LONGEST_NAME]


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
