"""Outlines of the generated dataset's ten classes and of its clutter, as stencils that are scaled and turned.

Outlines are polygons of integer coordinates: a stencil is the same on every machine.
"""

import math
from functools import cache
from typing import Final, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Levels: TypeAlias = NDArray[np.int16]
Polygon: TypeAlias = list[tuple[int, int]]

TEXELS: Final = 128  # side of a stencil
OPAQUE: Final = 128  # full cover; a difference of two bytes times this still fits int16


def rounded(value: float) -> int:
    """Round to an integer, independent of the last bit of a maths library's sine."""
    return math.floor(value + 0.5 + 1e-6)


def _regular(corners: int, *radii: int, x: int = 0, y: int = 0) -> Polygon:
    """A polygon about (x, y), first corner upwards; with several radii the corners take them in turn."""
    angles = [2 * math.pi * i / corners for i in range(corners)]
    spokes = [(radii[i % len(radii)], angle) for i, angle in enumerate(angles)]
    return [(x + rounded(r * math.sin(a)), y - rounded(r * math.cos(a))) for r, a in spokes]


def _box(half_width: int, half_height: int, y: int = 0) -> Polygon:
    w, h = half_width, half_height
    return [(-w, y - h), (w, y - h), (w, y + h), (-w, y + h)]


def _heart() -> Polygon:
    def point(t: float) -> tuple[int, int]:
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        return rounded(62 * 16 * math.sin(t) ** 3), -rounded(62 * y + 120)

    return [point(2 * math.pi * i / 64) for i in range(64)]


_CROSS: Final[Polygon] = [
    *((-280, -1000), (280, -1000), (280, -280), (1000, -280), (1000, 280), (280, 280)),
    *((280, 1000), (-280, 1000), (-280, 280), (-1000, 280), (-1000, -280), (-280, -280)),
]
_ARROW: Final[Polygon] = [
    *((0, -1060), (760, -160), (260, -160), (260, 1000), (-260, 1000), (-260, -160), (-760, -160)),
]
# Outline and hole of each class, in thousandths of an object's radius, y downwards; labels follow this order.
OBJECTS: Final[dict[str, tuple[Polygon, Polygon]]] = {
    "disc": (_regular(64, 920), []),
    "ring": (_regular(64, 980), _regular(64, 540)),
    "square": (_box(780, 780), []),
    "frame": (_box(840, 840), _box(440, 440)),
    "triangle": (_regular(3, 1160, y=160), []),
    "star": (_regular(10, 1140, 480), []),
    "cross": (_CROSS, []),
    "crescent": (_regular(64, 1000, y=160), _regular(64, 800, y=-320)),
    "heart": (_heart(), []),
    "arrow": (_ARROW, []),
}

# Clutter: dot, stroke, half disc, arc, wedge; similar to parts of outlines, so that no detail predicts the class.
PIECES: Final[list[tuple[Polygon, Polygon]]] = [
    (_regular(64, 500), []),
    (_box(180, 1000), []),
    (_regular(64, 900, y=300), _box(1200, 900, y=1200)),
    (_regular(64, 1000, y=400), _regular(64, 1000, y=800)),
    ([(0, -800), (700, 800), (0, 300), (-700, 800)], []),
]


def _inside(polygon: Polygon) -> NDArray[np.bool_]:
    """Return which texel centres lie in the polygon, (128, 128), by the even-odd rule."""
    centres = (2 * np.arange(TEXELS, dtype=np.int64) - (TEXELS - 1)) * 10
    x, y = centres[None, :], centres[:, None]
    inside = np.zeros((TEXELS, TEXELS), np.bool_)
    for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        left_of = (x - x0) * (y1 - y0) < (y - y0) * (x1 - x0)
        inside ^= ((y0 > y) != (y1 > y)) & (left_of == (y1 > y0))
    return inside


def _stencil(shape: tuple[Polygon, Polygon], pixel: int) -> Levels:
    """Cover 0..128 of each texel, (128, 128), averaged over an image pixel of `pixel` (odd) texels."""
    outline, hole = shape
    cover = np.pad((_inside(outline) & ~_inside(hole)).astype(np.int64), pixel // 2)
    windows = sliding_window_view(cover, (pixel, pixel))  # averaging here antialiases the edges
    smooth: Levels = (windows.sum(axis=(2, 3)) * OPAQUE // pixel**2).astype(np.int16)
    return smooth


@cache
def stencils() -> Levels:
    """Stencils of the ten classes, then of the pieces of clutter, (15, 128, 128)."""
    objects = [_stencil(shape, pixel=5) for shape in OBJECTS.values()]
    return np.stack(objects + [_stencil(piece, pixel=13) for piece in PIECES])
