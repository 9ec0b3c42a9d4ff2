"""``leakdet-tf doctor``: what is there, what is missing with what to type, and runtimes that fail or kill."""

from __future__ import annotations

import json
import sys
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from leakdet_tf.cli import main
from leakdet_tf.jobs import doctor
from leakdet_tf.jobs.run import probe

REQUIRES = [
    "numpy>=2",
    'ai-edge-litert<3,>=2.3; python_version >= "3.11"',
    'numpy-of-tomorrow; python_version >= "9.0"',
    'tensorflow<2.22,>=2.20; extra == "train"',
    'Keras>=3; extra == "train"',
    'mlflow_skinny; python_version >= "3.11" and extra == "mlflow"',
    'pytest; extra == "test"',
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The packages of a made-up installation, to be changed; every runtime of it works."""
    versions = {"numpy": "2.4.6", "ai-edge-litert": "2.3.0", "tensorflow": "2.21.0", "keras": "3.15.1"}
    told = Message()
    for extra in ("train", "mlflow", "test"):
        told["Provides-Extra"] = extra
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(metadata, "metadata", lambda name: told)
    monkeypatch.setattr(doctor, "_version", versions.get)
    monkeypatch.setattr(doctor, "probe", lambda name: {"ok": True, "devices": ["CPU"], "backend": "tensorflow"})
    return versions


def line(found: doctor.Diagnosis, name: str) -> str:
    (text,) = [text for text in found.lines if text.split()[0] == name]
    return text.removeprefix(name).strip()


def test_requirements_are_told_by_extra_and_for_this_python(installed: dict[str, str]) -> None:
    assert doctor.requirements() == {
        "": ["numpy", "ai-edge-litert"],
        "train": ["tensorflow", "keras"],
        "mlflow": ["mlflow-skinny"],
    }


def test_what_is_missing_is_told_with_what_to_type(installed: dict[str, str]) -> None:
    found = doctor.diagnose()
    assert line(found, "base") == "installed"
    assert line(found, "[train]") == "installed"
    assert line(found, "[mlflow]") == "not installed (mlflow-skinny): pip install 'leakdet_tf[mlflow]'"
    assert found.works


def test_a_base_install_works_and_says_how_to_train(installed: dict[str, str]) -> None:
    del installed["tensorflow"], installed["keras"]
    found = doctor.diagnose()
    assert "tensorflow, keras): pip install 'leakdet_tf[train]'" in line(found, "[train]")
    assert list(found.facts["runtimes"]) == ["litert"]
    assert found.works


def test_it_imports_no_trainer_itself(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "keras", "pydantic", "rich", "matplotlib", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    monkeypatch.delitem(sys.modules, "leakdet_tf.jobs.doctor")
    monkeypatch.delitem(sys.modules, "leakdet_tf.jobs.run.probe")
    import importlib

    assert importlib.import_module("leakdet_tf.jobs.doctor").requirements()[""] == ["numpy", "ai-edge-litert"]


def test_other_versions_than_the_lock_s_are_named(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = tmp_path / "py311.txt"
    lock.write_text("keras==3.15.1\nNumPy==2.4.6\ntensorflow==2.21.0\n")
    monkeypatch.setattr(doctor, "_lock", lambda: lock)
    assert line(doctor.diagnose(), "versions") == "as in constraints/py311.txt"
    installed["keras"] = "3.16.0"
    assert line(doctor.diagnose(), "versions") == "others than in constraints/py311.txt: keras 3.16.0 (3.15.1)"
    monkeypatch.setattr(doctor, "_lock", lambda: None)
    assert "no lock" in line(doctor.diagnose(), "versions")


def test_a_runtime_that_fails_is_told_and_the_status_is_1(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe", lambda name: {"ok": False, "fault": "killed its process by SIGILL"})
    assert main(["doctor"]) == 1
    assert "2.3.0 FAILS: killed its process by SIGILL" in capsys.readouterr().out


def test_json_holds_everything(installed: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["packages"]["keras"]["version"] == "3.15.1"
    assert said["extras"]["mlflow"] == ["mlflow-skinny"]
    assert said["runtimes"]["keras"]["backend"] == "tensorflow"
    assert said["machine"]["cores"] >= 1
    assert said["machine"]["disk_free_mb"] >= 0


@pytest.mark.parametrize("name", ["litert", "onnxruntime"])
def test_the_runtimes_of_the_edge_run_their_model(name: str) -> None:
    pytest.importorskip(doctor._RUNTIMES[name].replace("-", "_"), reason=f"{name} is not installed; runs where it is")
    found = probe.probe(name)
    assert found["ok"], found
    assert "CPU" in found["devices"]


def test_tensorflow_and_keras_compute_here() -> None:
    tensorflow, keras = (probe.probe(name) for name in ("tensorflow", "keras"))
    assert tensorflow["ok"] and keras["ok"], (tensorflow, keras)
    assert "CPU" in tensorflow["devices"]
    assert keras["backend"] in ("tensorflow", "jax", "torch")


def test_a_wrong_answer_is_a_fault() -> None:
    probe._check(probe._given() * 2)
    with pytest.raises(ArithmeticError, match="doubled gave"):
        probe._check(probe._given() * 3)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "killed its process by SIGILL"),
        ("raise ImportError('libcuda.so: cannot open')", "ImportError: libcuda.so: cannot open"),
        ("import time; time.sleep(60)", "gave no answer in 3 s"),
    ],
)
def test_a_runtime_that_dies_does_not_take_us_along(
    text: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    found: dict[str, Any] = probe.probe("onnxruntime", limit_s=3 if "sleep" in text else 60)
    assert found == {"ok": False, "fault": fault}
