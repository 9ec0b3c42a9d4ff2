"""Export: converted, compared, sealed; beyond the bound nothing is left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Export
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ExportError
from leakdet_tf.data.readers import find_splits
from leakdet_tf.edge import Predictor, open_bundle
from leakdet_tf.formats.bundle import FORMATS, Evidence, make_bundle
from leakdet_tf.formats.child import Layer
from leakdet_tf.formats.parity import compare
from leakdet_tf.formats.tflite import convert
from leakdet_tf.jobs.run.data import samples
from leakdet_tf.jobs.run.runs import open_model


class Shifted:
    """A runtime whose answers for the second class are raised by ``amount``."""

    def __init__(self, inner: Any, amount: float) -> None:
        self.inner, self.amount = inner, amount

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        outputs = self.inner.run(inputs)
        return {name: array + np.float32([0, self.amount, 0]) for name, array in outputs.items()}


@pytest.fixture(scope="module")
def frames(run: Path) -> list[dict[str, np.ndarray]]:
    experiment = load(run / "experiment.toml")
    return [sample.images for sample in samples(experiment, find_splits(experiment.data)["val"][:4])]


@pytest.fixture
def converted(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the child process: the run's own file stands for the conversion, which other tests run for real."""
    content = (bundle / "model.tflite").read_bytes()

    def copy(model: Path, contract: Path, out: Path, **_: Any) -> list[Layer]:
        out.write_bytes(content)
        return []

    format_ = replace(FORMATS["tflite_float32"], convert=copy)
    monkeypatch.setitem(FORMATS, "tflite_float32", format_)


@pytest.fixture(scope="module")
def keras(run: Path) -> Predictor:
    return open_model(run).predictor


def test_the_bundle_holds_what_it_should_and_agrees_with_sha256sum(bundle: Path) -> None:
    names = {path.name for path in bundle.iterdir()}
    assert names == {"model.tflite", "contract.json", "golden.npz", "card.json", "SHA256SUMS"}
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_card_says_what_was_measured(run: Path, bundle: Path) -> None:
    card = json.loads((bundle / "card.json").read_text())
    data = json.loads((run / "data.json").read_text())
    assert card["contract"] == Contract.load(run / "contract.json").id
    assert card["parity"]["pictures"] == 6
    assert card["parity"]["decisions"] == 6 * 64 * 64
    assert card["parity"]["changed_share"] <= 1e-5
    assert card["model"]["bytes"] == (bundle / "model.tflite").stat().st_size
    assert {name: part["sha256"] for name, part in card["data"].items()} == {n: p["sha256"] for n, p in data.items()}
    assert 0 <= card["keras_test_metrics"]["mean_iou"]["value"] <= 1


def test_the_contract_is_copied_unchanged(run: Path, bundle: Path) -> None:
    assert Contract.load(bundle / "contract.json") == Contract.load(run / "contract.json")


def test_golden_frames_are_original_pictures_with_the_file_s_own_answers(
    bundle: Path, frames: list[dict[str, np.ndarray]]
) -> None:
    golden = open_bundle(bundle).golden
    assert len(golden) == 2
    np.testing.assert_array_equal(golden[0].images["image"], frames[0]["image"])
    answers = Predictor(bundle).outputs(golden[0].images)
    (name,) = answers
    np.testing.assert_allclose(answers[name], golden[0].outputs[name], atol=1e-6)


def test_only_builtin_operators_and_batch_one(bundle: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(bundle / "model.tflite"))
    (detail,) = interpreter.get_input_details()
    assert detail["shape"].tolist() == [1, 64, 64, 3]
    assert detail["dtype"] == np.uint8
    assert not [op["op_name"] for op in interpreter._get_ops_details() if op["op_name"].startswith(("Flex", "CUSTOM"))]


def test_keras_and_tflite_agree_on_every_output(
    keras: Predictor, bundle: Path, frames: list[dict[str, np.ndarray]]
) -> None:
    parity = compare(keras, Predictor(bundle), frames)
    assert parity.pictures == 4
    assert parity.decisions == 4 * 64 * 64
    assert parity.max_difference < 1e-4
    assert parity.changed_share <= 1e-5


def test_compare_counts_changed_decisions_and_their_margin(
    keras: Predictor, frames: list[dict[str, np.ndarray]]
) -> None:
    shifted = Predictor.over(Shifted(keras.backend, 0.25), keras.contract)
    parity = compare(keras, shifted, frames)
    before = [keras.outputs(images)["output_0"] for images in frames]
    after = [array + np.float32([0, 0.25, 0]) for array in before]
    expected = sum(int((a.argmax(-1) != b.argmax(-1)).sum()) for a, b in zip(before, after, strict=True))
    assert parity.changed == expected > 0
    assert parity.max_difference == pytest.approx(0.25, abs=1e-6)
    assert 0 < parity.max_margin <= 0.25 + 1e-6


@pytest.fixture
def attempt(run: Path, evidence: Callable[..., Evidence]) -> Any:
    def made(reference: Predictor, frames: list[dict[str, np.ndarray]], folder: Path) -> None:
        contract = Contract.load(run / "contract.json")
        make_bundle(run / "model.keras", contract, evidence(reference, frames), folder, Export(), {})

    return made


@pytest.mark.usefixtures("converted")
def test_beyond_the_bound_export_fails_and_leaves_nothing(
    attempt: Any, keras: Predictor, frames: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    wrong = Predictor.over(Shifted(keras.backend, 0.5), keras.contract)
    folder = tmp_path / "export" / "tflite_float32"
    with pytest.raises(ExportError, match=r"validation pixels are decided otherwise.*limit 1e-05"):
        attempt(wrong, frames, folder)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.usefixtures("converted")
def test_a_failed_export_leaves_the_older_bundle_as_it_was(
    attempt: Any, keras: Predictor, frames: list[dict[str, np.ndarray]], own_bundle: Path
) -> None:
    before = {path.name: path.read_bytes() for path in own_bundle.iterdir()}
    with pytest.raises(ExportError):
        attempt(Predictor.over(Shifted(keras.backend, 0.5), keras.contract), frames, own_bundle)
    assert {path.name: path.read_bytes() for path in own_bundle.iterdir()} == before
    assert [path.name for path in own_bundle.parent.iterdir()] == [own_bundle.name]


@pytest.mark.usefixtures("converted")
def test_an_export_replaces_an_older_bundle_whole(
    attempt: Any, keras: Predictor, frames: list[dict[str, np.ndarray]], own_bundle: Path
) -> None:
    (own_bundle / "stale.txt").write_text("old")
    attempt(keras, frames, own_bundle)
    assert not (own_bundle / "stale.txt").exists()
    assert [path.name for path in own_bundle.parent.iterdir()] == [own_bundle.name]
    Predictor(own_bundle)


@pytest.mark.usefixtures("converted")
def test_nan_outputs_cannot_pass(
    attempt: Any, keras: Predictor, frames: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    from leakdet_tf.core.errors import ContractError

    with pytest.raises(ContractError, match="NaN"):
        attempt(Predictor.over(Shifted(keras.backend, float("nan")), keras.contract), frames, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_no_pictures_no_bundle(attempt: Any, keras: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no validation pictures"):
        attempt(keras, [], tmp_path / "x")


def test_a_model_that_cannot_be_converted_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes((run / "model.keras").read_bytes()[:1000])
    with pytest.raises(ExportError) as caught:
        convert(tmp_path / "model.keras", run / "contract.json", tmp_path / "out.tflite")
    assert "\n" not in str(caught.value)
    assert "model.keras" in str(caught.value)
    assert not (tmp_path / "out.tflite").exists()


@pytest.mark.usefixtures("converted")
def test_a_disk_that_cannot_be_written_is_one_line(
    attempt: Any, keras: Predictor, frames: list[dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("leakdet_tf.formats.bundle.write_json", full)
    with pytest.raises(ExportError, match="No space left"):
        attempt(keras, frames, tmp_path / "export" / "tflite_float32")
    assert list((tmp_path / "export").iterdir()) == []


def test_a_model_of_free_size_is_exported_at_the_contract_s(run: Path, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    from leakdet_tf.models import unet

    model = unet((None, None, 3), 3, encoder_options={"width": 8}, decoder_filters=(16, 16, 8, 8, 4), seed=0)
    model.save(tmp_path / "free.keras")
    contract = Contract.load(run / "contract.json")
    spec = replace(contract.inputs["image"], height=32, width=96)
    replace(contract, inputs={"image": spec}).save(tmp_path / "contract.json")
    convert(tmp_path / "free.keras", tmp_path / "contract.json", tmp_path / "free.tflite")
    (detail,) = Interpreter(model_path=str(tmp_path / "free.tflite")).get_input_details()
    assert detail["shape"].tolist() == [1, 32, 96, 3]
