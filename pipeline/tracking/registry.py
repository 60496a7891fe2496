"""Registered models: which version shows which result, and which one an alias names."""

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REPLACED_TAG = "promoted_over"
"""On a version that an alias was moved to: ALIAS=VERSION, the version that it named before; VERSION 0 is none."""

FORCED_TAG = "promotion_forced"
"""On a version that was promoted all the same: the reasons against it."""


def versions(client: "MlflowClient", model: str) -> list["ModelVersion"]:
    """Return all versions of a model, oldest first."""
    return sorted(client.search_model_versions(f"name = '{model}'"), key=lambda version: int(version.version))


def of_content(client: "MlflowClient", model: str, content: str, experiment: str | None) -> "ModelVersion | None":
    """Return the newest version that shows a result, of this experiment's run if that has one."""
    same = [version for version in versions(client, model) if version.tags.get(runs.CONTENT_TAG) == content]
    own = [v for v in same if v.run_id and client.get_run(v.run_id).info.run_name == experiment]
    return max(own or same, key=lambda version: int(version.version), default=None)


def by_alias(client: "MlflowClient", model: str, alias: str) -> "ModelVersion | None":
    """Return the version that an alias names."""
    registered = client.search_registered_models(f"name = '{model}'")
    number = registered[0].aliases.get(alias) if registered else None
    return client.get_model_version(model, str(number)) if number else None


def move(client: "MlflowClient", model: str, alias: str, version: str, *, forced: str = "") -> None:
    """Let an alias name another version, and keep what it named before."""
    before = by_alias(client, model, alias)
    client.set_registered_model_alias(model, alias, version)
    if before is None or before.version != version:
        client.set_model_version_tag(model, version, REPLACED_TAG, f"{alias}={before.version if before else 0}")
    if forced:
        client.set_model_version_tag(model, version, FORCED_TAG, forced)


def replaced(version: "ModelVersion", alias: str) -> str | None:
    """Return the version that an alias named before it came to name this one; "0" for none, None if unknown."""
    before, _, number = version.tags.get(REPLACED_TAG, "").partition("=")
    return number if before == alias else None


def md5(client: "MlflowClient", version: "ModelVersion") -> str:
    """Return the MD5 of a version's ONNX file as it would be served: what DVC records of the file it came from."""
    import mlflow.artifacts

    with tempfile.TemporaryDirectory() as folder:
        uri = client.get_model_version_download_uri(version.name, version.version)
        found = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        (graph,) = Path(found).rglob("*.onnx")
        return hashlib.md5(graph.read_bytes(), usedforsecurity=False).hexdigest()


def artifact(client: "MlflowClient", version: "ModelVersion", path: str) -> bytes:
    """Return the bytes of an artifact of the run that a version came from."""
    assert version.run_id
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(version.run_id, path, folder)).read_bytes()
