"""A drone's thermal camera: the range that it shows, its noise, its palette, and the JPEG file it writes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.scenery.rendered import Parameter
from leakdet_tf.synth.scenery.texture import Image32

LOOKS = ("iron", "grey", "rainbow")
"""How temperatures are shown: black over purple and orange to white, black to white, blue over green to red."""
_LEAST_SPAN = 10.0  # kelvin
_SPARE = 0.06  # share of the scene's range that is kept free above it
_IRON = (
    (0, 0, 6),
    (36, 8, 84),
    (108, 14, 110),
    (176, 38, 92),
    (228, 84, 36),
    (250, 150, 10),
    (248, 218, 66),
    (254, 254, 226),
)
_RAINBOW = (
    (4, 0, 70),
    (0, 40, 190),
    (0, 150, 190),
    (20, 180, 70),
    (190, 210, 20),
    (250, 150, 0),
    (225, 20, 10),
    (255, 220, 215),
)


@dataclass(frozen=True)
class Imager:
    """How temperatures become a picture.

    Attributes:
        blur_px: standard deviation of the lens's blur in pixels.
        vignetting: share of the range that is lost in the corners.
        noise_k: standard deviation of a pixel's own noise in kelvin, and ``columns_k``, of the columns'.
        below, above: kelvin between the coldest and warmest of the scene and the ends of the range.
        bend: exponent on the range, 1 for none.
        jpeg: quality of the file, 0 for none.
    """

    blur_px: float
    vignetting: float
    noise_k: float
    columns_k: float
    below: float
    above: float
    bend: float
    jpeg: int

    def parameters(self) -> dict[str, Parameter]:
        """What was drawn, for the manifest."""
        return {
            "blur_px": self.blur_px,
            "vignetting": self.vignetting,
            "noise_k": self.noise_k,
            "columns_k": self.columns_k,
            "jpeg_quality": self.jpeg,
        }


def draw_imager(rng: np.random.Generator) -> Imager:
    """A camera, quiet or noisy, that shows just the range of the scene or more."""
    noise = float(np.exp(rng.uniform(np.log(0.08), np.log(0.9))))
    return Imager(
        blur_px=float(rng.uniform(0.4, 1.0)),
        vignetting=float(rng.uniform(0.0, 0.15)),
        noise_k=noise,
        columns_k=noise * float(rng.uniform(0.0, 0.4)),
        below=float(rng.uniform(-1.5, 10.0)),
        above=float(rng.uniform(1.0, 14.0)),
        bend=float(np.exp(rng.normal(0.0, 0.16))),
        jpeg=0 if rng.uniform() < 0.2 else int(rng.integers(60, 97)),
    )


def range_of(imager: Imager, heat: Image32) -> tuple[float, float]:
    """The temperatures that are shown black and white, of a scene of kelvin float32 (H, W)."""
    low, high = (float(value) for value in np.quantile(heat[::2, ::2], (0.02, 0.985)))
    low, high = low - imager.below, high + imager.above + _SPARE * (high - low)
    middle, half = (low + high) / 2, max((high - low) / 2, _LEAST_SPAN / 2)
    return middle - half, middle + half


def show(
    rng: np.random.Generator, imager: Imager, heat: Image32, ends: tuple[float, float], look: str
) -> NDArray[np.uint8]:
    """Kelvin float32 (H, W) → uint8 (H, W, 3), or (H, W, 1) where ``look`` is ``grey``; ``ends`` are its range."""
    height, width = heat.shape
    seen = (heat - np.float32(ends[0])) / np.float32(ends[1] - ends[0])
    seen = cv2.GaussianBlur(seen, (0, 0), imager.blur_px, borderType=cv2.BORDER_REFLECT)
    y = (2.0 * np.arange(height, dtype=np.float32) + 1.0) / height - 1.0
    x = (2.0 * np.arange(width, dtype=np.float32) + 1.0) / width - 1.0
    seen = seen - np.float32(0.5 * imager.vignetting) * (np.square(y)[:, np.newaxis] + np.square(x))
    noise = np.float32(imager.noise_k) * rng.standard_normal((height, width), np.float32)
    noise = noise + np.float32(imager.columns_k) * rng.standard_normal(width, np.float32)
    seen = seen + noise / np.float32(ends[1] - ends[0])
    counts = np.clip(np.rint(seen * np.float32(255.0)), 0.0, 255.0).astype(np.uint8)
    bent = np.rint(255.0 * (np.arange(256) / 255.0) ** imager.bend).astype(np.uint8)
    table = bent[:, np.newaxis] if look == "grey" else palette(look)[bent]
    return _filed(np.take(table, counts, axis=0), imager.jpeg)


def palette(look: str) -> NDArray[np.uint8]:
    """uint8 (256, 3): red, green and blue from the coldest to the warmest."""
    knots = np.array(_IRON if look == "iron" else _RAINBOW, np.float64)
    place = np.linspace(0.0, 255.0, len(knots))
    table = [np.interp(np.arange(256), place, knots[:, channel]) for channel in range(3)]
    return np.rint(np.stack(table, axis=1)).astype(np.uint8)


def _filed(counts: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """uint8 (H, W, 1 or 3) through a JPEG file and back."""
    if not quality:
        return counts
    colored = counts.shape[2] == 3
    _, data = cv2.imencode(".jpg", counts[:, :, ::-1] if colored else counts, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR if colored else cv2.IMREAD_GRAYSCALE), np.uint8)
    return np.ascontiguousarray(decoded[:, :, ::-1] if colored else decoded[:, :, np.newaxis])
