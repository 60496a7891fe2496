"""PyTorch's compiler is not imported where nothing is compiled."""

import subprocess

import pytest

from tests.conftest import SMALL, stage_command, write_params
from tests.paths import ROOT


@pytest.mark.e2e
def test_a_training_that_compiles_nothing_does_not_import_the_compiler(tmp_path, processed, environment):
    """The base class of optimisers and the count of operations would."""
    params = write_params(tmp_path / "params.yaml", SMALL | {"train.epochs": 1, "tracking.enabled": False})
    python, *arguments = stage_command("train", tmp_path, params=params, data=processed)
    command = [python, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "torch.optim" in imported
    assert "torch._dynamo" not in imported
