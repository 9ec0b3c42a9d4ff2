"""Near-duplicates across splits: the same photograph re-compressed, relit, turned, shifted or cropped.

First a perceptual hash: the signs of low DCT coefficients (Zauner, "Implementation and Benchmarking of Perceptual
Image Hash Functions", 2010), here of a locally normalised picture (mean and contrast removed, as in Jarrett et al.,
"What is the best multi-stage architecture for object recognition?", ICCV 2009), in all eight turns and for shifted
windows. Then each candidate is checked on its pixels: aligned by phase correlation (Kuglin and Hines 1975) and the
enhanced correlation coefficient (Evangelidis and Psarakis, PAMI 2008), and compared block by block in what is left
when smooth layout and grain are taken away, so that sky over ground does not resemble sky over ground.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from leakdet_tf.core.images import Pixels, as_channels, resize

SIDE = 128
"""Height and width of the thumbnails that are compared, in pixels."""
SIMILAR = 0.4
"""Share of the textured blocks that must agree for a pair to be reported."""
TURNS = (
    "none",
    "left-right",
    "upside down",
    "half turn",
    "transposed",
    "quarter turn right",
    "quarter turn left",
    "transposed, half turn",
)
"""What has to be done to a pair's first picture so that it lies as the second."""

Thumbnails = npt.NDArray[np.uint8]
_Codes = npt.NDArray[np.uint64]
_Floats = npt.NDArray[np.float32]

_HASHED = 32  # side of the picture that is hashed
_KEPT = 11  # frequencies each way: 121 bits
_LIMIT = 36  # largest Hamming distance of a candidate
_WINDOW, _STEP = 122, 3  # shifted windows: 3 by 3 of them, so many pixels apart
_INNER = 8  # pixels cut away on each side for crops
_MOST = 32  # candidates of a picture that are checked, the nearest first: sets of pictures that are all alike end, too
_ROWS, _COLUMNS = 256, 2048  # pictures compared at a time, to bound memory
_DETAIL, _ROUGH = (1.0, 4.0), (1.0, 5.0)  # standard deviations in pixels between which detail counts
_BLOCK = 16  # side of a compared block
_TEXTURE = 2.5  # a block with less contrast (standard deviation, of 255) says nothing
_AGREE = 0.6  # correlation from which two blocks show the same
_LEAST_BLOCKS = 6  # with texture in both
_INSIDE = 0.9  # share of a block that has to lie within both pictures
_SCALES, _OVERLAP = (0.83, 1.2), 0.6  # what an alignment may do
_LEAST_CORRELATION = 0.2
_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-3)


_SPANS = [slice(start * _STEP, start * _STEP + _WINDOW) for start in range(3)]
_EDGES = (slice(0, SIDE), slice(_INNER, SIDE - _INNER))
_WINDOWS = [*((rows, columns) for rows in _SPANS for columns in _SPANS), *((edge, edge) for edge in _EDGES)]
# Which window of the first is held against which of the second: shifted ones crosswise, the whole against the inner.
_AGAINST = [*((place, 8 - place) for place in range(9)), (9, 10), (10, 9)]


@dataclass(frozen=True)
class Pair:
    """Two pictures that show the same.

    ``first`` and ``second`` are positions, ``turn`` one of :data:`TURNS`. ``distance`` is the hashes', in bits of 121.
    ``similarity`` is the share of textured blocks that agree after alignment, 0..1.
    """

    first: int
    second: int
    turn: str
    distance: int
    similarity: float


@dataclass(frozen=True)
class _Candidate:
    first: int
    second: int
    turn: int
    window: int
    distance: int


def thumbnail(image: Pixels) -> Thumbnails:
    """Pixels (H, W, C) → uint8 (128, 128) grey, stretched to the square; 16-bit pictures over their own range."""
    if image.dtype == np.uint16:
        small = resize(image[..., :1], (SIDE, SIDE))[..., 0].astype(np.float32)
        low = float(small.min())
        return np.round((small - low) * (255 / max(1.0, float(small.max()) - low))).astype(np.uint8)
    return resize(as_channels(image, 1), (SIDE, SIDE))[..., 0].astype(np.uint8, copy=False)


def near_duplicates(thumbnails: Thumbnails, groups: npt.NDArray[Any]) -> Iterator[int | list[Pair]]:
    """Pairs of pictures of different groups that show the same: yields how far it is, of N, and at last the pairs.

    Memory is bounded beside the thumbnails: 6 KiB a picture, and blocks of 256 by 2048 comparisons. Of each picture
    the 32 others with the nearest hashes are checked at most.

    Args:
        thumbnails: uint8 (N, 128, 128), from :func:`thumbnail`.
        groups: (N,), such as the number of each picture's split.
    """
    count = len(thumbnails)
    coefficients = np.empty((count, len(_WINDOWS), _KEPT, _KEPT), np.float32)
    found: list[Pair] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        try:
            for place, values in enumerate(pool.map(_coefficients, thumbnails)):
                coefficients[place] = values
                yield place // 2  # hashing is half of the way
            codes, done = _codes(coefficients), count
            for rows, others in _blocks(groups):
                listed = _candidates(coefficients[rows], rows, codes, others)
                found += [pair for pair in pool.map(partial(_first_same, thumbnails), listed) if pair is not None]
                done += len(rows)
                yield done // 2
        finally:
            pool.shutdown(cancel_futures=True)
    yield sorted(found, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _blocks(groups: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    # Rows of each group with all pictures of later groups: every pair once.
    names = np.unique(groups)
    for name in names:
        rows, others = np.flatnonzero(groups == name), np.flatnonzero(groups > name)
        for start in range(0, len(rows), _ROWS):
            yield rows[start : start + _ROWS], others


def _coefficients(picture: Thumbnails) -> _Floats:
    """Float32 (11, 11, 11): for nine shifted windows, the whole and its inner part, the DCT from frequency 1 on."""
    shrunk = [resize(picture[rows, columns, None], (_HASHED, _HASHED))[..., 0] for rows, columns in _WINDOWS]
    flat = np.stack([_flattened(small) for small in shrunk])
    return np.asarray(_BASIS @ flat @ _BASIS.T, np.float32)


_BASIS = np.cos(np.pi / _HASHED * np.arange(1, _KEPT + 1)[:, None] * (np.arange(_HASHED) + 0.5)).astype(np.float32)


def _flattened(small: Pixels) -> _Floats:
    # Local normalisation: neither lighting nor the contrast of a part decides about the signs.
    detail = _band(small, 0.7, 4.0)
    power = cv2.GaussianBlur(detail * detail, (0, 0), 4.0)
    return np.asarray(detail / (np.sqrt(power) + 3), np.float32)


def _band(picture: npt.NDArray[Any], fine: float, coarse: float) -> _Floats:
    values = picture.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(values, (0, 0), fine) - cv2.GaussianBlur(values, (0, 0), coarse))


def _turned_coefficients(coefficients: _Floats, turn: int) -> _Floats:
    """What :func:`_coefficients` gives for turned pictures, from those of the pictures: (N, 11, 11, 11)."""
    grid = coefficients[:, :9].reshape(-1, 3, 3, _KEPT, _KEPT)
    rest = coefficients[:, 9:]
    signs = np.where(np.arange(1, _KEPT + 1) % 2, -1, 1).astype(np.float32)
    if turn & 4:
        grid, rest = grid.transpose(0, 2, 1, 4, 3), rest.transpose(0, 1, 3, 2)
    if turn & 2:
        grid, rest = grid[:, ::-1] * signs[:, None], rest * signs[:, None]
    if turn & 1:
        grid, rest = grid[:, :, ::-1] * signs, rest * signs
    return np.concatenate([grid.reshape(-1, 9, _KEPT, _KEPT), rest], axis=1)


def _codes(coefficients: _Floats) -> _Codes:
    """(N, W, 11, 11) → uint64 (N, W, 2): a bit for each coefficient above its window's median."""
    flat = coefficients.reshape(*coefficients.shape[:2], _KEPT * _KEPT)
    bits = np.packbits(flat > np.median(flat, axis=2, keepdims=True), axis=2)
    return np.ascontiguousarray(bits).view(np.uint64)


def _candidates(
    coefficients: _Floats, rows: npt.NDArray[np.intp], codes: _Codes, others: npt.NDArray[np.intp]
) -> list[list[_Candidate]]:
    """Pairs of a block's pictures with others whose hashes are near, for each pair the turns from the nearest on."""
    found: list[dict[int, list[_Candidate]]] = [{} for _ in rows]
    turned = [_codes(_turned_coefficients(coefficients, turn)) for turn in range(8)]
    for start in range(0, len(others), _COLUMNS):
        columns = others[start : start + _COLUMNS]
        for turn in range(8):
            best = np.full((len(rows), len(columns)), 255, np.uint8)
            window = np.zeros(best.shape, np.uint8)
            for number, (own, other) in enumerate(_AGAINST):
                apart = np.zeros(best.shape, np.uint8)
                for word in range(codes.shape[2]):
                    apart += np.bitwise_count(turned[turn][:, None, own, word] ^ codes[columns, other, word])
                nearer = apart < best
                best[nearer], window[nearer] = apart[nearer], number
            nearest = np.argsort(best, axis=1, kind="stable")[:, :_MOST]
            for row, place in np.argwhere(np.take_along_axis(best, nearest, axis=1) <= _LIMIT):
                column = nearest[row, place]
                first, second = int(rows[row]), int(columns[column])
                seen = _Candidate(first, second, turn, int(window[row, column]), int(best[row, column]))
                found[row].setdefault(second, []).append(seen)
        found = [_nearest(pairs) for pairs in found]
    return [turns for pairs in found for turns in pairs.values()]


def _nearest(pairs: dict[int, list[_Candidate]]) -> dict[int, list[_Candidate]]:
    ordered = {second: sorted(turns, key=lambda seen: seen.distance) for second, turns in pairs.items()}
    return dict(sorted(ordered.items(), key=lambda entry: entry[1][0].distance)[:_MOST])


def _first_same(thumbnails: Thumbnails, turns: list[_Candidate]) -> Pair | None:
    for seen in turns:
        share = _similarity(turned(thumbnails[seen.first], seen.turn), thumbnails[seen.second], seen.window)
        if share >= SIMILAR:
            return Pair(seen.first, seen.second, TURNS[seen.turn], seen.distance, share)
    return None


def turned(picture: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """(H, W, ...) turned by number: 4 transposes, then 2 turns upside down and 1 left-right."""
    if turn & 4:
        picture = picture.swapaxes(0, 1)
    if turn & 2:
        picture = picture[::-1]
    return np.ascontiguousarray(picture[:, ::-1] if turn & 1 else picture)


def _similarity(first: Thumbnails, second: Thumbnails, window: int) -> float:
    """The share of textured blocks that agree once the second is laid over the first; 0 when it cannot be."""
    matrix = _aligned(_band(_half(first), *_ROUGH), _band(_half(second), *_ROUGH), _starts(window))
    if matrix is None:
        return 0.0
    matrix[:, 2] = 2 * matrix[:, 2] + matrix[:, :2].sum(axis=1) / 2 - 0.5  # pixel centres of the whole thumbnails
    mine, other = _band(first, *_DETAIL), _band(second, *_DETAIL)
    matrix = _aligned(mine, other, [matrix])
    if matrix is None:
        return 0.0
    scales = np.linalg.svd(matrix[:, :2], compute_uv=False)
    inside = _laid(np.ones_like(mine), matrix) > 0.999
    if not (_SCALES[0] <= scales[1] and scales[0] <= _SCALES[1] and inside.mean() >= _OVERLAP):
        return 0.0
    return _agreement(mine, _band(_laid(second.astype(np.float32), matrix), *_DETAIL), inside)


def _half(picture: Thumbnails) -> Thumbnails:
    return resize(picture[..., None], (SIDE // 2, SIDE // 2))[..., 0].astype(np.uint8, copy=False)


def _aligned(mine: _Floats, other: _Floats, starts: list[_Floats]) -> _Floats | None:
    """The affine map (2, 3) from the first's pixels to the second's, from the best of the starts; None without any."""
    hann = cv2.createHanningWindow((mine.shape[1], mine.shape[0]), cv2.CV_32F)
    (across, down), _ = cv2.phaseCorrelate(mine.copy(), other.copy(), hann)  # it multiplies its pictures in place
    if len(starts) > 1 and max(abs(across), abs(down)) <= mine.shape[0] / 6:
        starts = [*starts, np.array([[1, 0, across], [0, 1, down]], np.float32)]
    start = max(starts, key=lambda matrix: _correlation(mine, _laid(other, matrix)))
    try:
        reached, matrix = cv2.findTransformECC(mine, other, start.copy(), cv2.MOTION_AFFINE, _STEPS, None, 5)
    except cv2.error:  # OpenCV's way to say that it does not converge: nothing in common
        return None
    return np.asarray(matrix, np.float32) if reached >= _LEAST_CORRELATION else None


def _starts(window: int) -> list[_Floats]:
    # No move, and the zoom that the hashes' windows tell of, in pixels of half a thumbnail.
    side = SIDE / 2
    zoom = {9: (SIDE - 2 * _INNER) / SIDE, 10: SIDE / (SIDE - 2 * _INNER)}.get(window, 1.0)
    scales = (1.0, zoom)
    moves = [(1 - scale) * (side - 1) / 2 for scale in scales]
    return [np.array([[k, 0, x], [0, k, x]], np.float32) for k, x in zip(scales, moves, strict=True)]


def _laid(picture: _Floats, matrix: _Floats) -> _Floats:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, matrix, picture.shape[::-1], flags=flags, borderValue=0))


def _correlation(first: _Floats, second: _Floats) -> float:
    power = float((first * first).sum()) * float((second * second).sum())
    return float((first * second).sum()) / float(np.sqrt(max(power, 1e-6)))


def _agreement(first: _Floats, second: _Floats, inside: npt.NDArray[np.bool_]) -> float:
    whole = _cut(inside).mean(axis=1) >= _INSIDE
    one, two = _cut(first * inside)[whole], _cut(second * inside)[whole]
    one, two = one - one.mean(axis=1, keepdims=True), two - two.mean(axis=1, keepdims=True)
    two *= one.std() / max(float(two.std()), 1e-6)  # contrast is no difference
    spread = np.stack([one.std(axis=1), two.std(axis=1)])
    both, either = (spread > _TEXTURE).all(axis=0), (spread > _TEXTURE).any(axis=0)
    if both.sum() < _LEAST_BLOCKS:
        return 0.0
    alike = (one * two).mean(axis=1)[both] / spread[:, both].prod(axis=0)
    return float((alike >= _AGREE).sum() / either.sum())


def _cut(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # (128, 128) → (64, 256): blocks of 16 by 16.
    side = SIDE // _BLOCK
    return picture.reshape(side, _BLOCK, side, _BLOCK).swapaxes(1, 2).reshape(side * side, -1)
