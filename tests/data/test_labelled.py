"""Pictures with labels in place of masks: class folders, tables, what words mean, and what is wrong with them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.config.data import Data, Split
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes, sha256_file
from leakdet_tf.data.findings import survey
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import find_items, find_splits, read, truth_tables
from leakdet_tf.data.splits import divide, group_of

Write = Callable[[Path, np.ndarray], Path]
Draw = Callable[..., Path]
CLASSES = ["crack", "leak", "sound"]
INPUTS = {"image": {"size": [8, 8]}}


def settings(root: Path, **keys: Any) -> Data:
    return Data.model_validate({"root": str(root), "labels": "folders", "inputs": INPUTS} | keys)


def table(folder: Path, *lines: str, head: str = "file,label", mark: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "labels.csv"
    path.write_text("\n".join((head, *lines)) + "\n", encoding="utf-8-sig" if mark else "utf-8")
    return path


def items_of(folder: Path, **keys: Any) -> list[Item]:
    data = settings(folder, **keys)
    return find_items(folder, data.sources[0], data.inputs)


def truth(item: Item, **keys: Any) -> list[int]:
    row = read(item, truth_tables(settings(Path("x"), **keys), CLASSES)["data"]).sample.truth
    assert row is not None
    assert row.dtype == np.uint8
    return list(row)


def test_a_folder_is_a_class(folders: Path) -> None:
    parts = find_splits(settings(folders))
    assert {name: len(items) for name, items in parts.items()} == {"train": 12, "val": 6, "test": 6}
    assert [item.id for item in parts["val"]] == [f"{name}/{index}" for name in CLASSES for index in range(2)]
    first, last = parts["train"][0], parts["train"][-1]
    assert (first.words, first.mask, first.files) == (("crack",), None, (folders / "train" / "crack" / "0.png",))
    assert (truth(first), truth(last)) == ([1, 0, 0], [0, 0, 1])


def test_pictures_may_lie_one_folder_deeper_and_deeper_still(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "crack" / "images" / "day1" / "a.png", 0)
    draw(tmp_path / "leak" / "b.jpg", 1)
    draw(tmp_path / ".thumbs" / "c.png", 2)
    assert [item.id for item in items_of(tmp_path)] == ["crack/day1/a", "leak/b"]


def test_two_inputs_lie_in_sub_folders_of_the_class(tmp_path: Path, draw: Draw, write: Write) -> None:
    inputs = {
        "visual": {"size": [8, 8], "folder": "visual"},
        "thermal": {"size": [4, 4], "folder": "thermal", "channels": 1, "dtype": "uint16"},
    }
    for number, name in enumerate(("leak", "crack")):
        draw(tmp_path / name / "visual" / "p.png", number)
        write(tmp_path / name / "thermal" / "p.tif", np.full((6, 5), 300 + number, np.uint16))
    found = items_of(tmp_path, inputs=inputs)
    assert [item.id for item in found] == ["crack/p", "leak/p"]
    assert list(found[0].images) == ["visual", "thermal"]
    sample = read(found[1], truth_tables(settings(tmp_path, inputs=inputs), CLASSES)["data"]).sample
    assert (sample.images["thermal"].dtype, int(sample.images["thermal"][0, 0, 0])) == (np.uint16, 300)
    draw(tmp_path / "leak" / "visual" / "alone.png", 5)
    with pytest.raises(DataError, match=r"leak/visual/alone\.png: has no partner in .*leak/thermal \(1 such file\)"):
        items_of(tmp_path, inputs=inputs)
    findings = survey(settings(tmp_path, inputs=inputs, split={"train": 0.5, "val": 0.5, "test": 0}))[1]
    assert (findings[0].kind, findings[0].level, Path(findings[0].file).name) == ("unpaired", "error", "alone.png")


def test_words_are_classes_by_values_and_others_mean_nothing(folders: Path) -> None:
    values = {"crack": "leak", "leak": ["leak", "sound"], "sound": "ignore"}
    found = items_of(folders / "val", values=values)
    assert [item.words[0] for item in found] == ["crack", "crack", "leak", "leak"]
    assert (truth(found[0], values=values), truth(found[2], values=values)) == ([0, 1, 0], [0, 1, 1])
    only = {"crack": "crack"}
    odd = items_of(folders / "val", values=only)[-1]
    with pytest.raises(DataError, match=r"sound/1\.png: its label 'sound' means no class; name it in data\.values"):
        truth(odd, values=only)
    with pytest.raises(DataError, match="every picture in it is ignored"):
        items_of(folders / "val", values=dict.fromkeys(CLASSES, "ignore"))


def test_a_folder_without_class_folders_or_with_an_empty_one(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "loose.png", 0)
    with pytest.raises(DataError, match="holds no class folders"):
        items_of(tmp_path)
    (tmp_path / "leak").mkdir()
    with pytest.raises(DataError, match="leak: holds no picture"):
        items_of(tmp_path)


def test_a_table_gives_several_labels_or_none(tmp_path: Path, draw: Draw) -> None:
    for number, name in enumerate("abcd"):
        draw(tmp_path / "images" / f"{name}.png", number)
    lines = (
        "images/d.png,",
        "images/a.png,crack; leak",
        "images/b.png,leak",
        "images/b.png,sound;leak",
        "images/c.png,;",
    )
    table(tmp_path, *lines, mark=True)
    found = items_of(tmp_path, labels="labels.csv")
    assert [item.id for item in found] == [f"images/{name}" for name in "abcd"]
    assert [item.words for item in found] == [("crack", "leak"), ("leak", "sound"), (), ()]
    assert [truth(item, labels="labels.csv") for item in found] == [[1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]]
    found = items_of(tmp_path, labels="labels.csv", values={"leak": "ignore", "crack": "crack"})
    assert [item.id for item in found] == ["images/c", "images/d"]


def test_a_table_with_a_column_an_input(tmp_path: Path, draw: Draw) -> None:
    inputs = {"visual": {"size": [8, 8]}, "thermal": {"size": [8, 8]}}
    draw(tmp_path / "v" / "a.png", 0)
    draw(tmp_path / "t" / "x.png", 1)
    table(tmp_path, "leak,t/x.png,v/a.png", head="label,thermal,visual")
    (item,) = items_of(tmp_path, labels="labels.csv", inputs=inputs)
    assert (item.id, item.images) == ("v/a", {"visual": tmp_path / "v" / "a.png", "thermal": tmp_path / "t" / "x.png"})


@pytest.mark.parametrize(
    ("lines", "head", "said"),
    [
        (
            ["a.png,leak", "b.png,leak"],
            "file,label",
            r"labels\.csv: names .*b\.png, which is not there \(1 such file\)",
        ),
        (["a.png,leak"], "file,class", "has no column 'label'; its first line names file, label"),
        (["a.png"], "file", "has no column 'label'"),
        ([], "file,label", "lists no pictures"),
        (["a.png,leak", "a.png,leak,sound"], "file,label", "line 3: has more cells than columns"),
        (["a.png,leak", "", "", "a.png,leak,sound"], "file,label", "line 5: has more cells than columns"),
        ([",leak"], "file,label", "line 2: names no file"),
        ([" ,leak"], "file,label", "line 2: names no file"),
        (["a.png,leak", "a.jpg,leak"], "file,label", "line 3: 'a' has other files above"),
        (["../a.png,leak"], "file,label", r"line 2: '\.\./a\.png' leads out of the folder"),
        (["x/../../a.png,leak"], "file,label", "line 2: .* leads out of the folder"),
        (["/etc/a.png,leak"], "file,label", "line 2: '/etc/a.png' leads out of the folder"),
        ([".,leak"], "file,label", r"line 2: '\.' leads out of the folder"),
    ],
)
def test_a_table_that_cannot_be_obeyed(tmp_path: Path, draw: Draw, lines: list[str], head: str, said: str) -> None:
    draw(tmp_path / "inside" / "a.png", 0)
    draw(tmp_path / "a.png", 1)
    table(tmp_path / "inside", *lines, head=head)
    with pytest.raises(DataError, match=said):
        items_of(tmp_path / "inside", labels="labels.csv")


def test_a_table_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read \(No such file"):
        items_of(tmp_path, labels="labels.csv")
    (tmp_path / "labels.csv").write_bytes("file,label\ncaf\xe9.png,leak\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        items_of(tmp_path, labels="labels.csv")


def test_the_digests_are_the_files_and_the_labels(folders: Path) -> None:
    item, values = items_of(folders / "val")[0], {"crack": "leak"}
    file = sha256_file(folders / "val" / "crack" / "0.png")
    for keys, row in (({}, [1, 0, 0]), ({"values": values}, [0, 1, 0])):
        found = read(item, truth_tables(settings(folders, **keys), CLASSES)["data"])
        assert found.sha256 == (file, sha256_bytes(bytes(row)))


def source(root: Path, name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "root": str(root), "labels": "folders"} | keys


def several(*sources: dict[str, Any]) -> Data:
    return Data.model_validate({"source": list(sources), "inputs": INPUTS})


def test_more_pictures_keep_the_fewer_that_were_taken(folders: Path) -> None:
    taken = []
    for number in (1, 3, 7, 11, 12, 99, 0):
        parts = find_splits(several(source(folders, "real", take=number)))
        assert (len(parts["val"]), len(parts["test"])) == (6, 6)
        taken.append({item.id for item in parts["train"]})
    assert [len(ids) for ids in taken] == [1, 3, 7, 11, 12, 12, 12]
    assert all(fewer <= more for fewer, more in pairwise(taken))
    assert taken[1] != {f"real/crack/{index}" for index in range(3)}  # not simply the first
    assert survey(several(source(folders, "real", take=3)))[0] == find_splits(several(source(folders, "real", take=3)))


def rendered(root: Path, draw: Draw, splits: Iterable[str] = SPLITS) -> Path:
    files = []
    for number, split in enumerate(splits):
        for place, name in enumerate(CLASSES):
            file = f"{split}/{name}/r.png"
            draw(root / file, 1000 + 10 * number + place)
            files.append(f'{{"file": "{file}", "seed": {place}}}')
    (root / "manifest.json").write_text(f'{{"generator": "leak", "pictures": [{", ".join(files)}]}}')
    return root


def test_rendered_pictures_are_not_measured_beside_real_ones(folders: Path, tmp_path: Path, draw: Draw) -> None:
    made = rendered(tmp_path / "made", draw)
    wrong = several(source(folders, "real"), source(made, "made"))
    with pytest.raises(
        DataError, match=r"val: 3 of 9 pictures are rendered, such as .*made/val/crack/r\.png"
    ) as caught:
        find_splits(wrong)
    assert 'parts = ["train"]' in caught.value.remedy
    assert [(one.kind, one.split, one.level) for one in survey(wrong)[1]] == [
        ("rendered", "val", "fatal"),
        ("rendered", "test", "fatal"),
    ]
    parts = find_splits(several(source(folders, "real"), source(made, "made", parts=["train"])))
    assert [item.origin.kind for item in parts["train"]].count("rendered") == 3
    assert {len(items) for items in find_splits(several(source(made, "made"))).values()} == {3}  # all of one kind


def test_rendered_pictures_alone_do_not_measure_what_saw_real_ones(folders: Path, tmp_path: Path, draw: Draw) -> None:
    made = rendered(tmp_path / "made", draw)
    wrong = several(source(folders, "real", parts=["train"]), source(made, "made", parts=["val", "test"]))
    with pytest.raises(
        DataError, match=r"val: all 3 pictures are rendered, such as .*r\.png, though 12 of 12 in training are real"
    ) as caught:
        find_splits(wrong)
    assert "real pictures to val and test" in caught.value.remedy
    told = [(one.kind, one.split, one.level) for one in survey(wrong)[1]]
    assert told == [("rendered", "val", "fatal"), ("rendered", "test", "fatal")]
    both = several(source(folders, "real", parts=["train", "val"]), source(made, "made", parts=["train", "test"]))
    with pytest.raises(DataError, match=r"test: all 3 pictures are rendered, .* though 12 of 15 in training are real"):
        find_splits(both)
    other = several(source(made, "made", parts=["train", "val"]), source(folders, "real", parts=["test"]))
    assert {name: len(items) for name, items in find_splits(other).items()} == {"train": 3, "val": 3, "test": 6}
    assert not survey(other)[1]


def test_a_flat_rendered_folder_is_known_by_its_own_manifest(folders: Path, tmp_path: Path, draw: Draw) -> None:
    made, names = tmp_path / "made", [f"images/r{number}.png" for number in range(12)]
    for number, name in enumerate(names):
        draw(made / name, 2000 + number)
    table(made, *(f"{name},{CLASSES[number % 3]}" for number, name in enumerate(names)))
    entries = ", ".join(f'{{"file": "{name}", "seed": {number}}}' for number, name in enumerate(names))
    (made / "manifest.json").write_text(f'{{"generator": "leak", "pictures": [{entries}]}}')
    flat = source(made, "made", labels="labels.csv", split={"train": 0.5, "val": 0.25, "test": 0.25})
    parts = find_splits(several(flat))
    assert {item.origin.kind for items in parts.values() for item in items} == {"rendered"}
    with pytest.raises(DataError, match=r"val: 3 of 9 pictures are rendered"):
        find_splits(several(source(folders, "real"), flat))


def of_scenes(count: int = 60) -> tuple[list[str], dict[str, str]]:
    # Scenes of one to five pictures; classes of very different frequency.
    rng = np.random.default_rng(4)
    ids, labels = [], {}
    for scene in range(count):
        label = CLASSES[int(rng.choice(3, p=(0.1, 0.3, 0.6)))]
        for shot in range(int(rng.integers(1, 6))):
            key = f"{label}/s{scene:02d}-{shot}"
            ids.append(key)
            labels[key] = label
    return ids, labels


def test_balance_parts_no_group_and_keeps_the_share_of_every_class() -> None:
    ids, labels = of_scenes()
    split = Split(train=0.6, val=0.2, test=0.2, group="^(s[0-9]+)-", balance=True)
    parts = divide(ids, split, where="root", labels=labels)
    assert sorted(key for part in parts.values() for key in part) == sorted(ids)
    scenes = [{group_of(key, split.group, where="root") for key in part} for part in parts.values()]
    assert not scenes[0] & scenes[1] | scenes[0] & scenes[2] | scenes[1] & scenes[2]
    total = Counter(labels.values())
    assert min(total.values()) * 3 < max(total.values())
    for name, part in parts.items():
        found = Counter(labels[key] for key in part)
        for label in CLASSES:
            assert abs(found[label] - getattr(split, name) * total[label]) <= 3, (name, label)
    for seed in range(4):
        assert divide(random.Random(seed).sample(ids, len(ids)), split, where="root", labels=labels) == parts
    assert divide(ids, split.model_copy(update={"seed": 1}), where="root", labels=labels) != parts


def test_pool_and_balance_divide_class_folders_anew(tmp_path: Path, draw: Draw) -> None:
    for split, scenes in (("train", range(8)), ("test", range(8, 12))):
        for place, name in enumerate(CLASSES):
            for scene in scenes:
                for shot in range(2):
                    draw(tmp_path / split / name / f"{scene}-{shot}.png", 100 * place + 2 * scene + shot)
    division = {"train": 0.5, "val": 0.25, "test": 0.25, "group": "^([0-9]+)-", "balance": True}
    with pytest.raises(DataError, match=r"has train, test but no val folder"):
        find_splits(settings(tmp_path, split=division))
    data = settings(tmp_path, split=division | {"pool": True})
    parts = find_splits(data)
    assert parts == survey(data)[0]
    assert {name: Counter(item.words[0] for item in items) for name, items in parts.items()} == {
        "train": dict.fromkeys(CLASSES, 12),
        "val": dict.fromkeys(CLASSES, 6),
        "test": dict.fromkeys(CLASSES, 6),
    }
    assert {item.id.split("/")[0] for item in parts["train"]} == {"train", "test"}
    scenes_of = {name: {item.id.rpartition("/")[2].partition("-")[0] for item in part} for name, part in parts.items()}
    assert not scenes_of["train"] & scenes_of["test"] | scenes_of["val"] & scenes_of["test"]
