"""``explain`` on runs whose heat is known: overlays, sheets, table, pointing score; what cannot be done is one line."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from leakdet_tf.cli.explain import command
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError, LeakdetError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.jobs import explain as job
from leakdet_tf.jobs.explain import FIELDS, Explained, explain

L = keras.layers
CLASSES = {"segment": ["background", "gas", "machine"], "classify": ["gas", "machine"]}
EXPERIMENT = """
name = "colours"
[task]
kind = "TASK"
classes = CLASSES
[data]
root = "ROOT"
LABELS
[data.inputs.image]
size = [32, 32]
[model]
factory = "unet"
"""
LABELS = {
    "segment": 'values = {0 = "background", 1 = "gas", 2 = "machine"}',
    "classify": 'labels = "folders"',
}
SIZE = (64, 96)
Pixels = np.ndarray[Any, Any]


@cache
def model_of(task: str, inputs: tuple[str, ...]) -> Any:
    """A model for which red is gas and green is a machine; of two inputs the second does not count."""
    images = [keras.Input((32, 32, 3), dtype="uint8", name=name) for name in inputs]
    coarse = L.AveragePooling2D(4, name="coarse")(L.Rescaling(1 / 255, dtype="float32", name="scaled")(images[0]))
    if len(images) > 1:
        coarse = L.Add(name="joined")([coarse, L.AveragePooling2D(4)(L.Rescaling(0.0, dtype="float32")(images[1]))])
    if task == "segment":
        head = L.Conv2D(3, 1, name="head")
        x = head(L.UpSampling2D(4, name="fine")(coarse))
        head.set_weights([np.float32([[0, 4, 0], [0, 0, 4], [0, 0, 0]])[None, None], np.float32([1, 0, 0])])
    else:
        head = L.Dense(2, name="head")
        x = head(L.GlobalAveragePooling2D(name="pool")(coarse))
        head.set_weights([np.eye(3, 2, dtype=np.float32) * 40, np.zeros(2, np.float32)])
    x = L.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(images, L.Activation("softmax", dtype="float32", name="probabilities")(x))


def run_of(folder: Path, task: str, *, inputs: tuple[str, ...] = ("image",)) -> Path:
    """A run as fit leaves it."""
    folder.mkdir(parents=True)
    model_of(task, inputs).save(folder / "model.keras")
    specs = {name: ImageSpec(32, 32) for name in inputs}
    Contract(task, specs, classes_of(CLASSES[task])).save(folder / "contract.json")  # type: ignore[arg-type]
    text = EXPERIMENT.replace("TASK", task).replace("CLASSES", json.dumps(CLASSES[task]))
    text = text.replace("ROOT", str(folder.parent / "data")).replace("LABELS", LABELS[task])
    more = "".join(f'[data.inputs.{name}]\nsize = [32, 32]\nfolder = "{name}"\n' for name in inputs[1:])
    (folder / "experiment.toml").write_text(text + more)
    return folder


def colored(row: int, column: int, channel: int) -> tuple[Pixels, Pixels]:
    """A black picture with a coloured square, and where it is."""
    image, inside = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.bool_)
    inside[row : row + 16, column : column + 24] = True
    image[inside, channel] = 255
    return image, inside


def put(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    """A run, and beside it data whose test split has gas (right), gas elsewhere than seen, a machine, and nothing."""
    for split in ("train", "val", "test"):
        place = tmp_path / "data" / split
        for name, channel, at, true_at, value in (
            ("a_gas", 0, (0, 0), (0, 0), 1),
            ("b_lost", 0, (0, 0), (48, 72), 1),
            ("c_machine", 1, (48, 72), (48, 72), 2),
            ("d_nothing", 2, (0, 0), (0, 0), 0),
        ):
            put(place / "images" / f"{name}.png", colored(*at, channel)[0])
            put(place / "masks" / f"{name}.png", (colored(*true_at, 0)[1] * value).astype(np.uint8))
    return run_of(tmp_path / "run", "segment")


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A run, and beside it data in class folders; the manifest names a mask for one picture, the others have theirs."""
    for split in ("train", "val", "test"):
        place = tmp_path / "data" / split
        for name, folder, channel, at in (
            ("a", "gas", 0, (0, 0)),
            ("b", "gas", 1, (0, 48)),
            ("c", "machine", 1, (48, 0)),
        ):
            image, inside = colored(*at, channel)
            put(place / folder / f"{name}.png", image)
            put(place / ("truth" if name == "a" else "masks") / f"{name}.png", inside.astype(np.uint8) * 255)
        (place / "truth").rename(tmp_path / "data" / f"truth_{split}")
        (place / "masks").rename(tmp_path / "data" / f"masks_{split}")
    data = tmp_path / "data"
    named = {"a": "truth_test/a.png", "b": "masks_test/b.png", "c": "masks_test/c.png"}
    folders = {"a": "gas", "b": "gas", "c": "machine"}
    entries = [{"file": f"test/{folders[name]}/{name}.png", "mask": mask} for name, mask in named.items()]
    (data / "manifest.json").write_text(json.dumps({"pictures": entries}))
    return run_of(tmp_path / "run", "classify")


def explained(run: Path, *sources: Path, **asked: Any) -> tuple[Explained, list[dict[str, str]], list[str]]:
    said: list[str] = []
    done = explain(str(run), [str(s) for s in sources], out=str(run.parent / "out"), log=said.append, **asked)
    return done, list(csv.DictReader(done.files[0].read_text().splitlines())), said


def test_a_split_is_drawn_listed_and_scored(segmenter: Path) -> None:
    done, rows, said = explained(segmenter, split="test")
    out = segmenter.parent / "out"
    assert (done.explained, done.refused) == (4, 0)
    assert tuple(rows[0]) == FIELDS
    gas, lost, machine, nothing = rows
    assert [gas["class"], gas["decided"], gas["truth"], gas["hit"]] == ["gas", "gas", "gas", "1"]
    assert float(gas["score"]) == pytest.approx(np.exp(4) / (np.exp(4) + np.exp(1) + 1), abs=0.02)
    assert [lost["class"], lost["truth"], lost["hit"], lost["heat_inside"]] == ["gas", "gas", "0", "0.0000"]
    assert [machine["class"], machine["hit"]] == ["machine", "1"]
    assert [nothing["class"], nothing["score"], nothing["decided"], nothing["truth"]] == ["", "", "none", "none"]
    assert [nothing["hit"], nothing["mask_share"]] == ["", ""]
    assert float(gas["heat_inside"]) > 0.7
    assert float(gas["mask_share"]) == pytest.approx(1 / 16, abs=1e-4)
    assert float(gas["chance"]) > float(gas["mask_share"])
    assert done.pointing is not None
    assert (done.pointing["pictures"], done.pointing["pointing"]["hits"]) == (3, 2)
    assert any("2 of 3; a random point" in line for line in said)
    assert "not counted, nothing was decided: 1" in said
    kept = json.loads((out / "explain.json").read_text())
    assert (kept["layer"], kept["target"], kept["explained"]) == ("coarse", "decided", 4)
    assert kept["pointing"] == done.pointing
    assert kept["not_counted"] == {"nothing was decided": 1}
    drawn = np.asarray(Image.open(gas["overlay"])).astype(int)
    assert drawn.shape == (*SIZE, 3)
    assert drawn[4, 4, 0] - drawn[4, 4, 2] > 60, "hot is yellow"
    assert np.ptp(drawn[40:, 60:], axis=-1).max() <= 4, "cold is grey"
    assert np.asarray(Image.open(nothing["overlay"])).max() < 60
    assert done.files == [out / "explain.csv", out / "explain.json", out / "sheet_01.png"]
    with Image.open(out / "sheet_01.png") as page:
        assert page.width > 1000
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [
        f"{name}.png" for name in ("a_gas", "b_lost", "c_machine", "d_nothing")
    ]


def test_pictures_alone_have_no_score_and_with_masks_that_of_the_split(segmenter: Path) -> None:
    images = segmenter.parent / "data" / "test" / "images"
    done, rows, said = explained(segmenter, images)
    assert done.pointing is None
    assert said == []
    assert [row["class"] for row in rows] == ["gas", "gas", "machine", ""]
    assert {row[key] for row in rows for key in ("truth", "hit", "chance", "heat_inside")} == {""}
    scored, _, _ = explained(segmenter, images, masks=True)
    assert scored.pointing == explained(segmenter, split="test")[0].pointing
    (images.parent / "masks" / "a_gas.png").unlink()
    fewer, rows, said = explained(segmenter, images, masks=True)
    assert fewer.pointing is not None
    assert fewer.pointing["pictures"] == 2
    assert rows[0]["truth"] == ""
    assert "not counted, there is no mask: 1" in said


def test_a_named_class_is_explained_everywhere(segmenter: Path) -> None:
    done, rows, said = explained(segmenter, split="test", target="machine")
    assert {row["class"] for row in rows} == {"machine"}
    assert [row["score"] != "" for row in rows] == [False, False, True, False]
    assert done.pointing is not None
    assert done.pointing["pictures"] == 1
    assert "not counted, the class is not on the picture: 3" in said
    mask = segmenter.parent / "data" / "test" / "masks" / "a_gas.png"
    put(mask, np.full(SIZE, 2, np.uint8))  # a machine that the model does not see
    done, rows, said = explained(segmenter, split="test", target="machine")
    assert rows[0]["hit"] == "0"
    assert done.pointing is not None
    assert (done.pointing["pictures"], done.pointing["without_heat"]) == (2, 1)


def test_another_layer_is_taken(segmenter: Path) -> None:
    done, rows, _ = explained(segmenter, split="test", layer="fine")
    assert json.loads(done.files[1].read_text())["layer"] == "fine"
    assert rows[0]["hit"] == "1"


def test_damaged_pictures_are_named_and_the_rest_go_on(segmenter: Path, tmp_path: Path) -> None:
    images = segmenter.parent / "data" / "test" / "images"
    (images / "b_lost.png").write_bytes(b"bad")
    done, rows, said = explained(segmenter, images)
    assert (done.explained, done.refused, len(rows)) == (3, 1, 3)
    assert len(said) == 1
    assert "b_lost.png" in said[0]
    assert explained(segmenter, split="test")[0].refused == 1
    asked = [str(segmenter), str(images), "--out", str(tmp_path / "cli")]
    result = CliRunner().invoke(command, asked, standalone_mode=False)
    assert result.return_value == 1
    assert f"3 explained, 1 refused: {tmp_path / 'cli' / 'explain.csv'}" in result.output


def test_a_sheet_holds_so_many_pictures_and_the_next_the_rest(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job.SHEET == 24
    monkeypatch.setattr(job, "SHEET", 3)
    drawn: list[int] = []
    original = job.sheet

    def record(pairs: Any, title: str) -> Any:
        drawn.append(len(pairs))
        return original(pairs, title)

    monkeypatch.setattr(job, "sheet", record)
    done, _, _ = explained(segmenter, split="test")
    assert [path.name for path in done.files[2:]] == ["sheet_01.png", "sheet_02.png"]
    assert all(path.is_file() for path in done.files)
    assert drawn == [3, 1]


def test_a_classifier_is_scored_where_its_class_is_truly_there(classifier: Path) -> None:
    done, rows, said = explained(classifier, split="test")
    assert [(row["class"], row["decided"], row["truth"]) for row in rows] == [
        ("gas", "gas", "gas"),
        ("machine", "machine", "gas"),
        ("machine", "machine", "machine"),
    ]
    assert [row["hit"] for row in rows] == ["1", "", "1"]
    assert float(rows[0]["score"]) > 0.9
    assert done.pointing is not None
    assert done.pointing["pictures"] == 2
    assert "not counted, the class is not on the picture: 1" in said
    told = "scored: 2 of 3 pictures: where the class that was decided is there; --target truth scores the true one"
    assert told in said
    pictures = sorted((classifier.parent / "data" / "test").rglob("*.png"))
    done, rows, _ = explained(classifier, *pictures, masks=True)
    assert [row["truth"] for row in rows] == ["", "", ""]
    assert [row["hit"] for row in rows] == ["1", "1", "1"]
    done, rows, _ = explained(classifier, *pictures, target="gas")
    assert [row["class"] for row in rows] == ["gas", "gas", "gas"]
    assert done.pointing is None


def test_the_true_class_is_explained_whatever_was_decided(classifier: Path) -> None:
    done, rows, said = explained(classifier, split="test", target="truth")
    assert [(row["class"], row["decided"]) for row in rows] == [
        ("gas", "gas"),
        ("gas", "machine"),
        ("machine", "machine"),
    ]
    assert [row["hit"] for row in rows] == ["1", "0", "1"]  # no heat of gas on what looks like a machine
    assert float(rows[1]["score"]) < 0.1
    assert done.pointing is not None
    assert done.pointing["pictures"] == 3
    assert "scored: 3 of 3 pictures" in said
    kept = json.loads(done.files[1].read_text())
    assert (kept["target"], kept["not_counted"]) == ("truth", {})
    with pytest.raises(LeakdetError, match=r"--target truth: what is true of the pictures is not known; use --split$"):
        explained(classifier, classifier.parent / "data" / "test" / "gas", target="truth", masks=True)


def test_a_segmenter_s_true_class_too(segmenter: Path) -> None:
    images = segmenter.parent / "data" / "test" / "images"
    for asked_for in ({"split": "test"}, {"masks": True}):
        sources = [] if "split" in asked_for else [images]
        _, rows, said = explained(segmenter, *sources, target="truth", **asked_for)
        assert [row["class"] for row in rows] == ["gas", "gas", "machine", ""]
        assert [row["hit"] for row in rows] == ["1", "0", "1", ""]
        assert said[-2:] == ["scored: 3 of 4 pictures", "not counted, no class is truly there: 1"]
    put(images / "c_machine.png", colored(0, 0, 0)[0])  # a machine that looks like gas, elsewhere
    assert explained(segmenter, split="test", target="truth")[1][2]["class"] == "machine"
    with pytest.raises(LeakdetError, match="use --split, or --masks"):
        explained(segmenter, images, target="truth")


def test_a_classifier_s_own_pixels_are_the_thing_where_a_manifest_names_it(classifier: Path) -> None:
    data = classifier.parent / "data"
    manifest = json.loads((data / "manifest.json").read_text())
    put(data / "truth_test" / "a.png", colored(0, 0, 0)[1].astype(np.uint8))
    for names, hit, empty in ((["background", "gas", "machine"], "1", 1), (["background", "machine", "gas"], "", 2)):
        (data / "manifest.json").write_text(json.dumps(manifest | {"classes": names}))
        _, rows, said = explained(classifier, split="test")
        assert rows[0]["hit"] == hit
        assert f"not counted, the mask shows nothing of the class: {empty}" in said  # c's is 255 alone


def test_a_classifier_s_mask_of_another_size_is_refused(classifier: Path) -> None:
    mask = classifier.parent / "data" / "truth_test" / "a.png"
    put(mask, np.ones((10, 12), np.uint8))
    with pytest.raises(DataError, match=r"a\.png: is 12x10 px, its picture a\.png 96x64; a mask has"):
        explained(classifier, split="test")


def test_a_model_of_two_inputs_is_explained(segmenter: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        place = tmp_path / "data" / split
        for path in sorted((place / "images").iterdir()):
            put(place / "thermal" / path.name, np.full((*SIZE, 3), 9, np.uint8))
    run = run_of(tmp_path / "two", "segment", inputs=("image", "thermal"))
    done, rows, _ = explained(run, split="test")
    assert [row["hit"] for row in rows] == ["1", "0", "1", ""]
    place = tmp_path / "data" / "test"
    assert explained(run, place / "images", masks=True)[0].pointing == done.pointing
    (place / "thermal").rename(tmp_path / "heat")
    with pytest.raises(LeakdetError, match="none of 4 pictures has a partner for each of thermal"):
        explained(run, place / "images")
    again, _, _ = explained(run, place / "images", masks=True, inputs={"thermal": tmp_path / "heat"})
    assert again.pointing == done.pointing


def asked(case: str, run: Path) -> dict[str, Any]:
    """A call that must be refused."""
    images = run.parent / "data" / "test" / "images"
    if case == "bundle":
        (run / "SHA256SUMS").write_text("")
    if case == "size":
        put(images.parent / "masks" / "a_gas.png", np.zeros((10, 12), np.uint8))
    if case == "file":
        (run.parent / "out").write_text("")
    given: dict[str, dict[str, Any]] = {
        "neither": {"sources": []},
        "both": {"split": "test"},
        "split": {"sources": [], "split": "tst"},
        "class": {"target": "gass"},
        "layer": {"layer": "coarses"},
        "flat": {"layer": "logits"},
        "picture": {"sources": [str(run / "none.png")]},
        "run": {"model": str(run.parent)},
        "size": {"sources": [], "split": "test"},
    }
    return {"model": str(run), "sources": [str(images)]} | given.get(case, {})


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("bundle", "exported files have no gradients to explain them by; give the run"),
        ("neither", "explain takes either pictures or --split"),
        ("both", "explain takes either pictures or --split"),
        ("split", "--split tst: unknown; did you mean 'test'?"),
        ("class", "--target gass: no such class; did you mean 'gas'?"),
        ("layer", "has no layer 'coarses'; did you mean 'coarse'?"),
        ("flat", "layer 'logits' does not lie before the logits"),
        ("picture", "none.png: no such picture"),
        ("run", "neither a run nor a bundle"),
        ("size", "is 12x10 px, its picture a_gas.png 96x64"),
        ("file", "out: cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_line(case: str, said: str, segmenter: Path, tmp_path: Path) -> None:
    with pytest.raises(LeakdetError) as caught:
        explain(**asked(case, segmenter), out=str(tmp_path / "out"), log=pytest.fail)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_masks_of_several_sources_need_the_split(segmenter: Path) -> None:
    text = (segmenter / "experiment.toml").read_text()
    values = LABELS["segment"]
    one = f'[[data.source]]\nname = "NAME"\nroot = "{segmenter.parent / "data"}"\n{values}\n'
    text = text.replace(f'root = "{segmenter.parent / "data"}"\n{values}\n', "")
    (segmenter / "experiment.toml").write_text(text + one.replace("NAME", "one") + one.replace("NAME", "two"))
    images = segmenter.parent / "data" / "test" / "images"
    with pytest.raises(LeakdetError, match="--masks: the experiment's sources differ"):
        explained(segmenter, images, masks=True)
    assert explained(segmenter, images)[0].explained == 4
    assert explained(segmenter, split="test")[0].explained == 8


def test_a_trained_run_is_explained(run: Path, tmp_path: Path) -> None:
    done = explain(str(run), [], split="test", out=str(tmp_path), log=lambda line: None)
    assert done.explained == 6
    assert json.loads((tmp_path / "explain.json").read_text())["layer"] == "encoder_relu_last"
    assert len(list((tmp_path / "overlays").iterdir())) == 6
