"""Training pictures of a detector: mosaic, the ordinary changes, mixup; each a pure function of where it comes.

Mosaic puts four pictures together about a random middle (Bochkovskiy et al. 2020, arXiv 2004.10934), each at a random
scale and cut at its quadrant; where a picture is smaller than its quadrant the rest is grey. The ordinary changes
follow. Mixup then lays another picture, made in the same way, over it with a ratio drawn from Beta(32, 32), as for
detectors (Zhang et al. 2019, arXiv 1902.04103, after arXiv 1710.09412), and keeps the boxes of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from leakdet_tf.config.data import Augment
from leakdet_tf.core.images import Pixels, Size
from leakdet_tf.data.augmentation import grey_of, training_key
from leakdet_tf.data.augmentation_boxes import Boxes, augment_boxes, left_of
from leakdet_tf.data.cache import largest

MOST = 300
"""Rows of targets that mosaic adds up to at most; where four pictures hold more boxes, the largest are kept."""
MIDDLE = (0.25, 0.75)
"""Where the middle of a mosaic lies, as shares of height and width."""
SCALES = (0.5, 1.5)
"""Sizes of a mosaic's pictures, as shares of their own."""
RATIO = 32.0
"""Both parameters of the Beta distribution of mixup's ratio."""
# The numbers after the seed in keys; 0 and 1 are the order's and augment's.
_MOSAIC, _MIXUP, _OTHER, _OTHERS = 2, 3, 4, 5

Fetch = Callable[[int], tuple[dict[str, Pixels], Boxes]]
"""A picture of the split by its place: inputs (h, w, C) by name, and its boxes float32 (N, 6) without void rows."""


def rows(most: int, settings: Augment) -> int:
    """Rows of a training batch's targets where the split's pictures have at most so many boxes."""
    wide = max(most, min(4 * most, MOST)) if settings.mosaic else most
    return 2 * wide if settings.mixup else wide


def changed_picture(
    fetch: Fetch,
    often: Sequence[float] | npt.NDArray[np.float64],
    settings: Augment,
    *,
    size: Size,
    seed: int,
    epoch: int,
    index: int,
    copy: int = 0,
    composed: bool = True,
) -> tuple[dict[str, Pixels], Boxes]:
    """What an epoch shows of a picture.

    Args:
        fetch: gives the split's pictures, which are not changed.
        often: how often each of them is seen on average; others are drawn for mosaic and mixup in this proportion.
        settings: strengths and probabilities.
        size: (height, width) of the boxes' frame, the primary input's.
        seed: the experiment's.
        epoch: counted from 0.
        index: the picture's place in the split.
        copy: how often it came before in the epoch.
        composed: whether there may be mosaic and mixup, which the last epochs do without.

    Returns:
        Inputs of the shapes and dtypes that ``fetch`` gives, and boxes float32 (K, 6), of a mosaic at most MOST.
    """
    place = (epoch, index, copy)
    total = np.cumsum(np.asarray(often, np.float64))

    def one(first: int, mosaic: int, key: tuple[int, ...]) -> tuple[dict[str, Pixels], Boxes]:
        inputs, boxes = fetch(first)
        if composed and settings.mosaic:
            random = np.random.default_rng((seed, mosaic, *place))
            if random.random() < settings.mosaic:
                others = _drawn(total, random.random(3))
                inputs, boxes = mosaic_of([(inputs, boxes), *(fetch(other) for other in others)], size, random)
                boxes = largest(boxes, MOST)
        return augment_boxes(inputs, boxes, settings, size=size, key=key)

    inputs, boxes = one(index, _MOSAIC, training_key(seed, epoch=epoch, index=index, copy=copy))
    if not (composed and settings.mixup):
        return inputs, boxes
    random = np.random.default_rng((seed, _MIXUP, *place))
    if not random.random() < settings.mixup:
        return inputs, boxes
    (other,) = _drawn(total, random.random(1))
    ratio = float(random.beta(RATIO, RATIO))
    return blended((inputs, boxes), one(other, _OTHERS, (seed, _OTHER, *place)), ratio)


def _drawn(total: npt.NDArray[np.float64], draws: npt.NDArray[np.float64]) -> list[int]:
    return [min(int(place), len(total) - 1) for place in np.searchsorted(total, draws * total[-1], side="right")]


def mosaic_of(
    parts: Sequence[tuple[Mapping[str, Pixels], Boxes]], size: Size, random: np.random.Generator
) -> tuple[dict[str, Pixels], Boxes]:
    """Four pictures about a random middle: upper left, upper right, lower left, lower right.

    Each is scaled by a factor of its own from SCALES. Of one that is larger than its quadrant a random part is seen, a
    smaller one lies anywhere in it. Of boxes stays what :func:`~leakdet_tf.data.augmentation_boxes.left_of` leaves.

    Args:
        parts: four pictures as :data:`Fetch` gives them, of one size each input.
        size: (height, width) of the boxes' frame.
        random: where the numbers come from.
    """
    middle = [round(side * (MIDDLE[0] + (MIDDLE[1] - MIDDLE[0]) * random.random())) for side in size]
    canvas = {name: np.full_like(image, grey_of(image)[0]) for name, image in parts[0][0].items()}
    kept: list[Boxes] = []
    for number, (inputs, boxes) in enumerate(parts):
        scale = SCALES[0] + (SCALES[1] - SCALES[0]) * random.random()
        places = number // 2, number % 2
        spans = [
            _fitted(side, scale, (0, half) if place == 0 else (half, side), random.random())
            for side, half, place in zip(size, middle, places, strict=True)
        ]
        for name, image in inputs.items():
            _lay(canvas[name], image, size, spans)
        (top, bottom, above, below), (left, right, first, last) = spans
        across, down = (last - first) / (right - left), (below - above) / (bottom - top)
        factors = np.array([across, down, across, down])
        offset = np.array([first - left * across, above - top * down] * 2)
        whole = boxes[:, :4] * factors + offset
        seen = whole.clip([first, above, first, above], [last, below, last, below])
        kept.append(left_of(boxes, whole, seen))
    return canvas, np.concatenate(kept)


def _fitted(side: int, scale: float, quadrant: tuple[int, int], share: float) -> tuple[int, int, int, int]:
    """From where to where of a picture's side is seen, and from where to where in the mosaic: whole pixels."""
    low, high = quadrant
    room = high - low
    if scale * side >= room:
        length = max(1, min(side, round(room / scale)))
        start = round(share * (side - length))
        return start, start + length, low, high
    length = max(1, round(scale * side))
    start = low + round(share * (room - length))
    return 0, side, start, start + length


def _lay(canvas: Pixels, image: Pixels, size: Size, spans: Sequence[tuple[int, int, int, int]]) -> None:
    # An input of another size than the frame's is cut at the nearest of its own pixels.
    own = [
        [round(edge * extent / side) for edge in span]
        for span, extent, side in zip(spans, image.shape, size, strict=False)
    ]
    (top, bottom, above, below), (left, right, first, last) = own
    if below <= above or last <= first:
        return
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    scaled = cv2.resize(part, (last - first, below - above), interpolation=cv2.INTER_LINEAR)
    canvas[above:below, first:last] = scaled.reshape(below - above, last - first, image.shape[2])


def blended(
    first: tuple[Mapping[str, Pixels], Boxes], second: tuple[Mapping[str, Pixels], Boxes], ratio: float
) -> tuple[dict[str, Pixels], Boxes]:
    """``ratio`` of the first pictures and the rest of the second, with the boxes of both."""
    inputs = {
        name: np.asarray(cv2.addWeighted(image, ratio, second[0][name], 1 - ratio, 0)).reshape(image.shape)
        for name, image in first[0].items()
    }
    return inputs, np.concatenate([first[1], second[1]])
