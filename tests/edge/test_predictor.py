"""Frames in, answers at the frame's own size out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.core.errors import BundleError, ContractError, ImageError
from leakdet_tf.edge import Predictor


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle, threads=1)


@pytest.fixture(scope="module")
def picture(run: Path) -> np.ndarray:
    import tomllib

    data = tomllib.loads((run / "experiment.toml").read_text())["data"]["root"]
    return np.asarray(Image.open(next(iter(sorted((Path(data) / "test" / "images").iterdir())))).convert("RGB"))


@pytest.mark.parametrize("size", [(64, 64), (48, 100), (480, 640), (1, 7)])
def test_the_mask_has_the_frame_s_own_size(predictor: Predictor, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    answer = predictor.predict(frame)
    assert answer.labels.shape == size
    assert answer.scores.shape == size
    assert sum(answer.fractions().values()) == pytest.approx(1)
    assert answer.model == predictor.contract.id
    assert 0 < answer.invoke_ms <= answer.total_ms


def test_path_pixels_and_opencv_order_give_the_same_answer(
    predictor: Predictor, picture: np.ndarray, tmp_path: Path
) -> None:
    colored = picture.copy()
    colored[..., 0] //= 2
    Image.fromarray(colored).save(tmp_path / "frame.png")
    answers = [
        predictor.predict(colored),
        predictor.predict(tmp_path / "frame.png"),
        predictor.predict(str(tmp_path / "frame.png")),
        predictor.predict(colored[..., ::-1], bgr=True),
        predictor.predict({"image": colored}),
    ]
    for other in answers[1:]:
        np.testing.assert_array_equal(answers[0].scores, other.scores)
    wrong = predictor.predict(colored[..., ::-1])
    assert not np.array_equal(answers[0].scores, wrong.scores), "channel order must matter, or this test shows nothing"


def test_grey_frames_are_taken_with_and_without_their_channel_axis(predictor: Predictor, picture: np.ndarray) -> None:
    grey = picture[..., 0]
    np.testing.assert_array_equal(predictor.predict(grey).scores, predictor.predict(grey[..., None]).scores)


def test_the_overlay_has_the_frame_s_size_and_order(predictor: Predictor, picture: np.ndarray) -> None:
    answer = predictor.predict(picture)
    drawn = predictor.draw(picture, answer)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(predictor.draw(picture[..., ::-1], answer, bgr=True), drawn[..., ::-1])


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
    ],
    ids=["float", "four channels", "16 bit", "empty", "batch", "vector"],
)
def test_pixels_that_break_the_contract_are_refused(predictor: Predictor, frame: np.ndarray) -> None:
    with pytest.raises(ContractError):
        predictor.predict(frame)


def test_other_input_names_are_refused(predictor: Predictor, picture: np.ndarray) -> None:
    with pytest.raises(ContractError, match="thermal"):
        predictor.predict({"thermal": picture})


def test_a_damaged_picture_is_named(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0rubbish")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        predictor.predict(tmp_path / "bad.jpg")


def test_a_predictor_answers_again_the_same(predictor: Predictor, picture: np.ndarray) -> None:
    first = predictor.predict(picture)
    predictor.predict(255 - picture)
    np.testing.assert_array_equal(predictor.predict(picture).scores, first.scores)


def test_threads_must_be_positive(bundle: Path) -> None:
    with pytest.raises(BundleError, match="threads"):
        Predictor(bundle, threads=0)


def test_the_edge_imports_no_trainer(bundle: Path) -> None:
    code = (
        "import sys\n"
        "from leakdet_tf.edge import Predictor\n"
        "import numpy as np\n"
        f"Predictor({str(bundle)!r}).predict(np.zeros((48, 64, 3), np.uint8))\n"
        "heavy = {'tensorflow', 'keras', 'pydantic', 'rich', 'matplotlib', 'torch', 'jax', 'cv2', 'tomli_w'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
