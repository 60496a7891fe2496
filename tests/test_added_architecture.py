"""The contract of an architecture: one folder, one section; then nothing re-runs and everything works on it."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.clone import Clone, ran
from tests.paths import ROOT
from tests.study_plans import edit

ADDED = sorted(path.name for path in (ROOT / "tests/architectures").iterdir() if (path / "params.py").exists())
STUDY = ("study", "pooling", "--set=train.epochs=1", "--set=model.cnn.norm=none")
STAGES = ["download", "preprocess", "train", "evaluate", "inspect", "export", "track"]
# Many pipelines one after the other; a machine that is busy with other things needs its time.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def project(clone: Clone, *arguments: str, code: int = 0) -> str:
    return clone(sys.executable, "-m", "pipeline", *arguments, code=code)


def training_code(clone: Clone) -> str:
    """Return the part of a training state's name that stands for the code."""
    code = (
        "from pathlib import Path; from pipeline.config.loading import load; "
        "from pipeline.experiments import dependencies; "
        "print(dependencies.digest(Path('.'), ['train'], load(Path('params.yaml'))))"
    )
    return clone(sys.executable, "-c", code)


def add(clone: Clone, arch: str) -> None:
    """Do what README says: a folder, a section of params.yaml, git add."""
    source = ROOT / "tests/architectures" / arch
    shutil.copytree(
        source, clone.folder / "pipeline/models" / arch, ignore=shutil.ignore_patterns("params.yaml", "__pycache__")
    )
    section = "".join(f"  {line}\n" for line in (source / "params.yaml").read_text().splitlines())
    params = clone.folder / "params.yaml"
    before, model, after = params.read_text().partition("\nmodel:\n")
    first, newline, rest = after.partition("\n")  # model.arch
    params.write_text(f"{before}{model}{first}{newline}{section}{rest}")
    clone("git", "add", "-A")


@pytest.fixture(scope="module")
def clone(tmp_path_factory, finished) -> Clone:
    """A repository whose pipeline, study and first trial of a search have finished before architectures were added."""
    made = finished.copy(tmp_path_factory.mktemp("clone") / "repository")
    edit(made.folder, "pooling", small__seeds=[0], variants__stride=None)
    made.commit("A result")
    project(made, *STUDY, "--jobs=2")
    space = json.dumps({"train.epochs": [1], "optimizer.muon.lr": {"low": 0.01, "high": 0.1}})
    (made.folder.parent / "space.yaml").write_text(space)
    project(made, "tune", "--space=../space.yaml", "--name=search", "--trials=1")
    made.digest = training_code(made)
    for arch in ADDED:
        add(made, arch)
    return made


def test_nothing_runs_again(clone):
    """Stages, study and search are as finished as before, and a killed training would go on."""
    assert ran(clone("dvc", "repro")) == []
    assert "3 experiments, 0 of them to be run" in project(clone, *STUDY)
    assert training_code(clone) == clone.digest
    again = project(clone, "tune", "--space=../space.yaml", "--name=search", "--trials=1")
    assert "1 of 1" in again


@pytest.mark.parametrize("arch", ADDED)
def test_an_added_architecture_goes_through_every_stage_and_command(clone, arch):
    """Trained, judged, inspected, exported and tracked; explained, used, compared, promoted and tuned."""
    output = clone("dvc", "exp", "run", "-n", arch, "-S", f"model.arch={arch}")
    assert ran(output) == STAGES[2:]
    assert clone.metrics("details/export")["export/parity_difference"] < 1e-4
    assert f"`{arch}`" in (clone.folder / "export/MODEL_CARD.md").read_text()
    assert arch in project(clone, "show", arch)
    explained = project(clone, "explain", "--index=1")
    assert "Traceback" not in explained
    assert (clone.folder / "explain/explanation.html").stat().st_size > 10_000
    image = Path("results/augmentations.png")
    assert len(project(clone, "predict", str(image), "--top=1", "--json").splitlines()) == 1
    assert arch in project(clone, "compare", arch)
    assert "champion is version" in project(clone, "promote", arch, "--force")
    (clone.folder.parent / f"{arch}.yaml").write_text(json.dumps({"model.arch": [arch], "train.epochs": [1]}))
    clone.commit(f"A result of {arch}")  # searches run on a copy of what git knows
    tuned = project(clone, "tune", f"--space=../{arch}.yaml", f"--name=of-{arch}", "--trials=1", "--sampler=grid")
    assert f"The best is of-{arch}-0000" in tuned
