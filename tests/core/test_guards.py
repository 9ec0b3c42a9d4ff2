"""Damaged and hostile files: an error that names the file, never a wrong size, never much memory or time."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from leakdet_tf.core.errors import ImageError
from leakdet_tf.core.guards import MAX_SCANS
from leakdet_tf.core.images import decode, decode_mask

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, (24, 37), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(48) * 3, np.arange(64) * 2).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 1, "a maker of cameras"
    return tags


FILES: dict[str, tuple[bytes, tuple[int, int]]] = {
    "jpeg": (encoded(SMOOTH, "JPEG"), SMOOTH.shape),
    "jpeg exif": (encoded(np.stack([SMOOTH] * 3, -1), "JPEG", exif=exif()), SMOOTH.shape),
    "jpeg progressive": (encoded(np.stack([SMOOTH] * 3, -1), "JPEG", progressive=True), SMOOTH.shape),
    "png": (encoded(GREY, "PNG"), GREY.shape),
    "png 16 exif": (encoded(GREY.astype(np.uint16) * 257, "PNG", exif=exif()), GREY.shape),
    "bmp": (encoded(np.stack([GREY] * 3, -1), "BMP"), GREY.shape),
    "tiff": (encoded(GREY, "TIFF", exif=exif()), GREY.shape),
    "tiff lzw": (encoded(np.stack([GREY] * 3, -1), "TIFF", compression="tiff_lzw"), GREY.shape),
    "tiff deflate 16": (encoded(GREY.astype(np.uint16), "TIFF", compression="tiff_adobe_deflate"), GREY.shape),
}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, bits: int = 8, extra: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    rows = zlib.compress(bytes(min(1 << 20, (width * bits // 8 + 1) * height)))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bmp(width: int, height: int, data: bytes = b"", *, coding: int = 0) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, coding, len(data), 0, 0, 256, 0)
    table = b"".join(bytes((i, 255 - i, 7, 0)) for i in range(256))
    start = 14 + len(head) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + table + data


def tiff(width: int, height: int, tile: tuple[int, int], data: bytes) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile[1], 323: tile[0], 325: len(data)}
    tags[324] = 8 + 2 + 12 * 10 + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def outcome(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
    """The pixels, None after an ImageError that names the file; anything else fails the test."""
    try:
        pixels = decode(data, name="frame 7.img")
    except ImageError as error:
        assert str(error).startswith("frame 7.img: ")
        assert "\n" not in str(error)
        return None
    assert pixels.ndim == 3
    assert pixels.shape[:2] == size
    return pixels


def places(length: int) -> Iterator[int]:
    yield from range(min(length, 60))
    yield from range(60, length, max(1, length // 120))
    yield from range(max(0, length - 20), length)


@pytest.mark.parametrize("kind", FILES)
def test_a_cut_file_is_an_error(kind: str) -> None:
    data, size = FILES[kind]
    whole = outcome(data, size)
    assert whole is not None
    for place in places(len(data)):
        pixels = outcome(data[:place], size)
        if kind.startswith("png"):
            assert pixels is None, place
        elif pixels is not None:  # only what follows the pixels is gone
            np.testing.assert_array_equal(pixels, whole)


@pytest.mark.parametrize("kind", FILES)
def test_changed_bytes_raise_nothing_else(kind: str) -> None:
    data, _ = FILES[kind]
    random = np.random.default_rng(2)
    for _ in range(250):
        changed = bytearray(data)
        for _ in range(random.choice([1, 1, 3, 20])):
            place = int(random.integers(len(data) if random.random() < 0.5 else min(len(data), 200)))
            changed[place] = random.choice([0, 1, 127, 255, random.integers(256)])
        for read in (decode, decode_mask):
            try:
                pixels = read(bytes(changed), name="frame 7.img")
            except ImageError as error:
                assert str(error).startswith("frame 7.img: ")
            else:
                assert 0 not in pixels.shape


@pytest.mark.parametrize("kind", ["png", "png 16 exif"])
def test_no_changed_byte_of_a_png_passes(kind: str) -> None:
    data, size = FILES[kind]
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        assert outcome(bytes(changed), size) is None, place


def test_what_follows_a_png_is_no_fault() -> None:
    data, size = FILES["png"]
    assert outcome(data + b"appended by a camera", size) is not None


def test_a_setting_of_pillow_does_not_let_cut_pngs_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data, size = FILES["png"]
    assert outcome(data[:-30], size) is None


def test_a_tiff_of_huge_tiles_is_refused_however_small_it_is() -> None:
    small = decode(tiff(48, 40, (64, 64), zlib.compress(bytes([9]) * 4096)))
    assert small.shape == (40, 48, 1)
    assert (small == 9).all()
    with pytest.raises(ImageError, match=r"^t\.tif: has tiles of 16384x32768 pixels, limit 80000000"):
        decode(tiff(48, 40, (32768, 16384), zlib.compress(bytes(4096))), name="t.tif")


def test_16_bit_tiffs_with_white_as_0_are_refused() -> None:
    black, white = (struct.pack("<HHII", 262, 3, 1, value) for value in (1, 0))
    shallow, deep = encoded(GREY, "TIFF"), encoded(GREY.astype(np.uint16) * 257, "TIFF")
    assert shallow.count(black) == deep.count(black) == 1
    np.testing.assert_array_equal(decode(shallow.replace(black, white))[..., 0], 255 - GREY)
    with pytest.raises(ImageError, match="16-bit grey with 0 for white"):
        decode(deep.replace(black, white))


def test_run_length_lines_may_not_be_endless() -> None:
    assert decode(bmp(8, 1, b"\x08\x05\x00\x01", coding=1)).tolist() == [[[7, 250, 5]] * 8]
    with pytest.raises(ImageError, match="run-length coded lines of 70000000 pixels"):
        decode(bmp(70_000_000, 1, b"\x00\x02\xff\xff\x00\x01", coding=1))


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data, size = FILES["jpeg progressive"]
    last = data[data.rindex(b"\xff\xda") : -2]
    scans = data.count(b"\xff\xda")
    assert outcome(data[:-2] + last * (MAX_SCANS - scans) + b"\xff\xd9", size) is not None
    with pytest.raises(ImageError, match=f"more than {MAX_SCANS} scans"):
        decode(data[:-2] + last * (MAX_SCANS - scans + 1) + b"\xff\xd9")


def test_scan_markers_in_metadata_or_behind_the_picture_do_not_count() -> None:
    comment = b"\xff\xda" * 300
    data, size = encoded(SMOOTH, "JPEG", comment=comment), SMOOTH.shape
    assert comment in data
    assert outcome(data + b"\xff\xda\x00\x02" * 300, size) is not None


BOMBS = {
    "grey.png": png(40_000, 40_000),
    "one bit.png": png(60_000, 60_000, bits=1),
    "thin.png": png(80_000_001, 1),
    "raw.bmp": bmp(60_000, 60_000),
    "picture.tif": tiff(60_000, 60_000, (64, 64), zlib.compress(bytes(4096))),
    "tiles.tif": tiff(64, 64, (30_000, 30_000), zlib.compress(bytes(4096))),
    "frame.jpg": FILES["jpeg"][0].replace(struct.pack(">HH", *SMOOTH.shape), struct.pack(">HH", 65_000, 65_000)),
}

# The limit is what the process already uses and 48 MiB: an attempt to allocate the picture fails, and says so.
_CHILD = """
import pathlib, resource, sys, warnings
import numpy
from leakdet_tf.core.errors import ImageError
from leakdet_tf.core.images import decode, decode_mask
warnings.simplefilter("ignore")
decode(pathlib.Path(sys.argv[1]))
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20),) * 2)
try:
    numpy.ones(64 << 20, numpy.uint8)
    print("the limit does not hold")
except MemoryError:
    pass
for path in sys.argv[2:]:
    for read in (decode, decode_mask):
        try:
            print(path, read(pathlib.Path(path)).shape)
        except ImageError as error:
            print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_bombs_are_refused_before_their_pixels_are_allocated(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(FILES["png"][0])
    for name, data in BOMBS.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "good.png"), *(str(tmp_path / name) for name in BOMBS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(BOMBS)
    for line, name in zip(lines, [name for name in BOMBS for _ in range(2)], strict=True):
        assert line.startswith(f"{tmp_path / name}: ")
        assert "80000000" in line


def test_a_big_text_chunk_is_refused_without_unpacking_it() -> None:
    packed = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(50 << 20)))
    assert decode(png(4, 4, extra=chunk(b"zTXt", b"note\0\0" + zlib.compress(b"short")))).shape == (4, 4, 1)
    with pytest.raises(ImageError, match=r"^p\.png: "):
        decode(png(4, 4, extra=packed), name="p.png")
