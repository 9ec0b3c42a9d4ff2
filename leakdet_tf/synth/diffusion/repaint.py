"""Where leaks are painted into photographs: cut backgrounds, the masks over them, and how the two are joined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.config.diffusion import PUDDLE, Inpaint
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes, sha256_file
from leakdet_tf.core.images import SUFFIXES, Size, as_channels, decode, decode_mask, resize, resize_nearest

_CORNERS = 256  # points of a puddle's outline
_WAVES = range(2, 8)  # waves around a puddle's outline


@dataclass(frozen=True, eq=False)
class Place:
    """A background with the pixels that are to be painted over.

    Attributes:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W), 255 where to paint, else 0; at least one pixel.
        parameters: what was chosen, fit for JSON.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    parameters: dict[str, Any]


class Places:
    """The photographs of a folder, and a mask for each or none.

    Raises:
        DataError: a folder is missing or holds no pictures, two of them share a stem, or a mask is missing.
    """

    def __init__(self, asked: Inpaint) -> None:
        self._asked = asked
        self._images = _by_stem(Path(asked.backgrounds), "inpaint.backgrounds")
        self._masks: dict[str, Path] = {}
        if asked.masks != PUDDLE:
            self._masks = _by_stem(Path(asked.masks), "inpaint.masks")
            if lacking := [stem for stem in self._images if stem not in self._masks]:
                raise DataError(
                    f"{asked.masks}: has no mask for {self._images[lacking[0]]} ({len(lacking)} lack one)",
                    remedy=f'add it under the stem {lacking[0]}, or set inpaint.masks = "{PUDDLE}"',
                )

    def digest(self) -> str:
        """Hex SHA-256 over the names and contents of all files, so that a changed folder is noticed."""
        files = [*self._images.values(), *(self._masks[stem] for stem in self._images if stem in self._masks)]
        return sha256_bytes("".join(f"{sha256_file(path)} {path.name}\n" for path in files).encode())

    def draw(self, rng: np.random.Generator, size: Size) -> Place:
        """One photograph of the folder cut to ``size``, with what to paint over.

        The largest window of that shape is cut out: anywhere for puddles, else where it holds most of the mask.

        Raises:
            DataError: a file cannot be read, has more than 8 bits a channel, or its mask fits not or is empty.
        """
        stem = list(self._images)[int(rng.integers(len(self._images)))]
        path = self._images[stem]
        image = decode(path)
        if image.dtype != np.uint8:
            raise DataError(f"{path}: has 16 bits a pixel", remedy="inpainting takes pictures of 8 bits")
        chosen: dict[str, Any] = {"background": path.name}
        if stem not in self._masks:
            top, left, height, width = _window(image.shape[:2], size, None, rng)
            mask, drawn = puddle(rng, size, (self._asked.area[0], self._asked.area[1]))
            chosen |= {"puddle": drawn}
        else:
            whole = decode_mask(self._masks[stem])
            if whole.shape != image.shape[:2]:
                raise DataError(
                    f"{self._masks[stem]}: is {whole.shape[0]} x {whole.shape[1]} pixels, but {path} is "
                    f"{image.shape[0]} x {image.shape[1]}",
                    remedy="draw the mask over the photograph itself",
                )
            top, left, height, width = _window(whole.shape, size, whole, rng)
            mask = resize_nearest(whole[top : top + height, left : left + width], size)
            mask = np.where(mask != 0, np.uint8(255), np.uint8(0))
            if not mask.any():
                raise DataError(f"{self._masks[stem]}: nothing to paint over", remedy="all that is not 0 is painted")
            chosen |= {"mask": self._masks[stem].name}
        cut = as_channels(np.ascontiguousarray(image[top : top + height, left : left + width], dtype=np.uint8), 3)
        chosen |= {"window": [top, left, height, width]}
        return Place(np.asarray(resize(cut, size), dtype=np.uint8), mask, chosen)


def puddle(
    rng: np.random.Generator, size: Size, area: tuple[float, float]
) -> tuple[NDArray[np.uint8], dict[str, float]]:
    """A flat blob on the lower part of a picture: uint8 (H, W) of 0 and 255, and what was drawn.

    The outline is an ellipse with a few waves around it, wider than high because floors are seen at a slant. ``area``
    bounds its share of the picture; what lies beyond the edge of the picture is cut off.
    """
    height, width = size
    share = math.exp(rng.uniform(math.log(area[0]), math.log(area[1])))
    aspect, turn = rng.uniform(1.5, 4.0), math.radians(rng.uniform(-12, 12))
    x, y = rng.uniform(0.15, 0.85) * width, rng.uniform(0.55, 0.9) * height
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    radius = np.ones(_CORNERS)
    for wave in _WAVES:
        radius += rng.normal(0, 0.2 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    radius = np.maximum(radius, 0.2)
    across, down = radius * np.cos(angles) * math.sqrt(aspect), radius * np.sin(angles) / math.sqrt(aspect)
    enclosed = abs(np.sum(across * np.roll(down, -1) - down * np.roll(across, -1))) / 2  # shoelace formula
    scale = math.sqrt(share * height * width / enclosed)
    turned = np.stack(
        [
            x + scale * (across * math.cos(turn) - down * math.sin(turn)),
            y + scale * (across * math.sin(turn) + down * math.cos(turn)),
        ],
        axis=1,
    )
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.round(turned).astype(np.int32)], 255)
    return mask, {"share": share, "aspect": aspect, "turn_deg": math.degrees(turn), "x": x, "y": y}


def join(place: Place, painted: NDArray[np.uint8], feather: float) -> NDArray[np.uint8]:
    """``painted`` where the mask is set, the background elsewhere: uint8 (H, W, 3).

    The painted part fades in over ``feather`` pixels from the mask's edge inwards. Outside the mask the background
    stays as it is to the bit, though a diffusion model changes every pixel a little.
    """
    inside = (place.mask != 0).astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64)
    share = np.where(inside == 1, np.minimum(distance / (feather + 1), 1), 0)[..., None]
    mixed = place.image * (1 - share) + painted * share
    return np.asarray(np.round(mixed), dtype=np.uint8)


def _by_stem(folder: Path, key: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", remedy=f"set {key}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            if path.stem in found:
                raise DataError(f"{path}: {found[path.stem].name} has the same stem", remedy="rename one of them")
            found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: holds no pictures", remedy=f"set {key} to a folder with {', '.join(SUFFIXES)}")
    return found


def _window(
    have: tuple[int, ...], size: Size, mask: NDArray[np.uint8] | None, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    # (top, left, height, width) of the largest window with the proportions of size.
    height, width = min(have[0], round(have[1] * size[0] / size[1])), min(have[1], round(have[0] * size[1] / size[0]))
    height, width = max(height, 1), max(width, 1)
    places = [0, 0]
    for axis, length in enumerate((height, width)):
        slack = have[axis] - length
        if mask is None:
            places[axis] = int(rng.integers(slack + 1))
        elif slack:
            sums = np.concatenate([[0], np.cumsum((mask != 0).sum(axis=1 - axis))])
            places[axis] = int(np.argmax(sums[length:] - sums[:-length]))
    return places[0], places[1], height, width
