"""How a network is computed: in which precision, whether reproducibly, in which memory format."""

import os

import torch
from torch import nn

from pipeline.hardware.device import keep_freed_memory


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return "bf16" or "fp32" for `train.precision`; "auto" takes bf16 where the hardware multiplies in it."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a forward pass computes in the given precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def prepare(device: torch.device, *, deterministic: bool) -> None:
    """Set this process up for training or inference: current GPU, determinism, float32 products, memory allocator.

    With `deterministic`, an operation that has no reproducible implementation raises instead of running.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    # The same as use_deterministic_algorithms for all that is not compiled, without the second that its imports take.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Filling fresh memory with NaN, as this mode does by default, only costs time: nothing here reads it unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    if device.type == "cuda":
        torch.cuda.set_device(device)  # CUDA graphs and memory statistics are of the current one
    if device.type == "cpu":
        keep_freed_memory()


def ready(model: nn.Module, device: torch.device) -> nn.Module:
    """Make a network and this process ready to predict: on the device, channels_last, in evaluation mode.

    Its weights can still carry gradients afterwards, even where this is called in inference mode.
    """
    prepare(device, deterministic=True)
    with torch.inference_mode(mode=False):
        return model.to(memory_format=torch.channels_last).to(device).eval()
