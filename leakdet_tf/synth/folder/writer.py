"""A folder of rendered pictures and masks: written whole or not at all, and recognised when it is asked for again."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import left_by_the_dead, own_mark, sync_folder, write_json
from leakdet_tf.core.version import __version__
from leakdet_tf.synth.folder.coco import coco_text
from leakdet_tf.synth.folder.crew import work
from leakdet_tf.synth.folder.picture import Saved
from leakdet_tf.synth.folder.request import SPLITS, Request, picture_seed
from leakdet_tf.synth.scenery.photos import shared

__all__ = [
    "BOXES",
    "LABELS",
    "MANIFEST",
    "check_folder",
    "picture_seed",
    "read_manifest",
    "render_folder",
    "shared_photographs",
]

MANIFEST = "manifest.json"
LABELS = "labels.csv"
BOXES = "coco.json"
_TOLD = "boxes"  # the manifest's key for the name of the files of boxes; not in those of versions that wrote none


def render_folder(root: Path, request: Request, *, workers: int | None = None) -> Generator[int, None, None]:
    """Render pictures and masks into ``root``, unless it already holds just these.

    Written are ``root/<split>/images/<stem>_00001.png`` (8-bit grey or RGB), ``root/<split>/masks/`` with the same
    names (8-bit class ids) and ``root/manifest.json`` (what was asked for, and every picture's seed, hash and
    parameters, with the numbers of its ``clip`` and ``frame``, and its labels and boxes where the generator says any).
    Where it gives labels there is ``root/<split>/labels.csv`` too, with the columns ``file`` (from the split's folder)
    and ``label`` (several joined by ``;``); where it gives boxes, ``root/<split>/coco.json`` (see
    :func:`~leakdet_tf.synth.folder.coco.coco_text`). Frames of a clip are named ``<stem>_00001_f00.png``.
    All of it goes to a hidden folder beside ``root`` that is renamed after the last picture, so ``root`` is never
    there in part. An error, or closing the generator, removes the hidden folder; one that a killed process left is
    removed at the next start on the same machine. Should another run have made the same ``root`` meanwhile, theirs is
    kept and ours is thrown away.

    Args:
        root: the folder to make; missing parents are made too.
        request: what to render. A picture's own seed comes from the request's, its split and its number alone (the
            clip's, where there are clips): splits share no scene, and a higher count keeps the pictures there were.
        workers: processes to render with; None takes all cores, or none besides this one for a few pictures. The
            bytes do not depend on it.

    Yields:
        How many pictures are done, after each. Take all of them: the folder is renamed after the last.

    Raises:
        DataError: ``root`` holds something else, the disk cannot be written, or the generator's pictures differ in
            their classes or in whether they have labels or boxes.
        ConfigError: the generator has no such option, or renders no clips.
        ModelError: there is no such generator.
    """
    request.function()
    try:
        if _occupied(root):
            _require_same(root, request)
            return
        target = root.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in left_by_the_dead(target.parent, _prefix(target)):
            shutil.rmtree(left, ignore_errors=True)
        temporary = target.with_name(f"{_prefix(target)}{own_mark()}")
        try:
            temporary.mkdir()
            for split in SPLITS:
                for kind in ("images", "masks"):
                    (temporary / split / kind).mkdir(parents=True)
            saved: list[Saved] = []
            for picture in work(request, request.jobs(), temporary, workers):
                saved.append(picture)
                yield len(saved)
            pictures = [picture.entry for picture in saved]
            about: dict[str, Any] = {"package_version": __version__, "classes": _classes(request, saved)}
            if any("boxes" in picture for picture in pictures):
                about[_TOLD] = BOXES
            manifest = request.as_json() | about | {"pictures": pictures}
            write_json(temporary / MANIFEST, manifest)
            for name, text in _tables(manifest).items():
                (temporary / name).write_text(text, encoding="utf-8", newline="")
            _sync_tree(temporary)
            try:
                temporary.rename(target)
            except OSError:
                if not _occupied(root):
                    raise
                _require_same(root, request)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{root}: cannot write the rendered pictures ({error.strerror or error})",
            remedy="free some space or fix the permissions there, or set data.root to another folder",
        ) from error


def check_folder(root: Path, request: Request) -> None:
    """Make sure that an existing ``root`` holds what was asked for; a folder without a manifest is the user's own.

    A folder that an earlier version rendered without files of boxes is what was asked for, and stays without.

    Raises:
        DataError: the manifest cannot be read or was written for other arguments, a file that it names is missing, or
            a table of labels or a file of boxes says otherwise than it does.
    """
    path = root / MANIFEST
    if not path.exists():
        return
    manifest = read_manifest(path)
    for key, value in request.as_json().items():
        if key not in manifest or manifest[key] != value:
            raise DataError(
                f"{path}: '{key}' is {manifest.get(key)!r} but {value!r} is asked for",
                remedy=f"delete {root} to render it again, or set data.root to another folder",
            )
    remedy = f"delete {root} to render it again"
    for job in request.jobs():
        for kind in ("images", "masks"):
            file = root / job.split / kind / job.name
            if not file.is_file():
                raise DataError(f"{file}: missing, though {path} counts it", remedy=remedy)
    try:
        tables = _tables(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not a manifest of rendered pictures ({error!r})", remedy=remedy) from error
    for name, text in tables.items():
        file = root / name
        if not file.is_file() or file.read_bytes() != text.encode():
            raise DataError(f"{file}: is not what {path} says", remedy=remedy)


def read_manifest(path: Path, remedy: str = "") -> dict[str, Any]:
    """A manifest's JSON object; DataError where it is none. Without ``remedy`` the advice is to render again."""
    remedy = remedy or f"delete {path.parent} to render it again, or set data.root to another folder"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read as JSON ({reason})", remedy=remedy) from error
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: expected a JSON object", remedy=remedy)
    return manifest


def shared_photographs(root: Path) -> str:
    """What :func:`~leakdet_tf.synth.scenery.photos.shared` tells of a rendered folder."""
    pictures = read_manifest(root / MANIFEST)["pictures"]
    return shared((entry["file"].partition("/")[0], entry["parameters"]) for entry in pictures)


def _classes(request: Request, saved: Sequence[Saved]) -> list[str]:
    """The generator's classes, which all of its pictures share; none where there is no picture."""
    kinds = {picture.classes for picture in saved}
    odd = [key for key in ("labels", "boxes") if len({key in picture.entry for picture in saved}) > 1]
    if len(kinds) > 1 or odd:
        what = "classes" if len(kinds) > 1 else f"{odd[0]} on some and none"
        raise DataError(
            f"generator '{request.generator}': gives other {what} on other pictures",
            remedy="see leakdet_tf.synth.scenery.rendered for what a generator returns",
        )
    return list(*kinds)


def _tables(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The text of every split's ``labels.csv`` and ``coco.json`` by path; nothing where pictures have no such truth."""
    pictures: dict[str, list[Mapping[str, Any]]] = {split: [] for split in SPLITS}
    for picture in manifest["pictures"]:
        pictures[picture["file"].partition("/")[0]].append(picture)
    tables: dict[str, str] = {}
    if any("labels" in picture for picture in manifest["pictures"]):
        tables |= {f"{split}/{LABELS}": _labels(listed) for split, listed in pictures.items()}
    if manifest.get(_TOLD) is not None:
        classes, size = manifest["classes"], manifest["size"]
        tables |= {f"{split}/{BOXES}": coco_text(listed, classes, size) for split, listed in pictures.items()}
    return tables


def _labels(pictures: Sequence[Mapping[str, Any]]) -> str:
    rows = [(picture["file"].partition("/")[2], ";".join(picture["labels"])) for picture in pictures]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "label"), *rows])
    return text.getvalue()


def _occupied(root: Path) -> bool:
    """Whether something stands at ``root`` that a rename would not replace: a file, or a folder that holds any."""
    return root.exists() and not (root.is_dir() and next(root.iterdir(), None) is None)


def _require_same(root: Path, request: Request) -> None:
    """Raise DataError unless ``root`` is a rendered folder that holds just what was asked for."""
    if not (root / MANIFEST).exists():
        raise DataError(
            f"{root}: holds files that were not rendered by this package",
            remedy="set data.root to another folder, or move them away",
        )
    check_folder(root, request)


def _prefix(target: Path) -> str:
    """How the names of the temporary folders of ``target`` begin; machine and process id follow."""
    return f".{target.name}.rendering-"


def _sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder`` to the disk."""
    for place, _, files in os.walk(folder):
        for name in files:
            with Path(place, name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))
