"""params.yaml itself: DVC changes the values of `-S` in it and nothing else."""

import difflib
import shutil

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from tests.paths import ROOT


def changed_lines(folder, *overrides: str) -> list[str]:
    """Return what `dvc exp run -S` changes in params.yaml, as lines of a diff without context."""
    path = folder / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    apply_overrides(path, list(overrides))  # which is what DVC does with -S
    before, after = (file.read_text().splitlines() for file in (ROOT / "params.yaml", path))
    diff = difflib.unified_diff(before, after, n=0, lineterm="")
    return [line for line in list(diff)[2:] if not line.startswith("@@")]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.seed=1", "seed: 1 "),
        ("model.cnn.activation=tanh", "activation: tanh "),
        ("augment.brightness=0.14", "brightness: 0.14 "),
        ("tracking.enabled=false", "enabled: false "),
        ("data.archive=cifar.tar.gz", "archive: cifar.tar.gz "),
        ("train.resolutions=[28]", "- 28"),
    ],
)
def test_dvc_changes_one_line_for_one_value(tmp_path, override, line):
    """Its comment stays behind it, and all other lines are as they were."""
    removed, added = changed_lines(tmp_path, override)
    assert added.removeprefix("+").strip().startswith(line)
    assert removed.split("#")[1:] == added.split("#")[1:]


def test_a_list_of_another_length_changes_its_own_lines(tmp_path):
    """One line for an item."""
    assert changed_lines(tmp_path, "model.cnn.widths=[16,32]") == ["+    - 16", "-    - 64", "-    - 128"]


def test_without_a_change_the_file_is_the_same(tmp_path):
    """To the byte: lists, empty values, comments."""
    assert changed_lines(tmp_path, "train.seed=0") == []


def lists(tree: dict, prefix: str = "") -> list[str]:
    """Return the names of all parameters that are lists."""
    found = []
    for key, value in tree.items():
        found += (
            lists(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else [f"{prefix}{key}"] * isinstance(value, list)
        )
    return found


@pytest.mark.parametrize("value", ["[]", "7", "[7]", "[7,8,9,10,11]"])
@pytest.mark.parametrize("key", lists(YAML(typ="safe").load(ROOT / "params.yaml")))
def test_any_list_can_be_replaced_by_anything(tmp_path, key, value):
    """An empty list, a number, more or fewer items: only the lines of that list change, and the file stays valid."""
    changed = changed_lines(tmp_path, f"{key}={value}")
    tree = YAML(typ="safe").load(tmp_path / "params.yaml")
    for part in key.split("."):
        tree = tree[part]
    assert tree == YAML(typ="safe").load(value)
    own = (f"{key.rsplit('.')[-1]}:", "- ")
    assert all(line[1:].strip().startswith(own) and "#" not in line for line in changed), changed
