"""Axes as the pictures of several benchmarks have them."""

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator


def plain_ticks(axis: Axis) -> None:
    """Mark a logarithmic axis at 1, 2, 5, 10 ... and write these as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
