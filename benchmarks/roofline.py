"""The least time that a training step can take on a machine: its best rates, and what each layer asks of them.

A roofline (Williams et al. 2009): a layer takes at least as long as its operations at the best rate of products and
convolutions, and at least as long as its bytes at the best rate of copying. Bytes are counted as if every tensor had
to come from memory; where some stay in a cache, a layer can be faster than its floor. Operations of normalisation,
activations and pooling are not counted, only their bytes.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.schema import OptimizerParams
from pipeline.hardware import device
from pipeline.models.common import cost
from pipeline.training import optim

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
SECONDS = 0.5
"""For which each operation is repeated, to find its best time."""
BYTES_PER_WEIGHT = 4


class Peaks(BaseModel):
    """The best rates that were seen on a machine.

    Attributes:
        gflops: 10^9 floating-point operations a second by precision, then by operation; a GPU may round the factors
            of float32 convolutions to TF32, as it does in a training.
        gb_per_s: 10^9 bytes a second of copying, read and written.
    """

    gflops: dict[str, dict[str, float]]
    gb_per_s: float

    def flops(self, precision: str) -> float:
        """Return the operations a second of the fastest operation in a precision."""
        return 1e9 * max(self.gflops[precision].values())


class Floor(BaseModel):
    """A layer's least cost in one training step.

    Attributes:
        name, kind, output, parameters: as in `cost.LayerCost`; the optimiser is listed as a layer, too.
        forward_gflop, backward_gflop: 10^9 floating-point operations for the whole batch.
        gb: 10^9 bytes moved for the whole batch, forward and backward.
        intensity: floating-point operations for each byte.
        seconds: the least time.
        bound: "compute" or "memory", whichever takes longer.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    forward_gflop: float
    backward_gflop: float
    gb: float
    intensity: float
    seconds: float
    bound: str

    @property
    def gflop(self) -> float:
        return self.forward_gflop + self.backward_gflop


class Step(BaseModel):
    """A training step as it is, and as it could be at best.

    Attributes:
        images: of its batch, the mean over an epoch.
        gflop: 10^9 floating-point operations of products and convolutions, forward, backward and update.
        gb: 10^9 bytes moved.
        floor_seconds: the sum of its layers' least times.
        seconds: measured, of each repeat.
        median: of those.
        fraction_of_floor: floor / median; 1 is the best there can be.
        fraction_of_peak: operations a second as a share of the machine's best rate.
    """

    images: float
    gflop: float
    gb: float
    floor_seconds: float
    seconds: list[float]
    median: float
    fraction_of_floor: float
    fraction_of_peak: float


def measure_peaks(place: torch.device) -> Peaks:
    """Time large products, convolutions and copies."""
    side, batch, copied = (8192, 512, 2**29) if place.type != "cpu" else (1024, 16, 2**26)
    channels, pixels = 256, 16 * 16
    gflops = {}
    for name, dtype in PRECISIONS.items():
        matrix = torch.randn(side, side, device=place).to(dtype)
        images = torch.randn(batch, channels, 16, 16, device=place).to(dtype, memory_format=torch.channels_last)
        filters = torch.randn(channels, channels, 3, 3, device=place).to(dtype, memory_format=torch.channels_last)
        product = _best(partial(torch.mm, matrix, matrix), place)
        convolution = _best(partial(F.conv2d, images, filters, padding=1), place)
        gflops[name] = {
            "matmul": 2e-9 * side**3 / product,
            "convolution": 2e-9 * 9 * channels**2 * pixels * batch / convolution,
        }
    source = torch.ones(copied, device=place)
    target = torch.empty_like(source)
    return Peaks(gflops=gflops, gb_per_s=2e-9 * 4 * copied / _best(partial(target.copy_, source), place))


def step_floors(
    model: nn.Module, params: OptimizerParams, *, side: int, batch: float, precision: str, peaks: Peaks
) -> list[Floor]:
    """Return the floors of the layers and of the optimiser, whose sum is the least time of a step.

    Args:
        model: its gradients and, by a step of the optimiser, its weights are changed.
        side: of the images in pixels.
        batch: images of a step; a mean may be a fraction.
    """
    floors = [
        _floor(
            layer.name,
            layer.kind,
            layer.output,
            layer.parameters,
            forward=2 * batch * layer.macs,
            backward=2 * batch * layer.backward_macs,
            moved=batch * (layer.forward_bytes + layer.backward_bytes) + layer.weight_bytes,
            rates=(peaks.flops(precision), 1e9 * peaks.gb_per_s),
        )
        for layer in cost.by_layer(model, side, precision)
    ]
    return [floor for floor in floors if floor.gb] + [_optimizer_floor(model, params, precision, peaks)]


def step_seconds(floors: Sequence[Floor]) -> float:
    """Return the least time of a step: layers run one after the other."""
    return math.fsum(floor.seconds for floor in floors)


def compare(floors: Sequence[Floor], images: float, seconds: Sequence[float], peak: float) -> Step:
    """Set measured times of a step against its floors.

    Args:
        images: of the step.
        seconds: of each repeat.
        peak: the machine's best rate in operations a second.
    """
    median, least = statistics.median(seconds), step_seconds(floors)
    gflop = math.fsum(floor.gflop for floor in floors)
    return Step(
        images=images,
        gflop=gflop,
        gb=math.fsum(floor.gb for floor in floors),
        floor_seconds=least,
        seconds=list(seconds),
        median=median,
        fraction_of_floor=least / median,
        fraction_of_peak=1e9 * gflop / median / peak,
    )


def _optimizer_floor(model: nn.Module, params: OptimizerParams, precision: str, peaks: Peaks) -> Floor:
    """Count an update: its products, and each weight, gradient and state read once, weights and states written."""
    optimizer = optim.build(params, model, precision=precision)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    weights = sum(parameter.numel() for parameter in trained)
    states = sum(
        value.numel()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    # Muon, the one with products, has them in bfloat16 on a GPU only.
    precision = "bf16" if trained[0].is_cuda else "fp32"
    return _floor(
        "optimiser",
        type(optimizer).__name__,
        (),
        0,
        forward=0.0,
        backward=counter.get_total_flops(),
        moved=BYTES_PER_WEIGHT * (3 * weights + 2 * states),
        rates=(peaks.flops(precision), 1e9 * peaks.gb_per_s),
    )


def _floor(
    name: str,
    kind: str,
    output: tuple[int, ...],
    parameters: int,
    *,
    forward: float,
    backward: float,
    moved: float,
    rates: tuple[float, float],
) -> Floor:
    """Combine operations and bytes with a machine's operations and bytes a second."""
    computing, moving = (forward + backward) / rates[0], moved / rates[1]
    return Floor(
        name=name,
        kind=kind,
        output=output,
        parameters=parameters,
        forward_gflop=forward / 1e9,
        backward_gflop=backward / 1e9,
        gb=moved / 1e9,
        intensity=(forward + backward) / moved if moved else 0.0,
        seconds=max(computing, moving),
        bound="compute" if computing > moving else "memory",
    )


def _best(call: Callable[[], object], place: torch.device) -> float:
    """Return the shortest time in seconds of a call that is repeated for a while, after one that is not timed."""
    call()
    times: list[float] = []
    ends = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < ends:
        device.synchronize(place)
        started = time.perf_counter()
        call()
        device.synchronize(place)
        times.append(time.perf_counter() - started)
    return min(times)
