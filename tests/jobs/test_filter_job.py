"""The filter with a model whose scores are known: what it keeps, writes, and refuses."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.data import Data
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ConfigError, ContractError, DataError, LeakdetError
from leakdet_tf.core.files import host, own_mark
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.data.readers import find_splits
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.jobs import synth_filter as job
from leakdet_tf.jobs.run import filtered as sieve
from leakdet_tf.jobs.run.runs import Opened
from leakdet_tf.jobs.synth_filter import Filtered, filter_pictures

CLASSES = ["dry", "oil", "water"]
COLORS = {"dry": (255, 0, 0), "oil": (0, 255, 0), "water": (0, 0, 255)}
CONTRACT = Contract("classify", {"image": ImageSpec(8, 8)}, classes_of(CLASSES), weights_sha256="ab" * 32)


class Eye:
    """A model whose scores are the mean colour: red is dry, green is oil, blue is water."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"output_0": (inputs["image"].mean((0, 1)) / 255).astype(np.float32)}


def color(*scores: int) -> np.ndarray:
    """A picture of which :class:`Eye` gives these scores, in 255ths."""
    return np.full((12, 10, 3), scores, np.uint8)


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


ROWS: dict[str, list[tuple[str, str, tuple[int, int, int]]]] = {
    "train": [
        ("images/a.png", "dry", (204, 51, 0)),
        ("images/b.png", "oil", (153, 102, 0)),  # 0.4: at the threshold
        ("images/c.png", "oil", (154, 101, 0)),
        ("images/d.png", "water", (0, 0, 255)),
        ("images/e.png", "water", (255, 0, 0)),
    ],
    "val": [("images/a.png", "oil", (0, 255, 0)), ("images/b.png", "oil", (255, 0, 0))],
    "test": [],
}


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """A rendered folder: masks for the pictures, a table a split, a manifest."""
    root, entries = tmp_path / "made", []
    for split, rows in ROWS.items():
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        lines = ["file,label"]
        for file, label, scores in rows:
            put(root / split / file, color(*scores))
            if split == "train":
                Image.fromarray(np.zeros((12, 10), np.uint8)).save(root / split / file.replace("images", "masks"))
            lines.append(f"{file},{label}")
            entries.append({"file": f"{split}/{file}", "seed": len(entries), "labels": [label], "parameters": {"x": 1}})
        (root / split / "labels.csv").write_text("\n".join(lines) + "\n")
    manifest = {"generator": "leak", "seed": 5, "counts": {"train": 5, "val": 2}, "pictures": entries}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture
def eye(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any run is :class:`Eye`."""
    opened = Opened(Predictor.over(Eye(), CONTRACT), "keras", Path("run"), None)
    monkeypatch.setattr(job, "open_model", lambda path: opened)


def filtered(root: Path, lines: list[str] | None = None, **keys: Any) -> Filtered:
    asked: dict[str, Any] = {"experiment": None, "run": "run", "threshold": 0.4, "out": None, "share": None, "seed": 0}
    log = (lambda line: None) if lines is None else lines.append
    return filter_pictures(str(root), **(asked | {"overrides": ()} | keys), log=log)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.usefixtures("eye")
def test_what_the_model_believes_is_kept_with_its_masks_and_the_rest_accounted_for(rendered: Path) -> None:
    before, lines = content(rendered), list[str]()
    done = filtered(rendered, lines)
    assert (done.folder, done.kept, done.dropped, done.planted) == (rendered.with_name("made_filtered"), 4, 3, None)
    assert content(rendered) == before
    inside = content(done.folder)
    kept = ["train/images/a.png", "train/images/b.png", "train/images/d.png", "val/images/a.png"]
    assert [name for name in inside if "/images/" in name] == kept
    assert [name for name in inside if "/masks/" in name] == [f"train/masks/{name}.png" for name in "abd"]
    assert all(inside[name] == before[name] for name in kept)
    assert (inside["test/images"], inside["test/masks"]) == ("", "")
    assert (done.folder / "train" / "labels.csv").read_text() == (
        "file,label\nimages/a.png,dry\nimages/b.png,oil\nimages/d.png,water\n"
    )
    assert (done.folder / "test" / "labels.csv").read_text() == "file,label\n"
    dropped = table(done.folder / "dropped.csv")
    assert [(row["file"], row["label"], row["probability"]) for row in dropped] == [
        ("train/images/c.png", "oil", "0.396078"),
        ("train/images/e.png", "water", "0.000000"),
        ("val/images/b.png", "oil", "0.000000"),
    ]
    assert {(row["saw"], row["reason"]) for row in dropped} == {("dry", "unlikely")}
    assert dropped[0]["saw_probability"] == "0.603922"
    assert [(row["file"], row["probability"]) for row in table(done.folder / "kept.csv")][:2] == [
        ("train/images/a.png", "0.800000"),
        ("train/images/b.png", "0.400000"),
    ]
    assert "train: 1 of 2 pictures of 'oil' kept" in lines
    assert not any(path.name.startswith(".") for path in rendered.parent.iterdir())
    with Image.open(done.folder / "dropped-01.png") as drawn:
        assert min(drawn.size) > 100


@pytest.mark.usefixtures("eye")
def test_boxes_are_kept_of_the_pictures_that_are_kept(rendered: Path) -> None:
    manifest = json.loads((rendered / "manifest.json").read_text())
    for entry in manifest["pictures"]:
        entry["boxes"] = [["oil", 1, 2, 5, 8]]
    manifest |= {"boxes": "coco.json", "classes": ["background", "oil"], "size": [12, 10]}
    (rendered / "manifest.json").write_text(json.dumps(manifest))
    done = filtered(rendered)
    kept = json.loads((done.folder / "train" / "coco.json").read_text())
    assert [image["file_name"] for image in kept["images"]] == ["a.png", "b.png", "d.png"]
    assert [box["bbox"] for box in kept["annotations"]] == [[1, 2, 4, 6]] * 3
    assert json.loads((done.folder / "test" / "coco.json").read_text())["images"] == []


@pytest.mark.usefixtures("eye")
def test_the_manifest_is_the_original_s_with_an_account(rendered: Path) -> None:
    done = filtered(rendered)
    old, new = (json.loads((folder / "manifest.json").read_text()) for folder in (rendered, done.folder))
    assert new.pop("filter") == {
        "threshold": 0.4,
        "model": CONTRACT.id,
        "experiment": "",
        "weights_sha256": "ab" * 32,
        "counts": {"train": {"kept": 3, "dropped": 2}, "val": {"kept": 1, "dropped": 1}},
        "reasons": {"unlikely": 3},
    }
    assert new == old | {"pictures": [old["pictures"][i] for i in (0, 1, 3, 5)]}
    data = Data.model_validate(
        {
            "source": [{"name": "r", "root": str(done.folder), "labels": "labels.csv", "parts": ["train", "val"]}],
            "inputs": {"image": {"size": [8, 8]}},
        }
    )
    parts = find_splits(data)
    assert [(item.words, item.origin.kind, item.origin.seed) for item in parts["train"]] == [
        (("dry",), "rendered", 0),
        (("oil",), "rendered", 1),
        (("water",), "rendered", 3),
    ]


@pytest.mark.usefixtures("eye")
@pytest.mark.parametrize("refused", [None, errno.EXDEV, errno.EPERM])
def test_pictures_are_linked_and_where_that_cannot_be_copied(
    rendered: Path, monkeypatch: pytest.MonkeyPatch, refused: int | None
) -> None:
    if refused is not None:

        def link(source: Path, target: Path) -> None:
            raise OSError(refused, os.strerror(refused))

        monkeypatch.setattr(sieve.os, "link", link)
    done = filtered(rendered)
    for name in ("train/images/a.png", "train/masks/a.png"):
        old, new = rendered / name, done.folder / name
        assert old.samefile(new) == (refused is None)
        assert old.read_bytes() == new.read_bytes()


@pytest.mark.usefixtures("eye")
def test_a_full_disk_leaves_nothing(rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sieve.os, "link", link)
    with pytest.raises(DataError, match="made_filtered: cannot be written"):
        filtered(rendered)
    assert [path.name for path in rendered.parent.iterdir()] == ["made"]


@pytest.mark.usefixtures("eye")
def test_another_machine_that_filters_on_the_same_disk_is_let_be(
    rendered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "node77")
        theirs = rendered.with_name(f".made_filtered.filtering-{own_mark()}")
    mine = rendered.with_name(f".made_filtered.filtering-{own_mark()}")
    process = subprocess.Popen(["sleep", "60"])
    others = rendered.with_name(f".made_filtered.filtering-{host()}-{process.pid}")
    for left in (theirs, mine, others):
        (left / "train").mkdir(parents=True)
    filtered(rendered)
    assert theirs.is_dir()
    assert others.is_dir(), "its process is at work"
    assert not mine.exists()
    process.kill()
    process.wait()
    filtered(rendered, out=str(rendered.with_name("elsewhere")))
    assert others.is_dir(), "it is of another folder"
    shutil.rmtree(rendered.with_name("made_filtered"))
    filtered(rendered)
    assert theirs.is_dir()
    assert not others.exists()


@pytest.mark.usefixtures("eye")
def test_what_cannot_be_judged_is_dropped_and_says_why(rendered: Path) -> None:
    (rendered / "train" / "images" / "a.png").write_bytes(b"no picture")
    (rendered / "train" / "images" / "b.png").unlink()
    with (rendered / "train" / "labels.csv").open("a") as file:
        file.write("images/f.png,steam\nimages/g.png,oil;water\nimages/h.png,\n./images/i.png\n")
    for name in "fgh":
        put(rendered / "train" / "images" / f"{name}.png", color(0, 255, 0))
    deep = np.zeros((12, 10), np.uint16)
    put(rendered / "val" / "images" / "b.png", deep)
    done = filtered(rendered)
    found = {row["file"].removeprefix("train/images/"): row for row in table(done.folder / "dropped.csv")}
    assert (found["b.png"]["reason"], found["b.png"]["label"]) == ("missing", "oil")
    assert (found["i.png"]["reason"], found["i.png"]["label"]) == ("missing", "")
    assert found["f.png"]["reason"] == "the model has no class 'steam'"
    assert found["g.png"]["reason"] == "has 2 labels, the model answers one"
    assert found["h.png"]["reason"] == "has 0 labels, the model answers one"
    assert found["a.png"]["reason"].startswith("unreadable: ")
    assert "uint16" in found["val/images/b.png"]["reason"]
    assert {found[name]["probability"] for name in ("a.png", "b.png", "f.png")} == {""}
    reasons = json.loads((done.folder / "manifest.json").read_text())["filter"]["reasons"]
    assert reasons["unreadable"] == 2
    assert (reasons["missing"], sum(reasons.values())) == (2, done.dropped)


def test_a_model_that_answers_nonsense_is_no_reason_to_drop(rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind(Eye):
        def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"output_0": np.full(3, np.nan, np.float32)}

    opened = Opened(Predictor.over(Blind(), CONTRACT), "keras", Path("run"), None)
    monkeypatch.setattr(job, "open_model", lambda path: opened)
    with pytest.raises(ContractError, match="NaN"):
        filtered(rendered)
    assert not rendered.with_name("made_filtered").exists()


@pytest.mark.usefixtures("eye")
def test_nothing_kept_is_an_error_that_leaves_nothing(rendered: Path) -> None:
    for file in rendered.rglob("images/*.png"):
        put(file, color(85, 85, 85))
    with pytest.raises(DataError, match=r"none of 7 pictures is kept at 0\.4 \(the likeliest has 0\.33\)") as caught:
        filtered(rendered)
    assert "\n" not in str(caught.value)
    assert [path.name for path in rendered.parent.iterdir()] == ["made"]


@pytest.mark.usefixtures("eye")
def test_what_is_there_is_never_overwritten(rendered: Path) -> None:
    filtered(rendered)
    with pytest.raises(ConfigError, match="made_filtered: holds something already"):
        filtered(rendered)
    with pytest.raises(ConfigError, match="which is never changed"):
        filtered(rendered, out=str(rendered / "inside"))
    with pytest.raises(ConfigError, match="holds something"):
        filtered(rendered, out=str(rendered.parent))


@pytest.mark.usefixtures("eye")
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"run": None}, "needs a model"),
        ({"experiment": "e.toml"}, "needs a model"),
        ({"overrides": ("seed=1",)}, "a run is trained already"),
        ({"threshold": float("nan")}, "is no probability"),
        ({"threshold": 1.5}, "is no probability"),
        ({"share": 0.0}, "is no share"),
        ({"share": float("nan")}, "is no share"),
        ({"share": 0.01}, "is not one of 7 pictures"),
    ],
)
def test_what_cannot_be_asked_for(rendered: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(LeakdetError, match=said):
        filtered(rendered, **keys)
    assert not rendered.with_name("made_filtered").exists()


@pytest.mark.usefixtures("eye")
def test_a_folder_without_labels_or_manifest(rendered: Path, tmp_path: Path) -> None:
    (rendered / "manifest.json").rename(tmp_path / "kept.json")
    with pytest.raises(DataError, match=r"manifest\.json: cannot be read"):
        filtered(rendered)
    (tmp_path / "kept.json").rename(rendered / "manifest.json")
    for split in ROWS:
        (rendered / split / "labels.csv").write_text("file,label\n")
    with pytest.raises(DataError, match="lists no pictures"):
        filtered(rendered)
    for split in ROWS:
        (rendered / split / "labels.csv").unlink()
    with pytest.raises(DataError, match="is no rendered folder with labels"):
        filtered(rendered)


@pytest.mark.usefixtures("eye")
def test_planting_changes_nothing_but_the_report(rendered: Path) -> None:
    plainly = filtered(rendered, out=str(rendered.with_name("plain")))
    lines: list[str] = []
    measured = filtered(rendered, lines, share=0.3, seed=4, out=str(rendered.with_name("measured")))
    one, other = content(plainly.folder), content(measured.folder)
    assert other.pop("planted.json")
    assert one == other
    assert json.loads((measured.folder / "planted.json").read_text()) == measured.planted
    assert measured.planted is not None
    assert measured.planted["planted"] == 2
    assert lines[0] == "planted 2 wrong labels among 7 pictures (seed 4):"
    assert lines[1].startswith("  below 0.40: ")
    assert "recall" in lines[1]
