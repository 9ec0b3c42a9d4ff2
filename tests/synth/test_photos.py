"""Photographs behind rendered pictures: which of them a split may use, and what is said where two splits share one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from leakdet_tf.cli.synth import command
from leakdet_tf.core.errors import ConfigError
from leakdet_tf.synth.folder.request import Job, Request
from leakdet_tf.synth.folder.writer import render_folder
from leakdet_tf.synth.scenery.photos import draw_piece

SIZE = (40, 40)


def photographs(folder: Path, count: int) -> dict[str, Any]:
    """The option that names a folder of so many."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (60, 60), (100 + number,) * 3).save(folder / f"{number}.png")
    return {"backgrounds": str(folder)}


def used(options: dict[str, Any], *splits: str) -> dict[str, set[str]]:
    """The files that lie behind the pictures of each split."""
    request = Request("leak", dict.fromkeys(splits, 30), SIZE, 5, options)
    found: dict[str, set[str]] = {}
    for job in request.jobs():
        share = request.given(job)["background_share"]
        piece = draw_piece(np.random.default_rng(job.seed), options["backgrounds"], SIZE, share)
        found.setdefault(job.split, set()).add(piece.file)
    return found


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(10, (6, 2, 2)), (7, (3, 2, 2)), (3, (1, 1, 1)), (7, (5, 0, 2)), (2, (1, 0, 1)), (5, (0, 2, 3))],
)
def test_no_photograph_lies_behind_two_splits(tmp_path: Path, count: int, sizes: tuple[int, int, int]) -> None:
    options = photographs(tmp_path / "photos", count)
    asked = {split: size for split, size in zip(("train", "val", "test"), sizes, strict=True) if size}
    found = used(options, *asked)
    assert {split: len(files) for split, files in found.items()} == asked
    assert len(set.union(*found.values())) == count
    assert found == used(options, *asked)


def test_with_fewer_photographs_than_splits_training_takes_all() -> None:
    request = Request("crack", {"train": 1, "val": 1, "test": 1}, SIZE, 5)
    assert [request.given(job)["background_share"] for job in request.jobs()] == [[2, 5, 5], [1, 2, 5], [0, 1, 5]]


def test_one_split_uses_all_and_others_are_not_asked(tmp_path: Path) -> None:
    options = photographs(tmp_path / "photos", 5)
    job = Job("train", "a.png", 1, 0, 0)
    assert Request("leak", {"train": 3, "val": 0}, SIZE, 5, options).given(job) == {}
    assert Request("gas", {"train": 3, "val": 1}, SIZE, 5).given(job) == {}
    with pytest.raises(ConfigError, match="has no such option"):
        Request("leak", {"train": 3}, SIZE, 5, {"background_share": [0, 1, 5]}).function()


@pytest.mark.parametrize("generator", ["leak", "crack"])
def test_a_rendered_folder_shares_none_and_says_so_where_it_must(tmp_path: Path, generator: str) -> None:
    counts = {"train": 6, "val": 4, "test": 4}
    for name, count, workers in (("one", 6, 1), ("two", 6, 2)):
        options = photographs(tmp_path / name / "photos", count)
        list(render_folder(tmp_path / name / "made", Request(generator, counts, SIZE, 5, options), workers=workers))
    pictures = json.loads((tmp_path / "one" / "made" / "manifest.json").read_text())["pictures"]
    other = json.loads((tmp_path / "two" / "made" / "manifest.json").read_text())["pictures"]
    assert [one["sha256"] for one in pictures] == [one["sha256"] for one in other]
    files: dict[str, set[str]] = {}
    for picture in pictures:
        files.setdefault(picture["file"].partition("/")[0], set()).add(picture["parameters"]["background_file"])
        share = {"test": [0, 1, 5], "val": [1, 2, 5], "train": [2, 5, 5]}[picture["file"].partition("/")[0]]
        assert picture["parameters"]["background_share"] == share
    assert not files["train"] & files["val"] | files["train"] & files["test"] | files["val"] & files["test"]


@pytest.mark.parametrize(("count", "warned"), [(1, True), (3, False)])
def test_the_command_warns_of_too_few(tmp_path: Path, count: int, warned: bool) -> None:
    photos = photographs(tmp_path / "photos", count)["backgrounds"]
    words = ["crack", str(tmp_path / "made"), "--train", "3", "--val", "2", "--test", "1"]
    done = CliRunner().invoke(command, [*words, "--size", "40", "40", "--option", f"backgrounds={photos}"])
    assert done.exit_code == 0, done.output
    told = "warning: 1 of 1 background photographs, such as 0.png, are behind 3 pictures of train, 2 pictures of val, 1"
    assert (told in done.output) is warned
    assert ("warning" in done.output) is warned
