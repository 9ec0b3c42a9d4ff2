"""A frozen list renders again, here and elsewhere, and says how many pictures come out equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from leakdet_tf.cli import main
from leakdet_tf.cli.synth import command
from leakdet_tf.core.errors import DataError
from leakdet_tf.synth.folder import frozen
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.synth.folder.writer import render_folder

ROOT = Path(__file__).parents[2]
FROZEN = ROOT / "experiments" / "frozen" / "gas_infrared.json"


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A frozen list of five frames of clips."""
    steps = render_folder(tmp_path / "gas", Request("gas", {"test": 5}, (32, 32), 3, clip=2))
    assert list(steps) == [1, 2, 3, 4, 5]
    frozen.freeze(tmp_path / "gas", tmp_path / "list.json")
    return tmp_path / "list.json"


def _run(*words: str) -> str:
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    return done.output


def _changed(listed: Path, **changes: Any) -> Path:
    manifest = json.loads(listed.read_text(encoding="utf-8"))
    other = listed.with_name("changed.json")
    other.write_text(json.dumps(manifest | changes), encoding="utf-8")
    return other


def test_a_frozen_list_says_all_that_is_needed_and_is_short(listed: Path) -> None:
    assert frozen.read_request(listed) == Request(
        "gas", {"train": 0, "val": 0, "test": 5}, (32, 32), 3, options={}, clip=2
    )
    manifest = json.loads(listed.read_text(encoding="utf-8"))
    assert len(listed.read_bytes()) < 5 * 1200 + 600
    first = manifest["pictures"][0]
    assert set(first) == {"file", "seed", "sha256", "parameters"}
    assert first["file"] == "test/images/gas_00001_f00.png"
    assert {"gas_fraction", "delta_t_k", "distance_m", "confusers"} <= set(first["parameters"])


def test_like_renders_the_same_pictures_and_counts_them(listed: Path, tmp_path: Path) -> None:
    output = _run("gas", str(tmp_path / "again"), "--like", str(listed), "--workers", "1")
    assert "5 pictures rendered" in output
    assert "5 of 5 pictures are equal byte for byte" in output
    pictures = json.loads(listed.read_text(encoding="utf-8"))["pictures"]
    pictures[2]["sha256"] = "0" * 64
    output = _run("gas", str(tmp_path / "again"), "--like", str(_changed(listed, pictures=pictures)))
    assert "5 pictures were there already" in output
    assert "4 of 5" in output
    assert "from test/images/gas_00002_f00.png on" in output
    assert "floating point" in output


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"format": 1}, "its format is 1"),
        ({"counts": {"test": 6}}, "lists 5 pictures"),
        ({"clip": 1}, "lists 5 pictures"),
        ({"size": 7}, "not a manifest"),
        ({"pictures": None}, "not a manifest"),
        ({"pictures": [{"file": "a", "seed": 1}] * 5}, "not a manifest"),
        ({"pictures": [{"file": "a", "sha256": "0" * 64}] * 5}, "not a manifest"),
        ({"seed": float("inf")}, "not a manifest"),
        ({"seed": 4}, "lists 5 pictures"),
        ({"counts": {"test": 10**15}}, "lists 5 pictures"),
        ({"counts": {"test": -1}}, "test is -1"),
        ({"counts": {"tset": 5}}, "no split 'tset'"),
    ],
)
def test_a_list_that_cannot_be_rendered_is_an_error(listed: Path, changes: dict[str, Any], shown: str) -> None:
    with pytest.raises(DataError, match=shown) as caught:
        frozen.read_request(_changed(listed, **changes))
    assert "changed.json" in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, None])
def test_advice_about_a_list_never_deletes_its_folder(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "list.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"list\.json") as caught:
        frozen.read_request(path)
    assert "delete" not in str(caught.value)


def test_only_what_was_rendered_was_there_already(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "photo.png").write_bytes(b"mine")
    asked = ["--train", "1", "--val", "0", "--test", "0", "--size", "32", "32"]
    for words in (asked, ["--like", str(listed)]):
        for place in (tmp_path / "own", listed):
            assert main(["synth", "gas", str(place), *words]) == 2
            assert "not rendered by this package" in capsys.readouterr().err
    assert [path.read_bytes() for path in (tmp_path / "own").iterdir()] == [b"mine"]
    (tmp_path / "empty").mkdir()
    assert main(["synth", "gas", str(tmp_path / "empty"), *asked]) == 0
    assert "1 pictures rendered" in capsys.readouterr().out


def test_other_pictures_are_not_compared(listed: Path, tmp_path: Path) -> None:
    pictures = json.loads(listed.read_text(encoding="utf-8"))["pictures"]
    pictures[1]["seed"] += 1
    with pytest.raises(DataError, match="not those of"):
        frozen.compare(tmp_path / "gas", _changed(listed, pictures=pictures))


def test_options_beside_like_are_refused(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, shown in (
        (["gas", "--seed", "4"], "leave out --seed"),
        (["gas", "--option", "look=visible"], "leave out --option"),
        (["other"], "write synth gas"),
    ):
        generator, *more = words
        assert main(["synth", generator, str(tmp_path / "x"), "--like", str(listed), *more]) == 2
        assert shown in capsys.readouterr().err
    assert main(["synth", "gas", str(tmp_path / "x"), "--option", "look"]) == 2
    assert "not KEY=VALUE" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_freeze_and_options_on_the_command_line(tmp_path: Path) -> None:
    few = ("--train", "1", "--val", "0", "--test", "2", "--size", "32", "32", "--seed", "9")
    output = _run(
        "gas",
        str(tmp_path / "g"),
        *few,
        "--option",
        "look=visible",
        "--clip",
        "2",
        "--freeze",
        str(tmp_path / "f.json"),
    )
    assert "3 pictures rendered" in output
    asked = frozen.read_request(tmp_path / "f.json")
    assert asked.options == {"look": "visible"}
    assert asked.clip == 2


def test_the_repositorys_list_is_what_it_should_be() -> None:
    asked = frozen.read_request(FROZEN)
    assert asked == Request("gas", {"train": 0, "val": 0, "test": 120}, (128, 128), 1203)
    assert FROZEN.stat().st_size < 150_000


def test_the_repositorys_list_is_of_this_generator() -> None:
    """Its pictures' parameters are drawn again: bytes may differ between machines, these only in rounding."""
    manifest = json.loads(FROZEN.read_text(encoding="utf-8"))
    render = frozen.read_request(FROZEN).function()
    for picture in manifest["pictures"][::24]:
        found = render(picture["seed"], (128, 128)).parameters
        for key in ("gas_fraction", "distance_m", "delta_t_k", "wind_m_s", "confusers", "machine_kinds"):
            value = picture["parameters"][key]
            assert found[key] == (pytest.approx(value, rel=2e-3) if isinstance(value, float) else value)
