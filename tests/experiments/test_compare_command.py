"""What `compare` and `show` print in a terminal, and what they say of parameters that were carried over."""

import re
import subprocess
import sys

import pytest

from pipeline.experiments.repository import Repository
from tests.forge import Forge
from tests.paths import ROOT

pytestmark = pytest.mark.e2e


@pytest.fixture
def printed(environment):
    """A function that runs a command of the project in a forged repository, as in a terminal of some width."""

    def run(forge: Forge, *words: str, width: int = 160, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *words],
            cwd=forge.folder,
            env=environment | {"PYTHONPATH": str(ROOT), "COLUMNS": str(width), "FORCE_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)

    return run


def table(text: str) -> dict[str, list[str]]:
    """Return the cells of the first table by the name of the row; the head is that of "experiment"."""
    lines = [line for line in text.split("Test accuracy against")[0].splitlines() if line.strip() and "─" not in line]
    cells = [re.split(r" {2,}", line.strip()) for line in lines]
    return {row[0].removesuffix(" ★ ◆"): row[1:] for row in cells}


@pytest.fixture
def presets(tmp_path) -> Forge:
    """The defaults and an experiment that differs in fourteen parameters, as a preset does."""
    made = Forge(tmp_path / "presets")
    many = {f"optimizer.muon.number_{number}": number for number in range(12)}
    made.commit(predicted=made.right(range(100)), params=dict.fromkeys(many, 0.5) | {"train.epochs": 8})
    params = many | {"train.epochs": 5, "model.arch": "speednet"}
    made.experiment("a-preset-with-a-name-of-some-length", predicted=made.right(range(40)), params=params)
    return made


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_accuracies_and_the_verdict_are_shown_in_any_terminal(presets, printed, width):
    """Parameters go first when there is no room; nothing is cut."""
    text = printed(presets, "compare", width=width)
    assert "…" not in text
    found = table(text)
    assert found["experiment"][:3] == ["val, %", "test, %", "verdict"]
    assert found["a-preset-with-a-name-of-some-length"][:3] == ["96.00", "96.00", "network better"]
    assert found["HEAD"][:3] == ["90.00", "90.00", "baseline"]
    assert "columns omitted:" in text
    assert ("latency, ms" in found["experiment"]) == (width == 160)
    assert "number_11" not in found["experiment"]


def test_a_parameter_is_shown_where_there_is_room(presets, printed):
    """Behind everything that was measured."""
    found = table(printed(presets, "compare", width=400))
    assert len(found["experiment"]) == 11 + 14
    head, values = found["experiment"], found["a-preset-with-a-name-of-some-length"]
    assert head.index("latency, ms") < head.index("epochs")
    assert values[head.index("epochs")] == "5"


def test_earlier_commits_experiments_are_pointed_at(tmp_path, printed):
    """After a commit, HEAD has none, whether it has results or not."""
    forge = Forge(tmp_path / "repository")
    forge.experiment("tanh", predicted=forge.right(range(50)))
    forge.git("commit", "-q", "--allow-empty", "-m", "Next")
    line = "HEAD has no experiments; earlier commits have 1 experiment, which --all shows"
    assert line in printed(forge, "compare", code=1)
    forge.commit(predicted=forge.right(range(100)))
    assert line in printed(forge, "compare")
    for words in (("compare", "--all"), ("compare", "tanh")):
        assert line not in printed(forge, *words)


def test_seeds_that_differ_in_more_than_the_seed_are_reported(tmp_path, printed):
    """The second was run where an experiment had left its activation; a grid is as it should be."""
    forge = Forge(tmp_path / "repository")
    forge.experiment("relu-0", predicted=forge.right(range(50)), params={"model.cnn.activation": "relu"})
    for seed in (1, 2):
        params = {"train.seed": seed, "model.cnn.activation": "tanh", "train.epochs": 8}
        forge.experiment(f"relu-{seed}", predicted=forge.right(range(50 + seed)), params=params)
    for number, activation in enumerate(("relu", "gelu")):
        params = {"model.cnn.activation": activation, "model.arch": "mlp"}
        forge.experiment(f"grid-{number}", predicted=forge.right(range(60 + number)), params=params)
    text = printed(forge, "compare", "--all")
    assert "- relu-0, relu-1, relu-2 differ in more than the seed: model.cnn.activation" in text
    assert text.count("more than the seed") == 1


def test_an_experiment_shows_what_it_differs_in_from_its_baseline(tmp_path, printed):
    """By the params.yaml of the commit that it started from, not by that of HEAD."""
    forge = Forge(tmp_path / "repository")
    forge.experiment("tanh", predicted=forge.right(range(50)), params={"train.seed": 1, "model.arch": "mlp"})
    baseline = forge.git("rev-parse", "HEAD")
    params = forge.folder / "params.yaml"
    params.write_text(params.read_text().replace("arch: cnn ", "arch: mlp "))
    forge.commit(predicted=forge.right(range(20)), params={"model.arch": "mlp"})
    lines = printed(forge, "show", "tanh").splitlines()
    first = next(number for number, line in enumerate(lines) if "differs from" in line)
    assert f"differs from {baseline[:7]}" in lines[first]
    values = [line.split("│")[2].strip() for line in lines[first : first + 3]]
    assert sorted(values[:2]) == ["model.arch=mlp", "train.seed=1"]
    assert "differs from" not in printed(forge, "show", "HEAD")
    with Repository(forge.folder) as repository:
        for name, changed in (("tanh", {"train.seed": 1, "model.arch": "mlp"}), ("HEAD", {}), ("workspace", {})):
            revision = repository.resolve(name)
            assert repository.differing(revision, repository.results(revision)) == changed, name
