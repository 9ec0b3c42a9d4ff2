"""A rendered folder is there whole or not at all, and says when it is not the one that is asked for."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import leakdet_tf
from leakdet_tf.core.errors import ConfigError, DataError, ModelError
from leakdet_tf.core.files import host, own_mark, sha256_file
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.synth.folder.writer import check_folder, picture_seed, render_folder
from leakdet_tf.synth.gas.generator import render

ASKED: dict[str, Any] = {
    "generator": "gas",
    "counts": {"train": 3, "val": 1, "test": 2},
    "size": (32, 48),
    "seed": 5,
}


def _fill(root: Path, **changes: Any) -> list[int]:
    workers = changes.pop("workers", None)
    return list(render_folder(root, Request(**(ASKED | changes)), workers=workers))


def _files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root).as_posix()) for path in root.rglob("*") if path.is_file())


def _hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def _dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_layout_progress_and_manifest(tmp_path: Path) -> None:
    root = tmp_path / "not" / "yet" / "gas"
    assert _fill(root) == [1, 2, 3, 4, 5, 6]
    names = {
        "train": ("gas_00001", "gas_00002", "gas_00003"),
        "val": ("gas_00001",),
        "test": ("gas_00001", "gas_00002"),
    }
    expected = [
        f"{split}/{kind}/{stem}.png" for split in names for kind in ("images", "masks") for stem in names[split]
    ]
    assert _files(root) == sorted([*expected, "manifest.json"])
    assert _hidden(root.parent) == []

    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["format"] == 2
    assert manifest["generator"] == "gas"
    assert manifest["package_version"] == leakdet_tf.__version__
    assert manifest["seed"] == 5
    assert manifest["size"] == [32, 48]
    assert manifest["counts"] == ASKED["counts"]
    assert manifest["options"] == {}
    assert manifest["clip"] == 1
    assert manifest["classes"] == ["background", "gas", "machine"]
    assert [picture["file"] for picture in manifest["pictures"]] == [name for name in expected if "images" in name]
    for picture in manifest["pictures"]:
        assert picture["mask"] == picture["file"].replace("images", "masks")
        assert picture["sha256"] == sha256_file(root / picture["file"])
        rendered = render(picture["seed"], (32, 48))
        number = int(picture["file"][-9:-4])
        assert picture["parameters"] == rendered.parameters | {"clip": number - 1, "frame": 0}
        with Image.open(root / picture["file"]) as image, Image.open(root / picture["mask"]) as mask:
            assert image.mode == mask.mode == "L"
            assert np.array_equal(np.asarray(image), rendered.image[:, :, 0])
            assert np.array_equal(np.asarray(mask), rendered.mask)


def test_splits_share_no_scene_and_more_pictures_keep_the_earlier_ones(tmp_path: Path) -> None:
    _fill(tmp_path / "few")
    _fill(tmp_path / "many", counts={"train": 5, "val": 1, "test": 3})
    few, many = tmp_path / "few", tmp_path / "many"
    for name in _files(few):
        if name.endswith(".png"):
            assert (few / name).read_bytes() == (many / name).read_bytes()
    seeds = [picture_seed(5, split, index) for split in ("train", "val", "test") for index in range(500)]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 2**53
    assert picture_seed(6, "train", 0) != picture_seed(5, "train", 0)


def test_clips_are_frames_of_one_scene(tmp_path: Path) -> None:
    _fill(tmp_path / "gas", clip=2)
    assert _files(tmp_path / "gas")[1:4] == [f"test/images/gas_00001_f0{frame}.png" for frame in (0, 1)] + [
        "test/masks/gas_00001_f00.png"
    ]
    assert (tmp_path / "gas/train/images/gas_00002_f00.png").is_file()  # the last clip of three pictures is shorter
    assert not (tmp_path / "gas/train/images/gas_00002_f01.png").exists()
    pictures = json.loads((tmp_path / "gas/manifest.json").read_text(encoding="utf-8"))["pictures"]
    places = [(one["parameters"]["clip"], one["parameters"]["frame"], one["seed"]) for one in pictures[:3]]
    first, second = picture_seed(5, "train", 0), picture_seed(5, "train", 1)
    assert places == [(0, 0, first), (0, 1, first), (1, 0, second)]
    later = render(first, (32, 48), frame=1).image[:, :, 0]
    with Image.open(tmp_path / "gas/train/images/gas_00001_f01.png") as image:
        assert np.array_equal(np.asarray(image), later)
    check_folder(tmp_path / "gas", Request(**(ASKED | {"clip": 2})))


def test_options_reach_the_generator_and_colour_is_saved_as_rgb(tmp_path: Path) -> None:
    _fill(tmp_path / "gas", options={"look": "visible"})
    manifest = json.loads((tmp_path / "gas/manifest.json").read_text(encoding="utf-8"))
    assert manifest["options"] == {"look": "visible"}
    with Image.open(tmp_path / "gas/val/images/gas_00001.png") as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), render(picture_seed(5, "val", 0), (32, 48), look="visible").image)
    check_folder(tmp_path / "gas", Request(**(ASKED | {"options": {"look": "visible"}})))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"options": {"lok": "visible"}}, "did you mean 'look'"),
        ({"options": {"frame": 3}}, "options.frame"),
        ({"options": {"seed": 3}}, "options.seed"),
        ({"options": {"look": {1, 2}}}, "not JSON"),
        ({"generator": "own_plain:still", "clip": 2}, "no argument 'frame'"),
        ({"generator": "own_plain:still", "options": {"x": 1}}, "no such option; leave it out"),
    ],
)
def test_options_are_checked_against_the_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], shown: str
) -> None:
    (tmp_path / "own_plain.py").write_text("def still(seed, size):\n    raise AssertionError\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=shown):
        _fill(tmp_path / "gas", **changes)
    assert not (tmp_path / "gas").exists()


def test_a_split_left_out_has_no_pictures(tmp_path: Path) -> None:
    assert _fill(tmp_path / "gas", counts={"train": 1}) == [1]
    assert list((tmp_path / "gas" / "val" / "images").iterdir()) == []
    check_folder(tmp_path / "gas", Request(**(ASKED | {"counts": {"train": 1, "val": 0}})))


def test_a_folder_just_rendered_passes_and_is_not_rendered_twice(tmp_path: Path) -> None:
    root = tmp_path / "gas"
    _fill(root)
    check_folder(root, Request(**ASKED))
    before = (root / "manifest.json").stat().st_mtime_ns
    assert _fill(root) == []
    assert (root / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("generator", "some.module:thing", "'some.module:thing'"),
        ("counts", {"train": 4, "val": 1, "test": 2}, "'train': 4"),
        ("size", (48, 48), r"\[48, 48\]"),
        ("seed", 6, "is 5 but 6"),
        ("options", {"look": "visible"}, "'look': 'visible'"),
        ("clip", 2, "is 1 but 2"),
    ],
)
def test_a_folder_for_other_arguments_is_refused(tmp_path: Path, key: str, value: Any, shown: str) -> None:
    root = tmp_path / "gas"
    _fill(root)
    with pytest.raises(DataError, match=shown) as caught:
        check_folder(root, Request(**(ASKED | {key: value})))
    assert f"'{key}'" in str(caught.value)
    assert f"delete {root} to render it again, or set data.root to another folder" in caught.value.remedy


def test_the_users_own_pictures_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"")
    check_folder(tmp_path, Request(**ASKED))
    with pytest.raises(DataError, match="not rendered by this package"):
        _fill(tmp_path)
    assert _files(tmp_path) == ["mine.png"]


@pytest.mark.parametrize("missing", ["train/images/gas_00002.png", "test/masks/gas_00001.png"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    root = tmp_path / "gas"
    _fill(root)
    (root / missing).unlink()
    (root / "test/masks/gas_00002.png").unlink()  # a later one, which is not the one to name
    with pytest.raises(DataError, match="missing") as caught:
        check_folder(root, Request(**ASKED))
    assert str(root / missing) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_a_corrupt_manifest_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        check_folder(tmp_path, Request(**ASKED))
    assert str(path) in str(caught.value)
    assert caught.value.remedy


def test_closing_the_generator_leaves_nothing(tmp_path: Path) -> None:
    running = render_folder(tmp_path / "gas", Request(**ASKED))
    assert next(running) == 1
    assert _hidden(tmp_path) == [f".gas.rendering-{own_mark()}"]
    running.close()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    running = render_folder(tmp_path / "gas", Request(**ASKED))
    next(running)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_generator_of_ones_own_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "own_generators.py").write_text(
        "from leakdet_tf.synth.gas.generator import render\n"
        "def small(seed, size):\n    return render(seed, (64, 64))\n"
        "def broken(seed, size):\n    raise ValueError('no scene')\n"
        "def fine(seed, size):\n    return render(seed, size)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(code))
    data = tmp_path / "data"
    with pytest.raises(ValueError, match="no scene"):
        _fill(data / "gas", generator="own_generators:broken")
    with pytest.raises(DataError, match="32 x 48"):
        _fill(data / "gas", generator="own_generators:small")
    assert list(data.iterdir()) == []
    _fill(data / "gas", generator="own_generators:fine")
    assert (data / "gas/train/images/fine_00001.png").is_file()
    with pytest.raises(ModelError, match="gaz"):
        _fill(data / "other", generator="gaz")


def test_a_full_disk_is_a_data_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left") as caught:
        _fill(tmp_path / "gas")
    assert str(tmp_path / "gas") in str(caught.value)
    assert "data.root" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot write"):
        _fill(tmp_path / "file" / "gas")


@pytest.mark.skipif(os.name == "nt", reason="whether a process runs is not asked on Windows")
def test_only_leftovers_of_dead_processes_of_this_folder_are_removed(tmp_path: Path) -> None:
    dead = f"{host()}-{_dead_process()}"
    kept = [f".gas.rendering-{host()}-{os.getppid()}", f".other.rendering-{dead}", ".gas.rendering-notes"]
    for name in (*kept, f".gas.rendering-{dead}", f".gas.rendering-{own_mark()}"):
        (tmp_path / name / "train").mkdir(parents=True)
    _fill(tmp_path / "gas")
    assert _hidden(tmp_path) == sorted(kept)
    assert (tmp_path / "gas/manifest.json").is_file()


@pytest.mark.skipif(os.name == "nt", reason="whether a process runs is not asked on Windows")
def test_a_run_on_another_machine_that_shares_the_disk_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "node/77-a")
    dead = _dead_process()  # of this machine; on the other it may be at work
    theirs = [f".gas.rendering-node_77_a-{number}" for number in sorted((os.getpid(), dead))]
    assert own_mark() == f"node_77_a-{os.getpid()}"
    for name in theirs:
        (tmp_path / name / "train").mkdir(parents=True)
    monkeypatch.setattr("platform.node", lambda: "node78")
    _fill(tmp_path / "gas")
    assert _hidden(tmp_path) == sorted(theirs)
    (tmp_path / "gas").rename(tmp_path / "away")
    monkeypatch.setattr("platform.node", lambda: "node/77-a")
    _fill(tmp_path / "gas")
    assert _hidden(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_a_killed_run_leaves_no_folder_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from leakdet_tf.synth.folder.writer import render_folder\n"
        "from leakdet_tf.synth.folder.request import Request\n"
        f"for _ in render_folder(Path({str(tmp_path / 'gas')!r}),"
        " Request('gas', {'train': 99999}, (32, 32), 1)): pass"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(leakdet_tf.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    try:
        while not list(tmp_path.glob(".gas.rendering-*/train/images/*.png")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert _hidden(tmp_path) == [f".gas.rendering-{host()}-{process.pid}"]
    assert not (tmp_path / "gas").exists()
    _fill(tmp_path / "gas")
    assert _hidden(tmp_path) == []
    check_folder(tmp_path / "gas", Request(**ASKED))


def _finish_beside(root: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let another process, as far as process ids tell, render ``root`` from start to end."""
    with monkeypatch.context() as patch:
        patch.setattr("leakdet_tf.synth.folder.writer.os.getpid", os.getppid)
        _fill(root, **changes)


def test_two_runs_at_once_that_ask_for_the_same_both_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "gas"
    slow = render_folder(root, Request(**ASKED))
    next(slow)
    _finish_beside(root, monkeypatch)
    inode = (root / "manifest.json").stat().st_ino
    assert list(slow) == [2, 3, 4, 5, 6]
    assert (root / "manifest.json").stat().st_ino == inode  # the first to finish stays
    assert _hidden(tmp_path) == []
    check_folder(root, Request(**ASKED))


def test_two_runs_at_once_that_differ_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "gas"
    slow = render_folder(root, Request(**ASKED))
    next(slow)
    _finish_beside(root, monkeypatch, seed=77)
    with pytest.raises(DataError, match="'seed' is 77 but 5"):
        list(slow)
    assert _hidden(tmp_path) == []
    check_folder(root, Request(**(ASKED | {"seed": 77})))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"counts": {"training": 1}}, "training"),
        ({"counts": {"train": -1}}, "train is -1"),
        ({"seed": -2}, "seed is -2"),
        ({"clip": 0}, "clip is 0"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], shown: str
) -> None:
    with pytest.raises(DataError, match=shown):
        _fill(tmp_path / "gas", **changes)
    assert list(tmp_path.iterdir()) == []
