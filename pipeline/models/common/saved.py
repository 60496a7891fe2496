"""Trained networks on disk: safetensors weights and a JSON sidecar that says how to build the network.

A model is two files, `weights.safetensors` and `model.json`. Nothing in them can run code.
"""

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from pydantic import BaseModel
from torch import nn

from pipeline import files
from pipeline.config.loading import parse_architecture
from pipeline.config.schema import ModelParams
from pipeline.data.dataset import Metadata
from pipeline.errors import CheckpointError
from pipeline.models.common import cost
from pipeline.models.common.build import build

WEIGHTS, SIDECAR = "weights.safetensors", "model.json"


@dataclass(frozen=True)
class Saved:
    """A model read back: the network with its weights, on the CPU, in evaluation mode, and its sidecar.

    Attributes:
        parameters, macs: as `cost.cost` returns them.
    """

    arch: str
    params: BaseModel
    model: nn.Module
    metadata: Metadata
    weights_sha256: str
    parameters: int
    macs: int


def save_model(folder: Path, model: nn.Module, params: ModelParams, metadata: Metadata) -> None:
    """Write a network's weights and everything needed to build it again without the project's params.yaml."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    files.write_bytes(folder / WEIGHTS, safetensors.torch.save(tensors))
    sidecar = {
        "arch": params.arch,
        "params": params.section.model_dump(mode="json"),
        "dataset": vars(metadata),
        "weights_sha256": files.sha256(folder / WEIGHTS),
        **dict(zip(("parameters", "macs"), cost.cost(model), strict=True)),
    }
    files.write_json(folder / SIDECAR, sidecar)


def load_model(folder: Path) -> Saved:
    """Build the network of a folder written by `save_model` and load its weights.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are not those the sidecar was written for.
    """
    try:
        sidecar = files.read_json(folder / SIDECAR)
        arch, expected = sidecar["arch"], sidecar["weights_sha256"]
        counted = int(sidecar["parameters"]), int(sidecar["macs"])
        params, metadata = parse_architecture(arch, sidecar["params"]), Metadata.parse(sidecar["dataset"])
    except FileNotFoundError:
        raise CheckpointError(f"{folder / SIDECAR}: no such file; run dvc repro train") from None
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{folder / SIDECAR}: not a model's description ({reason}); run dvc repro train"
        ) from None
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{weights}: no such file; run dvc repro train")
    found = files.sha256(weights)
    if found != expected:
        raise CheckpointError(f"{weights}: expected SHA-256 {expected}, found {found}; run dvc checkout {folder}")
    try:
        model = build(arch, params, mean=metadata.mean, std=metadata.std, classes=len(metadata.classes))
        model.load_state_dict(safetensors.torch.load_file(weights))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise CheckpointError(
            f"{folder / SIDECAR}: not the network of {weights.name} ({reason}); run dvc repro -f train"
        ) from None
    return Saved(arch, params, model.eval(), metadata, expected, *counted)
