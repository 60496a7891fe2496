"""Weights and training state on disk as safetensors: whole or absent, and nothing in them can run code.

A model is two files: `weights.safetensors` and `model.json`, which describes the architecture of the network.
A training state is one file, replaced as a whole after an epoch.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline import files
from pipeline.errors import CheckpointError

STATE = "state.safetensors"


def fingerprint(settings: Mapping[str, Any], data: str, code: str) -> str:
    """Return a SHA-256 of all that decides a training's result.

    Args:
        settings: parameters and environment (device, precision, threads, library versions), JSON-able.
        data: hash of the training data.
        code: hash of the code that the train stage depends on.
    """
    parts = [json.dumps(settings, sort_keys=True), data, code]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class TrainingState:
    """What a killed training needs to go on: one file in a folder of its own, named by the fingerprint."""

    MOST_OF_THE_TIME = 0.02
    """Share of a training's time that saving may take: very short epochs are not saved every time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STATE
        self.saved_at, self.took = -math.inf, 0.0

    def due(self) -> bool:
        """Tell whether enough time has passed since the last saving for another not to slow the training down."""
        return time.monotonic() - self.saved_at >= self.took / self.MOST_OF_THE_TIME

    def save(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        progress: Any,
        others: Mapping[str, Tensor],
    ) -> None:
        """Replace the saved state atomically.

        Args:
            modules: e.g. the model and its moving average, by name.
            progress: JSON-able: epochs done, history, seconds spent.
            others: tensors by name that go with them.
        """
        started = time.monotonic()
        tensors = {
            f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()
        }
        tensors |= {f"others/{name}": tensor for name, tensor in others.items()}
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    tensors[f"optimizer/{index}/{key}"] = value
        tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
        said = json.dumps(progress)
        metadata = {"progress": said, "sha256": _digest(tensors, said)}
        files.write_bytes(self.path, safetensors.torch.save(tensors, metadata))
        self.saved_at = time.monotonic()
        self.took = self.saved_at - started

    def restore(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, others: Mapping[str, Tensor]
    ) -> Any:
        """Load a saved state into what `save` was given and return its progress; None if there is nothing saved.

        Raises:
            CheckpointError: the file is damaged or does not fit.
        """
        if not self.path.exists():
            return None
        try:
            with safetensors.safe_open(self.path, framework="pt") as file:
                metadata = file.metadata()
                tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if metadata["sha256"] != _digest(tensors, metadata["progress"]):
                raise ValueError("its bytes have changed since they were written")
            progress = json.loads(metadata["progress"])
            for name, module in modules.items():
                module.load_state_dict(_below(tensors, name))
            for name, value in _below(tensors, "others").items():
                others[name].copy_(value)
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            saved: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, "optimizer").items():
                index, field = key.split("/", 1)
                saved.setdefault(int(index), {})[field] = _laid_out(value, parameters[int(index)])
            optimizer.load_state_dict({**optimizer.state_dict(), "state": saved})
        except (safetensors.SafetensorError, LookupError, ValueError, RuntimeError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{self.path}: not a training state that fits ({reason})") from None
        return progress

    def remove(self) -> None:
        """Delete the state and its folder: the training is finished."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """Return an optimiser's tensor with the strides of its parameter, as which fused kernels read both.

    Saved tensors are contiguous; with those beside channels_last parameters, PyTorch's fused SGD and AdamW compute
    wrong updates on a CPU and refuse on a GPU.
    """
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def _digest(tensors: Mapping[str, Tensor], progress: str) -> str:
    """Return a SHA-256 of a state's content: safetensors checks its header, but not the numbers."""
    digest = hashlib.sha256(progress.encode())
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}
