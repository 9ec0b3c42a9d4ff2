"""What a search for float layers need not compute again, and that its files are the same all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.config.schema import Export
from leakdet_tf.core.errors import ExportError
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.backends import open_backend
from leakdet_tf.formats import onnx, tflite
from leakdet_tf.formats.bundle import FORMATS, Metric, make_bundle
from leakdet_tf.formats.child import Layer
from leakdet_tf.formats.parity import Recalled

Get = Callable[[str], Any]
CONVERTERS = {"tflite_int8": tflite.convert, "onnx_int8": onnx.convert}


@pytest.mark.parametrize("form", CONVERTERS)
def test_a_later_try_begins_from_the_first_and_makes_the_same_file(
    form: str, tiny: Get, at_once: None, tmp_path: Path
) -> None:
    own, convert, memory = tiny("segment"), CONVERTERS[form], tmp_path / "memory"
    contract, calibration = tmp_path / "contract.json", own.calibration().path
    own.contract.save(contract)
    memory.mkdir()
    how: dict[str, Any] = {"form": form, "calibration": calibration}
    assert convert(own.file, contract, tmp_path / "first", **how, memory=memory) == []
    layers = convert(tmp_path / "gone.keras", contract, tmp_path / "x", **how, memory=memory, rank=True)
    keep = [layers[0].name]
    convert(own.file, contract, tmp_path / "plain", **how, keep=keep)
    convert(tmp_path / "gone.keras", contract, tmp_path / "later", **how, keep=keep, memory=memory)

    def answers(name: str) -> np.ndarray:
        backend = open_backend(f"model.{form.partition('_')[0]}", (tmp_path / name).read_bytes(), own.contract)
        return np.stack([next(iter(backend.run(own.contract.prepare(one)[0]).values())) for one in own.frames])

    np.testing.assert_array_equal(answers("later"), answers("plain"))
    assert (answers("plain") != answers("first")).any()
    (tmp_path / "x").unlink()
    with pytest.raises(ExportError, match="no layer of the converted model is called 'nobody'"):
        convert(own.file, contract, tmp_path / "x", **how, keep=["nobody"], memory=memory)
    with pytest.raises(ExportError, match="nothing is left to quantize"):
        convert(own.file, contract, tmp_path / "x", **how, keep=[layer.name for layer in layers], memory=memory)


def test_two_searches_share_nothing(
    tiny: Get, evidence: Any, at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tiny("segment")
    made = evidence(own.reference, own.frames, drop=0.5, calibration=own.calibration())
    seen: list[Path] = []
    converts = CONVERTERS["tflite_int8"]

    def convert(*files: Path, memory: Path, **how: Any) -> list[Layer]:
        seen.append(memory)
        return converts(*files, memory=memory, form="tflite_int8", **how)

    monkeypatch.setitem(FORMATS, "tflite_int8", replace(FORMATS["tflite_int8"], convert=convert))
    for _ in range(2):
        with pytest.raises(ExportError, match="points below"):
            make_bundle(own.file, own.contract, made, tmp_path / "x", Export(), {}, "tflite_int8")
    assert len(set(seen)) == 2 < len(seen), "one folder a search"
    assert not any(folder.exists() for folder in seen)
    assert list(tmp_path.iterdir()) == []


def test_pixels_of_two_inputs_in_8_bits_and_16(tiny: Get, evidence: Any, at_once: None, tmp_path: Path) -> None:
    own = tiny("two inputs")
    made = evidence(own.reference, own.frames, calibration=own.calibration())
    done = make_bundle(own.file, own.contract, made, tmp_path / "x", Export(max_turned=1.0), {}, "tflite_int8")
    predictor = Predictor(done.folder)
    for images in own.frames:
        (ours,), (theirs,) = own.reference.outputs(images).values(), predictor.outputs(images).values()
        assert np.abs(ours - theirs).mean() < 0.05
    assert done.metric == Metric("figure", 0.9, None, None)


def test_a_picture_is_answered_once(tmp_path: Path) -> None:
    asked: list[Any] = []

    class Counting:
        def run(self, inputs: Any) -> dict[str, np.ndarray]:
            asked.append(inputs)
            return {"output": inputs["image"].astype(np.float32) * len(asked)}

    recalled = Recalled(Counting(), tmp_path)
    one, other = (np.full((2, 2, 3), value, np.uint8) for value in (1, 2))
    first = recalled.run({"image": one})["output"]
    np.testing.assert_array_equal(first, 1)
    np.testing.assert_array_equal(recalled.run({"image": other})["output"], 4)
    np.testing.assert_array_equal(recalled.run({"image": one})["output"], first)
    np.testing.assert_array_equal(recalled.run({"thermal": one, "image": one})["output"], 3)
    assert len(asked) == 3
