"""Where runs are kept: the store's address, a client for it, and its errors as one line."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from pipeline.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE, ARTIFACTS, LOCK = "mlflow.db", "mlartifacts", ".mlflow.lock"

KIND = "custom_model_development"
"""Tells MLflow's pages to show an experiment as model training, not as development of language-model apps."""

TIMEOUT_SECONDS = 10
"""How long one request may take where nobody should wait for MLflow."""


def uri(root: Path) -> str:
    """Return the address of the store in use: `MLFLOW_TRACKING_URI`, else sqlite at the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / DATABASE}"


def load() -> None:
    """Import MLflow, which takes seconds, with the settings that it has here."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # with MLflow's 7 a dead server takes minutes
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def client(root: Path) -> "MlflowClient":
    """Return a client of the store, which is made if it does not exist."""
    load()
    import mlflow

    mlflow.set_tracking_uri(uri(root))
    # Processes that start together on a fresh store would race in the database's schema migration.
    with filelock.FileLock(root / LOCK):
        made = mlflow.MlflowClient(uri(root))
        made.search_experiments(max_results=1)
    return made


def experiment(root: Path, name: str) -> tuple["MlflowClient", str]:
    """Return a client and the id of the MLflow experiment of that name, both made if they don't exist.

    Artifacts of the default store have an absolute address beside the database, so that runs of DVC's temporary
    workspaces keep them when the workspace is deleted.
    """
    made = client(root)
    with filelock.FileLock(root / LOCK):
        found = made.get_experiment_by_name(name)
        if found:
            return made, found.experiment_id
        remote = uri(root).startswith(("http://", "https://", "databricks"))  # such a server knows where they go
        location = None if remote else (root / ARTIFACTS / name).as_uri()
        return made, made.create_experiment(name, location, {"mlflow.experimentKind": KIND})


def lose_patience() -> None:
    """Let requests to a server that does not answer fail soon, unless the user has said when."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


@contextmanager
def errors(
    root: Path, advice: str = "nothing is lost: when it answers again, run python -m pipeline sync"
) -> Iterator[None]:
    """Turn what a store can raise into a TrackingError of one line."""
    import mlflow.exceptions
    import requests
    import sqlalchemy.exc

    try:
        yield
    except (mlflow.exceptions.MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError) as error:
        raise TrackingError(f"MLflow store {uri(root)}: {short(error)}; {advice}") from None


def short(error: BaseException) -> str:
    """Return an error's message as one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
