"""Decoding, resizing and fitting: what a pixel is, checked on pictures written here."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leakdet_tf.core.errors import ContractError, ImageError
from leakdet_tf.core.images import (
    MAX_PIXELS,
    Geometry,
    ImageSpec,
    as_channels,
    decode,
    decode_mask,
    letterbox,
    resize,
    resize_nearest,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (19, 31), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (19, 31, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (19, 31), dtype=np.uint16)
SMOOTH = np.add.outer(np.arange(40) * 3, np.arange(56) * 2).astype(np.uint8)
LOSSLESS = [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]

few = settings(max_examples=40, deadline=None)
sides = st.integers(1, 40)

# What EXIF orientation k asks for, by the standard's words (Exif 3.0, 4.6.5.1.6), on arrays.
TURNED: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def encoded(picture: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_files_give_the_pixels_that_were_stored(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "ünï 1"
    for stored in (GREY, COLOUR):
        path.write_bytes(encoded(stored, kind, **options))
        expected = stored[..., None] if stored.ndim == 2 else stored
        for source in (path, str(path), path.read_bytes()):
            pixels = decode(source)
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, expected)


def test_jpeg_gives_the_picture_within_its_loss() -> None:
    for stored in (SMOOTH, np.stack([SMOOTH] * 3, axis=-1)):
        for options in ({}, {"progressive": True}):
            pixels = decode(encoded(stored, "JPEG", quality=95, **options))
            assert pixels.shape == (*SMOOTH.shape, 1 if stored.ndim == 2 else 3)
            assert np.abs(pixels.astype(int) - SMOOTH[..., None]).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF big-endian", "TIFF deflate"])
def test_16_bit_grey_is_exact(kind: str) -> None:
    kind, _, variant = kind.partition(" ")
    options = {"compression": "tiff_adobe_deflate"} if variant == "deflate" else {}
    stored = DEEP.astype(">u2") if variant == "big-endian" else DEEP
    pixels = decode(encoded(stored, kind, **options))
    assert pixels.dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(pixels, DEEP[..., None])


@pytest.mark.parametrize("turn", TURNED)
def test_exif_orientation_is_obeyed(turn: int) -> None:
    for kind, stored in (("JPEG", SMOOTH), ("JPEG", COLOUR), ("PNG", COLOUR), ("PNG", DEEP), ("TIFF", DEEP)):
        straight = decode(encoded(stored, kind))
        np.testing.assert_array_equal(decode(encoded(stored, kind, exif=oriented(turn))), TURNED[turn](straight))
    np.testing.assert_array_equal(decode_mask(encoded(GREY, "PNG", exif=oriented(turn))), TURNED[turn](GREY))


@pytest.mark.parametrize("turn", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(turn: int) -> None:
    np.testing.assert_array_equal(decode(encoded(COLOUR, "PNG", exif=oriented(turn))), COLOUR)


def test_palettes_become_rgb_with_or_without_transparency() -> None:
    indices = Image.fromarray((GREY % 4).astype(np.uint8), "P")
    table = np.array([[0, 0, 0], [250, 10, 10], [10, 250, 10], [10, 10, 250]], np.uint8)
    indices.putpalette(table.ravel().tolist())
    for options in ({}, {"transparency": 1}, {"transparency": bytes([0, 100, 255, 255])}):
        np.testing.assert_array_equal(decode(encoded(indices, "PNG", **options)), table[GREY % 4])


def test_alpha_is_dropped() -> None:
    alpha = RNG.integers(0, 256, (*GREY.shape, 1), dtype=np.uint8)
    with_alpha = Image.fromarray(np.concatenate([COLOUR, alpha], axis=-1))
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(with_alpha, kind)), COLOUR)
        grey = Image.fromarray(np.stack([GREY, alpha[..., 0]], axis=-1))
        np.testing.assert_array_equal(decode(encoded(grey, kind)), GREY[..., None])
    np.testing.assert_array_equal(decode(encoded(GREY, "PNG", transparency=7)), GREY[..., None])
    np.testing.assert_array_equal(decode(encoded(COLOUR, "PNG", transparency=(1, 2, 3))), COLOUR)


def test_other_colour_spaces_become_rgb() -> None:
    flat = Image.new("RGB", (24, 16), (200, 60, 40))
    for mode, kind in (("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG")):
        pixels = decode(encoded(flat.convert(mode), kind))
        assert pixels.shape == (16, 24, 3)
        assert np.abs(pixels.astype(int) - (200, 60, 40)).max() <= 4, mode
    lab = decode(encoded(Image.new("LAB", (24, 16), (200, 128, 128)), "TIFF"))
    assert lab.shape == (16, 24, 3)
    assert np.ptp(lab[0, 0].astype(int)) <= 8  # a = b = 0: grey


def test_one_bit_pictures_decode() -> None:
    black_white = Image.fromarray(GREY > 127)
    for kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(black_white, kind))[..., 0], np.where(GREY > 127, 255, 0))


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="Pillow reads grey TIFFs of this kind since 13")
def test_premultiplied_alpha_is_undone() -> None:
    plain, premultiplied = (struct.pack("<HHII", 338, 3, 1, kind) for kind in (2, 1))  # the tag ExtraSamples
    stored = encoded(Image.new("LA", (3, 2), (45, 128)), "TIFF")
    assert stored.count(plain) == 1
    assert decode(stored).tolist() == [[[45]] * 3] * 2
    assert decode(stored.replace(plain, premultiplied)).tolist() == [[[45 * 255 // 128]] * 3] * 2


def test_wider_pixels_are_refused() -> None:
    for mode in ("I", "F"):
        with pytest.raises(ImageError, match=r"^deep\.tif: 32-bit or signed pixels"):
            decode(encoded(Image.new(mode, (5, 4)), "TIFF"), name="deep.tif")


def test_masks_keep_their_values() -> None:
    for kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode_mask(encoded(GREY, kind)), GREY)
    indexed = Image.fromarray((GREY % 5).astype(np.uint8), "P")
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9, 7, 7, 7])
    for options in ({}, {"bits": 4}, {"transparency": 2}):
        mask = decode_mask(encoded(indexed, "PNG", **options))
        assert (mask.dtype, mask.ndim) == (np.uint8, 2)
        np.testing.assert_array_equal(mask, GREY % 5)
    np.testing.assert_array_equal(decode_mask(encoded(Image.fromarray(GREY > 9), "PNG")), np.where(GREY > 9, 255, 0))


@pytest.mark.parametrize("stored", [COLOUR, DEEP], ids=["colour", "16 bit"])
def test_masks_whose_values_name_no_class_are_refused(stored: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"^m\.png: a mask needs one 8-bit channel or a palette"):
        decode_mask(encoded(stored, "PNG"), name="m.png")


def test_what_is_no_picture_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "other.gif").write_bytes(encoded(GREY, "GIF"))
    for name in ("absent.png", "folder.png", "text.png", "empty.png", "other.gif", "a\0b.png"):
        for read in (decode, decode_mask):
            with pytest.raises(ImageError) as caught:
                read(tmp_path / name)
            shown = str(caught.value)
            assert shown.startswith(f"{tmp_path}/{name}: ".replace("\0", "\\x00"))
            assert shown.isprintable()
    with pytest.raises(ImageError, match=r"^<bytes>: "):
        decode(b"")


@given(sides, sides, sides, sides, st.sampled_from([1, 2, 3, 4]), st.sampled_from(["uint8", "uint16"]))
@few
def test_resize_keeps_dtype_channels_and_constants(h: int, w: int, a: int, b: int, channels: int, dtype: str) -> None:
    value = np.iinfo(dtype).max - 5
    constant = np.full((h, w, channels), value, dtype)
    small = resize(constant, (a, b))
    assert (small.shape, small.dtype) == ((a, b, channels), np.dtype(dtype))
    assert (small == value).all()
    assert resize(constant, (h, w)) is constant


@given(st.integers(0, 2**31), sides, sides)
@few
def test_resize_of_16_bits_is_that_of_8_bits_scaled(seed: int, height: int, width: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (23, 17, 1), dtype=np.uint8)
    narrow, wide = resize(image, (height, width)), resize(image.astype(np.uint16) * 257, (height, width))
    # 8 bits are rounded after each of the two passes: at most one grey level in all.
    assert np.abs(wide.astype(int) - narrow.astype(int) * 257).max() <= 257


def test_resize_of_16_bits_is_as_fine_as_floats() -> None:
    reference = Image.fromarray(DEEP.astype(np.float32)).resize((13, 11), Image.Resampling.BILINEAR)
    small = resize(DEEP[..., None], (11, 13))[..., 0]
    assert np.abs(small - np.asarray(reference)).max() <= 1.01


@pytest.mark.parametrize(("dtype", "white"), [("uint8", 255), ("uint16", 65535)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_averages_what_it_shrinks(dtype: str, white: int, channels: int) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * white).astype(dtype)
    small = resize(np.repeat(board[..., None], channels, axis=2), (16, 16))
    assert np.abs(small.astype(float) / white - 0.5).max() < 0.02


def test_resize_reads_any_memory_layout() -> None:
    frame = COLOUR[..., ::-1]  # BGR from a camera
    np.testing.assert_array_equal(resize(frame, (7, 9)), resize(np.ascontiguousarray(frame), (7, 9)))
    deep = np.asfortranarray(DEEP[::2, ::-1, None])
    np.testing.assert_array_equal(resize(deep, (7, 9)), resize(np.ascontiguousarray(deep), (7, 9)))


def test_channels_are_repeated_or_weighed_and_nothing_else() -> None:
    np.testing.assert_array_equal(as_channels(GREY[..., None], 3), np.stack([GREY] * 3, axis=-1))
    luma = as_channels(COLOUR, 1)[..., 0]
    assert np.abs(luma - COLOUR @ [0.299, 0.587, 0.114]).max() < 0.51
    np.testing.assert_array_equal(as_channels(as_channels(GREY[..., None], 3), 1), GREY[..., None])
    for image, channels in ((np.dstack([DEEP] * 3), 1), (COLOUR[..., :2], 3), (COLOUR, 4)):
        with pytest.raises(ContractError, match="cannot become one with"):
            as_channels(image, channels)


def test_letterbox_centres_and_pads() -> None:
    boxed, geometry = letterbox(np.full((10, 20, 3), 200, np.uint8), (32, 32), pad=7)
    assert geometry == Geometry((10, 20), (32, 32), (16, 32), (8, 0))
    assert (boxed[8:24] == 200).all()
    assert (boxed[:8] == 7).all()
    assert (boxed[24:] == 7).all()
    whole, geometry = letterbox(np.zeros((10, 20, 1), np.uint16), (20, 40))
    assert (whole.shape, whole.dtype, geometry.offset) == ((20, 40, 1), np.uint16, (0, 0))


@given(sides, sides, sides, sides)
@few
def test_letterbox_fits_any_size_and_keeps_proportions(h: int, w: int, height: int, width: int) -> None:
    boxed, geometry = letterbox(np.full((h, w, 1), 9, np.uint8), (height, width))
    (top, left), (inner_h, inner_w) = geometry.offset, geometry.inner
    assert boxed.shape == (height, width, 1)
    assert top >= 0 <= left
    assert 1 <= inner_h <= height - top
    assert 1 <= inner_w <= width - left
    assert inner_h == height or inner_w == width
    scale = min(height / h, width / w)
    assert abs(inner_h - h * scale) <= max(0.5, 1 - h * scale)
    assert abs(inner_w - w * scale) <= max(0.5, 1 - w * scale)
    assert int((boxed == 9).sum()) == inner_h * inner_w


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), sides, sides, st.integers(0, 2**31))
@few
def test_labels_of_blocks_return_from_the_target(h: int, w: int, zoom: int, top: int, left: int, seed: int) -> None:
    blocks = np.random.default_rng(seed).integers(0, 5, (h, w)).astype(np.uint8)
    labels = blocks.repeat(zoom, 0).repeat(zoom, 1)
    for inner in ((h, w), (h * zoom, w * zoom), (h * 7, w * 7)):
        geometry = Geometry(labels.shape, (inner[0] + top, inner[1] + left), inner, (top, left))
        target = geometry.to_target(labels, fill=255)
        assert target.shape == geometry.target
        assert int((target == 255).sum()) == target.size - inner[0] * inner[1]
        np.testing.assert_array_equal(geometry.to_source(target), labels)


@given(sides, sides, sides, sides, st.integers(0, 2**31))
@few
def test_nearest_takes_the_pixel_under_each_centre(h: int, w: int, height: int, width: int, seed: int) -> None:
    array = np.random.default_rng(seed).random((h, w)).astype(np.float32)
    found = resize_nearest(array, (height, width))
    for i in range(height):
        for j in range(width):
            y, x = (i + 0.5) * h / height, (j + 0.5) * w / width
            near = {array[min(h - 1, int(y + e)), min(w - 1, int(x + d))] for e in (-1e-9, 1e-9) for d in (-1e-9, 1e-9)}
            assert found[i, j] in near


@given(sides, sides, sides, sides, st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 2), min_size=1, max_size=5))
@few
def test_points_go_there_and_back(h: int, w: int, height: int, width: int, points: list[tuple[float, float]]) -> None:
    _, geometry = letterbox(np.zeros((h, w, 1), np.uint8), (height, width))
    array = np.array(points)
    np.testing.assert_allclose(geometry.points_to_source(geometry.points_to_target(array)), array, rtol=1e-9, atol=1e-9)
    corners = geometry.points_to_target(np.array([[0, 0], [w, h]]))
    top, left = geometry.offset
    np.testing.assert_allclose(corners, [[left, top], [left + geometry.inner[1], top + geometry.inner[0]]], atol=1e-9)


def test_geometry_refuses_arrays_of_another_size() -> None:
    geometry = Geometry((4, 6), (8, 8), (5, 8), (1, 0))
    with pytest.raises(ContractError, match=r"expected an array of \(4, 6\) px, got \(8, 8\)"):
        geometry.to_target(np.zeros((8, 8), np.uint8), fill=255)
    with pytest.raises(ContractError, match=r"expected an array of \(8, 8\) px, got \(4, 6\)"):
        geometry.to_source(np.zeros((4, 6), np.uint8))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"height": 0}, "positive size"),
        ({"width": -3}, "positive size"),
        ({"channels": 0}, "positive size"),
        ({"height": 32.0}, "height must be an integer"),
        ({"width": float("nan")}, "width must be an integer"),
        ({"channels": True}, "channels must be an integer"),
        ({"pad": "0"}, "pad must be an integer"),
        ({"pad": 256}, "pad 256 does not fit uint8"),
        ({"pad": -1}, "pad -1 does not fit"),
        ({"dtype": "float32"}, "uint8 or uint16"),
        ({"fit": "crop"}, "stretch or letterbox"),
        ({"height": MAX_PIXELS, "width": 2}, "limit"),
    ],
)
def test_a_spec_checks_itself(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        ImageSpec(**{"height": 32, "width": 32, **wrong})


def test_a_spec_fits_frames_of_any_size() -> None:
    for shape in ((1, 300, 3), (300, 1, 1), (1, 1, 3)):
        for fit in ("stretch", "letterbox"):
            array, geometry = ImageSpec(16, 24, fit=fit, pad=3).apply(np.full(shape, 50, np.uint8))
            assert (array.shape, array.dtype) == ((16, 24, 3), np.uint8)
            assert set(np.unique(array)) <= ({50} if fit == "stretch" else {50, 3})
            assert geometry.to_source(array[..., 0]).shape == shape[:2]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (GREY, r"cam 1: expected pixels of shape \(H, W, C\), got \(19, 31\)"),
        (np.zeros((0, 4, 3), np.uint8), "cam 1: expected pixels of shape"),
        (DEEP[..., None], 'cam 1: has uint16 pixels, the model takes uint8; set dtype = "uint16"'),
        (COLOUR.astype(np.float32), "cam 1: has float32 pixels"),
        (COLOUR[..., :2], "2 channels"),
    ],
)
def test_a_spec_refuses_frames_that_break_it(image: np.ndarray, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        ImageSpec(16, 24).apply(image, name="cam 1")
