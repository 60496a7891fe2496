"""`replicate` on forged results: which seeds it queues in the real DVC queue, with which parameters and code."""

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline.config import loading
from pipeline.errors import PipelineError
from pipeline.experiments.repository import Repository
from pipeline.search import replication
from tests.forge import Forge


@pytest.fixture
def forge(tmp_path) -> Forge:
    """A baseline with three seeds, a configuration with one, and one that is clearly better with three."""
    made = Forge(tmp_path / "repository")
    (made.folder / "pipeline/training").mkdir(parents=True)
    (made.folder / "pipeline/training/loop.py").write_text("print()\n")
    made.git("add", "-A")
    made.git("commit", "-qm", "code")
    rng = np.random.default_rng(0)
    params = loading.load(made.folder / "params.yaml").effective(*replication.GROUPS)
    for name, wrong, changes, seeds in (
        ("base", 100, {}, 3),
        ("lone", 95, {"train.epochs": 4, "model.cnn.widths": [8, 16, 32]}, 1),
        ("clear", 10, {"train.epochs": 16}, 3),
    ):
        for seed in range(seeds):
            predicted = made.labels.copy()
            chosen = rng.permutation(1000)[:wrong]
            predicted[chosen] = (predicted[chosen] + 1) % 10
            made.experiment(f"{name}-{seed}", predicted=predicted, params=params | changes | {"train.seed": seed})
    return made


def queued(forge: Forge) -> dict[str, dict]:
    """Return the params.yaml of each experiment in DVC's queue."""
    with Repository(forge.folder) as repository:
        entries = list(repository.dvc.experiments.celery_queue.iter_queued())
        assert {entry.name for entry in entries} == repository.queued()
    read = YAML(typ="safe").load
    return {entry.name: read(forge.git("show", f"{entry.stash_rev}:params.yaml")) for entry in entries}


def replicate(forge: Forge, rev: str | None = None, seeds: int | None = None, *, dry_run: bool = False) -> None:
    replication.run(forge.folder, rev, seeds, everything=False, baseline="base-0", dry_run=dry_run)


def test_a_configuration_gets_the_seeds_that_it_lacks(forge, capsys):
    """With its parameters; what it costs comes first; a second call finds them in the queue."""
    replicate(forge, "lone-0", dry_run=True)
    plan = capsys.readouterr().out
    assert plan == "2 experiments, about 18 s one after the other: lone-s1, lone-s2\n"
    assert queued(forge) == {}
    replicate(forge, "lone-0")
    assert capsys.readouterr().out.startswith(plan)
    found = queued(forge)
    assert {name: params["train"]["seed"] for name, params in found.items()} == {"lone-s1": 1, "lone-s2": 2}
    for params in found.values():
        assert (params["train"]["epochs"], params["model"]["cnn"]["widths"]) == (4, [8, 16, 32])
    replicate(forge, "lone-0")
    assert capsys.readouterr().out == "nothing to queue\n"
    assert forge.git("status", "--porcelain") == ""


def test_what_is_undecided_gets_the_seeds_that_settle_it(forge, capsys):
    """Both sides of what is open, nothing for what is settled; a number that is asked for is for all rows."""
    replicate(forge, dry_run=True)
    said = capsys.readouterr().out
    assert "base-s3, " in said
    assert "lone-s1, " in said
    assert "clear" not in said
    replicate(forge, seeds=4, dry_run=True)
    assert capsys.readouterr().out.rstrip().endswith(": clear-s3, lone-s1, lone-s2, lone-s3, base-s3")


def test_other_code_and_parameters_are_refused(forge):
    """Seeds of a row must come from the same code; the commit that has it is named."""
    baseline = forge.git("rev-parse", "HEAD")
    file = forge.folder / "pipeline/training/loop.py"
    file.write_text("print(1)\n")
    refusal = (
        rf"^lone-0: its code differs from the workspace's: pipeline/training/loop.py; git checkout {baseline[:7]} "
    )
    with pytest.raises(PipelineError, match=refusal):
        replicate(forge, "lone-0")
    forge.git("checkout", "-q", "pipeline")
    forge.experiment("older", predicted=forge.right(range(3)), params={"train.epochs": 5})
    with pytest.raises(
        PipelineError, match=r"older: expected .* found others: augment.brightness, .* and \d+ more; git"
    ):
        replicate(forge, "older")
