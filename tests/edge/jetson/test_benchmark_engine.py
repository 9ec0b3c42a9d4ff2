"""``benchmark`` of a bundle whose engine is run: what is told is the engine's, not that of ``model.onnx`` beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.edge.tensorrt import Settings
from leakdet_tf.edge.tensorrt_build import build
from leakdet_tf.jobs import benchmark as job

CHILD = """
import runpy
import standin_world
standin_world.install()
runpy.run_module('leakdet_tf.edge.benchmark', run_name='__main__')
"""
METRIC = {"name": "mean_iou", "value": 0.7, "low": None, "high": None}


@pytest.fixture
def gated(device: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle with a metric that the export measured, and children that see the stand-ins."""
    card = json.loads((bundle / "card.json").read_bytes())
    (bundle / "card.json").write_text(json.dumps({**card, "gate": {"metric": METRIC}}))
    device.make.seal(bundle)
    monkeypatch.setattr(job, "COMMAND", [sys.executable, "-c", CHILD])
    return bundle


def measured(*folders: Path, **given: Any) -> job.Benchmarked:
    options = {"threads": [1], "runs": 2, "warm_up": 0, **given}
    return job.benchmark([str(folder) for folder in folders], log=lambda _: None, **options)


def test_precision_and_bytes_are_the_engine_s_and_the_onnx_file_s_metric_is_left_out(
    device: Any, gated: Path, tmp_path: Path
) -> None:
    beside = device.make.bundle(tmp_path / "onnx_float32", kind="onnx_float32")
    for precision in ("float16", "int8"):
        engine = build(gated, Settings(precision)).engine
        done = measured(gated, beside, seconds=0.01)
        first, second = done.report["bundles"]
        assert first["engine"]["precision"] == precision
        assert first["engine"]["key"] == engine.key.name
        assert first["model_bytes"] == len(engine.plan) != (gated / "model.onnx").stat().st_size
        assert first["metric"] is None
        assert second["engine"] is None
        assert second["model_bytes"] == (beside / "model.onnx").stat().st_size
        assert any("precision" in line for line in done.lines)
        (line,) = [line for line in done.lines if line.startswith("bundle ") and precision in line]
        assert "mean_iou" not in line
        (line,) = [line for line in done.lines if line.startswith("onnx_float32 ") and "%" in line]
        assert not any(word in line for word in ("float16", "int8 "))


def test_an_engine_built_anew_meanwhile_is_not_pooled(
    device: Any, gated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(gated)
    ask, asked = job.ask, []

    def late(request: Any) -> dict[str, Any]:
        asked.append(request)
        if len(asked) == 2:
            build(gated, Settings("int8"))
        return ask(request)

    monkeypatch.setattr(job, "ask", late)
    with pytest.raises(LeakdetError, match=f"{gated}: its engine was built again meanwhile"):
        measured(gated)
    assert len(asked) == 2
