"""What the command line does, called from Python: by a file or plain data, with results that a notebook shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib

import leakdet_tf
from leakdet_tf.core.errors import ConfigError

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "gas_unet.toml"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An experiment as plain data, small."""
    home = tmp_path_factory.mktemp("python")
    found = tomllib.loads(EXPERIMENT.read_text(encoding="utf-8"))
    found["runs"] = str(home / "runs")
    found["model"] = {"factory": "few_layers:few_layers"}
    found["data"]["root"] = str(home / "data")
    found["data"]["synth"] |= {"counts": {"train": 8, "val": 2, "test": 2}, "size": [32, 32]}
    found["data"]["inputs"]["image"] |= {"size": [32, 32]}
    found["train"] |= {"batch_size": 4, "patience": 0}
    found["evaluate"] = {"resamples": 100}
    return found


@pytest.fixture(scope="module")
def fitted(asked: dict[str, Any]) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield leakdet_tf.fit(asked, train={"epochs": 1}, export={"formats": ["tflite_float32"]}, log=lambda line: None)


def test_an_experiment_is_a_file_or_plain_data_with_tables_put_over_it(fitted: Any, asked: dict[str, Any]) -> None:
    resolved = tomllib.loads((fitted.folder / "experiment.toml").read_text(encoding="utf-8"))
    assert (resolved["train"]["epochs"], resolved["train"]["batch_size"]) == (1, 4)
    assert "epochs" not in asked["train"] or asked["train"]["epochs"] != 1, "what was given is not changed"
    with pytest.raises(ConfigError, match=r"experiment: train\.epoch: unknown key; did you mean 'epochs'"):
        leakdet_tf.fit(asked, train={"epoch": 3})
    with pytest.raises(ConfigError, match=r"gas_unet\.toml: train\.epochs: .*greater"):
        leakdet_tf.fit(EXPERIMENT, train={"epochs": 0})


def test_results_show_themselves(fitted: Any, tmp_path: Path) -> None:
    html = fitted._repr_html_()
    assert "mean_iou" in html and html.count("data:image/png;base64,") == 2
    (bundle,) = fitted.bundles
    done = leakdet_tf.evaluate(bundle, out=tmp_path / "report", log=lambda line: None)
    assert done.report["kind"] == "tflite_float32" and "mean_iou" in done._repr_html_()
    found = leakdet_tf.predict(bundle, fitted.folder.parents[2] / "data/test/images", out=tmp_path / "predictions")
    assert (found.answered, found.refused) == (2, 0)
    assert found._repr_html_().count("data:image/png;base64,") == 2
    made = leakdet_tf.export(fitted.folder, export={"formats": ["onnx_float32"]}, log=lambda line: None)
    assert [one.name for one in made] == ["onnx_float32"] and "onnx_float32" in made._repr_html_()


def test_text_of_others_is_escaped() -> None:
    from leakdet_tf.jobs.run.notebook import shown

    assert "<script>" not in shown("<script>", ("<script>",), [("<script>",)])


def test_pictures_are_rendered(tmp_path: Path) -> None:
    made = leakdet_tf.render("gas", tmp_path / "gas", counts={"train": 2, "test": 1}, size=(32, 32), seed=3)
    assert (made.pictures, made.new) == (3, True)
    assert made._repr_html_().count("data:image/png;base64,") == 3
    assert not leakdet_tf.render("gas", tmp_path / "gas", counts={"train": 2, "test": 1}, size=(32, 32), seed=3).new


def test_names_are_functions_whatever_was_imported_before() -> None:
    code = """if True:
        import sys, leakdet_tf
        assert not {"numpy", "keras", "PIL"} & set(sys.modules), "a name costs nothing until it is used"
        assert set(leakdet_tf.__all__) <= set(dir(leakdet_tf))
        import leakdet_tf.formats.bundle, leakdet_tf.jobs.export, leakdet_tf.jobs.fit, leakdet_tf.jobs.predict
        assert all(callable(getattr(leakdet_tf, name)) for name in leakdet_tf.__all__ if name != "__version__")
        assert not hasattr(leakdet_tf, "nothing")
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_the_line_to_type_is_told() -> None:
    code = """if True:
        import sys
        sys.modules["pydantic"] = None  # as where it is not installed
        import leakdet_tf
        from leakdet_tf.core.errors import MissingExtraError
        assert leakdet_tf.Predictor
        try:
            leakdet_tf.fit
        except MissingExtraError as error:
            assert "leakdet_tf.fit needs 'pydantic'" in str(error) and "leakdet_tf[train]" in str(error)
        else:
            raise SystemExit("nothing was told")
    """
    subprocess.run([sys.executable, "-c", code], check=True)
