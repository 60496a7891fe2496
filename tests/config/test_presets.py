"""Presets: every one fits params.yaml, and what is printed is what `dvc exp run` understands."""

import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from pipeline.config import loading, presets
from pipeline.config.section import flatten
from pipeline.errors import PresetError
from tests.paths import ROOT

NAMES = [preset.name for preset in presets.every()]


def test_there_is_one_for_each_need():
    """From the shortest training to the longest, each with a line that says what it is for."""
    assert NAMES == ["default", "fast", "brisk", "balanced", "accurate", "best95", "best96"]
    assert all(len(preset.purpose) > 20 for preset in presets.every())


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_changes_what_it_names_and_nothing_else(name):
    """The result is valid, has its values, and is params.yaml in all else."""
    preset = presets.find(name)
    found = dict(flatten(preset.applied(ROOT / "params.yaml").model_dump(mode="json")))
    usual = dict(flatten(loading.load(ROOT / "params.yaml").model_dump(mode="json")))
    assert found == usual | preset.values
    assert preset.values.keys() <= usual.keys()


def test_the_default_is_what_params_yaml_says():
    """A default that changes there changes here, too, or this fails."""
    assert loading.differing(presets.find("default").values, loading.read(ROOT / "params.yaml")) == {}


@pytest.mark.parametrize("name", NAMES)
def test_what_ran_before_has_no_effect(name):
    """Each preset after each other, in the same params.yaml, is what it is alone."""
    usual = loading.read(ROOT / "params.yaml")
    alone = loading.changed(usual, presets.find(name).values)
    for before in NAMES:
        left = loading.changed(usual, presets.find(before).values)
        assert loading.changed(left, presets.find(name).values) == alone, before


def test_a_parameter_without_a_default_is_an_error(tmp_path, monkeypatch):
    """A preset that changes another parameter has to say what it is in all others."""
    (tmp_path / "1-slow.yaml").write_text("# slow\ntrain:\n  ema: 0.5\n")
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    with pytest.raises(PresetError, match=r"1-slow.yaml: train.ema: expected in 0-default.yaml, too"):
        presets.every()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_are_the_values_as_dvc_reads_them(name):
    """One line of -S KEY=VALUE without spaces in a value, so that a shell takes them apart as they are."""
    command = [sys.executable, "-m", "pipeline", "preset", name]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = said.split()
    assert said.count("\n") == 1
    assert words[::2] == ["-S"] * (len(words) // 2)
    yaml = YAML(typ="safe")
    found = {key: yaml.load(value) for key, value in (word.split("=", 1) for word in words[1::2])}
    assert found == presets.find(name).values


def test_an_unknown_name_is_answered_with_those_there_are():
    """In one line."""
    with pytest.raises(PresetError, match="preset: found quick, expected one of default, fast, brisk"):
        presets.find("quick")
