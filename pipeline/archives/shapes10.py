"""A generated ten-class dataset of 32x32 colour images, written as an archive laid out like CIFAR-10's.

The outline of one object defines the class. Colour, position, size, rotation, stretch, background, clutter and
noise are independent of it, so that neither single pixels nor the mean colour predict the class. Each outline is
symmetric: a horizontal flip does not change the class.

The bytes are the same on every machine and with every numpy version: random numbers are a bit generator's raw
words (guaranteed by NEP 19, unlike Generator's distributions), pixels are computed in integer arithmetic, and the
gzip container holds stored blocks, whose bytes do not depend on a compressor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.archives.cifar10 import CLASS_NAMES, FOLDER, RECORD_BYTES, TEST_BATCH, TRAIN_BATCHES
from pipeline.archives.stencils import OBJECTS, OPAQUE, PIECES, TEXELS, Levels, rounded, stencils
from pipeline.archives.stored_tar import StoredTarGz
from pipeline.config.section import IMAGE_SIDE

Ints: TypeAlias = NDArray[np.int32]
Bytes: TypeAlias = NDArray[np.uint8]
Words: TypeAlias = NDArray[np.uint64]

CLASSES: Final = tuple(OBJECTS)

TEST_STREAM: Final = 0  # training batches 1 to 5 are streams 1 to 5

_CHUNK: Final = 128  # images drawn at once: the working arrays fit a core's cache
_SCENE_WORDS: Final = 112  # 64-bit random words of one image without its noise
_NOISE_WORDS: Final = 4 * 3 * IMAGE_SIDE * IMAGE_SIDE // 8  # four bytes per value of an image
_TURN: Final = 1024  # directions in a full turn
_ONE: Final = 1 << 14  # 1.0 in the fixed-point numbers of cosines and texel coordinates
_RADIUS_TEXELS: Final = 50  # an object's radius in its stencil, at 20 units a texel
_COSINES: Final = np.array([rounded(_ONE * math.cos(2 * math.pi * i / _TURN)) for i in range(_TURN)], np.int32)


class _Draws:
    """Iterator over the columns of the random words of a chunk of images."""

    def __init__(self, words: Words) -> None:
        self._words = words >> np.uint64(32)
        self._used = 0

    def between(self, low: int, high: int, columns: int = 1) -> Ints:
        """Integers in [low, high], (n, columns); the bias of the multiply-and-shift is below 2^-20."""
        words = self._words[:, self._used : self._used + columns]
        assert words.shape[1] == columns, "raise _SCENE_WORDS"
        self._used += columns
        return (words * np.uint64(high - low + 1) >> np.uint64(32)).astype(np.int32) + np.int32(low)


def _noise(words: Words, noise: float) -> Levels:
    """Bell-shaped noise (n, 3, 32, 32) of standard deviation `noise`: sums of four random bytes."""
    values = words.astype("<u8").view(np.uint8).reshape(len(words), 4, 3, IMAGE_SIDE, IMAGE_SIDE)
    total = values[:, 0].astype(np.int32) + values[:, 1] + values[:, 2] + values[:, 3] - 510
    scale = round(noise * 65536 / math.sqrt(4 * (256**2 - 1) / 12))
    return ((total * np.int32(scale) + 32768) >> 16).astype(np.int16)


def _coordinate(x_step: Ints, y_step: Ints, start: Ints) -> Ints:
    """A coordinate rising by x_step a column and y_step a row, all (n, 1) -> (n, 32, 32)."""
    pixels = np.arange(IMAGE_SIDE, dtype=np.int32)
    rows: Ints = start + y_step * pixels
    columns: Ints = x_step * pixels
    return np.add(rows[:, :, None], columns[:, None, :])


def _direction(draws: _Draws) -> tuple[Ints, Ints]:
    """Cosine and sine of a random angle, (n, 1) each, in units of 1 / _ONE."""
    angle = draws.between(0, _TURN - 1)
    # A negative index counts from the end of the table, as a negative angle does from a full turn.
    return _COSINES[angle], _COSINES[angle - _TURN // 4]


def _paint(canvas: Levels, cover: Levels, colour: Levels) -> None:
    """Blend `colour` (n, 3) into `canvas` (n, 3, 32, 32) in place, by `cover` (n, 32, 32) in 0..128."""
    canvas += ((colour[:, :, None, None] - canvas) * cover[:, None]) >> 7


def _cover(draws: _Draws, stencil: Ints, radius: Ints, reach: Ints, stretch: int) -> Levels:
    """Cover 0..128 of each pixel, (n, 32, 32), by stencils at a random position and angle.

    `stencil` (n,) are indices; `radius` and `reach` (n, 1), in 1/16 pixel, are the size and the largest
    distance of the centre from the image's; one axis is shrunk to between `stretch` and 128 128ths of the other.
    """
    cos, sin = _direction(draws)
    x, y = (IMAGE_SIDE * 8 - 8 - reach + (draws.between(0, 1 << 12) * (2 * reach) >> 12) for _ in "xy")
    narrow = radius * draws.between(stretch, 128) >> 7
    texels = []
    for size, x_part, y_part in ((radius, cos, sin), (narrow, -sin, cos)):
        x_step, y_step = (part * (16 * _RADIUS_TEXELS) // size for part in (x_part, y_part))
        start = _ONE * TEXELS // 2 - (x_step * x + y_step * y >> 4)
        texels.append(np.clip(_coordinate(x_step, y_step, start) >> 14, 0, TEXELS - 1))
    across, down = texels
    texel: Ints = (stencil[:, None, None] * TEXELS + down) * TEXELS + across
    return stencils().take(texel)


def _colour(draws: _Draws, luma: Ints, tint: int) -> Levels:
    """A colour (n, 3) of about the given luma (n, 1), its channels up to `tint` grey levels off."""
    offsets = draws.between(-tint, tint, columns=3)
    offsets -= (offsets @ np.array([[2], [5], [1]], np.int32)) >> 3
    colour: Levels = np.clip(luma + offsets, 0, 255).astype(np.int16)
    return colour


def _contrasting(draws: _Draws, luma: Ints, low: int, high: int) -> Ints:
    """A luma (n, 1) in 10..245, `low` to `high` above or below `luma`, at random where both fit."""
    step = draws.between(low, high) * (2 * draws.between(0, 1) - 1)
    return np.where((luma + step < 10) | (luma + step > 245), luma - step, luma + step)


def _texture(draws: _Draws) -> Levels:
    """Share 0..128 of a background's second colour, (n, 32, 32): gradient, stripes, checker or blotches."""
    kind = draws.between(0, 3)[:, :, None]
    period = np.where(kind[:, 0] == 0, draws.between(64, 96), draws.between(6, 18))  # pixels
    cos, sin = _direction(draws)
    phases = (_coordinate(x // period, y // period, draws.between(0, _ONE - 1)) for x, y in ((cos, sin), (-sin, cos)))
    stripes, across = (np.abs((phase & (_ONE - 1)) - _ONE // 2) >> 6 for phase in phases)  # triangle waves
    checker = np.clip(64 + ((stripes - 64) * (across - 64) >> 3), 0, OPAQUE)
    grid = draws.between(0, OPAQUE, columns=25).reshape(-1, 5, 5)
    nodes = np.arange(IMAGE_SIDE, dtype=np.int32)[:, None] - 8 * np.arange(5, dtype=np.int32)
    ramps = np.maximum(8 - np.abs(nodes), 0)  # (32, 5): bilinear weights of grid nodes eight pixels apart
    blotches = ramps @ grid @ ramps.T >> 6
    share: Ints = np.where(kind < 2, stripes, np.where(kind == 2, checker, blotches))
    return share.astype(np.int16)


def _clutter(draws: _Draws, canvas: Levels, luma: Ints, smallest: int, largest: int) -> None:
    """Paint a piece of `smallest` to `largest` 1/16 pixels in radius on seven of eight images."""
    piece = draws.between(len(CLASSES), len(CLASSES) + len(PIECES) - 1)[:, 0]
    cover = _cover(draws, piece, draws.between(smallest, largest), np.full_like(luma, IMAGE_SIDE * 8), stretch=72)
    cover *= draws.between(0, 7)[:, :, None] > 0
    _paint(canvas, cover, _colour(draws, _contrasting(draws, luma, 25, 110), tint=60))


def _images(labels: Ints, words: Words, noise: float) -> Bytes:
    """Draw an image for each label (n,) from words (n, _SCENE_WORDS + _NOISE_WORDS) -> (n, 3, 32, 32)."""
    draws = _Draws(words[:, :_SCENE_WORDS])
    luma = draws.between(40, 215)
    depth = draws.between(-25, 25)
    first, second = _colour(draws, luma - depth, tint=40), _colour(draws, luma + depth, tint=40)
    canvas = np.repeat(first, IMAGE_SIDE * IMAGE_SIDE, axis=1).reshape(-1, 3, IMAGE_SIDE, IMAGE_SIDE)
    _paint(canvas, _texture(draws), second)
    for _ in range(3):
        _clutter(draws, canvas, luma, 36, 88)
    radius = draws.between(92, 192)
    reach = np.subtract(17 * 16, radius)  # limits how much the edge of the image cuts off
    cover = _cover(draws, labels, radius, reach, stretch=92)
    _paint(canvas, cover, _colour(draws, _contrasting(draws, luma, 50, 105), tint=60))
    for _ in range(2):  # these may cover part of the object, which is never smaller
        _clutter(draws, canvas, luma, 30, 64)
    canvas += _noise(words[:, _SCENE_WORDS:], noise)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _chunks(images: int, seed: int, noise: float, stream: int, first: int) -> Iterator[Bytes]:
    """Yield the records of `generate` in arrays of at most _CHUNK, in bounded memory."""
    limit = 1 << 64
    if images < 0 or not 0 <= noise <= 128 or not 0 <= seed < limit or not 0 <= stream < limit:
        raise ValueError(
            f"expected images >= 0, noise in 0..128, seed and stream in 0..2^64-1; "
            f"got {images=}, {noise=}, {seed=}, {stream=}"
        )
    bits = np.random.Philox(key=seed + (stream << 64))
    order = np.argsort(bits.random_raw(images), kind="stable")
    labels = ((order + first) % len(CLASSES)).astype(np.int32)
    for start in range(0, images, _CHUNK):
        chunk = labels[start : start + _CHUNK]
        words = bits.random_raw(len(chunk) * (_SCENE_WORDS + _NOISE_WORDS)).reshape(len(chunk), -1)
        values = _images(chunk, words, noise).reshape(len(chunk), -1)
        yield np.hstack([chunk[:, None].astype(np.uint8), values])


def generate(images: int, *, seed: int, noise: float, stream: int, first: int = 0) -> Bytes:
    """Draw records of CIFAR-10's binary edition, (images, 3073) uint8: a label, then 32x32 planes R, G and B.

    Classes differ by at most one in number and come in random order. `noise` is the standard deviation of
    the pixel noise in grey levels (0 to 128); the scenes do not depend on it. `seed` and `stream` (0 to
    2^64 - 1) select one of Philox's disjoint random streams. `first` counts the images in earlier batches of
    one set, which is then balanced as a whole.

    Raises ValueError for a value out of range.
    """
    chunks = list(_chunks(images, seed, noise, stream, first))
    return np.concatenate([np.empty((0, RECORD_BYTES), np.uint8), *chunks])


def write_archive(
    path: Path,
    *,
    train_images: int,
    test_images: int,
    noise: float,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write shapes10 to `path` as a .tar.gz laid out like cifar-10-binary.tar.gz, in bounded memory.

    The training images are split over the five batches like np.array_split. Arguments and errors are otherwise
    as for `generate`. `progress` is called with the number of images just written. An interrupted call leaves
    an incomplete file: the caller provides atomicity.
    """
    with path.open("wb") as file:
        archive = StoredTarGz(file)
        names = "".join(f"{name}\n" for name in CLASSES).encode()
        archive.add(f"{FOLDER}/{CLASS_NAMES}", len(names), [names])

        def add_batch(name: str, images: int, stream: int, first: int) -> None:
            chunks = _chunks(images, seed, noise, stream, first)
            archive.add(f"{FOLDER}/{name}", images * RECORD_BYTES, _counted(chunks, progress))

        first = 0
        for stream, name in enumerate(TRAIN_BATCHES, start=1):
            images = train_images // 5 + (stream <= train_images % 5)
            add_batch(name, images, stream, first)
            first += images
        add_batch(TEST_BATCH, test_images, TEST_STREAM, 0)
        archive.close()


def _counted(chunks: Iterator[Bytes], progress: Callable[[int], None] | None) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk.tobytes()
        if progress:
            progress(len(chunk))
