"""The convolution operation, position by position, and the classic edge filters."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.uint8 | np.float32 | np.float64]

_EDGE_FILTERS = {
    "Sobel vertical": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "Sobel horizontal": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "Sobel rising": ((-2, -1, 0), (-1, 0, 1), (0, 1, 2)),
    "Sobel falling": ((0, 1, 2), (-1, 0, 1), (-2, -1, 0)),
    "Prewitt vertical": ((-1, 0, 1), (-1, 0, 1), (-1, 0, 1)),
    "Prewitt horizontal": ((-1, -1, -1), (0, 0, 0), (1, 1, 1)),
    "Prewitt rising": ((-1, -1, 0), (-1, 0, 1), (0, 1, 1)),
    "Prewitt falling": ((0, 1, 1), (-1, 0, 1), (-1, -1, 0)),
}
EDGE_FILTERS: dict[str, Array] = {name: np.array(rows, np.float32) for name, rows in _EDGE_FILTERS.items()}
"""(3, 3) filters by Sobel & Feldman (1968) and Prewitt (1970), named by the edges that they answer to.

A rising edge runs like /, a falling one like \\. The answer is positive where it gets brighter to the right of an
edge, or below a horizontal one.
"""


@dataclass(frozen=True)
class Walk:
    """A filter's products and sums at each position of a section of an image, row by row.

    Attributes:
        section: (H, W) float32, what the filter slides over.
        kernel: (k, k) float32, the filter.
        patches: (P, k, k) float32, what lies under the filter at each of P = (H - k + 1) * (W - k + 1) positions.
        products: (P, k, k) float32, patch times filter, pixel by pixel.
        sums: (H - k + 1, W - k + 1) float32, the feature map: the sum of the products at each position.
    """

    section: Array
    kernel: Array
    patches: Array
    products: Array
    sums: Array

    def place(self, step: int) -> tuple[int, int]:
        """Return row and column of the filter's upper left pixel at a step, counted from 0; also of its sum."""
        row, column = divmod(step, self.sums.shape[1])
        return row, column


def grey(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the luminance (ITU-R 601) of an (H, W, 3) uint8 image as (H, W) uint8."""
    return np.asarray(Image.fromarray(image).convert("L"))


def convolve(image: Numbers, kernels: Numbers) -> Array:
    """Apply filters to an image without padding.

    As everywhere in deep learning, filters are not flipped: mathematically, this is a cross-correlation.

    Args:
        image: (H, W) grey levels or (H, W, C) channels last.
        kernels: (F, k, k), or (F, C, k, k) for an image with channels.

    Returns:
        (F, H - k + 1, W - k + 1) float32.
    """
    channels = image.reshape(*image.shape[:2], -1).astype(np.float32).transpose(2, 0, 1)
    weights = kernels.astype(np.float32).reshape(len(kernels), len(channels), *kernels.shape[-2:])
    result: Array = F.conv2d(torch.from_numpy(channels)[None], torch.from_numpy(weights))[0].numpy()
    return result


def walk(section: Numbers, kernel: Array) -> Walk:
    """Apply a (k, k) filter to an (H, W) section of an image and keep each step."""
    pixels = section.astype(np.float32)
    side = len(kernel)
    patches = F.unfold(torch.from_numpy(pixels)[None, None], side)[0].T.reshape(-1, side, side).numpy()
    return Walk(pixels, kernel, patches, patches * kernel, convolve(pixels, kernel[None])[0])


def liveliest(image: Numbers, kernel: Array, side: int) -> Numbers:
    """Return the (side, side) section of an (H, W) image with the highest variance of a filter's outputs, to show it.

    The variance is over the positions of the filter inside the section; the first of equals is taken.
    """
    answers = torch.from_numpy(convolve(image, kernel[None])).double()
    window = side - len(kernel) + 1
    mean, square = (F.avg_pool2d(values, window, stride=1)[0] for values in (answers, answers**2))
    variance = square - mean**2
    row, column = divmod(int(variance.argmax()), variance.shape[1])
    return image[row : row + side, column : column + side]
