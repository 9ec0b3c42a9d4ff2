"""Masks of classified pictures: where they are found, and what on them is the thing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.core.errors import DataError
from leakdet_tf.data.mask_files import MaskFinder, thing


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_masks_are_found_in_a_manifest_or_beside(tmp_path: Path) -> None:
    for name in ("test/images/a.png", "test/masks/a.png", "other/a.png", "test/crack/a.png", "test/images/b.png"):
        put(tmp_path / name, np.zeros((2, 2), np.uint8))
    images = tmp_path / "test" / "images"
    assert MaskFinder().find(images / "a.png") == tmp_path / "test" / "masks" / "a.png"
    assert MaskFinder().find(images / "b.png") is None
    assert MaskFinder("truth").find(images / "a.png") is None
    finder = MaskFinder()
    finder.find(images / "a.png")
    with pytest.raises(DataError, match=r"is the mask of .* and of"):
        finder.find(tmp_path / "test" / "crack" / "a.png")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"pictures": [{"file": "test/images/a.png", "mask": "other/a.png"}, 3]}))
    assert MaskFinder().find(images / "a.png") == (tmp_path / "other" / "a.png").resolve()
    (tmp_path / "other" / "a.png").unlink()
    with pytest.raises(DataError, match="missing, yet"):
        MaskFinder().find(images / "a.png")
    for text in ("[]", '{"pictures": 3}', '{"name": "an app"}'):
        manifest.write_text(text)
        assert MaskFinder().find(images / "a.png") == tmp_path / "test" / "masks" / "a.png"
    manifest.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        MaskFinder().find(images / "a.png")


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (["background", "oil"], ("background", "oil")),
        (["oil_leak", "water_leak"], ()),  # painted pictures' labels
        (["background", 3], ()),
        ("background", ()),
        (None, ()),
    ],
)
def test_a_manifest_names_the_ids_of_a_mask(tmp_path: Path, classes: object, names: tuple[str, ...]) -> None:
    put(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    manifest = {"classes": classes, "pictures": [{"file": "test/b.png", "mask": "a.png"}]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    finder = MaskFinder()
    assert finder.names(tmp_path / "test" / "b.png") == names
    assert finder.names(tmp_path / "test" / "c.png") == ()


@pytest.mark.parametrize(
    ("values", "names", "where"),
    [
        ([0, 1, 2, 255], ("background", "oil", "water"), [0, 1, 1, 0]),  # oil_leak is none of these
        ([0, 1, 2, 255], ("background", "oil_leak", "water"), [0, 1, 0, 0]),
        ([0, 1, 2, 255], (), [0, 1, 1, 0]),
        ([0, 0, 0, 255], (), [0, 0, 0, 1]),  # black and white
        ([0, 0, 0, 255], ("background", "oil"), [0, 0, 0, 0]),
        ([0, 0, 0, 0], (), [0, 0, 0, 0]),
        ([0, 1, 1, 1], ("oil_leak", "water"), [0, 1, 1, 1]),  # the first is where nothing is
    ],
)
def test_what_does_not_count_is_not_the_thing(values: list[int], names: tuple[str, ...], where: list[int]) -> None:
    found = thing(np.uint8([values]), names, "oil_leak")
    assert found.dtype == np.bool_
    assert found.tolist() == [list(map(bool, where))]
