"""Pictures of the user's own behind rendered leaks: a split's share of a folder, and a piece of a photograph."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes, sha256_file
from leakdet_tf.core.images import SUFFIXES, as_channels, decode, resize

_FILE, _FOLDER = "background_file", "backgrounds_sha256"  # in a picture's parameters
_TEXTURE, _TEXTURES = "{}_texture_file", "{}_textures_sha256"  # the same of the texture of a part of the room
_KINDS = {
    "background photographs": ((_FILE, _FOLDER),),
    "textures": tuple((_TEXTURE.format(part), _TEXTURES.format(part)) for part in ("floor", "wall")),
}
_LEAST_PIECE = 0.4  # side of the smallest piece over that of the largest one that fits


Known = tuple[str, int, int]
"""A file's path, time of change in nanoseconds and size: what was read of it is kept as long as these stay."""


@dataclass(frozen=True)
class Piece:
    """uint8 (H, W, 3), the file that it is from, and the SHA-256 of the folder's names and contents."""

    pixels: NDArray[np.uint8]
    file: str
    folder_sha256: str

    def parameters(self) -> dict[str, str]:
        """What a picture's parameters say of the photograph behind it."""
        return {_FILE: self.file, _FOLDER: self.folder_sha256}


@dataclass(frozen=True)
class Picked:
    """A picture of a folder: where it is, its name there, and the SHA-256 of the folder's names and contents."""

    known: Known
    file: str
    folder_sha256: str

    def texture_of(self, part: str) -> dict[str, str]:
        """What a picture's parameters say of the texture of a part of its room."""
        return {_TEXTURE.format(part): self.file, _TEXTURES.format(part): self.folder_sha256}


def draw_piece(
    rng: np.random.Generator, folder: object, size: tuple[int, int], share: Sequence[int] | None = None
) -> Piece:
    """A random piece of a random picture below ``folder``, of ``size`` (height, width).

    Args:
        rng: what is drawn with.
        folder: of pictures; its sub-folders count too.
        size: (height, width) in pixels.
        share: as of :func:`draw_picture`.

    Raises:
        DataError: ``folder`` is no folder with pictures in it.
        ImageError: the picture that was drawn cannot be decoded.
    """
    picked = draw_picture(rng, "backgrounds", folder, share)
    zoom, down, right = rng.uniform(_LEAST_PIECE, 1.0), rng.uniform(), rng.uniform()
    picture = decoded(picked.known)
    scale = float(zoom) * min(picture.shape[0] / size[0], picture.shape[1] / size[1])
    height, width = (max(1, int(scale * side)) for side in size)
    top, left = int(down * (picture.shape[0] - height + 1)), int(right * (picture.shape[1] - width + 1))
    piece = resize(picture[top : top + height, left : left + width], size)
    return Piece(np.ascontiguousarray(piece, np.uint8), picked.file, picked.folder_sha256)


def draw_picture(rng: np.random.Generator, option: str, folder: object, share: Sequence[int] | None = None) -> Picked:
    """A random picture below ``folder``, with one random number.

    Args:
        rng: what is drawn with.
        option: the name of the option that ``folder`` is of, for errors.
        folder: of pictures; its sub-folders count too.
        share: ``[first, end, turns]``: only of pictures whose place by their names' hashes, modulo ``turns``, is in
            ``first..end - 1``, so that others never lie behind this split. Where there are none, of all of them.

    Raises:
        DataError: ``folder`` is no folder with pictures in it.
    """
    root, files = pictures_below(option, folder)
    known = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    own = list(range(len(files)))
    if share is not None:
        first, end, turns = share
        order = _by_hash(tuple(path.relative_to(root) for path in files))
        own = sorted(number for place, number in enumerate(order) if first <= place % turns < end) or own
    number = own[int(rng.integers(len(own)))]
    return Picked(known[number], files[number].relative_to(root).as_posix(), _digest(root, known))


def pictures_below(option: str, folder: object) -> tuple[Path, list[Path]]:
    """A folder and the pictures in it and its sub-folders; DataError where there are none."""
    if not isinstance(folder, str) or not Path(folder).is_dir():
        raise DataError(f"{option}: {folder!r} is no folder", remedy="name one that holds pictures")
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"{folder}: holds no picture ({', '.join(SUFFIXES)})", remedy=f"add some, or drop {option}")
    return root, files


def shared(pictures: Iterable[tuple[str, Mapping[str, object]]]) -> str:
    """A line about photographs or textures behind pictures of several splits; empty where there are none.

    Args:
        pictures: each one's split and parameters.
    """
    used: dict[str, dict[tuple[str, str], Counter[str]]] = {kind: {} for kind in _KINDS}
    for split, parameters in pictures:
        for kind, keys in _KINDS.items():
            for seen in {(str(parameters.get(of)), str(parameters[file])) for file, of in keys if file in parameters}:
                used[kind].setdefault(seen, Counter())[split] += 1
    return "; ".join(filter(None, (_told(kind, found) for kind, found in used.items())))


def _told(kind: str, used: Mapping[tuple[str, str], Counter[str]]) -> str:
    """What is told of one kind of files: how many pictures of each split every one is behind."""
    common = {key: counts for key, counts in used.items() if len(counts) > 1}
    if not common:
        return ""
    told, (_, first) = sum(common.values(), Counter[str]()), next(iter(common))
    behind = ", ".join(f"{count} pictures of {split}" for split, count in told.items())
    return f"{len(common)} of {len(used)} {kind}, such as {first}, are behind {behind}"


@lru_cache(maxsize=4)
def _by_hash(names: tuple[Path, ...]) -> list[int]:
    """The numbers of names, in the order of their hashes."""

    def of_name(number: int) -> str:
        return sha256_bytes(names[number].as_posix().encode("utf-8", "surrogateescape"))

    return sorted(range(len(names)), key=of_name)


@lru_cache(maxsize=8)
def decoded(known: Known) -> NDArray[np.uint8]:
    """A picture as uint8 (H, W, 3); the high bytes of deeper ones. ImageError where it cannot be decoded."""
    picture = decode(Path(known[0]))
    shallow = picture if picture.dtype == np.uint8 else (picture >> 8).astype(np.uint8)
    return np.ascontiguousarray(as_channels(shallow, 3), np.uint8)


@lru_cache(maxsize=8)
def _digest(root: Path, known: tuple[Known, ...]) -> str:
    """The SHA-256 of all names and contents; read once for a folder that does not change."""
    whole = hashlib.sha256()
    for path, *_ in known:
        whole.update(f"{Path(path).relative_to(root).as_posix()}\0{sha256_file(Path(path))}\n".encode())
    return whole.hexdigest()
