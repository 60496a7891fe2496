"""The artifacts of a store that lies in the repository, wherever the repository is.

MLflow writes absolute addresses into its database: a repository that is moved, renamed or copied would look for its
artifacts, and put new ones, where it was.
"""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

COLUMNS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
"""Table -> column of MLflow's schema with addresses of artifacts."""

DEFAULT = 0
"""The id of MLflow's own experiment."""


def follow(database: Path, artifacts: Path) -> None:
    """Let a store's artifacts have the addresses of the folder in which they are.

    Experiments with artifacts in folders of other names keep them: a user has chosen these. MLflow's own experiment
    "Default" gets a folder, too: otherwise it has one in the folder in which the store happened to be created.

    Args:
        database: MLflow's sqlite database, with its tables.
        artifacts: the folder beside it, in which `store.experiment` puts an experiment's artifacts.

    Raises:
        sqlite3.Error: the database cannot be opened, read or written.
    """
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        located = dict(connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall())
        marked = [str(address).rpartition(f"/{artifacts.name}/") for address in located.values()]
        former = {f"{before}/{artifacts.name}" for before, mark, _ in marked if mark and before.startswith("file://")}
        with connection:  # one transaction
            for address in sorted(former):
                if not _is(address, artifacts):
                    for table in tables & COLUMNS.keys():
                        _replace(connection, table, address, artifacts.as_uri())
                    print(f"note: {database} was moved; its artifacts were in {address}", file=sys.stderr)
            if DEFAULT in located and f"/{artifacts.name}/" not in str(located[DEFAULT]):
                own = (f"{artifacts.as_uri()}/{DEFAULT}", DEFAULT)
                connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", own)


def _is(address: str, folder: Path) -> bool:
    path = unquote(urlsplit(address).path)
    return os.path.realpath(path) == os.path.realpath(folder)


def _replace(connection: sqlite3.Connection, table: str, before: str, after: str) -> None:
    column = COLUMNS[table]
    connection.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608  # ours
        (after, len(before) + 1, len(before) + 1, f"{before}/"),
    )
