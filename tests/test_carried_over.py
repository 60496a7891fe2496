"""Experiments leave nothing behind for the next one: README's commands in their order, by the real dvc."""

import re
import sys
import time

import pytest
from ruamel.yaml import YAML

from pipeline.config import presets
from pipeline.config.loading import differing
from pipeline.config.section import flatten
from tests.clone import Clone, ran
from tests.paths import ROOT

README = (ROOT / "README.md").read_text()
GRID = {"model.cnn.convs_per_block": 2}
WIDTHS = ([32, 64], [64, 128])
EXPERIMENTS = {
    "gelu": {"model.cnn.activation": "gelu"},
    "tanh": {"model.cnn.activation": "tanh"},
    **{
        f"grid-{number}": {"model.cnn.activation": activation, "model.cnn.widths": widths} | GRID
        for number, (activation, widths) in enumerate(((a, w) for a in ("relu", "tanh") for w in WIDTHS), start=1)
    },
    **{f"relu-{number}": {"train.seed": seed} for number, seed in enumerate((0, 1, 2), start=1)},
    "fast": presets.find("fast").values,
    "learned": {"inspect.enabled": True},
}
"""What README's experiments change; values that are those of HEAD anyway change nothing."""
# No MLflow, as few images and epochs as can be: what counts are the parameters.
TINY = {"tracking.enabled": False, "train.epochs": 1, "evaluate.robustness": 0, "data.shapes10.test_images": 100}
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def commands() -> list[str]:
    """Return the commands of README that run or queue experiments, in their order, and those before them."""
    table = re.findall(r"`([^`]+)`", section("Commands").replace("`dvc repro inspect`", ""))
    block = re.findall(r"```sh\n(.*?)```", section("Several experiments"), re.DOTALL)[0]
    lines = [re.sub(r"  +#.*", "", line) for line in block.replace("\\\n", "").splitlines()]
    first = [command for command in table if command.startswith(("dvc repro", "git ", "dvc exp run -"))]
    return first + [line for line in lines if not line.startswith("python -m pipeline tune")]


def params(clone: Clone, revision: str) -> dict:
    """Return the content of a revision's params.yaml."""
    return YAML(typ="safe").load(clone("git", "show", f"{revision}:params.yaml"))


def wait_for_the_queue(clone: Clone) -> None:
    for _ in range(600):
        status = clone("dvc", "queue", "status")
        if not re.search("Queued|Running", status):
            break
        time.sleep(1)
    assert "Failed" not in status, status
    clone("dvc", "queue", "stop", "--kill")


@pytest.fixture(scope="module")
def clone(tmp_path_factory, environment) -> Clone:
    """A repository in which nothing has run, with small parameters in HEAD's params.yaml."""
    return Clone.new(tmp_path_factory.mktemp("readme") / "repository", environment, TINY)


def test_a_missing_model_is_taken_from_an_experiment(clone):
    """After `make demo`, and only if there is an experiment; the advice works."""
    predict = (sys.executable, "-m", "pipeline", "predict", "export/MODEL_CARD.md")
    explain = (sys.executable, "-m", "pipeline", "explain")
    for command in (predict, explain):
        message = clone(*command, code=1)
        assert "dvc repro" in message
        assert "dvc exp apply" not in message
    output = clone("dvc", "exp", "run", "--temp", "-n", "demo", "-S", "train.seed=7")
    assert output.count("params.yaml differs from HEAD: train.seed=7\n") == 1
    for command in (predict, explain):
        assert "dvc exp apply demo takes on the results of the experiment demo" in clone(*command, code=1)
    clone("dvc", "exp", "apply", "demo")
    assert "no such file" not in clone(*predict, code=1)  # what it is given is no image
    clone(*explain)
    clone("git", "checkout", "-q", ".")
    clone("git", "clean", "-qfd", "metrics", "dvc.lock")


def test_readmes_experiments_differ_from_the_commit_in_what_they_name(clone):
    """As they stand, one after the other: no experiment has a parameter of another.

    Each trains. What comes after it is frozen, so that its results are those of the first run: they are not looked at.
    """
    clone("dvc", "repro")
    pipeline = clone.folder / "dvc.yaml"
    thawed = pipeline.read_text()
    pipeline.write_text(
        re.sub(r"^  (evaluate|inspect|export|track):$", r"\g<0>\n    frozen: true", thawed, flags=re.M)
    )
    clone("git", "commit", "-qam", "Freeze what is not looked at")
    for command in commands():
        clone("bash", "-c", command)
        if command.startswith("dvc queue start"):
            wait_for_the_queue(clone)
    assert clone("git", "status", "--porcelain") == ""
    head = params(clone, "HEAD")
    refs = clone("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    found = {ref.rsplit("/", 1)[1]: ref for ref in refs if ref.count("/") == 4}  # the others are DVC's own
    assert found.keys() == EXPERIMENTS.keys() | {"demo"}
    for name, changes in EXPERIMENTS.items():
        assert differing(dict(flatten(params(clone, found[name]))), head) == differing(changes, head), name
    assert "more than the seed" not in clone(sys.executable, "-m", "pipeline", "compare", "--all")
    pipeline.write_text(thawed)
    clone.commit("Thaw it")


def test_a_run_in_the_workspace_says_what_it_inherits_once(clone):
    """Not each stage; nothing where nothing differs."""
    output = clone("dvc", "exp", "run", "-n", "first", "-S", "train.seed=3")
    assert output.count("differs from HEAD: train.seed=3\n") == 1
    assert len(ran(output)) > 3
    output = clone("dvc", "exp", "run", "-n", "second", "-S", "model.cnn.activation=silu", "-S", "model.mlp.norm=none")
    assert output.count("differs from HEAD") == 1
    assert "params.yaml differs from HEAD: model.cnn.activation=silu, train.seed=3\n" in output
    assert "train.seed=3" in clone(sys.executable, "-m", "pipeline", "show", "second")
    clone("git", "checkout", "-q", ".")
    assert "differs from HEAD" not in clone("dvc", "repro", "-f", "download")


def test_an_experiment_that_changes_nothing_runs_nothing(clone):
    """Not even track, as docs/tracking.md says: `sync` makes its run."""
    clone("dvc", "repro")
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "--allow-empty", "-m", "Results")
    output = clone("dvc", "exp", "run", "--temp", "-n", "unchanged")
    assert ran(output) == []
    assert "unchanged" in clone("dvc", "exp", "list", "--name-only")


def test_a_new_architecture_that_git_does_not_know_is_named(clone):
    """The files that the copy lacks, and what to do; by DVC, without advice, if train would be the first stage."""
    folder = clone.folder / "pipeline/models/added"
    folder.mkdir()
    (folder / "params.py").write_text("from pipeline.config.section import Architecture as Params\n")
    command = ("dvc", "exp", "run", "--temp", "-n", "added", "-S", "model.arch=added")
    output = clone(*command, "-S", "data.shapes10.seed=1", code=255)
    assert "warning: git does not know pipeline/models/added/params.py; this run does not have them" in output
    assert 'model.arch: found "added", expected' in output
    assert "if pipeline/models/added is new, git add it and commit" in output
    assert ran(output) == ["download"]
    output = clone(*command, code=255)
    assert ran(output) == []
    assert re.search(r"No such file or directory: .*/pipeline/models/added'", output)
