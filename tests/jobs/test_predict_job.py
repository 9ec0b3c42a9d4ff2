"""``predict``: pictures, folders and patterns in; overlays, masks and a CSV line each out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.core.errors import DataError
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.predict import find_pictures, out_names, predict


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name, size in (
        ("a/one.png", (64, 64)),
        ("b/one.png", (48, 80)),
        ("b/two.jpg", (100, 30)),
        ("b/two.bmp", (20, 20)),
    ):
        path = tmp_path / "frames" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    (tmp_path / "frames" / "notes.txt").write_text("not a picture")
    return tmp_path / "frames"


def test_a_folder_gives_a_line_a_mask_and_an_overlay_for_each_picture(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    done = predict(str(bundle), [str(pictures)], out=str(tmp_path / "out"), threads=1, log=pytest.fail)
    assert (done.answered, done.refused) == (4, 0)
    rows = list(csv.DictReader(done.table.read_text().splitlines()))
    assert len(rows) == 4
    predictor = Predictor(bundle)
    for row in rows:
        answer = predictor.predict(row["picture"])
        mask = np.asarray(Image.open(row["mask"]))
        np.testing.assert_array_equal(mask, answer.labels)
        overlay = np.asarray(Image.open(row["overlay"]))
        assert overlay.shape == (*answer.size, 3)
        assert [int(row["height"]), int(row["width"])] == list(answer.size)
        assert sum(float(row[f"share_{name}"]) for name in ("background", "gas", "machine")) == pytest.approx(
            1, abs=1e-5
        )
        assert (tmp_path / "out" / "masks") in Path(row["mask"]).parents
        assert (tmp_path / "out" / "overlays") in Path(row["overlay"]).parents
        assert row["model"] == predictor.contract.id
    assert len({row["mask"] for row in rows}) == 4, "equal stems must not overwrite each other"


def test_patterns_and_repeats(pictures: Path) -> None:
    found = find_pictures([str(pictures / "*" / "one.png"), str(pictures / "a" / "one.png"), str(pictures)])
    assert len(found) == 4


def test_the_same_file_by_two_paths_is_answered_once(pictures: Path) -> None:
    assert len(find_pictures([str(pictures / "a"), str(pictures / "b" / ".." / "a")])) == 1


def test_a_name_with_pattern_letters_is_taken_as_a_file(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "odd[1].png")
    assert find_pictures([str(tmp_path / "odd[1].png")]) == [tmp_path / "odd[1].png"]


@pytest.mark.parametrize("source", ["nothing-*.jpg", "absent.png", "empty"])
def test_a_source_without_pictures_is_named(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=source.replace("*", r"\*")):
        find_pictures([str(tmp_path / source)])


def test_names_take_as_many_folders_as_they_need() -> None:
    names = out_names([Path("/x/a/one.png"), Path("/x/b/one.png"), Path("/x/b/two.jpg"), Path("/x/b/two.bmp")])
    assert sorted(names.values()) == ["a/one", "b/one", "b/two_bmp", "b/two_jpg"]
    assert out_names([Path("/x/a/one.png")]) == {Path("/x/a/one.png"): "one"}


def test_a_damaged_picture_is_named_and_the_rest_go_on(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "a" / "bad.jpg").write_bytes((pictures / "b" / "two.jpg").read_bytes()[:200])
    said: list[str] = []
    done = predict(str(bundle), [str(pictures)], out=str(tmp_path / "out"), threads=None, log=said.append)
    assert (done.answered, done.refused) == (4, 1)
    assert len(said) == 1
    assert "bad.jpg" in said[0]


def test_out_that_cannot_be_written_is_one_line(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        predict(str(bundle), [str(pictures)], out=str(tmp_path / "out"), threads=None, log=pytest.fail)


def test_a_run_answers_like_its_bundle(run: Path, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    tables = [
        predict(str(model), [str(pictures)], out=str(tmp_path / name), threads=None, log=pytest.fail).table
        for name, model in (("keras", run), ("tflite", bundle))
    ]
    keras, tflite = (
        [np.asarray(Image.open(row["mask"])) for row in csv.DictReader(table.read_text().splitlines())]
        for table in tables
    )
    changed = sum(int((a != b).sum()) for a, b in zip(keras, tflite, strict=True))
    assert changed == 0
