"""README, docs, Makefile, dvc.yaml and params.yaml speak of the same things."""

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import files
from pipeline.cli import app
from pipeline.config.loading import read
from pipeline.experiments import dependencies
from tests.conftest import SMALL, write_params
from tests.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PARAMS = read(ROOT / "params.yaml")
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))


def has(tree, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def commands(text: str) -> str:
    """Return what is set as code: blocks and spans."""
    return "\n".join(re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL))


def test_readme_lists_exactly_the_stages_of_dvc_yaml_in_their_order():
    """The table under 'The stages'."""
    section = (ROOT / "README.md").read_text().split("## The stages")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| .* \| (.*) \|$", section, re.MULTILINE)[1:]
    stages = dependencies.stages(ROOT)
    assert [name for name, _ in rows] == list(stages)
    for name, leaves in rows:
        outs = [out if isinstance(out, str) else next(iter(out)) for out in stages[name].get("outs", [])]
        assert sorted(re.findall(r"`([^`]+)`", leaves)) == sorted(outs), name


def test_readme_shows_every_make_target_but_the_obvious_and_no_other():
    """help is what `make` does, install what every other target does first."""
    shown = set(re.findall(r"\bmake ([a-z][a-z-]*)\b", commands((ROOT / "README.md").read_text())))
    assert shown == TARGETS - {"help", "install"}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "Makefile", ROOT / ".ci/run"], ids=lambda path: path.name)
def test_commands_name_targets_params_and_subcommands_that_exist(page: Path):
    """`make X`, `-S KEY=...`, `python -m pipeline X`, `dvc repro STAGE`."""
    text = page.read_text() if page.suffix != ".md" else commands(page.read_text())
    assert set(re.findall(r"\bmake (?:-C \S+ )?([a-z][a-z-]*)\b", text)) <= TARGETS
    for key in re.findall(r"(?:-S|--set-param) '?([\w.]+)=", text):
        assert has(PARAMS, key), key
    subcommands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"python -m pipeline (\w+)", text)) <= subcommands
    stages = set(dependencies.stages(ROOT))
    assert set(re.findall(r"dvc repro (?:-f )?([a-z]\w*)", text)) <= stages


def test_commands_for_experiments_leave_the_workspace_alone():
    """They have --temp or --queue, and a name: without, their parameters stay in params.yaml for the next run."""
    sources = [path for folder in ("pipeline", "stages") for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in (*PAGES, *sources, ROOT / "Makefile", ROOT / "params.yaml"):
        for options in re.findall(r"dvc exp run (-.*)", path.read_text()):
            command = options.partition("`")[0]
            assert re.match("--temp|--queue|-S$", command), f"{path}: {command}"
            assert " -S " not in command or " -n " in command, f"{path}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_knobs_and_links_exist(page: Path):
    """`model.cnn.pooling` is in params.yaml, [a page](docs/x.md) is where it says."""
    text = page.read_text()
    groups = "|".join(PARAMS)
    for key in re.findall(rf"`((?:{groups})\.[\w.]+?)(?:[=:][^`]*)?`", text):
        assert has(PARAMS, key), key
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.e2e
def test_the_readmes_architecture_trains_as_it_stands(tmp_path, processed, environment):
    """Its code blocks, each written to the file that its first line names, in a copy of the project."""
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    section = (ROOT / "README.md").read_text().split("## Add an architecture")[1].split("\n## ")[0]
    blocks = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", section, re.DOTALL))
    added = YAML(typ="safe").load(blocks.pop("params.yaml"))["model"]
    for path, code in blocks.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(code)
    (arch,) = added
    tree = YAML(typ="safe").load(
        write_params(tmp_path / "params.yaml", SMALL | {"tracking.enabled": False, "train.epochs": 1})
    )
    tree["model"] |= {"arch": arch, **added}
    YAML().dump(tree, tmp_path / "params.yaml")
    command = dependencies.stages(ROOT)["train"]["cmd"].replace("data/processed", str(processed)).split()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert files.read_json(tmp_path / "model/model.json")["params"] == added[arch]
    *convolutions, (inputs, classes) = itertools.pairwise((3, *added[arch]["widths"], 10))
    weights = sum(9 * before * after + 3 * after for before, after in convolutions) + (inputs + 1) * classes
    assert files.read_json(tmp_path / "metrics/train.json")["model/parameters"] == weights
