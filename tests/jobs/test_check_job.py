"""The check as a command: what it prints, writes and returns; and what fit takes of it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from leakdet_tf.analysis.contact import Twins, sheet
from leakdet_tf.analysis.stats.inflation import Inflation, inflation
from leakdet_tf.cli.data_check import command
from leakdet_tf.config.loading import load
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.readers import find_splits
from leakdet_tf.jobs.data_check import check, inflation_of
from leakdet_tf.jobs.run.data import contract_of, contributions, decode_all
from leakdet_tf.jobs.run.parts import refuse_leaks, usable_parts
from leakdet_tf.jobs.tasks.segment import weighted_mean_iou

TEXT = """
name = "checked"
[task]
kind = "segment"
classes = ["background", "blob"]
[data.values]
0 = "background"
1 = "blob"
[data.inputs.image]
size = [32, 32]
[model]
factory = "unet"
"""


def scene(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    picture = np.full((96, 96, 3), 120, np.uint8)
    for _ in range(70):
        top, left, height, width = random.integers([0, 0, 3, 3], [90, 90, 24, 24])
        picture[top : top + height, left : left + width] = random.integers(0, 256, 3)
    return picture


def plant(root: Path, split: str, name: str, picture: np.ndarray) -> None:
    mask = np.zeros(picture.shape[:2], np.uint8)
    mask[10:40, 10:40] = 1
    for folder, array in (("images", picture), ("masks", mask)):
        (root / split / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / split / folder / f"{name}.png")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An experiment file over six training, three validation and three test scenes, all different."""
    (tmp_path / "checked.toml").write_text(TEXT)
    for start, (split, count) in zip((0, 10, 20), (("train", 6), ("val", 3), ("test", 3)), strict=True):
        for index in range(count):
            plant(tmp_path / "data", split, f"{split}{index}", scene(start + index))
    return tmp_path


def settings(home: Path) -> list[str]:
    return [f"data.root={home / 'data'}", f"runs={home / 'runs'}"]


def called(home: Path, *options: str) -> Result:
    given = [word for override in settings(home) for word in ("--set", override)]
    done = CliRunner().invoke(command, [str(home / "checked.toml"), *given, *options], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_clean_folder_exits_0_and_says_what_there_is(home: Path) -> None:
    done = called(home)
    assert done.return_value == 0
    assert "no faults" in done.output
    assert "no near-duplicates across splits" in done.output
    line = next(line for line in done.output.splitlines() if line.startswith("train"))
    assert line.split()[:4] == ["train", "data", "6", "100.0%"]
    assert "blob 9.77%" in line
    folder = home / "runs" / "checked" / "check"
    facts = json.loads((folder / "check.json").read_text())
    assert facts["splits"]["val"]["sources"]["data"]["pixels"] == {"background": 3 * 8316, "blob": 3 * 900}
    assert facts["splits"]["test"]["pictures_with"] == {"background": 3, "blob": 3}
    assert rows(folder / "findings.csv") == []
    assert sorted(path.name for path in folder.iterdir()) == ["check.json", "findings.csv", "near_duplicates.csv"]


BOXED = """
name = "boxed"
[task]
kind = "detect"
classes = ["hotspot", "diode"]
[data]
root = "ROOT"
labels = "coco.json"
values = {hot = "hotspot", off = "diode", glare = "ignore", dirt = "background"}
[data.inputs.image]
size = [32, 32]
[model]
factory = "yolov8"
"""


def test_boxes_are_counted_and_so_is_what_is_ignored_dropped_and_empty(tmp_path: Path) -> None:
    words = ["hot", "off", "glare", "dirt"]
    picked = {"a": [0, 0, 1, 2], "b": [3, 3, 0], "c": [3], "d": []}
    for number, split in enumerate(("train", "val", "test")):
        boxes, images = [], []
        (tmp_path / split / "images").mkdir(parents=True)
        for place, (name, kinds) in enumerate(picked.items()):
            Image.fromarray(scene(10 * number + place)).save(tmp_path / split / "images" / f"{name}.png")
            images.append({"id": place, "file_name": f"{name}.png"})
            for row, kind in enumerate(kinds):
                one = {"id": len(boxes), "image_id": place, "category_id": kind, "bbox": [20 * row, 5, 15, 30]}
                boxes.append(one | {"iscrowd": int(name == "b" and kind == 0)})
        table = {"images": images, "annotations": boxes}
        table["categories"] = [{"id": index, "name": word} for index, word in enumerate(words)]
        (tmp_path / split / "coco.json").write_text(json.dumps(table))
    (tmp_path / "boxed.toml").write_text(BOXED.replace("ROOT", str(tmp_path)))
    lines: list[str] = []
    out = str(tmp_path / "out")
    check(str(tmp_path / "boxed.toml"), (), quarantine=False, near=False, inflation=None, out=out, log=lines.append)
    assert lines[0].split()[-1] == "boxes"
    for split in ("train", "val", "test"):
        (line,) = (line for line in lines if line.startswith(split))
        assert line.endswith("  hotspot 2, diode 1; 2 empty pictures; ignored: 'glare' 1, 'hot' 1; dropped: 'dirt' 3")
    facts = json.loads((tmp_path / "out" / "check.json").read_text())["splits"]["train"]["sources"]["data"]
    assert (facts["empty_pictures"], facts["ignored"], facts["dropped"]) == (2, {"glare": 1, "hot": 1}, {"dirt": 3})


def test_a_file_of_boxes_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, split in enumerate(("train", "val", "test")):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
        for place, lines in enumerate(("0 .5 .5 .2 .2\n2 .2 .2 .1 .1\n", "1 .4 .4 .2 .2\n3 .2 .2 .1 .1\n", "")):
            Image.fromarray(scene(10 * number + place)).save(tmp_path / split / "images" / f"{place}.png")
            (tmp_path / split / "labels" / f"{place}.txt").write_text(lines)
    text = BOXED.replace("ROOT", str(tmp_path)).replace("coco.json", "yolo")
    for number, word in enumerate(("hot", "off", "glare", "dirt")):
        text = text.replace(f"{word} =", f"{number} =")
    (tmp_path / "boxed.toml").write_text(text)
    reads, read_bytes = Counter[Path](), Path.read_bytes

    def counted(path: Path) -> bytes:
        reads[path] += path.suffix == ".txt"
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    out = str(tmp_path / "out")
    check(str(tmp_path / "boxed.toml"), (), quarantine=False, near=False, inflation=None, out=out, log=lambda _: None)
    assert [times for path, times in reads.items() if path.suffix == ".txt"] == [1] * 9
    facts = json.loads((tmp_path / "out" / "check.json").read_text())["splits"]["train"]["sources"]["data"]
    assert (facts["empty_pictures"], facts["ignored"], facts["dropped"]) == (1, {"2": 1}, {"3": 1})


def test_faults_exit_1_and_quarantine_moves_on(home: Path) -> None:
    (home / "data" / "train" / "images" / "train0.png").write_bytes(b"")
    plant(home / "data", "train", "copy", scene(21))
    done = called(home, "--no-near", "--out", str(home / "out"))
    assert done.return_value == 1
    assert f"error, empty: {home}/data/train/images/train0.png: holds no bytes" in done.output
    assert f"error, duplicate: {home}/data/train/images/copy.png: has the pixels of {home}/data/test" in done.output
    assert not (home / "out" / "quarantine.csv").exists()
    done = called(home, "--no-near", "--out", str(home / "out"), "--quarantine")
    assert done.return_value == 0
    listed = rows(home / "out" / "quarantine.csv")
    assert [(Path(row["file"]).name, row["kind"], row["split"]) for row in listed] == [
        ("train0.png", "empty", "train"),
        ("copy.png", "duplicate", "train"),
    ]


def test_what_concerns_a_folder_cannot_be_left_out(home: Path) -> None:
    done = called(home, "--quarantine", "--set", "data.masks=labels")
    assert done.return_value == 1
    assert done.output.count("error, folder: ") == 3
    assert "labels: no such folder" in done.output
    done = called(home, "--quarantine", "--set", f"data.root={home / 'nowhere'}")
    assert done.return_value == 1
    assert done.output.count("error, ") == 1


def test_many_findings_are_counted_and_all_are_in_the_file(home: Path) -> None:
    for index in range(30):
        (home / "data" / "train" / "images" / f"odd{index:02d}.png").write_bytes(b"x")
    done = called(home, "--no-near")
    assert done.output.count("error, unpaired: ") == 21
    assert "error, unpaired: and 10 more" in done.output
    assert len(rows(home / "runs" / "checked" / "check" / "findings.csv")) == 30


def test_near_duplicates_are_drawn_and_do_not_fail(home: Path) -> None:
    plant(home / "data", "train", "flipped", np.ascontiguousarray(scene(22)[:, ::-1]))
    done = called(home)
    assert done.return_value == 0
    assert "1 pairs" in done.output
    assert "turned (left-right)" in done.output
    folder = home / "runs" / "checked" / "check"
    (row,) = rows(folder / "near_duplicates.csv")
    assert (Path(row["file"]).name, Path(row["other_file"]).name) == ("flipped.png", "test2.png")
    assert row["turn"] == "left-right"
    with Image.open(folder / "near_duplicates.png") as drawn:
        assert drawn.size[0] > 800
    (home / "data" / "train" / "images" / "flipped.png").unlink()
    (home / "data" / "train" / "masks" / "flipped.png").unlink()
    called(home)
    assert not (folder / "near_duplicates.png").exists()


def test_an_exact_duplicate_is_not_also_a_near_one(home: Path) -> None:
    plant(home / "data", "train", "copy", scene(20))
    lines: list[str] = []
    path = str(home / "checked.toml")
    found = check(
        path, settings(home), quarantine=False, near=True, inflation=None, out=str(home / "out"), log=lines.append
    )
    assert found.standing == 1
    assert found.pairs == []


def test_fit_gets_what_is_left(home: Path) -> None:
    (home / "data" / "val" / "masks" / "val0.png").write_bytes(b"")
    experiment, lines = load(home / "checked.toml", settings(home)), list[str]()
    parts = usable_parts(experiment, quarantine=home / "quarantine.csv", log=lines.append)
    assert [item.id for item in parts["val"]] == ["val1", "val2"]
    assert [row["kind"] for row in rows(home / "quarantine.csv")] == ["empty"]
    assert "left out, empty: 1 files" in lines[0]
    for file in (home / "data" / "val" / "masks").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="no picture of val can be used"):
        usable_parts(experiment, quarantine=None, log=lines.append)


def test_a_split_without_its_faulty_files_can_be_used_again(home: Path) -> None:
    from leakdet_tf.jobs.run.run import Run, write_inputs

    (home / "data" / "train" / "images" / "train1.png").write_bytes(b"")
    divided = [*settings(home), f"data.root={home / 'data' / 'train'}", "data.split={train=0.4, val=0.3, test=0.3}"]
    experiment = load(home / "checked.toml", divided)
    parts = usable_parts(experiment, quarantine=home / "run" / "quarantine.csv", log=lambda line: None)
    run = Run(experiment, echo=print, held=ExitStack(), quarantine=True, resumed=None)
    run.folder, run.parts, run.contract = home / "run", parts, contract_of(experiment, "softmax")
    run.caches = decode_all(experiment, parts, run.contract, log=lambda line: None)
    given = {name: contributions(experiment, parts[name], cache.targets) for name, cache in run.caches.items()}
    write_inputs(run, given)
    again = load(home / "checked.toml", [*divided, f"data.split.manifest={home / 'run' / 'split.json'}"])
    assert usable_parts(again, quarantine=None, log=lambda line: None) == parts


def decoded(experiment: Any) -> tuple[Any, dict[str, Cache]]:
    parts = find_splits(experiment.data)
    return parts, decode_all(experiment, parts, contract_of(experiment, "softmax"), log=lambda line: None)


def test_fit_refuses_what_leaks(home: Path) -> None:
    experiment, lines = load(home / "checked.toml", settings(home)), list[str]()
    refuse_leaks(experiment, *decoded(experiment), log=lines.append)
    assert lines == []
    plant(home / "data", "train", "copy", scene(20))
    with pytest.raises(DataError, match=r"copy\.png: has the pixels of .*test0\.png") as caught:
        refuse_leaks(experiment, *decoded(experiment), log=lines.append)
    assert "--quarantine" in caught.value.remedy


def test_fit_refuses_a_class_that_it_would_never_see(home: Path) -> None:
    experiment = load(home / "checked.toml", [*settings(home), 'task.classes=["background", "blob", "gas"]'])
    lines: list[str] = []
    with pytest.raises(DataError, match="no mask of train holds class 'gas'"):
        refuse_leaks(experiment, *decoded(experiment), log=lines.append)
    assert len(lines) == 2


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_fit_refuses_a_split_in_which_nothing_counts(home: Path, split: str) -> None:
    for file in (home / "data" / split / "masks").iterdir():
        Image.fromarray(np.full((96, 96), 255, np.uint8)).save(file)
    experiment = load(home / "checked.toml", [*settings(home), 'data.values={0="background",1="blob",255="ignore"}'])
    with pytest.raises(DataError, match=f"every pixel of {split} is ignored; check the masks"):
        refuse_leaks(experiment, *decoded(experiment), log=lambda line: None)


def counted(hit: list[int]) -> np.ndarray:
    """Counts (N, 2, 2) of pictures of 100 pixels, of which so many are decided rightly."""
    return np.array([[[n // 2, 50 - n // 2], [50 - n // 2, n // 2]] for n in hit], np.int64)


def difference(counts: np.ndarray, leaked: np.ndarray, **how: Any) -> Inflation:
    return inflation(weighted_mean_iou(counts), leaked, name="mean IoU", **{"seed": 0, **how})


def test_inflation_is_the_difference_of_means_from_the_same_draws() -> None:
    leaked = np.array([True, True, False, False, False, False])
    found = difference(counted([100, 100, 60, 60, 60, 60]), leaked, resamples=400, confidence=0.95, seed=1)
    assert found.rest == pytest.approx(30 / 70)
    assert found.whole > found.rest
    assert 0 <= found.low < found.whole - found.rest < found.high
    same = difference(counted([60] * 6), leaked, resamples=400, confidence=0.95, seed=1)
    assert (same.low, same.high) == (0, 0)  # paired: no picture's chance is left
    assert "+0.00 points [+0.00, +0.00], 95% interval" in same.line(0.95)


def test_inflation_without_two_sides_says_so() -> None:
    none = difference(counted([60, 80]), np.zeros(2, np.bool_), resamples=100, confidence=0.9, seed=0)
    assert "none of which has a twin" in none.line(0.9)
    every = difference(counted([60, 80]), np.ones(2, np.bool_), resamples=100, confidence=0.9, seed=0)
    assert "no rest" in every.line(0.9)


def test_inflation_of_a_run(run: Path) -> None:
    experiment = load(run / "experiment.toml")
    items = find_splits(experiment.data)["test"]
    leaked = np.arange(len(items)) < 2
    found = inflation_of(experiment, str(run), items, leaked)
    assert (found.pictures, found.leaked) == (len(items), 2)
    assert found.low <= found.high
    with pytest.raises(ConfigError, match="classes"):
        other = experiment.task.model_copy(update={"classes": ["background", "other"]})
        inflation_of(experiment.model_copy(update={"task": other}), str(run), items, leaked)


def test_a_sheet_takes_any_name_and_depth() -> None:
    grey = np.linspace(0, 60000, 64 * 48).astype(np.uint16).reshape(64, 48, 1)
    pairs = [Twins(scene(1), grey, ("train: $x_1$.png", "t" * 90), "77%")] * 4
    figure = sheet(pairs, "title")
    assert len(figure.axes) + sum(len(part.axes) for part in figure.subfigs) >= 8


@pytest.mark.data
def test_no_false_alarm_on_real_pictures(shared: Path, root: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    found = check(
        str(root / "experiments" / "smoke_unet.toml"),
        [f"data.root={shared / 'data' / 'gas_smoke'}"],
        quarantine=False,
        near=True,
        inflation=None,
        out=str(tmp_path),
        log=lines.append,
    )
    assert found.checked.findings == ()
    assert found.standing == 0
    names = [
        tuple(next(iter(found.checked.decoded[place].item.images.values())).stem for place in (pair.first, pair.second))
        for pair in found.pairs
    ]
    # The set holds some photographs twice, with another plume each; each of these pairs was looked at.
    assert ("1_3032", "1_104") in names
    assert {pair.turn for pair in found.pairs} == {"none"}
    assert 30 <= len(names) <= 40
    for alarm in (("1_6861", "1_6860"), ("1_6609", "1_6608"), ("1_6712", "1_6715")):  # one plume, two photographs
        assert alarm not in names
