"""Pictures in, arrays out: the one definition of decoding and resizing, the same on a server and on a Pi.

Pillow decodes and resizes (bilinear with antialiasing). Nothing here scales pixel values: photometry belongs to
the model.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from leakdet_tf.core.errors import ContractError, ImageError
from leakdet_tf.core.guards import fault

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Labels = npt.NDArray[np.uint8]
Size = tuple[int, int]  # (height, width) in pixels

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 80_000_000
"""Pictures of more pixels are refused by their header: below Pillow's own limit, above a 61-megapixel camera's."""

# What Pillow's readers raise on malformed files (its parsers are Python and fail in Python's ways), and its warnings
# where the caller has made warnings errors.
_READER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Warning,
)

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(source: str | Path | bytes, *, name: str | None = None) -> Pixels:
    """Read a JPEG, PNG, BMP or TIFF file, or its bytes, turned as its EXIF orientation says.

    Grey pictures give (H, W, 1), everything else (H, W, 3) in RGB order. 16-bit grey gives uint16, everything else
    uint8: grey of fewer bits is spread over 0..255, 48-bit colour and 16-bit grey with alpha keep their high bytes (as
    RGB), palettes, CMYK and Lab become RGB, an alpha channel is dropped. Of a TIFF with several pages the first is
    read. The array may be read-only.

    Args:
        source: a path, or the file's bytes.
        name: what error messages call the picture; the path when left out.

    Raises:
        ImageError: not a picture of these formats, truncated, damaged, or more than ``MAX_PIXELS`` pixels. A
            picture that is too large is refused before its pixels are allocated. (Of damage inside a picture only
            PNG tells for certain, by its checksums; JPEG, BMP and TIFF may decode to wrong pixels.)
    """
    name = name or ("<bytes>" if isinstance(source, bytes) else str(source))
    picture = _open(source, name)
    if picture.mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16, copy=False)[..., None]
    if picture.mode in ("I", "F"):
        raise ImageError(
            f"{name}: 32-bit or signed pixels are not supported", remedy="store the picture with 8 or 16 bits, unsigned"
        )
    grey = picture.mode in ("1", "L", "LA", "La")
    try:
        array = np.asarray(_converted(picture, "L" if grey else "RGB"))
    except _READER_ERRORS as error:
        raise ImageError(f"{name}: mode {picture.mode} cannot be converted ({error})", remedy="convert it") from error
    return array[..., None] if grey else array


def decode_mask(source: str | Path | bytes, *, name: str | None = None) -> Labels:
    """Read a mask: uint8 (H, W) of the values stored: palette indices as they are, 1-bit masks as 0 and 255.

    Grey of 2 or 4 bits is spread over 0..255, as its formats define: value 1 of 0..15 is read as 17.

    Raises:
        ImageError: as :func:`decode`, and for colour or 16-bit masks, whose values name no class.
    """
    name = name or ("<bytes>" if isinstance(source, bytes) else str(source))
    picture = _open(source, name)
    if picture.mode == "P":
        return np.asarray(picture)
    if picture.mode in ("1", "L"):
        return np.asarray(_converted(picture, "L"))
    raise ImageError(
        f"{name}: a mask needs one 8-bit channel or a palette, this one has mode {picture.mode}",
        remedy="store class values as 8-bit grey or indexed PNG",
    )


def _open(source: str | Path | bytes, name: str) -> Image.Image:
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{name}: cannot be read ({reason})", remedy="check path and rights") from error
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"{name}: {width}x{height} pixels, limit {MAX_PIXELS}", remedy="scale or tile it first")
        if reason := fault(data, picture, MAX_PIXELS):
            raise ImageError(f"{name}: {reason}", remedy="replace or remove it")
        picture.load()
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
        return picture if turn is None else picture.transpose(turn)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: more than {MAX_PIXELS} pixels", remedy="scale or tile it first") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not a {', '.join(FORMATS)} picture, or its header is damaged", remedy="convert it"
        ) from error
    except _READER_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: damaged or truncated ({reason})", remedy="replace or remove it") from error


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    picture.info.pop("transparency", None)  # Pillow would warn that it is lost; that is intended
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode == "RGBa":
        picture = picture.convert("RGBA")
    return picture if picture.mode == mode else picture.convert(mode)


def as_channels(image: Pixels, channels: int) -> Pixels:
    """(H, W, C) → (H, W, ``channels``): grey is repeated, colour becomes ITU-R 601 luma, equal counts pass through.

    Raises:
        ContractError: there is no rule for this pair of channel counts.
    """
    have = image.shape[2]
    if have == channels:
        return image
    if have == 1 and channels == 3:
        return image.repeat(3, axis=2)
    if have == 3 and channels == 1 and image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    raise ContractError(f"a picture with {have} channels ({image.dtype}) cannot become one with {channels}")


def resize(image: Pixels, size: Size) -> Pixels:
    """Bilinear, antialiased: uint8 or uint16 (H, W, C) → (height, width, C) of the same dtype."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    resized = np.empty_like(image, shape=(height, width, image.shape[2]))
    for channel in range(image.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
        resized[..., channel] = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))
    return resized


def resize_nearest(array: npt.NDArray[Any], size: Size) -> npt.NDArray[Any]:
    """Nearest neighbour by pixel centres: (H, W) labels or scores → (height, width)."""
    if array.shape[:2] == size:
        return array
    rows = _centres(array.shape[0], size[0])
    columns = _centres(array.shape[1], size[1])
    if size[0] < array.shape[0]:
        return array.take(rows, axis=0).take(columns, axis=1)
    return array.take(columns, axis=1).take(rows, axis=0)  # columns, the slow ones, of the fewer rows


def _centres(source: int, target: int) -> npt.NDArray[np.intp]:
    # Integer arithmetic: floor((i + 1/2) * source / target), free of rounding.
    return (2 * np.arange(target) + 1) * source // (2 * target)


@dataclass(frozen=True)
class Geometry:
    """Where a picture of ``source`` size lies in the model's input of ``target`` size; all in (height, width) pixels.

    The picture fills ``inner`` pixels from ``offset`` (top, left); the rest is padding.
    """

    source: Size
    target: Size
    inner: Size
    offset: Size = (0, 0)

    def to_target(self, labels: npt.NDArray[Any], *, fill: int) -> npt.NDArray[Any]:
        """(H, W) at ``source`` → (h, w) at ``target``, nearest neighbour; padding gets ``fill``."""
        if labels.shape[:2] != self.source:
            raise ContractError(f"expected an array of {self.source} px, got {labels.shape[:2]}")
        inner = resize_nearest(labels, self.inner)
        if self.inner == self.target:
            return inner
        padded = np.full(self.target, fill, dtype=labels.dtype)
        padded[self._window()] = inner
        return padded

    def to_source(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(h, w) at ``target`` → (H, W) at ``source``, nearest neighbour; padding is cut away."""
        if array.shape[:2] != self.target:
            raise ContractError(f"expected an array of {self.target} px, got {array.shape[:2]}")
        return resize_nearest(array[self._window()], self.source)

    def points_to_source(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(N, 2) points (x, y) in target pixels → the same points in source pixels."""
        scale = np.array([self.source[1] / self.inner[1], self.source[0] / self.inner[0]], dtype=np.float64)
        moved = np.asarray(points, dtype=np.float64) - np.array([self.offset[1], self.offset[0]], dtype=np.float64)
        return moved * scale

    def points_to_target(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The inverse of :meth:`points_to_source`."""
        scale = np.array([self.inner[1] / self.source[1], self.inner[0] / self.source[0]], dtype=np.float64)
        scaled = np.asarray(points, dtype=np.float64) * scale
        return scaled + np.array([self.offset[1], self.offset[0]], dtype=np.float64)

    def _window(self) -> tuple[slice, slice]:
        (top, left), (height, width) = self.offset, self.inner
        return slice(top, top + height), slice(left, left + width)


def letterbox(image: Pixels, size: Size, *, pad: int = 0) -> tuple[Pixels, Geometry]:
    """Scale (H, W, C) to fit into ``size`` with its proportions kept, centred, the rest filled with ``pad``."""
    source = (image.shape[0], image.shape[1])
    scale = min(size[0] / source[0], size[1] / source[1])
    inner = (max(1, min(size[0], round(source[0] * scale))), max(1, min(size[1], round(source[1] * scale))))
    offset = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
    geometry = Geometry(source, size, inner, offset)
    scaled = resize(image, inner)
    if inner == size:
        return scaled, geometry
    boxed = np.full((*size, image.shape[2]), pad, dtype=image.dtype)
    boxed[geometry._window()] = scaled
    return boxed, geometry


@dataclass(frozen=True)
class ImageSpec:
    """What one input of a model takes: raw pixels (height, width, channels) of ``dtype``, fitted by ``fit``.

    ``stretch`` changes proportions, ``letterbox`` keeps them and pads with the value ``pad``.
    """

    height: int
    width: int
    channels: int = 3
    dtype: Literal["uint8", "uint16"] = "uint8"
    fit: Literal["stretch", "letterbox"] = "stretch"
    pad: int = 0

    def __post_init__(self) -> None:
        for key in ("height", "width", "channels", "pad"):
            if type(getattr(self, key)) is not int:
                raise ContractError(f"an input's {key} must be an integer, is {getattr(self, key)!r}")
        if min(self.height, self.width, self.channels) < 1:
            raise ContractError(f"an input needs a positive size, got {self.height}x{self.width}x{self.channels}")
        if self.height * self.width > MAX_PIXELS:
            raise ContractError(f"an input of {self.height}x{self.width} px, limit {MAX_PIXELS}")
        if self.dtype not in ("uint8", "uint16"):
            raise ContractError(f"an input's dtype is uint8 or uint16, not {self.dtype}")
        if self.fit not in ("stretch", "letterbox"):
            raise ContractError(f"an input's fit is stretch or letterbox, not {self.fit}")
        if not 0 <= self.pad <= np.iinfo(self.dtype).max:
            raise ContractError(f"pad {self.pad} does not fit {self.dtype}")

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels

    @property
    def carriers(self) -> tuple[str, ...]:
        """The dtypes in which a model's file may take these pixels: their own, and for uint16, which TensorRT has not,
        float32, which holds every uint16 exactly."""
        return (self.dtype,) if self.dtype == "uint8" else (self.dtype, "float32")

    def apply(self, image: Pixels, *, name: str = "frame") -> tuple[Pixels, Geometry]:
        """Raw pixels (H, W, C) → what the model takes, and where the picture lies in it.

        Raises:
            ContractError: not an array of (H, W, C) with this dtype. Bit depths are never converted in silence.
        """
        if image.ndim != 3 or 0 in image.shape:
            raise ContractError(f"{name}: expected pixels of shape (H, W, C), got {image.shape}")
        if image.dtype != self.dtype:
            raise ContractError(
                f"{name}: has {image.dtype} pixels, the model takes {self.dtype}",
                remedy=f'set dtype = "{image.dtype}" under [data.inputs] and train again, or convert the pictures',
            )
        image = as_channels(image, self.channels)
        if self.fit == "letterbox":
            return letterbox(image, self.size, pad=self.pad)
        source = (image.shape[0], image.shape[1])
        return resize(image, self.size), Geometry(source, self.size, self.size)
