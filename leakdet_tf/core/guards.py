"""What makes a picture file unfit to be decoded: seen in its bytes and its header, before a pixel is allocated."""

from __future__ import annotations

import re
import zlib

from PIL import Image

MAX_SCANS = 100
"""A JPEG of more scans is refused: encoders write about ten, and each costs a pass over the whole picture."""

_PNG_HEAD = 8
_PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 262, 322, 323
_RLE_WIDTH = 65_535
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_JPEG_BARE = b"\x01\xd8\xd9"  # markers without a length: TEM, SOI, EOI


def fault(data: bytes, picture: Image.Image, limit: int) -> str | None:
    """Why an opened file must not be decoded, None when nothing speaks against it.

    - PNG: a chunk's CRC-32 is wrong, or the end chunk is missing. Pillow leaves out the checksums of the pixels.
    - JPEG: more than :data:`MAX_SCANS` scans, which makes minutes of a small file.
    - TIFF: tiles of more than ``limit`` pixels; they are decoded whole, however small the picture is. Also 16-bit
      grey whose 0 is white: Pillow would read it upside down.
    - BMP: run-length coded lines so long that one skip instruction fills gigabytes (Pillow before 13).
    """
    if picture.format == "PNG":
        return _png_fault(data)
    if picture.format == "TIFF":
        tags = getattr(picture, "tag_v2", {})
        width, length = int(tags.get(_TILE_WIDTH, 1)), int(tags.get(_TILE_LENGTH, 1))
        if width * length > limit:
            return f"has tiles of {width}x{length} pixels, limit {limit}"
        if tags.get(_PHOTOMETRIC) == 0 and picture.mode.startswith("I;16"):
            return "16-bit grey with 0 for white is not supported"
    elif picture.format == "BMP":
        if picture.width > _RLE_WIDTH and _coded(picture):
            return f"run-length coded lines of {picture.width} pixels, limit {_RLE_WIDTH}"
    elif data.count(b"\xff\xda") > MAX_SCANS and _scans(data) > MAX_SCANS:
        return f"more than {MAX_SCANS} scans"
    return None


def _coded(picture: Image.Image) -> bool:
    return any(tile[0] == "bmp_rle" for tile in getattr(picture, "tile", ()))


def _png_fault(data: bytes) -> str | None:
    view, start = memoryview(data), _PNG_HEAD
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        if end + 4 > len(data):
            break
        kind = bytes(view[start + 4 : start + 8])
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return f"damaged (checksum of chunk {kind.decode('ascii', 'replace')})"
        if kind == b"IEND":
            return None
        start = end + 4
    return "damaged or truncated (ends before its last chunk)"


def _scans(data: bytes) -> int:
    # Scans up to the first end marker; what cameras append behind it (previews, films) does not count.
    scans, place = 0, 0
    while found := _JPEG_MARKER.search(data, place):
        place = found.end()
        marker = found[1]
        if marker == b"\xd9":
            break
        scans += marker == b"\xda"
        if marker not in _JPEG_BARE:
            place += int.from_bytes(data[place : place + 2], "big")
    return scans
