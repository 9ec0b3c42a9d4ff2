"""Random changes to training pictures, as a pure function of a key such as (seed, epoch, index): no global state.

Geometry moves pictures and their truth alike, in one resampling; intensity changes pictures alone, each input by
itself. Here truth is a mask; :mod:`~leakdet_tf.data.augmentation_boxes` moves boxes.
Every change has random numbers of its own, so switching one on or off leaves the others as they were.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from leakdet_tf.config.data import Augment
from leakdet_tf.core.images import Labels, Pixels

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Draws = npt.NDArray[np.float64]  # (changes, _DRAWS) in [0, 1)
_TRAINING = 1  # the first number after the seed in the keys of training pictures; 0 stands in those of their order
_DRAWS = 6  # random numbers of each change, used or not
_BORDER = cv2.BORDER_REFLECT  # mirrored at the picture's edge, which is the same line at every resolution
GREY = 114 / 255
"""What stands beyond a picture's edge where truth is boxes, as a share of its range: what is mirrored has no boxes."""
_BINS = 1024  # of histogram equalization


def training_key(seed: int, *, epoch: int, index: int, copy: int = 0) -> tuple[int, ...]:
    """The key of one training picture: the experiment's seed, and where the picture comes in the stream.

    ``index`` is its place in the split; ``copy`` counts how often it came before in the same epoch.
    """
    return seed, _TRAINING, epoch, index, copy


def augment(
    inputs: Mapping[str, Pixels], truth: Labels, settings: Augment, *, key: Sequence[int]
) -> tuple[dict[str, Pixels], Labels]:
    """Change one sample.

    Args:
        inputs: uint8 or uint16 (h, w, C) by name; sizes may differ from the truth's.
        truth: uint8 (H, W) labels.
        settings: strengths. ``jpeg`` is for 8-bit inputs and leaves others alone.
        key: whole numbers, 0 or more, that name this draw; the same key gives the same change.

    Returns:
        Inputs and truth of the same shapes and dtypes. What is not changed is the array that was given, not a copy.
    """
    changed, move = change(inputs, truth.shape, settings, key, drawn)
    return changed, _moved(truth, move, truth.shape, cv2.INTER_NEAREST)


def drawn(rows: tuple[int, int], *stream: int) -> Draws:
    """The random numbers of a stream, in [0, 1)."""
    return np.random.default_rng(stream).random(rows)


def augment_alone(
    inputs: Mapping[str, Pixels], truth: Labels, settings: Augment, name: str, *, point: float
) -> tuple[dict[str, Pixels], Labels]:
    """One change alone, at a chosen point of its range, for people to judge its strength.

    Args:
        inputs: as for :func:`augment`.
        truth: as for :func:`augment`.
        settings: strengths, of which one counts.
        name: of the strength, such as ``rotation``.
        point: 0 is one end of what training draws (for a blur no blur, for a rotation the largest to one side), 1 the
            other. A flip always comes.

    Returns:
        Inputs and truth as from :func:`augment`.
    """
    changed, move = change(inputs, truth.shape, only(settings, name), (0,), at(point))
    return changed, _moved(truth, move, truth.shape, cv2.INTER_NEAREST)


def only(settings: Augment, name: str) -> Augment:
    """Settings with one strength alone, which always comes."""
    nothing = dict.fromkeys(Augment.model_fields, 0)
    return Augment.model_validate(nothing | {name: getattr(settings, name), "chance": 1.0})


def at(point: float) -> Callable[..., Draws]:
    """What draws no random numbers but one point of each range, and says of every change that it comes."""

    def fixed(rows: tuple[int, int], *stream: int) -> Draws:
        draws = np.full(rows, point)
        if stream[-1]:
            draws[:_SWITCHED, 0] = 0  # they come
        else:
            draws[0] = 0
        return draws

    return fixed


class Move(NamedTuple):
    """What geometry does to a sample: whether to flip (vertically, horizontally), or where there is more the matrix.

    The matrix (3, 3) leads from a pixel (x, y) of the result to the place in the truth that it shows.
    """

    flips: tuple[bool, bool]
    warp: Matrix | None


def change(
    inputs: Mapping[str, Pixels],
    size: tuple[int, ...],
    settings: Augment,
    key: Sequence[int],
    draw: Callable[..., Draws],
    *,
    grey: bool = False,
) -> tuple[dict[str, Pixels], Move]:
    """Change a sample's pictures, and say how its truth moves.

    Args:
        inputs: as for :func:`augment`.
        size: (height, width) of the truth, in whose pixels the movement is told.
        settings: strengths.
        key: names this draw.
        draw: gives random numbers of a shape for a stream: :func:`drawn`, or :func:`at`.
        grey: fill with GREY what lies beyond the edges, which otherwise are mirrored.
    """
    move = _geometry(settings, draw((3, _DRAWS), *key, 0), size)
    changed = {name: _moved(image, move, size, cv2.INTER_LINEAR, grey=grey) for name, image in inputs.items()}
    for number, name in enumerate(sorted(changed), start=1):
        draws = draw((_SWITCHED + 3, _DRAWS), *key, number)
        changed[name] = _intensity(changed[name], settings, draws, (*key, number))
    return changed, move


def _geometry(settings: Augment, draws: Draws, size: tuple[int, ...]) -> Move:
    flips = bool(draws[0, 1] < settings.flip_vertical), bool(draws[0, 0] < settings.flip_horizontal)
    if not (settings.shift or settings.scale or settings.rotation or settings.crop):
        return Move(flips, None)
    extent = np.array([size[1], size[0]], np.float64)
    middle = (extent - 1) / 2
    signed = 2 * draws - 1
    zoom = (1 + settings.scale) ** signed[1, 0]
    angle = math.radians(settings.rotation) * signed[1, 1]
    shift = settings.shift * signed[1, 2:4] * extent
    kept = 1 - settings.crop * draws[2, 0]
    slack = (1 - kept) / 2 * signed[2, 1:3] * extent
    cos, sin = math.cos(angle) * kept / zoom, math.sin(angle) * kept / zoom
    turn = np.array([[cos, -sin], [sin, cos]])
    mirror = np.where(flips[::-1], -1.0, 1.0)
    matrix = np.eye(3)
    matrix[:2, :2] = mirror[:, None] * turn
    matrix[:2, 2] = middle + mirror * (slack - turn @ (middle + shift))
    return Move(flips, matrix)


def _moved(array: npt.NDArray[Any], move: Move, size: tuple[int, ...], how: int, *, grey: bool = False) -> Any:
    flips, warp = move
    if warp is None:
        if not any(flips):
            return array
        return cv2.flip(array, -1 if all(flips) else int(flips[1])).reshape(array.shape)
    # The warp is in the truth's pixels, whose centres lie at halves: (x, y) is at (x + 1/2, y + 1/2).
    height, width = array.shape[:2]
    across, down = width / size[1], height / size[0]
    scale = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
    matrix = (scale @ warp @ np.linalg.inv(scale))[:2]
    beyond = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": grey_of(array)} if grey else {"borderMode": _BORDER}
    moved = cv2.warpAffine(array, matrix, (width, height), flags=how | cv2.WARP_INVERSE_MAP, **beyond)
    return moved.reshape(array.shape)


def grey_of(image: Pixels) -> tuple[int, int, int, int]:
    """GREY in a picture's own values, for each of up to four channels: of 8 bits 114."""
    low, span = _range(image)
    return (low + round(span * GREY),) * 4


def _intensity(image: Pixels, settings: Augment, draws: Draws, key: Sequence[int]) -> Pixels:
    chosen = [
        (change, strength, draws[number], (*key, number + 1))
        for number, (name, change) in enumerate(_CHANGES.items())
        if (strength := getattr(settings, name)) and (draws[number, 0] < settings.chance)
    ]
    low, span = _range(image)
    levels = _levels(image.itemsize, low, span)
    toned = bool(settings.brightness or settings.contrast or settings.gamma)
    if chosen:
        table = _tone(image, levels, settings, 2 * draws[-3:, 0] - 1) if toned else levels
        pixels = cv2.LUT(image, table).reshape(image.shape)
        for change, strength, draw, stream in chosen:
            pixels = change(pixels, strength, draw, stream).reshape(image.shape)
        image = _whole(pixels, image.dtype, low, span)
    elif toned:
        table = _whole(_tone(image, levels, settings, 2 * draws[-3:, 0] - 1), image.dtype, low, span)
        image = cv2.LUT(image, table).reshape(image.shape)
    if settings.jpeg and image.dtype == np.uint8 and draws[len(_CHANGES), 0] < settings.chance:
        image = _jpeg(image, settings.jpeg * float(draws[len(_CHANGES), 1]))
    return image


def _range(image: Pixels) -> tuple[int, int]:
    """Darkest value and extent of what strengths are shares of: all of 8 bits, but of 16 what the picture holds.

    A thermal camera uses a few hundredths of its 16 bits in a frame; a tenth of all of them would wipe it out.
    """
    if image.dtype == np.uint8:
        return 0, 255
    low = int(image.min())
    return low, max(1, int(image.max()) - low)


@functools.lru_cache(maxsize=8)
def _levels(itemsize: int, low: int, span: int) -> Floats:
    """float32 (levels,): for each value that a pixel may have its place in that range, 0..1 for those in it."""
    levels = (np.arange(256**itemsize, dtype=np.float32) - np.float32(low)) / np.float32(span)
    return np.asarray(np.maximum(levels, np.float32(0)))


def _tone(image: Pixels, table: Floats, settings: Augment, draws: Draws) -> Floats:
    """Gamma, then contrast about the mean, then brightness: float32 (levels,) for each value that a pixel may have."""
    if settings.gamma:
        table = table ** np.float32((1 + settings.gamma) ** draws[2])
    gain = 1 + settings.contrast * draws[1]
    counts = cv2.calcHist([image.reshape(len(image), -1)], [0], None, [len(table)], [0, len(table)]).ravel()
    mean = float(counts @ table) / image.size
    return table * np.float32(gain) + np.float32(mean * (1 - gain) + settings.brightness * draws[0])


def _whole(pixels: Floats, dtype: Any, low: int, span: int) -> Any:
    # In place, 0..1 to whole numbers: a new array of this size would cost more than the arithmetic.
    pixels *= np.float32(span)
    pixels += np.float32(low)
    np.clip(pixels, 0, np.iinfo(dtype).max, out=pixels)
    pixels += np.float32(0.5)
    return pixels.astype(dtype)


# Each takes float32 (h, w, C) nominally in 0..1, which it may change in place, its strength, its draws in [0, 1) (the
# first decided whether), and a key for noise of its own; and returns as many values.


def _hue(pixels: Floats, strength: float, draw: Any, key: Sequence[int]) -> Floats:
    if pixels.shape[2] != 3:
        return pixels
    planes = cv2.cvtColor(np.clip(pixels, 0, 1, out=pixels), cv2.COLOR_RGB2HSV)
    degrees = planes[..., 0]
    degrees += np.float32(360 * strength * (2 * draw[1] - 1) % 360)
    np.subtract(degrees, np.float32(360), out=degrees, where=degrees >= 360)
    return np.asarray(cv2.cvtColor(planes, cv2.COLOR_HSV2RGB))


def _saturation(pixels: Floats, strength: float, draw: Any, key: Sequence[int]) -> Floats:
    if pixels.shape[2] != 3:
        return pixels
    factor = 1 + strength * (2 * draw[1] - 1)
    return np.asarray(cv2.transform(pixels, factor * np.eye(3) + (1 - factor) * _LUMA))


def _equalize(pixels: Floats, strength: float, draw: Any, key: Sequence[int]) -> Floats:
    # The bins span what the picture holds, which in 16 bits may be little; its darkest value becomes 0.
    grey = _luma(pixels)
    low, high, _, _ = cv2.minMaxLoc(grey)
    if not high > low:
        return pixels
    levels = ((grey - np.float32(low)) * np.float32((_BINS - 1) / (high - low)) + np.float32(0.5)).astype(np.uint16)
    below = np.cumsum(np.bincount(levels.ravel(), minlength=_BINS))
    even = (below - below[0]) / (below[-1] - below[0])
    lift = (strength * draw[1] * (even - np.linspace(low, high, _BINS))).astype(np.float32)
    return np.asarray(cv2.add(pixels, cv2.merge([lift.take(levels)] * pixels.shape[2])))


def _blur(pixels: Floats, strength: float, draw: Any, key: Sequence[int]) -> Floats:
    sigma = max(1e-3, strength * float(draw[1]))
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=_BORDER))


def _motion_blur(pixels: Floats, strength: float, draw: Any, key: Sequence[int]) -> Floats:
    length, angle = strength * float(draw[1]), math.pi * float(draw[2])
    reach = math.ceil(length / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for place in np.linspace(-length / 2, length / 2, 4 * reach + 1):
        x, y = reach + place * math.cos(angle), reach + place * math.sin(angle)
        left, above = int(x), int(y)
        fx, fy = x - left, y - above
        kernel[above, left] += (1 - fx) * (1 - fy)
        kernel[above, left + 1] += fx * (1 - fy)
        kernel[above + 1, left] += (1 - fx) * fy
        kernel[above + 1, left + 1] += fx * fy
    return np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum(), borderType=_BORDER))


def _sharpen(pixels: Floats, strength: float, draw: Any, key: Sequence[int]) -> Floats:
    amount = strength * float(draw[1])
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1.0, borderType=_BORDER).reshape(pixels.shape)
    return np.asarray(cv2.addWeighted(pixels, 1 + amount, smooth, -amount, 0))


def _noise(pixels: Floats, strength: float, draw: Any, key: Sequence[int]) -> Floats:
    drawn = np.random.SFC64(key).random_raw(math.ceil(pixels.size / 4))
    bits = np.asarray(drawn).view(np.uint16)[: pixels.size].reshape(pixels.shape)
    return np.asarray(cv2.scaleAdd(cv2.LUT(bits, _normal()), strength * float(draw[1]), pixels))


def _sensor(pixels: Floats, strength: float, draw: Any, key: Sequence[int]) -> Floats:
    height, width, channels = pixels.shape
    rng = np.random.default_rng(key)
    columns = rng.standard_normal(width, dtype=np.float32) * np.float32(strength * draw[1])
    rows = rng.standard_normal((height, 1), dtype=np.float32) * np.float32(strength * draw[2])
    lines = pixels.reshape(height, width * channels)
    lines += np.repeat(columns, channels)
    lines += rows
    dead = rng.integers(0, height * width, int(strength / 10 * draw[3] * height * width))
    pixels.reshape(height * width, channels)[dead] = rng.integers(0, 2, (len(dead), 1))
    return pixels


def _jpeg(image: Pixels, loss: float) -> Pixels:
    """uint8 (h, w, C), and the share of JPEG quality to lose; colour as one file, other channels each by itself."""
    options = [cv2.IMWRITE_JPEG_QUALITY, max(1, round(100 * (1 - loss)))]
    if image.shape[2] == 3:
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))
    planes = [cv2.imencode(".jpg", plane, options)[1] for plane in cv2.split(image)]
    return np.stack([np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)) for data in planes], axis=-1)


_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601


def _luma(pixels: Floats) -> Floats:
    # Of colour; of anything else the mean of the channels.
    if pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    return np.asarray(pixels.mean(axis=2, dtype=np.float32))


@functools.cache
def _normal() -> Floats:
    """float32 (65536,): the standard normal distribution by its quantiles, so that 16 random bits draw from it."""
    quantile = statistics.NormalDist().inv_cdf
    return np.array([quantile((number + 0.5) / 65536) for number in range(65536)], np.float32)


_CHANGES: dict[str, Callable[[Floats, float, Any, Sequence[int]], Floats]] = {
    "hue": _hue,
    "saturation": _saturation,
    "equalize": _equalize,
    "motion_blur": _motion_blur,
    "blur": _blur,
    "sharpen": _sharpen,
    "noise": _noise,
    "sensor": _sensor,
}
"""In the order of light: colour and contrast of the scene, optics, sensor; JPEG, the file, comes after them."""
_SWITCHED = len(_CHANGES) + 1  # changes that come with ``chance``, JPEG the last; rows of tone follow
