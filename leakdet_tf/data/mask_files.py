"""Masks of pictures that a classifier takes: where they are found, and what on them is the thing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import SUFFIXES, Labels
from leakdet_tf.core.records import IGNORE
from leakdet_tf.synth.folder.writer import MANIFEST

_FOLDERS_UP = 5  # in which a picture's manifest may lie
_NOTHING = "background"


@dataclass(frozen=True)
class _Manifest:
    masks: dict[str, str]
    names: tuple[str, ...]


class MaskFinder:
    """Finds the mask of a picture; keeps the manifests that it has read."""

    def __init__(self, folder: str = "masks") -> None:
        self._folder = folder
        self._manifests: dict[Path, _Manifest] = {}
        self._taken: dict[Path, Path] = {}

    def find(self, picture: Path) -> Path | None:
        """The mask's file, None if there is none.

        The ``manifest.json`` of a rendered folder above the picture names it; else it is a picture of the same stem in
        ``masks`` beside the folder that the picture lies in.

        Raises:
            DataError: a manifest is not JSON or names a mask that is not there, or two pictures share a mask.
        """
        file = self._named(picture.resolve())[0] or self._beside(picture)
        if file is not None and self._taken.setdefault(file, picture) != picture:
            raise DataError(
                f"{file}: is the mask of {self._taken[file]} and of {picture}", remedy="give each a stem of its own"
            )
        return file

    def names(self, picture: Path) -> tuple[str, ...]:
        """The names of its mask's ids, where a manifest names the mask and says them; the first is ``background``."""
        return self._named(picture.resolve())[1]

    def _named(self, picture: Path) -> tuple[Path | None, tuple[str, ...]]:
        for above in list(picture.parents)[:_FOLDERS_UP]:
            manifest = self._manifest(above / MANIFEST)
            named = manifest.masks.get(picture.relative_to(above).as_posix())
            if named is not None:
                if not (above / named).is_file():
                    raise DataError(f"{above / named}: missing, yet {above / MANIFEST} names it", remedy="restore it")
                return above / named, manifest.names
        return None, ()

    def _manifest(self, path: Path) -> _Manifest:
        if path not in self._manifests:
            self._manifests[path] = _read(path) if path.is_file() else _Manifest({}, ())
        return self._manifests[path]

    def _beside(self, picture: Path) -> Path | None:
        place = picture.parent.parent / self._folder
        named = (place / f"{picture.stem}{suffix}" for suffix in (".png", *SUFFIXES))
        return next((path for path in named if path.is_file()), None)


def thing(mask: Labels, names: tuple[str, ...], wanted: str) -> npt.NDArray[np.bool_]:
    """Where a class is on a mask uint8 (H, W), as bool (H, W).

    Where ``names`` of the mask's ids hold that of the class, its own pixels alone. A label of whole pictures often has
    another name (``oil_leak``, where masks say ``oil``): then every class but the first, so that heat on water counts
    for oil. 255 does not count, but on a mask without names and with no other value than 0, which is black and white.
    """
    if wanted in names[1:]:
        return np.asarray(mask == names.index(wanted))
    if not names and not ((mask > 0) & (mask < IGNORE)).any():
        return np.asarray(mask > 0)
    return np.asarray((mask > 0) & (mask != IGNORE))


def _read(path: Path) -> _Manifest:
    # Masks by picture, both below the manifest's folder; none in somebody else's file of that name.
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error})", remedy="restore or rename it") from error
    if not isinstance(manifest, dict):
        return _Manifest({}, ())
    pictures, classes = manifest.get("pictures"), manifest.get("classes")
    entries = [entry for entry in pictures if isinstance(entry, dict)] if isinstance(pictures, list) else []
    named = [(entry.get("file"), entry.get("mask")) for entry in entries]
    masks = {file: mask for file, mask in named if isinstance(file, str) and isinstance(mask, str)}
    # Painted pictures' classes are their labels, not what mask values mean.
    ids = isinstance(classes, list) and classes[:1] == [_NOTHING] and all(isinstance(name, str) for name in classes)
    return _Manifest(masks, tuple(classes) if isinstance(classes, list) and ids else ())
