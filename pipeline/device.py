"""The machine a stage runs on: device, precision, determinism, memory allocator, and what to record of them."""

import contextlib
import ctypes
import os
import platform
import resource
import sys
from pathlib import Path

import torch
from torch import nn

from pipeline.errors import ParamsError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h


def choose(wanted: str) -> torch.device:
    """Return the device for `train.device`; "auto" takes CUDA, else Apple's MPS, else the processor.

    Raises:
        ParamsError: the machine has no such device.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(wanted)
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(device.type, 1)
    if (device.index or 0) >= count:
        raise ParamsError(
            f"params.yaml: train.device: found {wanted}, but this machine has {count or 'no'} {device.type} device"
            f"{'' if count == 1 else 's'}; expected auto or cpu, or one that is there"
        )
    return device


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
    """Set this process up for training or inference: determinism, float32 products, the memory allocator.

    With `deterministic`, an operation that has no reproducible implementation raises instead of running.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    # The same as use_deterministic_algorithms for all that is not compiled, without the second that its imports take.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Filling fresh memory with NaN, as this mode does by default, only costs time: nothing here reads it unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    if device.type == "cpu":
        _keep_freed_memory()


def ready(model: nn.Module, device: torch.device) -> nn.Module:
    """Make a network and this process ready to predict: on the device, channels_last, in evaluation mode.

    Its weights can still carry gradients afterwards, even where this is called in inference mode.
    """
    prepare(device, deterministic=True)
    with torch.inference_mode(mode=False):
        return model.to(memory_format=torch.channels_last).to(device).eval()


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all it was asked to, so that a clock read next tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def describe(device: torch.device) -> dict[str, str | int]:
    """Return what a result measured here should be read with: device, threads, platform, library versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def peak_memory_mib(device: torch.device) -> float:
    """Return the most memory in use so far, in MiB: of the GPU if there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage would count what the process was forked from, such as DVC
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes


def _processor() -> str:
    return str(torch.cpu.get_capabilities().get("cpu_name", "")) or platform.processor() or platform.machine()


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of handing it back to the system after every training step.

    Activations are hundreds of MiB a step; to map and clear them anew each time costs small networks up to 40 % of
    their throughput on a CPU. Other C libraries have no mallopt and are left as they are.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # no glibc: slower, not wrong
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 2**28)
