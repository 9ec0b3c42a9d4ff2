"""How well the filter finds wrong labels: exactly, with scores that are known, and with a model that is trained."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from leakdet_tf.analysis.stats.significance import wilson
from leakdet_tf.cli.synth_filter import command
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.jobs.run.filtered import Judged, chance, saw
from leakdet_tf.jobs.synth_filter import THRESHOLDS, lines, plant, quality

CLASSES = ["dry", "oil", "water"]
COLORS = {"dry": (255, 0, 0), "oil": (0, 255, 0), "water": (0, 0, 255)}
CONTRACT = Contract("classify", {"image": ImageSpec(8, 8)}, classes_of(CLASSES), weights_sha256="ab" * 32)


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def population(bad: int, good: int) -> list[Judged]:
    """Pictures of oil that look like oil (0.9), and bad ones that look like water (0.8; oil 0.05)."""
    rows = [(0.05, 0.9, 0.05)] * good + [(0.15, 0.05, 0.8)] * bad
    return [
        Judged("train", f"{i}", f"train/{i}.png", "oil", (1,), np.array(row, np.float32)) for i, row in enumerate(rows)
    ]


def test_planted_labels_give_exact_precision_and_recall() -> None:
    judged = [*population(6, 34), Judged("train", "x", "train/x.png", "oil", fault="missing")]
    found = quality(judged, CONTRACT, threshold=0.4, share=0.25, seed=3)
    assert (found["pictures"], found["planted"]) == (40, 10)
    wrong = {row["file"]: row["planted"] for row in found["labels"]}
    assert len(wrong) == 10
    assert set(wrong.values()) <= {"dry", "water"}
    # A good picture with a wrong label is dropped. A bad one is kept where it was said to be water, as it looks.
    numbers = {file: int(file.removeprefix("train/").removesuffix(".png")) for file in wrong}
    lucky = sum(numbers[file] >= 34 and name == "water" for file, name in wrong.items())
    bad_alone = 6 - sum(number >= 34 for number in numbers.values())
    at = found["at"]
    assert (at["hits"], at["dropped"]) == (10 - lucky, 10 - lucky + bad_alone)
    assert at["recall"]["value"] == (10 - lucky) / 10
    assert at["precision"]["value"] == (10 - lucky) / (10 - lucky + bad_alone)
    assert (at["recall"]["low"], at["recall"]["high"]) == wilson(10 - lucky, 10, 0.95)
    assert (at["precision"]["low"], at["precision"]["high"]) == wilson(at["hits"], at["dropped"], 0.95)
    assert [row["threshold"] for row in found["thresholds"]] == list(THRESHOLDS) == [i / 20 for i in range(1, 20)]
    dropped = {row["threshold"]: row["dropped"] for row in found["thresholds"]}
    assert (dropped[0.05], dropped[0.95]) == (0, 40)  # 0.05 is not below 0.05
    assert found["thresholds"][0]["precision"] == {"value": None, "low": None, "high": None}
    assert found["thresholds"][0]["recall"]["value"] == 0
    assert found["thresholds"][-1]["precision"]["value"] == 10 / 40
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert not any(line.startswith("warning") for line in lines(found))


def test_a_filter_that_drops_at_random_is_told() -> None:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet((1, 1, 1), 60).astype(np.float32)
    judged = [Judged("train", f"{i}", f"train/{i}.png", "oil", (1,), row) for i, row in enumerate(rows)]
    found = quality(judged, CONTRACT, threshold=0.4, share=0.2, seed=0)
    assert found["at"]["dropped"] > 20
    assert lines(found)[-1].startswith("warning: by this the filter is not shown to drop better than chance")
    none = quality(judged, CONTRACT, threshold=0.0, share=0.2, seed=0)
    assert none["at"]["dropped"] == 0
    assert lines(none)[-1].startswith("warning")
    assert lines(none)[1] == "  below 0.00: 0 dropped, no precision, recall 0.000 [0.000, 0.242]"


def test_what_is_planted_follows_from_the_seed_and_is_always_wrong() -> None:
    judged = population(0, 50)
    first = plant(judged, CONTRACT, share=0.2, seed=1)
    assert plant(judged, CONTRACT, share=0.2, seed=1) == first
    assert plant(judged, CONTRACT, share=0.2, seed=2) != first
    assert len(first) == 10
    assert set(first.values()) == {0, 2}
    several = [replace(one, wanted=(0, 1)) for one in judged]
    assert set(plant(several, CONTRACT, share=0.5, seed=0).values()) == {2}
    with pytest.raises(DataError, match="has every class"):
        plant([replace(one, wanted=(0, 1, 2)) for one in judged], CONTRACT, share=0.5, seed=0)


def test_labels_of_a_sigmoid_model_are_all_to_be_there() -> None:
    several = Contract("classify", {"image": ImageSpec(8, 8)}, classes_of(CLASSES), activation="sigmoid")
    one = Judged("train", "a", "train/a.png", "dry;oil", (0, 1), np.array([0.9, 0.6, 0.2], np.float32))
    assert chance(one) == pytest.approx(0.6)
    assert chance(one, ()) == pytest.approx(0.1)
    assert saw(one, several) == ("dry;oil", pytest.approx(0.9))
    assert saw(replace(one, scores=np.array([0.1, 0.2, 0.3], np.float32)), several) == ("none", pytest.approx(0.3))
    assert np.isnan(chance(replace(one, scores=None)))


EXPERIMENT = """
name = "real"
runs = "RUNS"
[task]
kind = "classify"
classes = ["dry", "oil", "water"]
[data]
root = "ROOT"
labels = "folders"
values = {wet_oil = "oil", dry = "dry", water = "water"}
[data.inputs.image]
size = [32, 32]
[model]
factory = "resnet_classifier"
encoder = "resnet18_v1"
encoder_options = {width = 8}
[train]
epochs = 10
batch_size = 6
learning_rate = 1e-2
[evaluate]
resamples = 100
calibrate = false
[export]
formats = []
"""


def test_a_trained_model_finds_what_is_labelled_wrongly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def noisy(name: str) -> np.ndarray:
        return (rng.integers(0, 60, (32, 32, 3)) + np.array(COLORS[name]) * 0.6).astype(np.uint8)

    for split, count in (("train", 12), ("val", 3), ("test", 3)):
        for name in CLASSES:
            for index in range(count):
                put(tmp_path / "real" / split / ("wet_oil" if name == "oil" else name) / f"{index}.png", noisy(name))
    text = EXPERIMENT.replace("ROOT", str(tmp_path / "real")).replace("RUNS", str(tmp_path / "runs"))
    (tmp_path / "real.toml").write_text(text)
    rows = [("a", "dry", "dry"), ("b", "wet_oil", "oil"), ("c", "oil", "oil"), ("d", "water", "water")]
    rows += [("e", "water", "oil"), ("f", "oil", "dry"), ("g", "dry", "dry")]  # what e and f show is another class
    made = tmp_path / "made"
    for name, _, shown in rows:
        put(made / "train" / "images" / f"{name}.png", noisy(shown))
    (made / "train" / "labels.csv").write_text(
        "".join(["file,label\n", *(f"images/{name}.png,{label}\n" for name, label, _ in rows)])
    )
    pictures = [{"file": f"train/images/{name}.png", "seed": 1} for name, _, _ in rows]
    (made / "manifest.json").write_text(json.dumps({"generator": "leak", "pictures": pictures}))
    arguments = [str(made), "--experiment", str(tmp_path / "real.toml"), "--plant", "0.3", "--seed", "1"]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    folder = tmp_path / "made_filtered"
    assert done.output.endswith(f"{folder}: 5 pictures kept, 2 dropped\n")
    with (folder / "dropped.csv").open(newline="") as file:
        dropped = list(csv.DictReader(file))
    assert [(row["file"], row["saw"]) for row in dropped] == [
        ("train/images/e.png", "oil"),
        ("train/images/f.png", "dry"),
    ]
    (run,) = (tmp_path / "runs" / "real").iterdir()
    account = json.loads((folder / "manifest.json").read_text())["filter"]
    assert account["weights_sha256"] == Contract.load(run / "contract.json").weights_sha256
    assert account["experiment"] == "real"
    planted = json.loads((folder / "planted.json").read_text())
    assert (planted["planted"], planted["pictures"]) == (2, 7)
    arguments = [str(made), "--run", str(run), "--plant", "0.3", "--seed", "1", "--out", str(tmp_path / "again")]
    assert CliRunner().invoke(command, arguments, standalone_mode=False).exception is None
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").rglob("*.*")}
    assert again == {path.name: path.read_bytes() for path in folder.rglob("*.*")}
    (made / "train" / "labels.csv").write_text("file,label\nimages/e.png,water\n")
    arguments[-1] = str(tmp_path / "nothing")
    refused = CliRunner().invoke(command, [*arguments[:3], "--out", arguments[-1]], standalone_mode=False).exception
    assert isinstance(refused, DataError)
    assert "none of 1 pictures is kept" in str(refused)


def test_only_a_classifier_filters(tmp_path: Path) -> None:
    put(tmp_path / "made" / "train" / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "made" / "train" / "labels.csv").write_text("file,label\nimages/a.png,oil\n")
    (tmp_path / "made" / "manifest.json").write_text('{"generator": "leak", "pictures": []}')
    masks = EXPERIMENT.replace('"classify"', '"segment"').replace('labels = "folders"', "")
    (tmp_path / "masks.toml").write_text(
        masks.replace("wet_oil", "0").replace("dry =", "1 =").replace("water =", "2 =")
    )
    arguments = [str(tmp_path / "made"), "--experiment", str(tmp_path / "masks.toml")]
    refused = CliRunner().invoke(command, arguments, standalone_mode=False).exception
    assert isinstance(refused, ConfigError)
    assert "trains no classifier" in str(refused)
