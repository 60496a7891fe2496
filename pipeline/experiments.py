"""Read commits and experiments through dvc.api: git and DVC hold the truth, so nothing here needs MLflow."""

from pathlib import Path
from typing import Any

import dvc.api
from dvc.exceptions import DvcException
from scmrepo.exceptions import SCMError

from pipeline.errors import PipelineError


def metrics(rev: str, repository: Path) -> dict[str, Any]:
    """Return all metrics of a commit or experiment, flat, under the names they have everywhere.

    Args:
        rev: anything git or DVC resolves: a commit, branch, tag or the name of an experiment.

    Raises:
        PipelineError: there is no such revision, or it carries no results.
    """
    try:
        found: dict[str, Any] = dvc.api.metrics_show(repo=str(repository), rev=rev)
    except (DvcException, SCMError) as error:
        raise PipelineError(f"{rev}: no results: {error}; dvc exp list shows the experiments there are") from None
    if not found:
        raise PipelineError(f"{rev}: expected metrics, found none; dvc exp list shows the experiments there are")
    return found
