"""Image files of any kind, size and mode as a network takes them: found in folders, decoded, cropped, resized."""

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
"""Stands for one image on standard input."""

Pixels = npt.NDArray[np.uint8]
Filter = Literal["lanczos", "bicubic", "bilinear", "box", "nearest"]

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
"""What is opened. Others that Pillow knows are no pictures, can't be told from any bytes, or start a program (EPS)."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name for images of so many channels."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets an image of each EXIF orientation upright."""

DRAFT_FILTERS, DRAFT_SIDE = ("lanczos", "bicubic", "bilinear"), 4
"""Large JPEGs are decoded at 1/2, 1/4 or 1/8 of their size, several times as fast, while DRAFT_SIDE times the wanted
side is left: with these filters, photographs then come out half a level of 255 away, on average. The other filters
count single pixels, so they get them all."""


@dataclass(frozen=True)
class Picture:
    """An image as the network takes it: its name and pixels (side, side, channels)."""

    name: str
    pixels: Pixels


@dataclass(frozen=True)
class Unreadable:
    """An image or folder that gives nothing: its name and why, in words."""

    name: str
    reason: str


def find(arguments: Iterable[str]) -> Iterator[str | Unreadable]:
    """Yield the names of image files, in the order given; folders are searched, each in the order of its names.

    In folders, regular files count whose suffix is that of a format in FORMATS. What begins with a dot is passed
    over, and links to folders are not followed.

    Args:
        arguments: files, which need no suffix, folders, or STDIN.

    Yields:
        Names of files, or what is wrong with a folder: it cannot be read or has no image in it.
    """
    for argument in arguments:
        if argument == STDIN or not os.path.isdir(argument):  # noqa: PTH112  # Path.is_dir raises on barred ways
            yield argument
            continue
        empty = True
        for item in _search(argument, _suffixes()):
            empty = False
            yield item
        if empty:
            yield Unreadable(argument, f"a folder without images ({' '.join(sorted(_suffixes()))})")


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
        # A broken link is worth a message; opening a pipe would wait for ever.
        elif os.path.splitext(entry.name)[1].lower() in suffixes and (entry.is_file() or entry.is_symlink()):  # noqa: PTH122
            yield entry.path


def read(name: str, side: int, channels: int, *, resample: Filter, stretch: bool) -> Picture | Unreadable:
    """Read one image file as a square of so many pixels.

    It is set upright by its EXIF orientation, laid over white where it is transparent, cropped to its central square
    and resized; one of the wanted size and kind keeps its bytes. Of an animation the first frame counts, of 16-bit
    grey levels all 16 bits. Colour profiles are not applied.

    Args:
        name: of a file, or STDIN.
        side: height and width wanted.
        channels: wanted, 1 for grey or 3 for RGB.
        resample: filter for resizing.
        stretch: the whole image, its proportions changed, in place of the central square.

    Returns:
        Its pixels (side, side, channels) uint8, or why there are none: no such file, no permission, not an image,
        truncated, or so many pixels that Pillow takes it for an attack.
    """
    try:
        with Image.open(io.BytesIO(sys.stdin.buffer.read()) if name == STDIN else name, formats=FORMATS) as image:
            pixels = _square(image, side, MODES[channels], resample, stretch=stretch)
    except Exception as error:  # a damaged file can make a decoder raise anything
        return Unreadable(name, _reason(error))
    return Picture(name, np.asarray(pixels).reshape(side, side, channels))


def _square(image: Image.Image, side: int, mode: str, resample: Filter, *, stretch: bool) -> Image.Image:
    draft = None
    if resample in DRAFT_FILTERS:
        draft = image.draft(image.mode, (DRAFT_SIDE * side, DRAFT_SIDE * side))
    image.load()
    # A draft's last row and column may be there in part only.
    _, _, width, height = draft[1] if draft else (0, 0, *image.size)
    left, top = (0, 0) if stretch else (max(width - height, 0) / 2, max(height - width, 0) / 2)
    # Pillow's filters look beyond a box, so that what is cut off has to be gone before.
    x, y = math.floor(left), math.floor(top)
    cut = _opaque(image, mode).crop((x, y, math.ceil(width - left), math.ceil(height - top)))
    box = (left - x, top - y, width - left - x, height - top - y)
    square = cut.resize((side, side), Image.Resampling[resample.upper()], box)
    # The central square turns into itself, and turning a small image is cheap.
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return square if turn is None else square.transpose(turn)


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in `mode`, "L" or "RGB", over white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _eight_bits(image).convert(mode)
    if image.mode in ("I", "F"):
        raise ValueError(f"grey levels of 32 bits (Pillow's mode {image.mode}), of which none is known to be white")
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
        return f"not an image of a kind that can be read ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
