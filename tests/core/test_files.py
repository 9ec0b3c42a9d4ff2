"""Files are whole or not there: an error keeps the old one and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from leakdet_tf.core import files
from leakdet_tf.core.files import (
    sha256_bytes,
    sha256_file,
    sync_folder,
    whole_file,
    write_bytes,
    write_json,
    write_text,
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "report.json").write_text("old")
    return tmp_path / "report.json"


def only(target: Path, content: str) -> None:
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.read_text(encoding="utf-8") == content


@pytest.mark.parametrize(("mode", "found"), [(0o666, 0o664), (0o600, 0o600)])
def test_a_file_s_permissions_are_what_the_umask_leaves(target: Path, mode: int, found: int) -> None:
    before = os.umask(0o002)
    try:
        write_json(target, {}, mode=mode)
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == found


def test_a_new_file_replaces_the_old_one(target: Path) -> None:
    write_text(target, "neü\n")
    only(target, "neü\n")
    write_bytes(target, b"bytes")
    only(target, "bytes")


def test_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_an_error_leaves_the_old_file_and_no_other(target: Path) -> None:
    def interrupted() -> None:
        with whole_file(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    only(target, "old")


def test_a_body_that_writes_nothing_is_an_error(target: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(target):
        pass
    only(target, "old")


def test_a_rename_that_fails_leaves_the_old_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_text(target, "new")
    monkeypatch.undo()
    only(target, "old")


def test_an_error_names_the_file_that_was_to_be(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (target.parent / "folder").mkdir()
    with pytest.raises(OSError) as caught:
        write_text(target.parent / "folder", "new")
    assert caught.value.filename == str(target.parent / "folder")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError) as caught:
        write_text(target, "new")
    assert caught.value.filename == str(target)
    only_files = sorted(path.name for path in target.parent.iterdir())
    assert only_files == ["folder", "report.json"]


def test_the_old_file_is_there_until_the_new_one_is_complete(target: Path) -> None:
    with whole_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == target.parent
        assert temporary.suffix == ".json"  # savers choose the format by it
    only(target, "new")


def test_bytes_reach_the_disk_before_the_name_does(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (events.append("sync"), sync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (events.append("rename"), replace(path, to))[1])
    write_text(target, "new")
    assert events == ["sync", "rename", "sync"]


def test_json_is_indented_utf8_with_a_final_newline(target: Path) -> None:
    write_json(target, {"größe": [1, 2.5, None]})
    text = target.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert '  "größe": [' in text
    assert json.loads(text) == {"größe": [1, 2.5, None]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}])
def test_json_refuses_what_json_cannot_say(target: Path, value: object) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(target, value)
    only(target, "old")


def test_hashes_are_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000  # more than one piece
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()
    assert sha256_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_syncing_a_folder_needs_a_folder(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    if os.name != "nt":
        with pytest.raises(FileNotFoundError):
            sync_folder(tmp_path / "absent")
