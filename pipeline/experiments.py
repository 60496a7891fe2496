"""Read commits and experiments through DVC: git and DVC hold the truth, so nothing here needs MLflow."""

import csv
import json
from pathlib import Path
from typing import Any

import dvc.api
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from ruamel.yaml import YAML
from scmrepo.exceptions import SCMError

from pipeline.errors import PipelineError


def metrics(rev: str, repository: Path) -> dict[str, Any]:
    """Return all metrics of a commit or experiment, flat, under the names they have everywhere.

    They are read from the files that the revision's own dvc.yaml declares. (`dvc.api.metrics_show(rev=...)` of
    dvc 3.67 answers with the workspace's metrics instead.)

    Args:
        rev: anything git or DVC resolves: a commit, branch, tag or the name of an experiment.

    Raises:
        PipelineError: there is no such revision, or it carries no results.
    """
    hint = "dvc exp list shows the experiments there are"
    try:
        tree = dvc.api.DVCFileSystem(str(repository), rev=rev)
        stages = YAML(typ="safe").load(tree.read_text("dvc.yaml"))["stages"]
        paths = [next(iter(entry)) for stage in stages.values() for entry in stage.get("metrics", [])]
        found: dict[str, Any] = {}
        for path in paths:
            found |= json.loads(tree.read_text(path))
    except (DvcException, SCMError) as error:
        raise PipelineError(f"{rev}: no results: {error}; {hint}") from None
    except FileNotFoundError as error:
        raise PipelineError(
            f"{rev}: expected the metrics of a finished pipeline, found no {error.filename}; {hint}"
        ) from None
    return found


def history(rev: str, repository: Path) -> list[dict[str, float]]:
    """Return the epochs of a revision's training, each with "epoch" (from 1) and its metrics.

    Raises:
        PipelineError: there is no such revision, or its history is neither in git nor in DVC's cache.
    """
    try:
        tree = dvc.api.DVCFileSystem(str(repository), rev=rev)
        outs = YAML(typ="safe").load(tree.read_text("dvc.yaml"))["stages"]["train"]["outs"]
        text = tree.read_text(next(path for path in outs if path.endswith(".csv")))
    except (DvcException, SCMError, OSError) as error:
        raise PipelineError(f"{rev}: no history: {error}; dvc fetch brings what a remote has") from None
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(text.splitlines())]


def names(repository: Path) -> set[str]:
    """Return the names of all experiments there are, of whatever commit."""
    with Repo(str(repository)) as repo:
        return {ref.name for ref in exp_refs(repo.scm)}
