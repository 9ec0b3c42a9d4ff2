"""A folder of rendered pictures and masks: written whole or not at all, and recognised when it is asked for again."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import leakdet_tf
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes, sync_folder, write_json
from leakdet_tf.core.registry import resolve
from leakdet_tf.synth.rendered import CLASSES, Rendered

FORMAT = 1
SPLITS = ("train", "val", "test")
"""Names of the splits. A split's place in this list is part of the seeds of its pictures: do not reorder."""
MANIFEST = "manifest.json"


def render_folder(
    root: Path, *, generator: str, counts: Mapping[str, int], size: tuple[int, int], seed: int
) -> Generator[int, None, None]:
    """Render pictures and masks into ``root``, unless it already holds just these.

    Written are ``root/<split>/images/<stem>_00001.png`` (8-bit grey), ``root/<split>/masks/`` with the same names
    (8-bit class ids) and ``root/manifest.json`` (what was asked for, and every picture's seed, hash and parameters).
    All of it goes to a hidden folder beside ``root`` that is renamed after the last picture, so ``root`` is never
    there in part. An error, or closing the generator, removes the hidden folder; one that a killed process left is
    removed at the next start. Should another run have made the same ``root`` meanwhile, theirs is kept and ours is
    thrown away.

    Args:
        root: the folder to make; missing parents are made too.
        generator: a registered name or ``package.module:function``; called as ``function(seed, size) -> Rendered``.
        counts: pictures by split (``train``, ``val``, ``test``); a split left out has none.
        size: (height, width) in pixels.
        seed: 0 or more. A picture's own seed comes from this one, its split and its number alone: splits share no
            scene, and a higher count keeps the pictures there were.

    Yields:
        How many pictures are done, after each. Take all of them: the folder is renamed after the last.

    Raises:
        DataError: ``root`` holds something else, the disk cannot be written, or the arguments are out of range.
        ModelError: there is no such generator.
    """
    _check_request(counts, seed)
    render = resolve("generator", generator)
    try:
        if _occupied(root):
            _require_same(root, generator=generator, counts=counts, size=size, seed=seed)
            return
        target = root.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        temporary = target.with_name(f"{_prefix(target)}{os.getpid()}")
        try:
            temporary.mkdir()
            pictures: list[dict[str, Any]] = []
            for picture in _pictures(temporary, render, generator, counts, size, seed):
                pictures.append(picture)
                yield len(pictures)
            asked = _request(generator, counts, size, seed)
            about = {"package_version": leakdet_tf.__version__, "classes": list(CLASSES), "pictures": pictures}
            write_json(temporary / MANIFEST, asked | about)
            _sync_tree(temporary)
            try:
                temporary.rename(target)
            except OSError:
                if not _occupied(root):
                    raise
                _require_same(root, generator=generator, counts=counts, size=size, seed=seed)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{root}: cannot write the rendered pictures ({error.strerror or error})",
            remedy="free some space or mend the permissions there, or set data.root to another folder",
        ) from error


def check_folder(root: Path, *, generator: str, counts: Mapping[str, int], size: tuple[int, int], seed: int) -> None:
    """Make sure that an existing ``root`` holds what was asked for; a folder without a manifest is the user's own.

    Raises:
        DataError: the manifest cannot be read, was written for other arguments, or names a file that is missing.
    """
    path = root / MANIFEST
    if not path.exists():
        return
    manifest = _read_manifest(path)
    for key, value in _request(generator, counts, size, seed).items():
        if key not in manifest or manifest[key] != value:
            raise DataError(
                f"{path}: '{key}' is {manifest.get(key)!r} but {value!r} is asked for",
                remedy=f"delete {root} to render it anew, or set data.root to another folder",
            )
    remedy = f"delete {root} to render it anew"
    for split, name in _listing(generator, counts):
        for kind in ("images", "masks"):
            file = root / split / kind / name
            if not file.is_file():
                raise DataError(f"{file}: missing, though {path} counts it", remedy=remedy)


def picture_seed(seed: int, split: str, index: int) -> int:
    """The seed of picture ``index`` (from 0) of a split: below 2**53, so that every JSON reader keeps it exact."""
    words = np.random.SeedSequence([SPLITS.index(split), index, seed]).generate_state(1, np.uint64)
    return int(words[0]) >> 11


def _request(generator: str, counts: Mapping[str, int], size: tuple[int, int], seed: int) -> dict[str, Any]:
    """What a manifest says about the arguments, in the order in which differences are reported."""
    return {
        "format": FORMAT,
        "generator": generator,
        "seed": seed,
        "size": list(size),
        "counts": {split: counts.get(split, 0) for split in SPLITS},
    }


def _check_request(counts: Mapping[str, int], seed: int) -> None:
    unknown = sorted(set(counts) - set(SPLITS))
    if unknown:
        raise DataError(f"counts: there is no split '{unknown[0]}'", remedy=f"choose from: {', '.join(SPLITS)}")
    for split, count in counts.items():
        if not count >= 0:
            raise DataError(f"counts: {split} is {count}", remedy="use 0 or more")
    if not seed >= 0:
        raise DataError(f"seed is {seed}", remedy="use 0 or more")


def _listing(generator: str, counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every picture's split and file name, in order; the stem is the generator's name, or its function's."""
    stem = generator.rpartition(":")[2]
    return [(split, f"{stem}_{number:05d}.png") for split in SPLITS for number in range(1, counts.get(split, 0) + 1)]


def _pictures(
    folder: Path,
    render: Callable[..., Any],
    generator: str,
    counts: Mapping[str, int],
    size: tuple[int, int],
    seed: int,
) -> Generator[dict[str, Any], None, None]:
    """Render and write one picture after another; yields each one's entry in the manifest."""
    for split in SPLITS:
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
    indices = dict.fromkeys(SPLITS, 0)
    for split, name in _listing(generator, counts):
        own_seed = picture_seed(seed, split, indices[split])
        indices[split] += 1
        rendered = render(own_seed, size)
        if not isinstance(rendered, Rendered) or rendered.mask.shape != tuple(size):
            raise DataError(
                f"generator '{generator}': expected a Rendered of {size[0]} x {size[1]} pixels",
                remedy="see leakdet_tf.synth.rendered for what a generator returns",
            )
        image, mask = f"{split}/images/{name}", f"{split}/masks/{name}"
        data = _png(rendered.image[:, :, 0])
        (folder / image).write_bytes(data)
        (folder / mask).write_bytes(_png(rendered.mask))
        yield {
            "file": image,
            "mask": mask,
            "seed": own_seed,
            "sha256": sha256_bytes(data),
            "parameters": rendered.parameters,
        }


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 (H, W) → an 8-bit grey PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _read_manifest(path: Path) -> dict[str, Any]:
    remedy = f"delete {path.parent} to render it anew, or set data.root to another folder"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})", remedy=remedy) from error
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: expected a JSON object", remedy=remedy)
    return manifest


def _occupied(root: Path) -> bool:
    """Whether something stands at ``root`` that a rename would not replace: a file, or a folder that holds any."""
    return root.exists() and not (root.is_dir() and next(root.iterdir(), None) is None)


def _require_same(root: Path, *, generator: str, counts: Mapping[str, int], size: tuple[int, int], seed: int) -> None:
    """Raise DataError unless ``root`` is a rendered folder that holds just what was asked for."""
    if not (root / MANIFEST).exists():
        raise DataError(
            f"{root}: holds files that were not rendered by this package",
            remedy="set data.root to another folder, or move them away",
        )
    check_folder(root, generator=generator, counts=counts, size=size, seed=seed)


def _prefix(target: Path) -> str:
    """How the names of the temporary folders of ``target`` begin; a process id follows."""
    return f".{target.name}.rendering-"


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary folders of processes that no longer run, and one that bears our own id from before us."""
    prefix = _prefix(target)
    for path in target.parent.iterdir():
        owner = path.name.removeprefix(prefix)
        if owner != path.name and owner.isdecimal() and (int(owner) == os.getpid() or not _runs(int(owner))):
            shutil.rmtree(path, ignore_errors=True)


def _runs(pid: int) -> bool:
    """Whether a process of that id runs. Windows cannot be asked this way (signal 0 is Ctrl-C): taken as running."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder`` to the disk."""
    for place, _, files in os.walk(folder):
        for name in files:
            with Path(place, name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))
