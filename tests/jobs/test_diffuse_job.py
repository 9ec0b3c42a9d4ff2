"""The folder that ``synth diffusion`` makes: whole or not at all, and taken up again. The model is a stand-in."""

from __future__ import annotations

import csv
import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import leakdet_tf
from leakdet_tf.config.diffusion import Diffusion, load
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_file
from leakdet_tf.jobs.synth_diffusion import diffuse
from leakdet_tf.synth.diffusion import painter as diffusion
from leakdet_tf.synth.diffusion import prompted
from leakdet_tf.synth.diffusion.prompted import ATTEMPTS, Painted, asks, picture_seed
from leakdet_tf.synth.diffusion.repaint import Place

TEXT = """
model = "stand-in"
size = [16, 24]
steps = 2
seed = 5
parts = ["train", "test"]
[[prompt]]
text = "a {dark|brown|clear} puddle {|, dim light}"
labels = ["leak", "oil"]
counts = {train = 3, test = 1}
value = 9
[[prompt]]
text = "a dry floor"
labels = []
counts = {train = 2}
"""


class Stand:
    """A painter whose pixels depend on nothing but its arguments; ``at`` is called with the number of each picture."""

    def __init__(self, at: Callable[[int], None] = lambda _: None, weights: str = "w", flags: int = 0) -> None:
        self.at, self.flags, self.painted = at, flags, 0
        self.about: Mapping[str, Any] = {
            "model": "stand-in",
            "weights_sha256": weights,
            "pipeline": "Stand",
            "scheduler": "None",
            "device": "cpu",
            "dtype": "float32",
        }

    def paint(self, text: str, seed: int, place: Place | None) -> Painted:
        self.painted += 1
        self.at(self.painted)
        flagged = self.painted <= self.flags
        drawn = np.random.default_rng([seed, *text.encode()]).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        return Painted(np.zeros_like(drawn) if flagged else drawn, flagged)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def paint(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stand]:
    """Run the job with a stand-in; returns it. The lines that were logged stand in its ``lines``."""

    def run(root: Path, *overrides: str, stand: Stand | None = None) -> Stand:
        stand = stand or Stand()
        loaded: list[Collection[str]] = []

        def start(order: Diffusion, texts: Collection[str]) -> Stand:
            loaded.append(texts)
            return stand

        monkeypatch.setattr(diffusion, "load", start)
        stand.lines = []  # type: ignore[attr-defined]
        diffuse(prompts, root, overrides, log=stand.lines.append)  # type: ignore[attr-defined]
        assert len(loaded) <= 1
        return stand

    return run


def _files(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in root.rglob("*") if path.is_file()}


def test_layout_labels_and_manifest(tmp_path: Path, paint: Callable[..., Stand]) -> None:
    root = tmp_path / "deep" / "set"
    stand = paint(root)
    assert stand.painted == 6
    names = ["diffusion_01_00001", "diffusion_01_00002", "diffusion_01_00003", "diffusion_02_00001"]
    images = [f"train/images/{name}.png" for name in [*names, "diffusion_02_00002"]]
    images.append("test/images/diffusion_01_00001.png")
    assert sorted(_files(root)) == sorted([*images, "train/labels.csv", "test/labels.csv", "manifest.json"])
    assert [path.name for path in root.parent.iterdir()] == ["set"]

    with (root / "train" / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "label"]
    assert rows[1] == ["images/diffusion_01_00001.png", "leak;oil"]
    assert rows[-1] == ["images/diffusion_02_00002.png", ""]
    assert len(rows) == 6

    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["generator"] == "diffusion"
    assert manifest["package_version"] == leakdet_tf.__version__
    assert manifest["counts"] == {"train": 5, "val": 0, "test": 1}
    assert manifest["size"] == [16, 24]
    assert manifest["classes"] == ["leak", "oil"]
    assert "device" not in manifest["options"]
    assert [picture["file"] for picture in manifest["pictures"]] == images
    for picture in manifest["pictures"]:
        assert picture["sha256"] == sha256_file(root / picture["file"])
        with Image.open(root / picture["file"]) as image:
            assert (image.mode, image.size) == ("RGB", (24, 16))
        said = picture["parameters"]
        assert said["prompt"] in {
            "a dry floor",
            *(f"a {a} puddle{b}" for a in ("dark", "brown", "clear") for b in ("", " , dim light")),
        }
        assert (said["steps"], said["model"], said["flagged"], said["flagged_before"]) == (2, "stand-in", False, 0)
    assert manifest["pictures"][0]["seed"] == picture_seed(5, "train", 0, 0)


def test_seeds_do_not_depend_on_counts_and_are_shared_by_none(prompts: Path) -> None:
    few = {(ask.split, ask.name): ask for ask in asks(load(prompts))}
    many = {(ask.split, ask.name): ask for ask in asks(load(prompts, ["prompt.0.counts.train=40"]))}
    assert len(many) == 43
    assert all(many[key] == ask for key, ask in few.items())
    assert len({ask.seed for ask in many.values()}) == len(many)
    assert len({ask.text for ask in many.values()}) == 7
    other = asks(load(prompts, ["seed=6"]))
    assert not {ask.seed for ask in other} & {ask.seed for ask in few.values()}


def test_a_finished_folder_is_checked_and_never_changed(tmp_path: Path, paint: Callable[..., Stand]) -> None:
    root = tmp_path / "set"
    paint(root)
    before = _files(root)
    assert paint(root, "device=cpu").painted == 0
    assert _files(root) == before
    with pytest.raises(DataError, match=r"has another 'options' \(steps\); delete .* to paint it again"):
        paint(root, "steps=3")
    with pytest.raises(DataError, match=r"has another 'seed' \(5, now 6\)"):
        paint(root, "seed=6")
    (root / "train" / "images" / "diffusion_01_00002.png").unlink()
    with pytest.raises(DataError, match=r"diffusion_01_00002\.png: missing"):
        paint(root)


def test_a_folder_of_others_is_left_alone(tmp_path: Path, paint: Callable[..., Stand]) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="holds files that were not painted here"):
        paint(tmp_path / "set")
    assert not prompted.hidden(tmp_path / "set").exists()


def _interrupt(number: int) -> None:
    if number == 4:
        raise KeyboardInterrupt


def test_ctrl_c_keeps_what_is_painted_and_the_rest_comes_out_the_same(
    tmp_path: Path, paint: Callable[..., Stand]
) -> None:
    paint(tmp_path / "whole")
    broken = Stand(_interrupt)
    with pytest.raises(KeyboardInterrupt):
        paint(tmp_path / "set", stand=broken)
    assert broken.lines[-1] == "3 of 6 pictures are painted; the same command goes on from there"  # type: ignore[attr-defined]
    assert not (tmp_path / "set").exists()
    assert paint(tmp_path / "set").painted == 3
    assert _files(tmp_path / "set") == _files(tmp_path / "whole")
    assert not prompted.hidden(tmp_path / "set").exists()


def test_what_was_begun_is_not_mixed_with_other_settings_or_weights(
    tmp_path: Path, paint: Callable[..., Stand]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        paint(tmp_path / "set", stand=Stand(_interrupt))
    with pytest.raises(DataError, match=r"was begun with another 'options' \(guidance\)"):
        paint(tmp_path / "set", "guidance=3.0")
    with pytest.raises(DataError, match="was painted with other weights than the model has now"):
        paint(tmp_path / "set", stand=Stand(weights="others"))
    assert prompted.kept(tmp_path / "set") == 3


def test_settings_may_change_while_nothing_is_painted(tmp_path: Path, paint: Callable[..., Stand]) -> None:
    def fail(_: int) -> None:
        raise DataError("no")

    with pytest.raises(DataError, match=r"^no$"):
        paint(tmp_path / "set", stand=Stand(fail))
    assert not prompted.hidden(tmp_path / "set").exists()
    assert paint(tmp_path / "set", "guidance=3.0").painted == 6


def test_a_damaged_picture_is_painted_again(tmp_path: Path, paint: Callable[..., Stand]) -> None:
    paint(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        paint(tmp_path / "set", stand=Stand(_interrupt))
    work = prompted.hidden(tmp_path / "set")
    (work / "out" / "train" / "images" / "diffusion_01_00001.png").write_bytes(b"half")
    (work / "out" / "train" / "images" / ".123.diffusion_01_00004.png").write_bytes(b"half")
    assert paint(tmp_path / "set").painted == 4
    assert _files(tmp_path / "set") == _files(tmp_path / "whole")


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from test_diffuse_job import Stand
from leakdet_tf.jobs.synth_diffusion import diffuse
from leakdet_tf.synth.diffusion import painter as diffusion
diffusion.load = lambda order, texts: Stand(lambda number: time.sleep(0 if number < 3 else 60))
diffuse({prompts!r}, __import__("pathlib").Path({root!r}), log=print)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process the POSIX way")
def test_a_killed_process_leaves_what_it_painted_and_no_lock(
    tmp_path: Path, prompts: Path, paint: Callable[..., Stand]
) -> None:
    paint(tmp_path / "whole")
    root = tmp_path / "set"
    script = SLOW.format(tests=str(Path(__file__).parent), prompts=str(prompts), root=str(root))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for _ in range(1200):
            if prompted.kept(root) == 2 or process.poll() is not None:
                break
            time.sleep(0.05)
        assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
        with pytest.raises(DataError, match="another process is painting it; wait for it"):
            paint(root)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert prompted.kept(root) == 2
    assert not root.exists()
    assert paint(root).painted == 4
    assert _files(root) == _files(tmp_path / "whole")


def test_a_process_killed_after_the_rename_leaves_a_folder_that_the_next_call_removes(
    tmp_path: Path, paint: Callable[..., Stand]
) -> None:
    paint(tmp_path / "set")
    work = prompted.hidden(tmp_path / "set")
    (work / "notes").mkdir(parents=True)
    assert paint(tmp_path / "set").painted == 0
    assert not work.exists()


def test_a_full_disk_is_told_and_the_next_call_goes_on(
    tmp_path: Path, paint: Callable[..., Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "whole")
    real, written = prompted.write_bytes, []

    def full(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(prompted, "write_bytes", full)
        with pytest.raises(DataError, match=r"cannot write the pictures \(No space left on device\); free some space"):
            paint(tmp_path / "set")
    assert prompted.kept(tmp_path / "set") == 2
    assert paint(tmp_path / "set").painted == 4
    assert _files(tmp_path / "set") == _files(tmp_path / "whole")


def test_a_blackened_picture_is_never_kept(tmp_path: Path, paint: Callable[..., Stand]) -> None:
    paint(tmp_path / "set", stand=Stand(flags=2))
    first, second = json.loads((tmp_path / "set" / "manifest.json").read_text())["pictures"][:2]
    assert (first["parameters"]["flagged_before"], second["parameters"]["flagged_before"]) == (2, 0)
    assert np.asarray(Image.open(tmp_path / "set" / first["file"])).any()
    with pytest.raises(DataError, match=rf"prompt\.0: the model's safety checker blackened {ATTEMPTS} pictures of 'a "):
        paint(tmp_path / "other", stand=Stand(flags=ATTEMPTS))


def test_inpainting_writes_masks_and_keeps_the_rest_of_the_photograph(
    tmp_path: Path, paint: Callable[..., Stand]
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "a.png")
    inpaint = ("mode=inpaint", f"inpaint.backgrounds={tmp_path / 'photos'}")
    root = tmp_path / "set"
    paint(root, *inpaint)
    pictures = json.loads((root / "manifest.json").read_text())["pictures"]
    values = []
    for picture in pictures:
        assert picture["mask"] == picture["file"].replace("images", "masks")
        assert picture["mask_sha256"] == sha256_file(root / picture["mask"])
        image, mask = (np.asarray(Image.open(root / picture[key])) for key in ("file", "mask"))
        assert mask.dtype == np.uint8
        values.append(sorted(np.unique(mask)))
        assert np.array_equal(image[mask == 0], photo[mask == 0])
        assert not np.array_equal(image[mask != 0], photo[mask != 0])
        assert picture["parameters"]["background"] == "a.png"
    assert values == [[0, 9]] * 3 + [[0, 1]] * 2 + [[0, 9]]
    assert paint(root, *inpaint).painted == 0
    (root / pictures[0]["mask"]).unlink()
    with pytest.raises(DataError, match=r"masks/diffusion_01_00001\.png: missing"):
        paint(root, *inpaint)
    Image.fromarray(photo[::-1]).save(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError, match=r"has another 'options' \(inpaint\)"):
        paint(root, *inpaint)
