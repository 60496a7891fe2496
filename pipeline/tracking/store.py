"""The MLflow store: its address, a client, and its errors as one line."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from pipeline.errors import TrackingError
from pipeline.tracking import location

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE, ARTIFACTS, LOCK = "mlflow.db", "mlartifacts", ".mlflow.lock"
SQLITE = "sqlite:///"

KIND = "custom_model_development"
"""Makes MLflow's UI show an experiment as model training, not as GenAI development."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that accepts requests and never answers is given up after one and a half minutes, not after twenty.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""MLflow's settings, unless the user has set them."""

TIMEOUT_SECONDS = 10
"""Timeout of a request where MLflow must not block."""


def uri(root: Path) -> str:
    """Return the address of the store: `MLFLOW_TRACKING_URI`, else sqlite at the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{root / DATABASE}"


def load() -> None:
    """Import MLflow, which takes seconds, with the project's settings."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def client(root: Path) -> "MlflowClient":
    """Return a client of the store, which is created if it does not exist.

    Raises:
        sqlite3.Error: it is a database that cannot be opened, which MLflow would try again for two minutes.
    """
    load()
    if (address := uri(root)).startswith(SQLITE):
        with closing(sqlite3.connect(address.removeprefix(SQLITE).partition("?")[0], timeout=60)) as opened:
            opened.execute("PRAGMA schema_version")
    import mlflow

    mlflow.set_tracking_uri(uri(root))
    # Concurrent processes would race in the schema migration of a new database.
    with filelock.FileLock(root / LOCK):
        connected = mlflow.MlflowClient(uri(root))
        connected.search_experiments(max_results=1)
        if database := _database(root):
            location.follow(database, root / ARTIFACTS)
    return connected


def _database(root: Path) -> Path | None:
    """Return the file of the default store, whose artifacts lie beside it; None for all others."""
    address = uri(root).partition("?")[0]
    return root / DATABASE if address == f"{SQLITE}{root / DATABASE}" else None


def experiment(root: Path, name: str) -> tuple["MlflowClient", str]:
    """Return a client and the id of the MLflow experiment of that name, created if they don't exist.

    Artifacts of the default store have an absolute address next to the database, so that they are kept when DVC
    deletes a temporary workspace.
    """
    connected = client(root)
    with filelock.FileLock(root / LOCK):
        found = connected.get_experiment_by_name(name)
        if found:
            return connected, found.experiment_id
        remote = uri(root).startswith(("http://", "https://", "databricks"))  # the server chooses the location
        where = None if remote else (root / ARTIFACTS / name).as_uri()
        return connected, connected.create_experiment(name, where, {"mlflow.experimentKind": KIND})


def limit_waiting() -> None:
    """Set short timeouts and few retries for requests, unless the user has set them."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


@contextmanager
def errors(
    root: Path, advice: str = "no results are lost: when it is reachable again, run python -m pipeline sync"
) -> Iterator[None]:
    """Raise errors of a store as a TrackingError of one line."""
    import mlflow.exceptions
    import requests
    import sqlalchemy.exc

    kinds = (mlflow.exceptions.MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError)
    try:
        yield
    except (*kinds, sqlite3.Error, OSError) as error:  # a full disk, where artifacts are files
        raise TrackingError(f"MLflow store {uri(root)}: {short(error)}; {advice}") from None


def short(error: BaseException) -> str:
    """Return an error's message as one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text if len(text) <= 300 else text[:297] + "..."
