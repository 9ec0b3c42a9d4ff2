"""Dividing a folder by command: the manifest is what training takes, and the table says what each part has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from leakdet_tf.cli.data_split import command
from leakdet_tf.config.loading import load
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.data.readers import find_splits
from leakdet_tf.jobs.data_split import Row, lacking, rows, split, table

TEXT = """
name = "divided"
[task]
kind = "classify"
classes = ["crack", "leak", "sound"]
[data]
root = "ROOT"
labels = "folders"
[data.split]
train = 0.5
val = 0.25
test = 0.25
group = "^(s[0-9]+)-"
balance = true
[data.inputs.image]
size = [32, 32]
[model]
factory = "resnet_classifier"
"""
SOURCES = """
name = "merged"
[task]
kind = "classify"
classes = ["crack", "leak", "sound"]
[[data.source]]
name = "real"
root = "ROOT"
labels = "folders"
take = 3
parts = ["train", "val"]
[data.source.split]
group = "^(s[0-9]+)-"
[[data.source]]
name = "more"
root = "ROOT"
labels = "folders"
[data.source.split]
seed = 1
[data.inputs.image]
size = [32, 32]
[model]
factory = "resnet_classifier"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An experiment over 8 scenes of two pictures of each of three classes."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(("crack", "leak", "sound")):
        for shot in range(16):
            file = tmp_path / "data" / name / f"s{8 * place + shot // 2}-{shot % 2}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    for name, text in (("one.toml", TEXT), ("two.toml", SOURCES)):
        (tmp_path / name).write_text(text.replace("ROOT", str(tmp_path / "data")))
    return tmp_path


def test_the_manifest_is_what_training_takes(home: Path) -> None:
    lines: list[str] = []
    (file,) = split(str(home / "one.toml"), (), out=str(home / "split.json"), log=lines.append)
    assert file == home / "split.json"
    written = json.loads(file.read_text())
    assert {name: len(ids) for name, ids in written["splits"].items()} == {"train": 24, "val": 12, "test": 12}
    own = find_splits(load(home / "one.toml").data)
    taken = find_splits(load(home / "one.toml", [f"data.split.manifest={file}", "data.split.seed=99"]).data)
    assert taken == own
    assert {name: [item.id for item in items] for name, items in own.items()} == written["splits"]
    assert "train  (all)        24   50.0%      12" in lines
    assert "val    leak          4   25.0%       2" in lines
    assert not [line for line in lines if "warning" in line]


def test_the_same_is_written_again_and_another_never_over_it(home: Path) -> None:
    out = str(home / "split.json")
    split(str(home / "one.toml"), (), out=out, log=lambda line: None)
    before = Path(out).read_bytes()
    split(str(home / "one.toml"), (), out=out, log=lambda line: None)
    assert Path(out).read_bytes() == before
    with pytest.raises(DataError, match=r"split\.json: stands there already and is of another division") as caught:
        split(str(home / "one.toml"), ["data.split.seed=5"], out=out, log=lambda line: None)
    assert "--out" in caught.value.remedy
    assert Path(out).read_bytes() == before
    Path(out).write_text("my notes")
    with pytest.raises(DataError, match=r"stands there and cannot be read \(not JSON\)"):
        split(str(home / "one.toml"), (), out=out, log=lambda line: None)
    assert Path(out).read_text() == "my notes"
    with pytest.raises(DataError, match="cannot be read"):
        split(str(home / "one.toml"), (), out=str(home), log=lambda line: None)


def test_each_source_has_its_own_and_all_its_pictures_are_in_it(home: Path) -> None:
    lines: list[str] = []
    files = split(str(home / "two.toml"), (), out=str(home / "parts" / "split.json"), log=lines.append)
    assert [file.name for file in files] == ["split-real.json", "split-more.json"]
    for file in files:
        named = json.loads(file.read_text())["splits"]
        assert sorted(key for part in named.values() for key in part)[0] == "crack/s0-0"
        assert sum(map(len, named.values())) == 48
    given = [f"data.source.{i}.split.manifest={file}" for i, file in enumerate(files)]
    assert find_splits(load(home / "two.toml", given).data) == find_splits(load(home / "two.toml").data)
    assert f"source real, {home / 'data'}:" in lines
    # When one of them is somebody else's, none is written.
    files[0].unlink()
    with pytest.raises(DataError, match="split-more"):
        split(
            str(home / "two.toml"), ["data.source.1.split.seed=7"], out=str(files[0].with_name("split.json")), log=str
        )
    assert not files[0].exists()


def test_classes_that_a_part_lacks_are_told(home: Path) -> None:
    for file in sorted((home / "data" / "leak").iterdir())[4:]:
        file.unlink()  # four pictures of two scenes are left
    lines: list[str] = []
    split(str(home / "one.toml"), (), out=str(home / "s.json"), log=lines.append)
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert warnings[0].endswith("has no picture of leak")
    with pytest.raises(DataError, match="its label 'leak' means no class"):
        given = ['data.values={crack="crack", sound="sound"}']
        split(str(home / "one.toml"), given, out=str(home / "t.json"), log=lines.append)
    assert not (home / "t.json").exists()


def test_several_labels_count_in_each_and_none_has_a_row_of_its_own(home: Path) -> None:
    (home / "data" / "labels.csv").write_text(
        "file,label\ncrack/s0-0.png,crack;leak\ncrack/s0-1.png,\nleak/s8-0.png,leak\nsound/s16-0.png,sound\n"
    )
    data = load(home / "one.toml", ["data.labels=labels.csv", "data.split.val=0.0", "data.split.test=0.5"]).data
    items = {item.id: item for part in find_splits(data).values() for item in part}
    parts = {"train": [items["crack/s0-0"], items["crack/s0-1"]], "val": [], "test": [items["leak/s8-0"]]}
    found = rows(parts, data, data.sources[0], ["crack", "leak", "sound"])
    assert found[:5] == [
        Row("train", "crack", 1, 1),
        Row("train", "leak", 1, 1),
        Row("train", "sound", 0, 0),
        Row("train", "(none)", 1, 1),
        Row("train", "(all)", 2, 1),
    ]
    assert lacking(found) == ["train has no picture of sound", "test has no picture of crack, sound"]
    assert table(found)[2].split() == ["train", "leak", "1", "50.0%", "1"]
    assert table(found)[3].split() == ["train", "sound", "0", "0"]


def test_masks_are_divided_without_being_read(home: Path) -> None:
    for file in (home / "data" / "crack").iterdir():
        for folder in ("images", "masks"):
            (home / "data" / folder).mkdir(exist_ok=True)
            (home / "data" / folder / file.name).write_bytes(b"never decoded")
    text = (home / "one.toml").read_text().replace('labels = "folders"', "").replace('"classify"', '"segment"')
    (home / "mask.toml").write_text(text + '[data.values]\n0 = "crack"\n1 = "leak"\n2 = "sound"\n')
    lines: list[str] = []
    split(str(home / "mask.toml"), (), out=str(home / "m.json"), log=lines.append)
    assert [line.split() for line in lines[1:]] == [
        ["train", "(all)", "8", "50.0%", "4"],
        ["val", "(all)", "4", "25.0%", "2"],
        ["test", "(all)", "4", "25.0%", "2"],
    ]


def test_the_command_writes_and_says_where(home: Path) -> None:
    arguments = [str(home / "one.toml"), "--out", str(home / "here.json"), "--set", "data.split.balance=false"]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.exception is None
    assert done.output.endswith(f"written: {home / 'here.json'}\n")
    (home / "bare.toml").write_text((home / "one.toml").read_text().replace("[data.split]", "[data.augment]"))
    text = TEXT[: TEXT.index("[data.split]")] + TEXT[TEXT.index("[data.inputs") :]
    (home / "bare.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"has no \[data\.split\] table"):
        split(str(home / "bare.toml"), (), out="x.json", log=lambda line: None)
