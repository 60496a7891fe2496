"""Stand-ins for a GPU, so that what would fail on a GPU fails on every machine.

PyTorch's meta device stands for the GPU's memory: its tensors have shapes and dtypes but no values, so that reading
one, or mixing it with a tensor on the CPU, raises. `DeviceOnly` refuses what would run but not be recorded. `Graph`
records on the CPU and replays on the same memory, as a CUDA graph does.
"""

import sys
import warnings

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.hardware import device
from pipeline.models.common import numerics
from pipeline.training import optim
from pipeline.training import step as stepping

META = torch.device("meta")
POOL = object()

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero")
"""Operations of aten that wait for the device, as their result decides a shape or a branch of the host."""

NOT_DETERMINISTIC = (
    *("_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "fractional_max_pool2d_backward"),
    *("upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "_upsample_bilinear2d_aa_backward"),
    *("_upsample_bicubic2d_aa_backward", "reflection_pad2d_backward", "grid_sampler_2d_backward"),
    *("nll_loss2d_forward", "max_unpool2d", "put_", "histc", "bincount", "median", "kthvalue"),
)
"""Operations of aten for which CUDA has no deterministic implementation (torch.use_deterministic_algorithms)."""


class DeviceOnly(TorchDispatchMode):
    """Fails on what a deterministic step that is recorded as a CUDA graph must not contain."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        assert name not in WAITING, f"{func} waits for the device"
        assert name not in NOT_DETERMINISTIC, f"{func} is not deterministic on a GPU"
        fused = name.startswith("_fused_")  # optimisers' kernels, in place; meta has none
        result = None if fused else func(*args, **(kwargs or {}))
        tensors = tensors_in((args, kwargs, result))
        places = {tensor.device.type for tensor in tensors}
        assert places <= {"meta"}, f"{func} has tensors on {places}"
        assert all(tensor.dtype != torch.float64 for tensor in tensors), f"{func} computes in float64"
        return result


class Graph:
    """A recording of operations of aten, with the tensors that they read and wrote."""

    def __init__(self) -> None:
        self.tape: list[tuple] = []

    def replay(self) -> None:
        """Run the operations again, each from and into the memory that it had when it was recorded."""
        with torch.no_grad():
            for func, args, kwargs, results in self.tape:
                inputs = {storage(tensor) for tensor in tensors_in((args, kwargs))}
                found = tensors_in(func(*args, **kwargs))
                for result, new in zip(tensors_in(results), found, strict=True):
                    if storage(result) not in inputs:
                        result.copy_(new)


class Recording(TorchDispatchMode):
    """Records into a graph; afterwards all tensors from before it have the values that they had, as nothing ran."""

    def __init__(self, graph: Graph, pool: object) -> None:
        super().__init__()
        self.graph, self.made, self.before = graph, set(), {}
        assert pool is POOL

    def __enter__(self):
        self.random = torch.get_rng_state()
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        for tensor, values in self.before.values():
            tensor.copy_(values)
        torch.set_rng_state(self.random)
        if not self.graph.tape:
            warnings.warn("The CUDA Graph is empty. This usually means", stacklevel=2)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert func.__name__.split(".")[0] not in WAITING, f"{func} cannot be recorded"
        for tensor in tensors_in((args, kwargs)):  # batch norm writes what its schema says it reads
            if storage(tensor) not in self.made | self.before.keys():
                self.before[storage(tensor)] = whole(tensor), whole(tensor).clone()
        results = func(*args, **kwargs)
        read = {storage(tensor) for tensor in tensors_in((args, kwargs))}
        self.made |= {storage(tensor) for tensor in tensors_in(results)} - read
        self.graph.tape.append((func, args, kwargs, results))
        return results


def tensors_in(values) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return all bytes of the memory that a tensor is a view of."""
    return torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage())


def record(monkeypatch) -> None:
    """Let trainings on the CPU record their steps as they do on a GPU."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Recording)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: POOL)
    monkeypatch.setattr(stepping, "_has_graphs", lambda _: True)
    monkeypatch.setattr(optim, "_on_gpu", lambda _: True)


def pretend(monkeypatch) -> None:
    """Let a training's parts take the meta device for a GPU, all but the recording."""
    monkeypatch.setattr(device, "choose", lambda _: META)
    monkeypatch.setattr(device, "synchronize", lambda _: None)
    monkeypatch.setattr(numerics, "autocast", lambda *_: torch.autocast("cpu", enabled=False))  # meta has none
    monkeypatch.setattr(optim, "_on_gpu", lambda _: True)
    optimizer = sys.modules[torch.optim.Optimizer.__module__]  # torch.optim has deleted its name
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])
