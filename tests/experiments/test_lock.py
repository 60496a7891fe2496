"""dvc.lock and metrics of unexpected shapes, and stages that are the user's own: no traceback, no wrong row."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.errors import ResultsError
from pipeline.experiments import results
from pipeline.experiments.predictions import Predictions
from tests.forge import Forge

WRONG = (None, True, 7, "x", [], [7], {"x": 7}, {"path": ["x"]})
OWN = {
    "several-commands": {"cmd": ["echo a", "echo b"], "outs": [{"path": "a", "hash": "md5", "md5": "1" * 32}]},
    "imported": {"cmd": "wget", "deps": [{"path": "https://x", "etag": "e"}], "outs": [{"path": "b", "size": 1}]},
    "not-cached": {"cmd": "touch c", "outs": [{"path": "c"}]},
    "each@one": {"cmd": "python3 own.py --out model --metrics metrics/own.json"},
    "grid@1-2": {"cmd": "'", "params": {"own.yaml": None}},
    "without-a-command": {"deps": [{"path": "params.yaml", "hash": "md5", "md5": "2" * 32}]},
}
"""Stages of a user's, as DVC records them."""


@pytest.fixture(scope="module")
def forge(tmp_path_factory) -> Forge:
    """A finished pipeline in its workspace."""
    made = Forge(tmp_path_factory.mktemp("lock") / "repository", images=100)
    made.commit(predicted=made.right(range(10)))
    return made


@pytest.fixture
def lock(forge) -> dict[str, Any]:
    """Its dvc.lock."""
    return YAML(typ="safe").load(forge.folder / "dvc.lock")


def read(forge: Forge, lock: Any, **metrics: bytes) -> results.Results:
    """Read the results with another lock, and other metrics by the stem of their path."""

    def content_of(path: str) -> bytes:
        if path == "dvc.lock":
            return json.dumps(lock).encode()  # JSON is YAML, too
        return metrics.get(path, (forge.folder / path).read_bytes())

    return results.read(content_of)


def refusal(forge: Forge, lock: Any, **metrics: bytes) -> str:
    """Why results are refused; empty if all that others read of them is there."""
    try:
        record = read(forge, lock, **metrics)
    except ResultsError as error:
        return str(error)
    used = (record.arch, record.headline, record.training, record.dataset_hash, record.decided)
    assert len((*used, record.started, record.ended)) == 7
    return ""


def places(tree: Any, above: tuple = ()) -> Iterator[tuple]:
    """All places in a tree of mappings and lists."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield (*above, key)
        yield from places(value, (*above, key))


def put(tree: Any, place: tuple, value: Any) -> Any:
    """A copy of a tree with another value in one place; the place () is the whole."""
    if not place:
        return value
    copied = json.loads(json.dumps(tree))
    inner = copied
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copied


def test_whatever_is_wrong_in_the_lock_is_one_line(forge, lock):
    """Any value in any place: results that can be used, or a reason."""
    reasons = [refusal(forge, put(lock, place, value)) for place in [(), *places(lock)] for value in WRONG]
    assert sum(map(bool, reasons)) > 100
    assert max(len(reason.splitlines()) for reason in reasons) == 1


def test_whatever_is_wrong_in_metrics_is_one_line(forge, lock):
    """Likewise, though the file is the one that dvc.lock recorded."""
    reasons = []
    for out in (out for stage in lock["stages"].values() for out in stage["outs"] if out["path"].endswith(".json")):
        tree = json.loads((forge.folder / out["path"]).read_text())
        for place in [(), *places(tree)]:
            for value in WRONG:
                content = json.dumps(put(tree, place, value)).encode()
                out["md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
                reasons.append(refusal(forge, lock, **{out["path"]: content}))
        out["md5"] = hashlib.md5((forge.folder / out["path"]).read_bytes(), usedforsecurity=False).hexdigest()
    assert sum(map(bool, reasons)) > 100
    assert max(len(reason.splitlines()) for reason in reasons) == 1


@pytest.mark.parametrize("content", [b"", b"\xff", b"a,b\n", b"epoch,lr\n1,x\n", b"index,label,predicted,a\n0,a,b\n"])
def test_tables_that_are_damaged_are_one_line(content):
    """As a cache on a bad disk gives them."""
    with pytest.raises(ResultsError, match="predictions for the test images are damaged"):
        Predictions.parse(content)


@pytest.mark.parametrize("content", [b"\xff", b"epoch,lr\n1,x\n", b"epoch,lr\n1\n", b"epoch\n1,2\n"])
def test_a_history_that_is_damaged_is_one_line(content):
    """Likewise."""
    with pytest.raises(ResultsError, match="history of the training is damaged"):
        results.parse_history(content)


def test_stages_of_the_users_own_are_passed_by(forge, lock):
    """Whatever they look like, in front of ours or behind them."""
    for stages in (OWN | lock["stages"], lock["stages"] | OWN):
        assert read(forge, lock | {"stages": stages}) == read(forge, lock)
