"""Helpers of the data room's tests: folders written to disk, settings for them, splits in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.data import Data
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.data.cache import Cache

LABELLED = ("crack", "leak", "sound")
"""The class folders of ``folders``."""
VALUES = {"0": "background", "1": "blob", "255": "ignore"}


@pytest.fixture
def write() -> Callable[..., Path]:
    """``write(path, array)``: a picture or mask of these pixels, with its folders."""

    def _write(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
        Image.fromarray(pixels).save(path)
        return path

    return _write


@pytest.fixture
def fill_folder(write: Callable[..., Path]) -> Callable[..., Path]:
    """``fill_folder(folder, names)``: a random 12x10 colour picture and a mask of 0, 1 and 255 for each name."""

    def _fill(folder: Path, names: list[str], *, seed: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
        random = np.random.default_rng(seed)
        for name in names:
            write(folder / "images" / f"{name}.png", random.integers(0, 256, (*size, 3), dtype=np.uint8))
            write(folder / "masks" / f"{name}.png", random.choice(np.array([0, 1, 255], np.uint8), size))
        return folder

    return _fill


@pytest.fixture
def draw(write: Callable[..., Path]) -> Callable[..., Path]:
    """``draw(path, seed)``: a random 12x10 colour picture."""

    def _draw(path: Path, seed: int, size: tuple[int, int] = (12, 10)) -> Path:
        return write(path, np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))

    return _draw


@pytest.fixture
def folders(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """A root of three splits with four, two and two pictures of each class, all different."""
    for number, split in enumerate(SPLITS):
        for place, name in enumerate(LABELLED):
            for index in range(4 if split == "train" else 2):
                draw(tmp_path / "root" / split / name / f"{index}.png", 100 * number + 10 * place + index)
    return tmp_path / "root"


@pytest.fixture
def settings() -> Callable[..., Data]:
    """``settings(root, **keys)``: the experiment's ``[data]`` for one colour input."""

    def _settings(root: Path, **keys: Any) -> Data:
        table: dict[str, Any] = {"root": str(root), "values": VALUES, "inputs": {"image": {"size": [8, 8]}}}
        return Data.model_validate(table | keys)

    return _settings


@pytest.fixture(scope="session")
def make_cache() -> Callable[..., Cache]:
    """``make_cache(count)``: random pictures; the target's pixel is the picture's red one modulo 3."""

    def _make(count: int, *, size: tuple[int, int] = (6, 8), dtype: str = "uint8", inputs: int = 1) -> Cache:
        random = np.random.default_rng(count)
        top = np.iinfo(dtype).max
        names = ["image", "thermal"][:inputs]
        pictures = {name: random.integers(0, top + 1, (count, *size, 3)).astype(dtype) for name in names}
        targets = (pictures["image"][..., 0] % 3).astype(np.uint8)
        return Cache(tuple(f"p{i:03d}" for i in range(count)), pictures, targets, (("a" * 64,),) * count)

    return _make
