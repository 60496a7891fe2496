"""The headline metrics: the few numbers that answer whether one experiment is better than another.

Stages write those in `SHOWN` to the metrics files that DVC's tables show, all others to metrics/details/.
"""

from collections.abc import Mapping
from typing import Any

HEADLINE = {
    "val/accuracy": ("validation accuracy", "{:.2%}"),
    "val/loss": ("validation loss", "{:.4f}"),
    "test/accuracy": ("test accuracy", "{:.2%}"),
    "test/accuracy_tta": ("test accuracy, test-time augmentation", "{:.2%}"),
    "test/loss": ("test loss", "{:.4f}"),
    "test/calibration_error": ("expected calibration error", "{:.4f}"),
    "test/corruption_accuracy": ("accuracy on corrupted images", "{:.2%}"),
    "test/shift_consistency": ("predictions unchanged by shifts", "{:.2%}"),
    "model/parameters": ("parameters", "{:,}"),
    "model/macs": ("multiply-accumulates per image", "{:,}"),
    "train/seconds": ("training", "{:,.1f} s"),
    "train/images_per_second": ("training throughput", "{:,.0f} images/s"),
    "export/onnx_bytes": ("ONNX file", "{:,} bytes"),
    "export/latency_ms": ("ONNX latency, one image", "{:.2f} ms"),
}
"""Name -> label and format of its value, in the order in which they are read."""

SHOWN = ("val/accuracy", "val/loss", "test/accuracy", "model/parameters", "model/macs", "train/seconds")
"""Metrics in the tables of `dvc exp show` and `dvc metrics`: those that fit beside two parameters in 160 columns."""

SMALLER_IS_BETTER = (
    "loss",
    "error",
    "seconds",
    "latency",
    "bytes",
    "parameters",
    "macs",
    "memory",
    "difference",
    "dead",
    "saturated",
    "suspicious",
)
"""Words in names of metrics whose smaller values are better."""


def split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics that DVC's tables show, and all others."""
    shown = {key: values[key] for key in SHOWN if key in values}
    return shown, {key: value for key, value in values.items() if key not in SHOWN}


def signed(metric: str, difference: float) -> str:
    """Return the difference of two values of a headline metric with its sign, in the metric's format."""
    _, form = HEADLINE[metric]
    return form.replace("{:", "{:+").format(difference)


def smaller_is_better(metric: str) -> bool:
    """Return whether smaller values of a metric are better."""
    return any(word in metric for word in SMALLER_IS_BETTER)
