"""Lossy JPEG compression and decompression of whole batches on any device; the lossless coding is left out.

After the baseline process of ITU-T T.81 (1992) and the choices of libjpeg, which Pillow uses: YCbCr as in JFIF,
chroma at half the resolution (4:2:0) and interpolated linearly when decoded, the tables of T.81's annex K scaled by a
quality. The lossless coding of the coefficients changes no pixel.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation steps of the brightness (table K.1), row and column by vertical and horizontal frequency."""

CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)
"""Quantisation steps of the colours (table K.2)."""

TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
"""Rows: red, green, blue from brightness and the two colour differences, which are centred at 0."""


def compress(images: Tensor, quality: int) -> Tensor:
    """Return images as they come back from a JPEG file.

    Args:
        images: (N, 3, H, W) uint8 RGB; H and W are multiples of 16.
        quality: 1..100, on the scale of libjpeg and Pillow.

    Returns:
        (N, 3, H, W) uint8, within rounding what Pillow reads from the file that it writes at this quality.
    """
    assert images.shape[2] % (2 * BLOCK) == 0
    assert images.shape[3] % (2 * BLOCK) == 0
    ycbcr = _mixed(images.float(), TO_YCBCR).round()  # the colours around 0, so that only brightness is moved there
    brightness, colours = ycbcr[:, :1] - 128, _halved(ycbcr[:, 1:])
    brightness = _quantised(brightness, LUMINANCE, quality).clamp(-128, 127) + 128
    colours = _doubled(_quantised(colours, CHROMINANCE, quality).clamp(-128, 127))
    return _mixed(torch.cat([brightness, colours], 1), TO_RGB).round().clamp(0, 255).to(torch.uint8)


def steps(table: tuple[tuple[int, ...], ...], quality: int) -> list[list[int]]:
    """Return a quantisation table scaled to a quality as libjpeg does: each step 1..255."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [[min(max((step * scale + 50) // 100, 1), 255) for step in row] for row in table]


def _halved(planes: Tensor) -> Tensor:
    """Return means of 2 x 2 whole numbers; libjpeg rounds halves down in even columns and up in odd ones."""
    sums = 4 * F.avg_pool2d(planes, 2)
    return ((sums + _alternating(1, 2, sums)) / 4).floor()


def _doubled(planes: Tensor) -> Tensor:
    """Return whole numbers interpolated to twice the height and width; libjpeg rounds halves up and down in turn."""
    sixteenths = 16 * F.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)
    return ((sixteenths + _alternating(8, 7, sixteenths)) / 16).floor()


def _alternating(even: float, odd: float, planes: Tensor) -> Tensor:
    """Return one number for the even columns of planes and another for the odd ones: (W,)."""
    return torch.tensor([even, odd], device=planes.device).repeat(planes.shape[3] // 2)


def _quantised(planes: Tensor, table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """Round the coefficients of each block of (N, C, H, W) planes to multiples of the table's steps."""
    count, channels, height, width = planes.shape
    basis = _cosines().to(planes.device)
    step = torch.tensor(steps(table, quality), dtype=torch.float32, device=planes.device)
    blocks = planes.reshape(count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    # As in libjpeg: coefficients are whole eighths, and halves of a step go away from 0. Both matter: the mean of a
    # block is often half a step, and so are many coefficients of what was a JPEG file before.
    eighths = (8 * (basis @ blocks @ basis.T)).round()
    levels = eighths.sign() * ((eighths.abs() + 4 * step) / (8 * step)).floor()
    values = (basis.T @ (levels * step) @ basis).transpose(3, 4).reshape(planes.shape)
    return (
        values + 0.501
    ).floor()  # halves, frequent in even areas, go up, also where float32 has them slightly lower


def _cosines() -> Tensor:
    """Return the (8, 8) orthonormal discrete cosine transform: row k holds the cosine of frequency k."""
    rows = [
        [math.sqrt((2 if k else 1) / BLOCK) * math.cos(math.pi * k * (2 * i + 1) / (2 * BLOCK)) for i in range(BLOCK)]
        for k in range(BLOCK)
    ]
    return torch.tensor(rows)


def _mixed(planes: Tensor, weights: tuple[tuple[float, ...], ...]) -> Tensor:
    """Return (N, 3, H, W) planes of which each is a weighted sum of the given three."""
    return torch.einsum("kc,nchw->nkhw", torch.tensor(weights, device=planes.device), planes)
