"""What is wrong with pictures that have labels, told and left out; and what training gets of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.config.data import Augment, Data
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.records import IGNORE
from leakdet_tf.core.tasks import classify
from leakdet_tf.data.cache import Cache, fill
from leakdet_tf.data.checks import Checked, cheap, check
from leakdet_tf.data.findings import Finding, survey
from leakdet_tf.data.items import Item
from leakdet_tf.data.pipeline import plain, training
from leakdet_tf.data.readers import find_items, find_splits, truth_tables

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


def checked(data: Data, classes: list[str] = CLASSES) -> Checked:
    parts, findings = survey(data)
    return [step for step in check(parts, findings, data, classes) if isinstance(step, Checked)][-1]


def told(findings: Iterable[Finding]) -> list[tuple[str, str, str, str]]:
    return sorted((one.kind, one.level, one.split, Path(one.file).name) for one in findings)


def test_clean_folders_have_no_findings_and_their_pictures_are_counted(folders: Path) -> None:
    found = checked(settings(folders))
    assert found.findings == ()
    assert list(found.pixels("train", "data")[:3]) == [4, 4, 4]
    assert found.usable() == find_splits(settings(folders))


def test_everything_that_is_wrong_is_told_at_once(folders: Path, tmp_path: Path, draw: Draw) -> None:
    (folders / "train" / "crack" / "0.png").write_bytes(b"no picture")
    (folders / "train" / "leak" / "1.png").write_bytes(b"")
    draw(folders / "train" / "rust" / "r.png", 900)
    twin, other = (
        draw(folders / "train" / "sound" / "twin.png", 901),
        draw(folders / "train" / "leak" / "other.png", 901),
    )
    draw(folders / "train" / "leak" / "seen.png", 200)  # test/crack/0.png
    data = settings(folders)
    found = checked(data)
    assert told(found.at("error")) == [
        ("conflict", "error", "test", "0.png"),  # one of the two is wrong, and nobody knows which
        ("conflict", "error", "train", "other.png"),
        ("conflict", "error", "train", "twin.png"),
        ("duplicate", "error", "train", "seen.png"),
        ("empty", "error", "train", "1.png"),
        ("mis-valued", "error", "train", "r.png"),
        ("undecodable", "error", "train", "0.png"),
    ]
    said = {one.file: one.detail for one in found.at("error")}
    assert said[str(twin)] == f"is labelled sound, its copy {other} leak"
    assert said[str(other)] == f"is labelled leak, its copy {twin} sound"
    seen, tested = folders / "train" / "leak" / "seen.png", folders / "test" / "crack" / "0.png"
    assert "different labels" in said[str(seen)]
    assert said[str(tested)] == f"is labelled crack, its copy {seen} leak"
    left = found.usable()
    assert (len(left["train"]), len(left["test"])) == (10, 5)
    agreed = contract()
    for items in left.values():
        assert isinstance(list(fill(items, agreed, truth_tables(data, CLASSES)))[-1], Cache)


def test_a_missing_file_of_a_table_is_an_error_of_its_own(tmp_path: Path, draw: Draw) -> None:
    for number, split in enumerate(SPLITS):
        for place, name in enumerate(CLASSES):
            draw(tmp_path / split / f"{name}.png", 10 * number + place)
        table(tmp_path / split, *(f"{name}.png,{name}" for name in CLASSES))
    table(tmp_path / "train", *(f"{name}.png,{name}" for name in CLASSES), "gone.png,leak")
    found = checked(settings(tmp_path, labels="labels.csv"))
    assert told(found.findings) == [("unpaired", "error", "train", "gone.png")]
    assert len(found.usable()["train"]) == 3
    (tmp_path / "val" / "labels.csv").unlink()
    fatal = checked(settings(tmp_path, labels="labels.csv")).at("fatal")
    assert [(one.kind, one.split) for one in fatal] == [("folder", "val")]


def test_equal_pictures_of_two_sources_whose_words_differ_in_meaning(tmp_path: Path, draw: Draw) -> None:
    seeds = iter(range(1, 100))
    for name in ("one", "two"):
        for split in SPLITS:
            for place, word in enumerate(("a", "b", "c")):
                seed = next(seeds) if (split, word) != ("train", "a") else 0
                draw(tmp_path / name / split / word / f"{place}.png", seed)
    values = [{"a": "crack", "b": "leak", "c": "sound"}, {"a": "leak", "b": "crack", "c": "sound"}]
    sources = [
        {"name": name, "root": str(tmp_path / name), "labels": "folders", "values": one}
        for name, one in zip(("one", "two"), values, strict=True)
    ]
    data = Data.model_validate({"source": sources, "inputs": INPUTS})
    found = [one for one in checked(data).findings if one.kind == "conflict"]
    assert [(one.source, one.level) for one in found] == [("one", "error"), ("two", "error")]


def test_a_rare_class_is_a_warning_and_one_never_seen_fatal(folders: Path, draw: Draw) -> None:
    for index in range(41 - 4):
        draw(folders / "train" / "sound" / f"more{index}.png", 2000 + index)
    (rare,) = checked(settings(folders)).findings
    assert (rare.kind, rare.level, rare.split) == ("imbalance", "warning", "train")
    assert rare.detail.startswith("4 training pictures show 'crack', 41 'sound'")
    (folders / "train" / "sound" / "more0.png").unlink()
    assert checked(settings(folders)).findings == ()  # ten times as many is not yet told
    found = checked(settings(folders), [*CLASSES, "rust"]).findings
    assert [(one.kind, one.split, one.level) for one in found] == [
        ("class-never-seen", "train", "fatal"),
        ("class-never-seen", "val", "warning"),
        ("class-never-seen", "test", "warning"),
    ]
    assert "no label of train holds class 'rust'" in found[0].detail


def contract(classes: list[str] = CLASSES, activation: Any = "softmax") -> Contract:
    return Contract("classify", {"image": ImageSpec(8, 8)}, classes_of(classes), activation=activation)


def cached(data: Data, agreed: Contract) -> tuple[dict[str, list[Item]], dict[str, Cache]]:
    parts, caches = find_splits(data), {}
    for name, items in parts.items():
        cache = list(fill(items, agreed, truth_tables(data, list(agreed.class_names))))[-1]
        assert isinstance(cache, Cache)
        caches[name] = cache
    return parts, caches


def test_the_cache_holds_a_row_a_picture_and_the_cheap_check_reads_it(folders: Path, draw: Draw) -> None:
    parts, caches = cached(settings(folders), contract())
    cache = caches["train"]
    assert (cache.targets.shape, cache.targets.dtype) == ((12, 3), np.uint8)
    assert np.array_equal(cache.targets, np.repeat(np.eye(3), 4, axis=0))
    assert cheap(parts, caches, settings(folders), CLASSES, classify) == []
    before = cache.sha256
    (folders / "train" / "crack" / "0.png").rename(folders / "train" / "leak" / "new.png")
    draw(folders / "val" / "sound" / "copy.png", 20)  # train/sound/0.png
    parts, caches = cached(settings(folders), contract())
    assert caches["train"].sha256 != before
    (copy,) = cheap(parts, caches, settings(folders), CLASSES, classify)
    assert (copy.kind, copy.split, Path(copy.file).name) == ("duplicate", "train", "0.png")
    assert "same label" in copy.detail


@pytest.mark.parametrize("apart", [False, True])
def test_photographs_behind_pictures_of_several_splits_are_a_warning(folders: Path, apart: bool) -> None:
    entries = []
    for number, path in enumerate(sorted(folders.rglob("*.png"))):
        file = path.relative_to(folders).as_posix()
        photo = f"{file.partition('/')[0]}.jpg" if apart or number % 2 else "wall.jpg"
        about = {"background_file": photo, "backgrounds_sha256": "ab"}
        entries.append({"file": file, "seed": number, "parameters": about})
    (folders / "manifest.json").write_text(json.dumps({"generator": "leak", "pictures": entries}))
    data = settings(folders)
    parts, caches = cached(data, contract())
    told_of = [one for one in checked(data).findings if one.kind == "background"]
    assert told_of == cheap(parts, caches, data, CLASSES, classify)
    assert [(one.level, one.detail) for one in told_of] == (
        []
        if apart
        else [
            (
                "warning",
                "1 of 4 background photographs, such as wall.jpg, are behind 6 pictures of train, 3 pictures of val, "
                "3 pictures of test",
            )
        ]
    )


def test_a_source_with_fewer_pictures_than_are_to_be_taken_is_told(folders: Path) -> None:
    for take, told_of in ((13, ["has 12 training pictures, though 13 are to be taken (data.source.take)"]), (12, [])):
        source = {"name": "real", "root": str(folders), "labels": "folders", "take": take}
        data = Data.model_validate({"source": [source], "inputs": INPUTS})
        parts, caches = cached(data, contract())
        found = cheap(parts, caches, data, CLASSES, classify)
        assert [one.detail for one in found if (one.kind, one.level) == ("fewer", "warning")] == told_of
        assert [one for one in checked(data).findings if one.kind == "fewer"] == found


def test_softmax_learns_from_one_label_a_picture_and_sigmoid_from_any(tmp_path: Path, draw: Draw) -> None:
    for name, label in (("a", "leak"), ("b", "leak;crack"), ("c", "")):
        draw(tmp_path / "images" / f"{name}.png", ord(name))
        table(tmp_path, f"images/{name}.png,{label}")
        data = settings(tmp_path, labels="labels.csv")
        found, tables = find_items(tmp_path, data.sources[0], data.inputs), truth_tables(data, CLASSES)
        several = list(fill(found, contract(activation="sigmoid"), tables))[-1]
        assert isinstance(several, Cache)
        assert several.targets.sum() == len([word for word in label.split(";") if word])
        if name == "a":
            assert isinstance(list(fill(found, contract(), tables))[-1], Cache)
        else:
            number = several.targets.sum()
            with pytest.raises(DataError, match=rf"{name}\.png: has {number} labels, a softmax model learns one"):
                list(fill(found, contract(), tables))


def test_batches_of_labels_are_padded_and_do_not_move_with_the_pictures(folders: Path) -> None:
    _, caches = cached(settings(folders), contract())
    cache, strong = caches["train"], Augment(flip_horizontal=1, shift=0.5, rotation=90, crop=0.5, brightness=0.5)
    batches = [
        [part.numpy() for part in (batch.inputs["image"], batch.targets, batch.weights)]
        for batch in training(cache, batch_size=5, seed=1, settings=strong, epochs=1)
    ]
    assert [batch[1].shape for batch in batches] == [(5, 3)] * 3
    targets = np.concatenate([batch[1] for batch in batches])
    assert np.array_equal(targets[:12].sum(0), [4, 4, 4])
    assert set(map(int, targets[:12].sum(1))) == {1}
    assert (targets[12:] == IGNORE).all()
    assert list(batches[2][2]) == [2.5, 2.5, 0, 0, 0]
    as_read = list(plain(cache, batch_size=5))
    assert np.array_equal(np.concatenate([batch.targets for batch in as_read])[:12], cache.targets)
    # Each picture keeps its own label: with changes that move nothing, picture and label can be looked up together.
    still = Augment(flip_horizontal=0, brightness=0, contrast=0)
    rows = {cache.inputs["image"][i].tobytes(): cache.targets[i].tolist() for i in range(12)}
    for batch in training(cache, batch_size=4, seed=1, settings=still, epochs=1):
        for picture, target in zip(batch.inputs["image"].numpy(), batch.targets.numpy(), strict=True):
            assert rows[picture.tobytes()] == target.tolist()
    assert not all(picture.tobytes() in rows for batch in batches for picture in batch[0])
