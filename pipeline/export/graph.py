"""The network as an ONNX graph that takes what users have, and the check that it is the same network."""

import logging
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from pipeline.errors import ExportError

INPUT, OUTPUT = "images", "probabilities"
OPSET = 20


class Served(nn.Module):
    """The exported graph: (N, 32, 32, 3) uint8 RGB images to (N, classes) float32 probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.permute(0, 3, 1, 2))
        return logits.softmax(1)


def to_onnx(model: nn.Module, classes: tuple[str, ...], side: int, metadata: Mapping[str, str]) -> bytes:
    """Return the network as a checked, serialised ONNX model with dynamic batch size.

    Args:
        model: on the CPU; its normalisation becomes part of the graph.
        metadata: further key-value pairs for the model's metadata, beside the class names ("classes", with commas).

    Raises:
        ExportError: the network takes batches of one size only.
    """
    served = Served(model).eval()
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own internals; the parity check judges the result
        program = torch.onnx.export(
            served,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0]
    if not batch.dim_param:
        raise ExportError(
            f"the exported graph takes batches of {batch.dim_value} images only, expected any number; "
            "in the network's forward(), use images.shape[0] in place of len(images)"
        )
    _forget_where_it_was_made(graph)
    for key, value in {"classes": ",".join(classes), **metadata}.items():
        graph.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(graph, full_check=True)
    serialised: bytes = graph.SerializeToString(deterministic=True)
    return serialised


def session(graph: bytes) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session on the CPU for a serialised graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def check_parity(
    model: nn.Module, graph: bytes, images: npt.NDArray[np.uint8], *, tolerance: float
) -> dict[str, float | int]:
    """Compare ONNX Runtime with PyTorch, both in float32 on the CPU.

    Args:
        images: (N, 32, 32, 3) uint8, real ones.
        tolerance: largest difference allowed in any probability. Where both largest probabilities of an image lie
            closer together than that, either class counts as the same prediction.

    Returns:
        The number of images and the largest difference found.

    Raises:
        ExportError: a larger difference or another predicted class.
    """
    expected = Served(model).eval()(torch.from_numpy(images)).numpy()
    (found,) = session(graph).run([OUTPUT], {INPUT: images})
    difference = np.abs(expected - found).max(1)
    worst = int(difference.argmax())
    if not difference[worst] <= tolerance:  # also catches NaN
        raise ExportError(
            f"ONNX Runtime and PyTorch differ by {difference[worst]:.3g} in a probability of test image {worst}, "
            f"expected at most export.tolerance {tolerance:g}; nothing was written"
        )
    ordered = np.sort(expected, axis=1)
    tie = ordered[:, -1] - ordered[:, -2] <= tolerance
    changed = np.flatnonzero((expected.argmax(1) != found.argmax(1)) & ~tie)
    if len(changed):
        raise ExportError(
            f"ONNX Runtime and PyTorch predict different classes for {len(changed)} of {len(images)} test images, "
            f"the first at {changed[0]}; nothing was written"
        )
    return {"export/parity_images": len(images), "export/parity_difference": float(difference[worst])}


def latency(graph: bytes, images: npt.NDArray[np.uint8], *, seconds: float = 0.3) -> float:
    """Return the median time in milliseconds that ONNX Runtime takes for one call with these images on the CPU."""
    run: Callable[..., Any] = session(graph).run
    times: list[float] = []
    run([OUTPUT], {INPUT: images})  # the first call plans its memory
    deadline = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < deadline:
        started = time.perf_counter()
        run([OUTPUT], {INPUT: images})
        times.append(time.perf_counter() - started)
    return float(np.median(times) * 1e3)


def _forget_where_it_was_made(graph: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces and paths, so that the same network gives the same bytes anywhere."""
    for function in graph.functions:
        del function.metadata_props[:]
    for item in (
        *graph.graph.node,
        *graph.graph.input,
        *graph.graph.output,
        *graph.graph.value_info,
        *graph.graph.initializer,
    ):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.graph.metadata_props[:]
    del graph.metadata_props[:]
    graph.doc_string = graph.graph.doc_string = ""
