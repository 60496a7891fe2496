"""Find image files and decode, crop and resize them to the input of a network."""

import io
import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

STDIN = "-"
"""Name for one image on standard input."""

Pixels = npt.NDArray[np.uint8]
Filter = Literal["lanczos", "bicubic", "bilinear", "box", "nearest"]

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
"""Formats that are opened. Others of Pillow are not images, cannot be detected reliably, or run a program (EPS)."""

MODES = {1: "L", 3: "RGB"}
"""Number of channels -> Pillow's mode."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that sets the image upright."""

DRAFT_FILTERS, DRAFT_SIDE = ("lanczos", "bicubic", "bilinear"), 4
"""With these filters, large JPEGs are decoded at 1/2, 1/4 or 1/8 of their size, several times as fast, to at least
DRAFT_SIDE times the target side; photographs then differ by half a level of 255 on average. The other filters depend
on single pixels, so they get the full image."""


@dataclass(frozen=True)
class Picture:
    """An image as input of the network: its name and pixels (side, side, channels) uint8."""

    name: str
    pixels: Pixels


@dataclass(frozen=True)
class Unreadable:
    """An image or folder that cannot be read: its name and the reason."""

    name: str
    reason: str


def find(arguments: Iterable[str]) -> Iterator[str | Unreadable]:
    """Yield the names of image files in the order of the arguments; folders are searched in the order of names.

    In folders, regular files with a suffix of a format in FORMATS are found. Names that begin with a dot are skipped,
    and links to folders are not followed.

    Args:
        arguments: files, which need no suffix, folders, or STDIN.

    Yields:
        Names of files, or an `Unreadable` for a folder that cannot be read or has no images.
    """
    for argument in arguments:
        if argument == STDIN or not os.path.isdir(argument):  # noqa: PTH112  # Path.is_dir raises without permission
            yield argument
            continue
        empty = True
        for item in _search(argument, _suffixes()):
            empty = False
            yield item
        if empty:
            yield Unreadable(argument, f"folder without images ({' '.join(sorted(_suffixes()))})")


def _suffixes() -> set[str]:
    return {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}


def _search(folder: str, suffixes: set[str]) -> Iterator[str | Unreadable]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Unreadable(folder, _reason(error))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _search(entry.path, suffixes)
        # A broken link gives an error message; opening a pipe would block.
        elif os.path.splitext(entry.name)[1].lower() in suffixes and (entry.is_file() or entry.is_symlink()):  # noqa: PTH122
            yield entry.path


def read(
    name: str,
    side: int,
    channels: int,
    *,
    resample: Filter = "lanczos",
    stretch: bool = False,
    content: bytes | None = None,
) -> Picture | Unreadable:
    """Read one image file as a square of `side` x `side` pixels.

    The image is rotated by its EXIF orientation, composited over white if it is transparent, cropped to its central
    square and resized; pixels are unchanged if size and mode match. Of an animation the first frame is read, of
    16-bit grey levels all 16 bits. Colour profiles are not applied.

    Args:
        name: a file, or STDIN.
        side: height and width of the result.
        channels: of the result, 1 for grey or 3 for RGB.
        resample: filter for resizing.
        stretch: resize the whole image, changing its proportions, instead of the central square.
        content: of the file, which then need not exist.

    Returns:
        The pixels (side, side, channels) uint8, or the reason why the image cannot be read: no such file, no
        permission, not an image, truncated, or larger than Pillow's limit against decompression bombs.
    """
    try:
        if content is None and name == STDIN:
            content = sys.stdin.buffer.read()
        with Image.open(name if content is None else io.BytesIO(content), formats=FORMATS) as image:
            pixels = _square(image, side, MODES[channels], resample, stretch=stretch)
    except Exception as error:  # a damaged file can make a decoder raise anything
        return Unreadable(name, _reason(error))
    return Picture(name, np.asarray(pixels).reshape(side, side, channels))


def _square(image: Image.Image, side: int, mode: str, resample: Filter, *, stretch: bool) -> Image.Image:
    draft = None
    if resample in DRAFT_FILTERS:
        draft = image.draft(image.mode, (DRAFT_SIDE * side, DRAFT_SIDE * side))
    image.load()
    # A draft's last row and column may be incomplete.
    _, _, width, height = draft[1] if draft else (0, 0, *image.size)
    left, top = (0, 0) if stretch else (max(width - height, 0) / 2, max(height - width, 0) / 2)
    # Pillow's filters read pixels outside of a box, so crop first.
    x, y = math.floor(left), math.floor(top)
    cut = _opaque(image, mode).crop((x, y, math.ceil(width - left), math.ceil(height - top)))
    box = (left - x, top - y, width - left - x, height - top - y)
    square = cut.resize((side, side), Image.Resampling[resample.upper()], box)
    # The central square is invariant, and transposing a small image is cheap.
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return square if turn is None else square.transpose(turn)


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in `mode`, "L" or "RGB", composited over white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _eight_bits(image).convert(mode)
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit grey levels (Pillow's mode {image.mode}) have no defined white level")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey levels of 0..65535 to 0..255, rounding; Pillow's own conversion clips them at 255."""
    levels = np.asarray(image).astype(np.uint32)
    if (transparent := image.info.get("transparency")) is not None:
        levels[levels == transparent] = 65535
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a supported format ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
