"""A colour camera: exposure, lens, noise, 8 bits, and the JPEG file that most pictures have been."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.synth.scenery.rendered import Parameter
from leakdet_tf.synth.scenery.texture import Image32

GREY = 0.21
"""Linear level that a camera exposes for, as it cannot know how dark a scene is."""


@dataclass(frozen=True)
class Camera:
    """How light becomes a picture.

    Attributes:
        exposure_ev: stops over what a camera would choose by itself.
        balance: gains of red and blue.
        vignetting: share of the light that is lost in the corners.
        blur_px: standard deviation of the lens's blur in pixels.
        motion_px: length of the smear of a moving camera, 0 for none, and motion_deg its direction.
        noise: standard deviation of the noise of a white pixel, in 0..1 after the tone curve.
        contrast: exponent on the tone curve, 1 for none.
        jpeg: quality of the file, 0 for none.
    """

    exposure_ev: float
    balance: tuple[float, float]
    vignetting: float
    blur_px: float
    motion_px: float
    motion_deg: float
    noise: float
    contrast: float
    jpeg: int

    def parameters(self) -> dict[str, Parameter]:
        """What was drawn, for the manifest."""
        return {
            "exposure_ev": self.exposure_ev,
            "white_balance": list(self.balance),
            "vignetting": self.vignetting,
            "blur_px": self.blur_px,
            "motion_px": self.motion_px,
            "noise_sigma": self.noise,
            "jpeg_quality": self.jpeg,
        }


def draw_camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """A telephone, an inspection camera, or a drone's; seldom sharp, sometimes in motion."""
    short = min(size)
    blur, moves, smear = float(rng.uniform(0.3, 0.95)), rng.uniform() < 0.15, float(rng.uniform(0.006, 0.025))
    warm, tint = float(rng.normal(0.0, 0.07)), float(rng.normal(0.0, 0.012))
    return Camera(
        exposure_ev=float(rng.normal(0.1, 0.35)),
        balance=(float(np.exp(warm + tint)), float(np.exp(tint - 1.2 * warm))),
        vignetting=float(rng.uniform(0.0, 0.35)),
        blur_px=blur,
        motion_px=smear * short if moves else 0.0,
        motion_deg=float(rng.uniform(0.0, 180.0)),
        noise=float(np.exp(rng.uniform(np.log(0.003), np.log(0.022)))),
        contrast=float(rng.uniform(0.9, 1.2)),
        jpeg=0 if rng.uniform() < 0.15 else int(rng.integers(45, 96)),
    )


def gain_for(radiance: Image32, grey: float = GREY) -> float:
    """The exposure that brings a scene, float32 (H, W, 3), to a ``grey``, by its mean and its brightest twentieth."""
    light = radiance.mean(axis=2)
    return float(grey / max(float(light.mean()), 0.35 * float(np.quantile(light, 0.95)), 1e-4))


def expose(rng: np.random.Generator, camera: Camera, radiance: Image32, gain: float) -> NDArray[np.uint8]:
    """Linear radiance float32 (H, W, 3) → uint8 (H, W, 3). ``gain`` is the exposure before ``exposure_ev``."""
    height, width = radiance.shape[:2]
    seen = cv2.GaussianBlur(radiance, (0, 0), camera.blur_px, borderType=cv2.BORDER_REFLECT)
    if camera.motion_px > 1.0:
        seen = cv2.filter2D(seen, -1, _smear(camera.motion_px, camera.motion_deg), borderType=cv2.BORDER_REFLECT)
    y = (2.0 * np.arange(height, dtype=np.float32) + 1.0) / height - 1.0
    x = (2.0 * np.arange(width, dtype=np.float32) + 1.0) / width - 1.0
    lens = 1.0 - np.float32(0.5 * camera.vignetting) * (np.square(y)[:, np.newaxis] + np.square(x))
    gains = np.array([camera.balance[0], 1.0, camera.balance[1]], np.float32)
    seen = seen * (lens * np.float32(gain * 2.0**camera.exposure_ev))[..., np.newaxis] * gains
    curve = _curve(camera.contrast)
    place = np.sqrt(np.clip(seen, 0.0, 1.0)) * np.float32(len(curve) - 1)
    encoded = curve[place.astype(np.intp)]
    grain = rng.standard_normal((height, width, 3), np.float32)
    common = rng.standard_normal((height, width, 1), np.float32)
    level = np.float32(camera.noise) * (np.float32(0.5) + np.float32(0.5) * encoded)
    encoded = encoded + level * (np.float32(0.8) * common + np.float32(0.6) * grain)
    counts = np.clip(np.rint(encoded * np.float32(255.0)), 0.0, 255.0).astype(np.uint8)
    return _filed(counts, camera.jpeg) if camera.jpeg else counts


def linear(picture: NDArray[np.uint8]) -> Image32:
    """uint8 (H, W, 3) as a file has it → linear radiance float32 (H, W, 3), by the curve of IEC 61966-2-1."""
    level = np.arange(256, dtype=np.float32) / np.float32(255.0)
    table = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return table[picture]


@lru_cache(maxsize=8)
def _curve(contrast: float) -> Image32:
    """The tone curve over the square root of linear light: a shoulder, IEC 61966-2-1's curve, then contrast."""
    light = np.square(np.linspace(0.0, 1.0, 2048))
    light = np.where(light > 0.6, 0.6 + 0.4 * np.tanh((light - 0.6) / 0.4) / np.tanh(1.0), light)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    bent = np.where(encoded < 0.5, 0.5 * (2 * encoded) ** contrast, 1.0 - 0.5 * (2 - 2 * encoded) ** contrast)
    return bent.astype(np.float32)


def _smear(length: float, direction_deg: float) -> Image32:
    """A line of ``length`` pixels as a kernel whose sum is 1."""
    side = 2 * int(np.ceil(length / 2)) + 1
    middle = side // 2
    y, x = np.mgrid[-middle : middle + 1, -middle : middle + 1].astype(np.float32)
    angle = np.deg2rad(direction_deg)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    kernel = np.clip(1.0 - np.abs(across), 0.0, 1.0) * np.clip(length / 2 - np.abs(along) + 0.5, 0.0, 1.0)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _filed(counts: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Through a JPEG file and back."""
    _, data = cv2.imencode(".jpg", counts[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[:, :, ::-1])
