"""Records refuse arrays that break their rules where they are made, and errors are one line each."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.errors import ConfigError, ContractError, ImageError, LeakdetError, did_you_mean
from leakdet_tf.core.records import Mask, Origin, Sample

LABELS = np.array([[0, 1], [1, 1]], np.uint8)
SCORES = np.ones((2, 2), np.float32)
ORIGIN = Origin("a.png")


def test_a_sample_holds_raw_pixels() -> None:
    images = {"rgb": np.zeros((4, 5, 3), np.uint8), "thermal": np.zeros((2, 3, 1), np.uint16)}
    sample = Sample("a", images, None, ORIGIN)
    assert sample.origin.kind == "real"
    assert sample == sample


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5, 3), ">u2"),
        np.zeros((0, 5, 3), "u1"),
    ],
)
def test_a_sample_refuses_other_arrays(image: Any) -> None:
    with pytest.raises(ContractError, match=r"^a: 'rgb' must be uint8 or uint16 \(H, W, C\), is "):
        Sample("a", {"rgb": image}, None, ORIGIN)


def test_a_sample_needs_a_picture() -> None:
    with pytest.raises(ContractError, match=r"^a: a sample needs at least one picture"):
        Sample("a", {}, None, ORIGIN)


def test_a_mask_tells_its_size_and_shares() -> None:
    mask = Mask(labels=LABELS, scores=SCORES, classes=("background", "gas", "machine"))
    assert mask.size == (2, 2)
    assert mask.fractions() == {"background": 0.25, "gas": 0.75, "machine": 0.0}
    with pytest.raises(ContractError, match="no class names"):
        Mask(labels=LABELS, scores=SCORES).fractions()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"labels": LABELS[0]}, r"labels must be uint8 \(H, W\)"),
        ({"labels": LABELS.astype(np.int64)}, "labels must be uint8"),
        ({"labels": LABELS[:0], "scores": SCORES[:0]}, "labels must be uint8"),
        ({"scores": SCORES[:1]}, "differ in shape"),
        ({"scores": SCORES.astype(np.float64)}, "scores must be float32, are float64"),
        ({"classes": ("background",)}, "label 1 has no name among 1 classes"),
    ],
)
def test_a_mask_checks_itself(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        Mask(**{"labels": LABELS, "scores": SCORES, **fields})


def test_an_error_is_message_and_remedy() -> None:
    assert str(LeakdetError("it broke")) == "it broke"
    error = ImageError("a.png: cut", remedy="replace it")
    assert str(error) == "a.png: cut; replace it"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(LeakdetError("")) == ""


def test_an_error_is_one_printable_line_whatever_it_quotes() -> None:
    shown = str(ConfigError("a\nb\r\x1b[31m\udcff\u2028.toml: ünï 空", remedy="x\ty"))
    assert shown == "a\\nb\\r\\x1b[31m\\udcff\\u2028.toml: ünï 空; x\\ty"
    shown.encode()


def test_suggestions_name_the_nearest_or_all() -> None:
    assert did_you_mean("unett", ["unet", "fpn"]) == "did you mean 'unet'?"
    assert did_you_mean("zzz", ["unet", "fpn"]) == "choose from: fpn, unet"
    assert did_you_mean("", []) == "nothing is registered"
