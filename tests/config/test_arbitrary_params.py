"""Whatever is in params.yaml, it is accepted or refused in lines that name the place: no traceback, no hang."""

import copy
import time
from datetime import date

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.config import loading
from pipeline.config.section import flatten
from pipeline.errors import ParamsError
from tests.paths import ROOT

TEXT = (ROOT / "params.yaml").read_text()
TREE = YAML(typ="safe").load(TEXT)
KEYS = sorted(key for key, _ in flatten(TREE))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(date(1, 1, 1)),
    st.binary(max_size=5),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner)
)
# The file is written anew for each example.
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(path) -> str:
    """Return why a params.yaml is refused, empty if it is accepted; within a second."""
    started = time.perf_counter()
    try:
        loading.load(path)
        return ""
    except ParamsError as error:
        return str(error)
    finally:
        assert time.perf_counter() - started < 1


@EXAMPLES
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_any_parameter(tmp_path, key, value):
    """It is accepted, or each line names the file and a parameter."""
    tree = copy.deepcopy(TREE)
    *sections, last = key.split(".")
    section = tree
    for name in sections:
        section = section[name]
    section[last] = value
    path = tmp_path / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(tree, file)
    for line in refused(path).splitlines():
        place, _, _ = line.removeprefix(f"{path}: ").partition(":")
        assert place.partition(".")[0] in TREE, line


@EXAMPLES
@given(
    position=st.integers(0, len(TEXT)),
    removed=st.integers(0, 40),
    inserted=st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_any_change_of_the_text(tmp_path, position, removed, inserted):
    """Valid YAML or not."""
    path = tmp_path / "params.yaml"
    path.write_text(TEXT[:position] + inserted + TEXT[position + removed :], encoding="utf-8")
    assert all(line.startswith(str(path)) for line in refused(path).splitlines())


LAUGHS = "z0: &z0 [1]\n" + "".join(f"z{level}: &z{level} [{f'*z{level - 1},' * 10}]\n" for level in range(1, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TEXT.replace("epochs: 8", "epochs: &a [*a]"),
            r", line \d+: the alias \*a is part of what it stands for",
        ),
        (LAUGHS + TEXT.replace("epochs: 8", "epochs: *z9"), r"line 5: found more than 10,000 values, counting what"),
        (
            TEXT.replace("epochs: 8", f"epochs: {'9' * 5000}"),
            r"line \d+: found a value of 5000 characters, expected",
        ),
        (TEXT + "a: &a {b: {c: *a}}\n", r"line \d+: the alias \*a is part of what it stands for"),
        (TEXT + "? [a, b]\n: 1\n", r": found a list as the name of a parameter"),
        (TEXT + "? {a: b}\n: 1\n", r"found unhashable key"),
        (TEXT + f"deep: {'[' * 5000}{']' * 5000}\n", r"line \d+: found values in 21 levels, expected at most 20"),
        (TEXT + "train: {}\n", r"found duplicate key"),
        (TEXT + "---\na: 1\n", r"found another document"),
        ("!!python/object/apply:os.system [x]\n", r"could not determine a constructor"),
        (TEXT + "\0", r"control characters are not allowed"),
    ],
    ids=[
        "circle",
        "laughs",
        "digits",
        "inner-circle",
        "list-key",
        "map-key",
        "deep",
        "twice",
        "documents",
        "tag",
        "null",
    ],
)
def test_what_a_loader_could_choke_on(tmp_path, text, message):
    """One line each."""
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=message) as caught:
        loading.load(path)
    assert "\n" not in str(caught.value)


def test_aliases_are_values(tmp_path):
    """As DVC has them; studies share parameters so."""
    path = tmp_path / "file.yaml"
    path.write_text("base: &base {a: [1, 2]}\nother: {<<: *base, b: *base}\n")
    assert loading.read(path) == {"base": {"a": [1, 2]}, "other": {"a": [1, 2], "b": {"a": [1, 2]}}}
