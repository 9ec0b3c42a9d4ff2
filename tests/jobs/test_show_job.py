"""``data show``: the figure holds what training sees, of pictures from all over the split, or says why it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.cli import main
from leakdet_tf.config.loading import load
from leakdet_tf.core.errors import DataError, ImageError, LeakdetError
from leakdet_tf.data.cache import fill
from leakdet_tf.data.readers import find_splits, truth_tables
from leakdet_tf.jobs import data_show as job
from leakdet_tf.jobs.data_show import show, spread, switched_on
from leakdet_tf.jobs.run.data import contract_of

STRONG = "data.augment={flip_vertical=0.5, rotation=20.0, crop=0.3, hue=0.1, noise=0.1, jpeg=0.5}"
EXPERIMENT = """
name = "shown"
[task]
kind = "segment"
classes = ["background", "gas", "machine"]
[data.inputs.image]
size = [20, 24]
[data.inputs.thermal]
folder = "thermal"
size = [10, 12]
channels = 1
dtype = "uint16"
[[data.source]]
name = "large"
root = "ROOT/large"
values = {0 = ["background", "machine"], 1 = "gas", 2 = "ignore"}
[[data.source]]
name = "small"
root = "ROOT/small"
values = {0 = "background", 1 = "gas", 2 = "machine"}
weight = 2.0
[model]
factory = "unet"
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two sources of 16 and 3 pictures a split, with two inputs of which one has 16 bits."""
    random = np.random.default_rng(0)
    for source, count in (("large", 16), ("small", 3)):
        for split in ("train", "val", "test"):
            for folder in ("images", "thermal", "masks"):
                (tmp_path / source / split / folder).mkdir(parents=True)
            for number in range(count):
                place, name = tmp_path / source / split, f"p{number:02d}.png"
                Image.fromarray(random.integers(0, 256, (22, 26, 3), dtype=np.uint8)).save(place / "images" / name)
                warm = random.integers(29000, 31000, (22, 26)).astype(np.uint16)
                Image.fromarray(warm).save(place / "thermal" / name)
                mask = np.repeat(np.repeat(random.integers(0, 3, (2, 2), dtype=np.uint8), 11, 0), 13, 1)
                Image.fromarray(mask).save(place / "masks" / name)
    path = tmp_path / "shown.toml"
    path.write_text(EXPERIMENT.replace("ROOT", str(tmp_path)))
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rows that were drawn."""
    rows: list[Any] = []
    original = job.changes

    def record(given: Any, *arguments: Any, **keys: Any) -> Any:
        rows.extend(given)
        return original(given, *arguments, **keys)

    monkeypatch.setattr(job, "changes", record)
    return rows


def picture(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path, formats=["PNG"]) as found:
        return np.asarray(found)


def test_the_versions_are_those_of_the_training_stream(experiment: Path, tmp_path: Path, drawn: list[Any]) -> None:
    from leakdet_tf.data.pipeline import epoch_order, training

    settings = load(experiment, ["seed=9", "data.augment={rotation=20.0, noise=0.1, chance=1.0}"])
    file = show(
        str(experiment),
        ["seed=9", "data.augment={rotation=20.0, noise=0.1, chance=1.0}"],
        number=5,
        versions=2,
        epoch=1,
        out=str(tmp_path / "new" / "shown.png"),
    )
    assert picture(file).shape[1] > 400
    items = find_splits(settings.data)["train"]
    chosen = [items.index(next(item for item in items if item.id == row.label)) for row in drawn]
    *_, cache = fill(items, contract_of(settings, "softmax"), truth_tables(settings.data, settings.task.classes))
    weights = [2.0 if item.source == "small" else 1.0 for item in items]
    stream = training(
        cache, batch_size=22, seed=9, settings=settings.data.augment, epochs=3, first_epoch=1, weights=weights
    )
    for version, (inputs, targets, _) in enumerate(stream):
        order = [tuple(place) for place in epoch_order(weights, seed=9, epoch=1 + version).tolist()]
        for place, row in zip(chosen, drawn, strict=True):
            at, panel = order.index((place, 0)), row.after[version]
            np.testing.assert_array_equal(panel.truth, targets[at])
            for name in ("image", "thermal"):
                np.testing.assert_array_equal(panel.inputs[name], inputs[name][at])
                np.testing.assert_array_equal(row.before.inputs[name], cache.inputs[name][place])


def test_pictures_are_spread_over_sources_and_over_each_source() -> None:
    sources = ["a"] * 100 + ["b"] * 3
    chosen = spread(sources, 8)
    assert [place for place in chosen if place >= 100] == [100, 101, 102]
    inside = [place for place in chosen if place < 100]
    assert np.diff(inside).tolist() == [20] * 4
    assert spread(["a"] * 4, 4) == [0, 1, 2, 3]
    assert spread(["a", "b", "c", "a"], 1) == [3]
    assert spread(["a", "b", "a", "b"], 2) == [2, 3]


def test_only_what_is_shown_is_decoded(experiment: Path, tmp_path: Path, drawn: list[Any]) -> None:
    show(str(experiment), number=4, versions=1, out=str(tmp_path / "a.png"))
    shown = {row.label for row in drawn}
    for number in range(16):
        if f"large/p{number:02d}" not in shown:
            (tmp_path / "large" / "train" / "images" / f"p{number:02d}.png").write_bytes(b"damaged")
    show(str(experiment), number=4, versions=1, out=str(tmp_path / "a.png"))
    with pytest.raises(ImageError, match="damaged"):
        show(str(experiment), number=19, out=str(tmp_path / "a.png"))


def test_alone_draws_each_change_at_both_ends_or_at_half_and_all(
    experiment: Path, tmp_path: Path, drawn: list[Any]
) -> None:
    strengths = (
        "flip_horizontal=0.5, brightness=0.2, contrast=0.0, rotation=90.0, blur=2.0, sensor=0.1, jpeg=0.5, hue=0.1"
    )
    overrides = [f"data.augment={{{strengths}}}", "data.inputs={image={size=[24, 24]}}"]
    show(str(experiment), overrides, alone=True, out=str(tmp_path / "alone.png"))
    rows = {row.label: row for row in drawn}
    assert list(rows) == ["flip_horizontal", "rotation", "brightness", "hue", "blur", "sensor", "jpeg"]

    def images(name: str) -> list[Any]:
        row = rows[name]
        return [panel.inputs["image"].astype(float) for panel in (row.before, *row.after)]

    before, after = images("flip_horizontal")
    np.testing.assert_array_equal(after, before[:, ::-1])
    before, low, high = images("brightness")
    assert np.median(high - before) == pytest.approx(51, abs=1)
    assert np.median(low - before) == pytest.approx(-51, abs=1)
    before, low, high = images("rotation")
    np.testing.assert_allclose(low, np.rot90(before, -1), atol=1)
    np.testing.assert_allclose(high, np.rot90(before, 1), atol=1)
    np.testing.assert_array_equal(rows["rotation"].after[1].truth, np.rot90(rows["rotation"].before.truth, 1))
    before, half, full = images("blur")
    assert before.std() > half.std() > full.std()
    assert [panel.caption for panel in rows["jpeg"].after] == ["quality 75", "quality 50"]
    assert [panel.caption for panel in rows["rotation"].after] == ["−90°", "+90°"]


def test_switched_on_leaves_out_what_never_comes(experiment: Path) -> None:
    def names(table: str) -> list[str]:
        return switched_on(load(experiment, [f"data.augment={table}"]).data.augment)

    assert names("{noise=0.1, chance=0.0}") == ["flip_horizontal", "brightness", "contrast"]
    assert names("{flip_horizontal=0.0, brightness=0.0, contrast=0.0, noise=0.1}") == ["noise"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "tests"], "train, val, test"),
        (["--number", "0"], "1 to 40"),
        (["--number", "41"], "1 to 40"),
        (["--number", "20"], "at most 19"),
        (["--versions", "13"], "1 to 12"),
        (["--epoch", "-1"], "out of range"),
        (["--out", "figure.pdf"], ".png"),
        (["--out", ""], ".png"),
        (["--out", "shown.toml/a.png"], "shown.toml/a.png"),
        (["--out", "folder.png"], "is a folder"),
        (["--set", "data.augment={noize=0.1}"], "noise"),
        (["--alone", "--set", "data.augment={flip_horizontal=0.0, brightness=0.0, contrast=0.0}"], "above 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str],
    said: str,
    experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    assert main(["data", "show", str(experiment), *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_an_empty_split_and_a_disk_that_is_full_are_named(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ["data.source.0.parts=['train']", "data.source.1.parts=['train']"]
    with pytest.raises(LeakdetError, match="val split is empty"):
        show(str(experiment), only, split="val", out=str(tmp_path / "a.png"))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "save", full)
    with pytest.raises(DataError, match="No space left"):
        show(str(experiment), number=1, out=str(tmp_path / "a.png"))


def test_a_run_that_left_files_out_is_shown_without_them(
    experiment: Path, tmp_path: Path, drawn: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small" / "train" / "images" / "p01.png").write_bytes(b"")
    (tmp_path / "large" / "train" / "masks" / "p00.png").unlink()
    asked = ["data", "show", str(experiment), "--number=17", "--versions=1", "--out", str(tmp_path / "a.png")]
    assert main(asked) == 2
    assert "has no partner" in capsys.readouterr().err
    (tmp_path / "quarantine.csv").write_text("")  # fit --quarantine leaves it beside its experiment file
    assert main(asked) == 0
    assert "left out, empty: 1 files" in capsys.readouterr().out
    labels = [row.label for row in drawn]
    assert len(labels) == 17
    assert not {"small/p01", "large/p00"} & set(labels)


def test_pictures_are_rendered_when_they_are_absent(
    root: Path, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = [*overrides, f"data.root={tmp_path / 'rendered'}", "data.synth.counts={train = 3, val = 1, test = 1}"]
    status = main(["data", "show", str(root / "experiments" / "gas_unet.toml"), "--number", "3", *_set(own)])
    assert status == 0
    assert picture(tmp_path / "augmented.png").shape[1] > 400


def test_tensorflow_is_not_needed(experiment: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from leakdet_tf.cli import main; "
        f"assert main(['data', 'show', {str(experiment)!r}, '--number=1', '--out', {str(tmp_path / 'a.png')!r}]) == 0;"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _set(overrides: list[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]
