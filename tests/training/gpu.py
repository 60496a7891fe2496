"""Stand-ins for a GPU, so that what a GPU would refuse fails on every machine.

PyTorch's meta device stands for the GPU's memory: its tensors have shapes and dtypes but no values, so that reading
one, or mixing it with a tensor on the CPU, raises. `DeviceOnly` refuses what would run but not be recorded.
"""

import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.hardware import device
from pipeline.models.common import numerics
from pipeline.training import optim
from pipeline.training import step as stepping

META = torch.device("meta")

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
        tensors = [value for value in tree_leaves((args, kwargs, result)) if isinstance(value, torch.Tensor)]
        places = {tensor.device.type for tensor in tensors}
        assert places <= {"meta"}, f"{func} has tensors on {places}"
        assert all(tensor.dtype != torch.float64 for tensor in tensors), f"{func} computes in float64"
        return result


def pretend(monkeypatch) -> None:
    """Let a training's parts take the meta device for a GPU, all but the recording."""
    monkeypatch.setattr(device, "synchronize", lambda _: None)
    monkeypatch.setattr(numerics, "autocast", lambda *_: torch.autocast("cpu", enabled=False))  # meta has none
    monkeypatch.setattr(optim, "_on_gpu", lambda _: True)
    optimizer = sys.modules[torch.optim.Optimizer.__module__]  # torch.optim has deleted its name
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])
    monkeypatch.setattr(stepping, "_Graphs", lambda _: None)
