"""``leakdet-tf synth GENERATOR``: a folder of rendered pictures with exact truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakdet_tf.jobs.run.data import make_folder
from leakdet_tf.jobs.run.notebook import shown
from leakdet_tf.synth.folder.request import Request

COUNTS = {"train": 320, "val": 80, "test": 80}
SIZE = (128, 128)
_SHOWN = 6  # pictures in a notebook


@dataclass(frozen=True)
class Rendered:
    """A folder of rendered pictures, how many it holds, and whether they were made now. A notebook shows some."""

    folder: Path
    pictures: int
    new: bool

    def _repr_html_(self) -> str:
        found = sorted(self.folder.glob("*/images/*.png"))[:_SHOWN]
        return shown(f"{self.folder}: {self.pictures} pictures", (), (), found)


def render(
    generator: str,
    root: str | Path,
    *,
    counts: Mapping[str, int] | None = None,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    clip: int = 1,
    workers: int | None = None,
) -> Rendered:
    """Render pictures and their truth into a folder. One that holds just what is asked for is left as it is.

    Args:
        generator: ``gas``, ``leak``, ``crack``, ``hotspot``, or ``package.module:function``.
        root: the folder; it gets ``train``, ``val`` and ``test``, and ``manifest.json``.
        counts: pictures by split; :data:`COUNTS` when left out.
        size: (height, width) in pixels.
        seed: the same seed gives the same bytes.
        options: the generator's own.
        clip: consecutive frames of each scene.
        workers: processes that render; all cores when left out.

    Raises:
        DataError: no picture is asked for, or the folder holds others.
        ConfigError: an option that the generator does not have.
    """
    request = Request(generator, dict(COUNTS if counts is None else counts), size, seed, dict(options or {}), clip)
    new = make_folder(Path(root), request, workers=workers, foreign=False)
    return Rendered(Path(root), sum(request.counts.values()), new)
