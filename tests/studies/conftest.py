"""A copy of the files that plans are made from."""

import shutil
from pathlib import Path

import pytest

from tests.paths import ROOT


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The files that a plan is made from, to be changed at will; nothing can run in it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pipeline", "stages", "studies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder
