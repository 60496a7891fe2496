"""Importing is cheap and does nothing."""

import subprocess
import sys

import pytest

from tests.paths import ROOT

HEAVY = (
    "torch",
    "dvc",
    "mlflow",
    "onnxruntime",
    "optuna",
    "matplotlib",
    "pandas",
    "sklearn",
    "torchvision",
    "captum",
    "cleanlab",
)


def loaded(modules: str, environment, cwd) -> set[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "config.loading",
        "config.presets",
        "files",
        "errors",
        "experiments.repository",
        "experiments.results",
        "cli",
        "stage",
        "data.dataset",
    ],
)
def test_light_modules_import_nothing_heavy(module, environment, tmp_path):
    """What answers questions about parameters, files and experiments starts at once."""
    allowed = {"dvc", "pandas"} if module == "experiments.repository" else set()  # dvc may import pandas
    assert not loaded(f"pipeline.{module}", environment, tmp_path) & (set(HEAVY) - allowed)


def test_no_module_but_tracking_imports_mlflow_and_none_leaves_a_trace(environment, tmp_path):
    """No folder, log or file appears because of an import."""
    names = (
        "training.loop",
        "evaluation.metrics",
        "export.graph",
        "plotting",
        "models.common.saved",
        "archives.shapes10",
    )
    modules = ", ".join(f"pipeline.{name}" for name in names)
    assert "mlflow" not in loaded(modules, environment, tmp_path)
    assert not list(tmp_path.iterdir())
