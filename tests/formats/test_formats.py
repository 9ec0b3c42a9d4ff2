"""Every task in every format: the file answers as its model does, and is what its format promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from leakdet_tf.config.schema import Export
from leakdet_tf.core.boxes import pairs
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ContractError, ExportError
from leakdet_tf.edge import Predictor, open_bundle
from leakdet_tf.formats.bundle import FORMATS, make_bundle, require
from leakdet_tf.formats.parity import compare, unit_of

EXACT = [name for name, form in FORMATS.items() if form.exact]
TASKS = ["segment", "classify", "detect", "two inputs"]
OUTPUTS = ["raw", "decoded", "final"]
Get = Callable[[str], Any]


@pytest.fixture(scope="module")
def files() -> dict[tuple[str, str, str], Path]:
    """What has been exported, by task, format and outputs: each is made once, by the first test that needs it."""
    return {}


@pytest.fixture
def exported(tiny: Get, files: dict[Any, Path], at_once: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def get(task: str, form: str, outputs: str = "raw") -> Path:
        key = (task, form, outputs)
        if key not in files:
            folder = tmp_path_factory.mktemp("export") / form
            made = tiny(task).bundle(folder, form, Export(max_changed=0.0, outputs=outputs))
            assert made.folder == folder
            files[key] = folder
        return files[key]

    return get


def opened(folder: Path) -> Predictor:
    """A bundle as it is run; one that waits for its engine as onnxruntime answers it."""
    sealed = open_bundle(folder)
    waits = FORMATS[sealed.card["kind"]].on_device
    return Predictor(replace(sealed, card=sealed.card | {"kind": "onnx_float32"}) if waits else sealed)


@pytest.mark.parametrize("form", EXACT)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_answered_as_by_its_model(task: str, form: str, tiny: Get, exported: Any) -> None:
    own, folder = tiny(task), exported(task, form)
    predictor = opened(folder)
    for images in own.frames:
        (ours,), (theirs,) = own.reference.outputs(images).values(), predictor.outputs(images).values()
        assert theirs.dtype == np.float32
        np.testing.assert_allclose(theirs, ours, atol=3e-4 if task == "detect" else 2e-5)  # sums of 3072 values
    assert predictor.contract == own.contract
    card = open_bundle(folder).card
    assert card["kind"] == form
    assert card["model"]["file"] == FORMATS[form].file
    assert card["parity"]["pictures"] == 3
    assert card["parity"]["decisions"] == {"classify": 3, "detect": 3 * 126}.get(task, 3 * 64 * 96)
    assert card["parity"]["changed"] == 0


@pytest.mark.parametrize("task", TASKS)
def test_an_onnx_file_holds_what_it_promises(task: str, tiny: Get, exported: Any) -> None:
    folder = exported(task, "onnx_float32")
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx", "contract.json", "golden.npz", "card.json", "SHA256SUMS",
    }  # fmt: skip
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import if not item.domain] == [("", 17)]
    assert Predictor(folder).card["model"]["opset"] == 17
    given = {tensor.name: tensor.type.tensor_type for tensor in model.graph.input}
    kinds = {"uint8": onnx.TensorProto.UINT8, "uint16": onnx.TensorProto.UINT16}
    for name, spec in tiny(task).contract.inputs.items():
        sides = given[name].shape.dim
        assert sides[0].dim_param == "batch"
        assert tuple(side.dim_value for side in sides[1:]) == spec.shape
        assert given[name].elem_type == kinds[spec.dtype]
    assert set(given) == set(tiny(task).contract.inputs)
    assert [tensor.name for tensor in model.graph.output] == ["output"]
    assert not [one.name for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    assert {node.domain for node in model.graph.node} <= {""}, "standard operators only"


@pytest.mark.parametrize(
    ("task", "outputs"), [*((task, "raw") for task in TASKS), *(("detect", o) for o in OUTPUTS[1:])]
)
def test_an_onnx_file_takes_a_batch(task: str, outputs: str, tiny: Get, exported: Any) -> None:
    import onnxruntime

    folder = exported(task, "onnx_float32", outputs)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    predictor = Predictor(folder)
    prepared = [predictor.prepare(images)[0] for images in tiny(task).frames]
    batch = {name: np.stack([one[name] for one in prepared]) for name in prepared[0]}
    (together,) = session.run(["output"], batch)
    assert len(together) == 3
    for answer, single in zip(together, prepared, strict=True):
        np.testing.assert_allclose(answer, predictor.backend.run(single)["output"], atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 1e-3, "the pictures must differ, or this test shows nothing"


@pytest.mark.parametrize(
    ("outputs", "form"),
    [(o, form) for o in OUTPUTS for form in EXACT if not (o == "final" and FORMATS[form].on_device)],  # it refuses NMS
)
def test_a_detector_gives_the_same_boxes_whatever_its_graph_does(
    outputs: str, form: str, tiny: Get, exported: Any
) -> None:
    own, folder = tiny("detect"), exported("detect", form, outputs)
    predictor = opened(folder)
    random, number = np.random.default_rng(3), 0
    for _ in range(4):
        picture = random.integers(0, 255, (90, 70, 3), dtype=np.uint8)
        ours, theirs = own.reference.predict(picture), predictor.predict(picture)
        assert (pairs(ours, theirs) >= 0).all()
        assert len(ours) == len(theirs)
        number += len(ours)
    assert number > 40, "without boxes this test shows nothing"
    contract = Contract.load(folder / "contract.json")
    shape = {"raw": (126, 67), "decoded": (126, 7), "final": (300, 6)}[outputs]
    assert next(iter(predictor.outputs(own.frames[0]).values())).shape == shape
    parent = None if outputs == "raw" else own.contract.id
    assert contract == replace(own.contract, outputs=outputs, parent=parent)
    assert predictor.card["contract"] == contract.id == predictor.predict(picture).model
    assert predictor.card["parity"]["decisions"] >= (30 if outputs == "final" else 3 * 126)


def test_a_detector_in_tflite_has_builtin_operators_only(exported: Any) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(exported("detect", "tflite_float32", "final") / "model.tflite"))
    names = [operator["op_name"] for operator in interpreter._get_ops_details()]
    assert "NON_MAX_SUPPRESSION_V4" in names
    assert not [name for name in names if name.startswith(("Flex", "CUSTOM"))]


def test_golden_frames_of_final_boxes_show_some(tiny: Get, evidence: Any, at_once: None, tmp_path: Path) -> None:
    own = tiny("detect")
    random = np.random.default_rng(5)
    pictures = [{"image": random.integers(0, 255, (64, 96, 3), dtype=np.uint8)} for _ in range(6)]
    best = [float(own.reference.predict(one["image"]).scores[0]) for one in pictures]
    order = np.argsort(best)
    sure = replace(own.contract, threshold=(best[order[-1]] + best[order[-2]]) / 2)
    reference = Predictor.over(own.reference.backend, sure)
    settings = Export(max_changed=0.0, outputs="final", golden=1)
    frames = [pictures[place] for place in order]
    make_bundle(own.file, sure, evidence(reference, frames), tmp_path / "x", settings, {}, "onnx_float32")
    (golden,) = open_bundle(tmp_path / "x").golden
    np.testing.assert_array_equal(golden.images["image"], frames[-1]["image"])
    assert golden.outputs["output"][0, 4] > sure.threshold


def test_final_boxes_need_something_to_compare(tiny: Get, evidence: Any, at_once: None, tmp_path: Path) -> None:
    own = tiny("detect")
    blind = replace(own.contract, threshold=1.0)
    reference = Predictor.over(own.reference.backend, blind)
    with pytest.raises(ExportError, match=r'finds no boxes to compare; .*export\.outputs = "decoded"'):
        made = evidence(reference, own.frames)
        make_bundle(own.file, blind, made, tmp_path / "x", Export(outputs="final"), {}, "onnx_float32")
    assert list(tmp_path.iterdir()) == []


class Changed:
    """A runtime whose outputs are changed by a function."""

    def __init__(self, inner: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.inner, self.change = inner, change

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        return {name: self.change(array.copy()) for name, array in self.inner.run(inputs).items()}


def moved(array: np.ndarray) -> np.ndarray:
    """Boxes alone are moved: by 2 pixels, or in logits towards the far bins."""
    if array.shape[1] == 67:
        array[:, :64] += np.tile(np.linspace(0, 1, 16, dtype=np.float32), 4)
    else:
        array[:, :4] += 2 * (np.abs(array[:, :4]).sum(1, keepdims=True) > 0)
    return array


def scored(array: np.ndarray) -> np.ndarray:
    """Scores alone are changed."""
    if array.shape[1] == 6:
        array[:, 4] *= 0.99
    else:
        array[:, -3:] = array[:, -3:] * np.float32(0.9) + np.float32([0, 0.4, 0])
    return array


def lost(array: np.ndarray) -> np.ndarray:
    """The first class is gone."""
    if array.shape[1] == 6:
        return array * (array[:, 5:] != 0)
    array[:, -3] = -20 if array.shape[1] == 67 else 0
    return array


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("change", [moved, scored, lost], ids=lambda change: change.__name__)
def test_a_detector_that_answers_otherwise_is_refused(
    outputs: str, change: Any, tiny: Get, exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tiny("detect")
    predictor = Predictor(exported("detect", "onnx_float32", outputs))
    wrong = Changed(predictor.backend, change)
    fine = compare(own.reference, predictor, own.frames)
    assert fine.changed == 0
    assert fine.max_difference < 1e-2
    found = compare(own.reference, Predictor.over(wrong, predictor.contract), own.frames)
    assert found.changed > 0.05 * found.decisions
    monkeypatch.setattr("leakdet_tf.formats.bundle.open_backend", lambda *_, **__: wrong)
    unit = "boxes" if outputs == "final" else "anchors"
    with pytest.raises(ExportError, match=f"of {found.decisions} validation {unit} are decided otherwise"):
        own.bundle(tmp_path / "x", "onnx_float32", Export(outputs=outputs))
    assert list(tmp_path.iterdir()) == []


def test_final_parity_counts_each_box_once(tiny: Get, exported: Any) -> None:
    own = tiny("detect")
    predictor = Predictor(exported("detect", "onnx_float32", "final"))
    answers = [predictor.predict(images["image"]) for images in own.frames]
    total = sum(len(answer) for answer in answers)
    gone = sum(int((answer.labels == 0).sum()) for answer in answers)
    parity = compare(own.reference, Predictor.over(Changed(predictor.backend, lost), predictor.contract), own.frames)
    assert (parity.decisions, parity.changed) == (total, gone)
    best = max(float(answer.scores[answer.labels == 0].max(initial=0)) for answer in answers)
    assert parity.max_margin == pytest.approx(best - own.contract.threshold, abs=1e-3)


@pytest.mark.parametrize("outputs", ["raw", "final"])
def test_a_detector_that_computes_otherwise_is_told_by_the_boxes_that_a_user_sees(
    outputs: str, tiny: Get, exported: Any
) -> None:
    """A box that moves by two pixels is the same box to its user; one that is gone is not."""
    own = tiny("detect")
    predictor = Predictor(exported("detect", "onnx_float32", outputs))
    answers = [predictor.predict(images["image"]) for images in own.frames]

    def counted(change: Any) -> tuple[int, int]:
        wrong = Predictor.over(Changed(predictor.backend, change), predictor.contract)
        found = compare(own.reference, wrong, own.frames, exact=False)
        return found.decisions, found.changed

    total, gone = sum(map(len, answers)), sum(int((answer.labels == 0).sum()) for answer in answers)
    assert 0 < gone < total
    assert counted(lambda array: array) == (total, 0)
    decisions, changed = counted(lost)
    assert decisions - total == changed - gone >= 0  # before suppression, another class may come up where one has gone
    if outputs == "final":
        assert (decisions, changed) == (total, gone)
        assert counted(moved) == (total, 0)
    assert unit_of(predictor.contract, exact=False) == "boxes"


def test_a_quantized_detector_without_boxes_has_nothing_to_compare(
    tiny: Get, evidence: Any, at_once: None, tmp_path: Path
) -> None:
    own = tiny("detect")
    blind = replace(own.contract, threshold=1.0)
    made = evidence(Predictor.over(own.reference.backend, blind), own.frames)
    with pytest.raises(ExportError, match="finds no boxes to compare; train it further or lower its threshold"):
        make_bundle(own.file, blind, made, tmp_path / "x", Export(), {}, "tflite_float16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_of_a_detector_cannot_pass(outputs: str, value: float, tiny: Get, exported: Any) -> None:
    def spoil(array: np.ndarray) -> np.ndarray:
        array[5, 1] = value
        return array

    predictor = Predictor(exported("detect", "onnx_float32", outputs))
    with pytest.raises(ContractError, match="NaN"):
        compare(tiny("detect").reference, Predictor.over(Changed(predictor.backend, spoil), predictor.contract),
                tiny("detect").frames)  # fmt: skip


def test_a_file_of_another_shape_is_refused(tiny: Get) -> None:
    own = tiny("detect")
    short = Predictor.over(Changed(own.reference.backend, lambda array: array[:, :-1]), own.contract)
    with pytest.raises(ContractError, match=r"shape \(126, 66\), the model's \(126, 67\)"):
        compare(own.reference, short, own.frames)


@pytest.mark.parametrize("name", ["tf2onnx", "onnx", "onnxruntime"])
def test_without_the_extra_one_line_says_what_to_type(
    name: str, tiny: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda asked: None if asked == name else found(asked))
    with pytest.raises(ExportError, match=rf"needs '{name}', .*; pip install 'leakdet_tf\[onnx\]'$"):
        tiny("segment").bundle(tmp_path / "x", "onnx_float32")
    with pytest.raises(ExportError, match=rf"needs '{name}'"):
        require(["tflite_float32", "onnx_float32"])
    require(["tflite_float32"])
    assert list(tmp_path.iterdir()) == []
