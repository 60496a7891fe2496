"""The line on what a run's params.yaml differs in from HEAD's."""

import shlex
import shutil
import subprocess
import sys

import pytest

from pipeline.config.loading import load
from pipeline.errors import ParamsError
from pipeline.experiments import baseline, git
from tests.conftest import start_python, write_params
from tests.forge import Forge


@pytest.fixture
def forge(tmp_path) -> Forge:
    """A repository whose HEAD has the project's params.yaml."""
    made = Forge(tmp_path / "repository", images=10)
    (made.folder / ".dvc/tmp").mkdir()
    return made


def change(forge: Forge, **changes):
    return write_params(
        forge.folder / "params.yaml", {key.replace("__", "."): value for key, value in changes.items()}
    )


def test_it_names_effective_parameters_alone(forge):
    """A resnet's depth has no effect on a cnn, and an unchanged file gives no line."""
    path = forge.folder / "params.yaml"
    assert baseline.message(load(path), path) is None
    change(forge, model__resnet__depth=8)
    assert baseline.message(load(path), path) is None
    change(forge, model__resnet__depth=8, train__seed=1, model__cnn__activation="tanh", model__cnn__widths=[8, 16, 32])
    expected = "params.yaml differs from HEAD: model.cnn.widths=[8,16,32], model.cnn.activation=tanh, train.seed=1"
    assert baseline.message(load(path), path) == expected


def test_the_first_stage_of_a_run_prints_it(forge, environment):
    """A run is what one process starts, by a shell that becomes the stage or one that stays; a new line is printed."""
    first, second = (write_params(forge.folder / f"{seed}.yaml", {"train.seed": seed}) for seed in (1, 2))
    params = forge.folder / "params.yaml"
    code = f"import pathlib; from pipeline.experiments import baseline; baseline.load(pathlib.Path({str(params)!r}))"
    stage = shlex.join([sys.executable, "-c", code])
    dvc = "import subprocess, sys; [subprocess.run(command, shell=True, check=True) for command in sys.argv[1:]]"
    commands = [f"cp {first} {params}", stage, f"{stage}; true", f"cp {second} {params}", f"{stage}; true", stage]
    for _ in range(2):
        said, _ = start_python(dvc, *commands, environment=environment).communicate()
        assert said == "".join(f"params.yaml differs from HEAD: train.seed={seed}\n" for seed in (1, 2))


def test_without_a_place_for_the_marker_every_stage_prints_it(forge, capsys):
    """Rather twice than never."""
    (forge.folder / ".dvc/tmp").rmdir()
    path = change(forge, train__seed=1)
    baseline.load(path)
    baseline.load(path)
    assert capsys.readouterr().out.count("train.seed=1") == 2


def test_without_git_there_is_no_line(forge, capsys, monkeypatch):
    """No command, no repository, no commit, a file that git does not know or that was not YAML."""
    path = change(forge, train__seed=1)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(forge.folder))
        baseline.load(path)
    alone = write_params(forge.folder / "other.yaml", {"train.seed": 1})
    baseline.load(alone)
    text = path.read_text()
    path.write_text("a: [")
    forge.git("commit", "-qam", "Damaged")
    path.write_text(text)
    baseline.load(path)
    shutil.rmtree(forge.folder / ".git")
    baseline.load(path)
    subprocess.run(["git", "init", "-q"], cwd=forge.folder, check=True)
    baseline.load(path)
    assert capsys.readouterr().out == ""


def test_an_architecture_that_only_the_users_repository_has_is_explained(forge, monkeypatch):
    """In the copy that DVC makes of what git knows; a misspelt one is not."""
    path = forge.folder / "params.yaml"
    path.write_text(path.read_text().replace("arch: cnn ", "arch: added "))
    with pytest.raises(ParamsError) as caught:
        baseline.load(path)
    assert "git add" not in str(caught.value)
    users = forge.folder.parent / "users"
    (users / "pipeline/models/added").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(users))
    with pytest.raises(ParamsError) as caught:
        baseline.load(path)
    first, last = str(caught.value).splitlines()
    assert 'model.arch: found "added", expected' in first
    assert last.endswith(
        "if pipeline/models/added is new, git add it and commit: --temp and --queue run what git knows"
    )


def test_the_latest_experiment_is_one_of_the_users(forge):
    """DVC's own refs, and those of a running one, are none."""
    assert git.latest_experiment(forge.folder) is None
    assert git.advice(forge.folder) == ""
    sha = forge.experiment("one", predicted=forge.right())
    forge.git("update-ref", "refs/exps/exec/EXEC_BASELINE", sha)
    forge.git("update-ref", "refs/exps/stash", sha)
    assert git.latest_experiment(forge.folder) == "one"
    assert git.advice(forge.folder) == "; dvc exp apply one takes on the results of the experiment one"
