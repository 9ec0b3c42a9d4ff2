"""One picture of a rendered folder: from a job to the bytes of its files and its entry in the manifest."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.synth.folder.request import SHARE, Job, Request
from leakdet_tf.synth.scenery.rendered import Parameter, Rendered

_EFFORT = 3  # zlib's level: half the time of the usual 6 for a tenth more bytes, as noise hardly compresses


@dataclass(frozen=True)
class Saved:
    """A picture on disk: its entry in the manifest, and the names of its mask's ids."""

    entry: dict[str, Any]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """The bytes of two PNG files (grey or RGB picture, 8-bit class ids), and everything that is known of them.

    ``truth`` holds the picture's ``labels``, ``boxes`` and ``ignored`` boxes as the manifest has them, each where the
    generator says any.
    """

    image: bytes
    mask: bytes
    parameters: Mapping[str, Parameter]
    classes: tuple[str, ...]
    truth: Mapping[str, list[Any]]

    def save(self, folder: Path, job: Job) -> Saved:
        """Write both files below ``folder``."""
        image, mask = f"{job.split}/images/{job.name}", f"{job.split}/masks/{job.name}"
        (folder / image).write_bytes(self.image)
        (folder / mask).write_bytes(self.mask)
        entry = {
            "file": image,
            "mask": mask,
            "seed": job.seed,
            "sha256": sha256_bytes(self.image),
            "parameters": {**self.parameters, "clip": job.clip, "frame": job.frame},
        }
        return Saved(entry | dict(self.truth), self.classes)


def draw(function: Callable[..., Any], request: Request, job: Job) -> Picture:
    """Render a job with the request's generator.

    Raises:
        DataError: the generator refuses, or returns something else than was asked for.
    """
    given = request.given(job)
    rendered = function(job.seed, request.size, **given, **request.options)
    if not isinstance(rendered, Rendered) or rendered.mask.shape != tuple(request.size):
        raise DataError(
            f"generator '{request.generator}': expected a Rendered of {request.size[0]} x {request.size[1]} pixels",
            remedy="see leakdet_tf.synth.scenery.rendered for what a generator returns",
        )
    image = rendered.image[:, :, 0] if rendered.image.shape[2] == 1 else rendered.image
    divided = SHARE in given and any(key in request.options for key in ("backgrounds", "textures"))
    shared = {SHARE: given[SHARE]} if divided else {}
    parameters = {**rendered.parameters, **shared}
    return Picture(_png(image), _png(rendered.mask), parameters, rendered.classes, _truth(rendered))


def _truth(rendered: Rendered) -> dict[str, list[Any]]:
    truth: dict[str, list[Any]] = {}
    if rendered.labels is not None:
        truth["labels"] = list(rendered.labels)
    if rendered.boxes is not None:
        truth["boxes"] = [list(box) for box in rendered.boxes]
    if rendered.ignored:
        truth["ignored"] = [list(box) for box in rendered.ignored]
    return truth


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 (H, W) or (H, W, 3) → an 8-bit grey or RGB PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=_EFFORT)
    return buffer.getvalue()
