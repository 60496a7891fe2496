"""The machine a stage runs on: its devices, memory allocator, and what to record of them."""

import contextlib
import ctypes
import platform
import resource
import sys
from pathlib import Path

import torch

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


def keep_freed_memory() -> None:
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
