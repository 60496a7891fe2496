"""MLflow's model registry: versions of results, and aliases."""

import hashlib
import re
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import TrackingError
from pipeline.tracking import runs, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

REPLACED_TAG = "promoted_over."
"""Tag of a promoted version, before the alias: the previous version of the alias; 0 means none."""

REVISION_TAG = "promoted_revision"
"""Tag of a promoted version: the commit with its results."""

FORCED_TAG = "promotion_forced"
"""Tag of a version that was promoted with --force: the failed checks."""


def register(client: "MlflowClient", run: "Run", name: str, content: str, graph_file: Path, card: str) -> None:
    """Log the ONNX model to a run and register it as a new version."""
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    graph = onnx.load(graph_file)
    images, probabilities = graph.graph.input[0], graph.graph.output[0]
    shape = [dimension.dim_value or -1 for dimension in images.type.tensor_type.shape.dim]
    classes = probabilities.type.tensor_type.shape.dim[1].dim_value
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), shape, images.name)]),
        Schema([TensorSpec(np.dtype("float32"), [-1, classes], probabilities.name)]),
    )
    example = {images.name: np.zeros((1, *shape[1:]), np.uint8)}
    with mlflow.start_run(run_id=run.info.run_id):
        info = mlflow.onnx.log_model(
            graph,
            name="model",
            signature=signature,
            input_example=example,
            save_as_external_data=False,
            pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "onnx", "onnxruntime")],
        )
    if not any(model.name == name for model in client.search_registered_models(f"name = '{name}'")):
        client.create_registered_model(name)
    tags = {runs.CONTENT_TAG: content, "onnx_sha256": files.sha256(graph_file)}
    client.create_model_version(
        name, info.model_uri, run.info.run_id, tags=tags, description=card, model_id=info.model_id
    )


def versions(client: "MlflowClient", model: str) -> list["ModelVersion"]:
    """Return all versions of a model, oldest first."""
    return sorted(client.search_model_versions(f"name = '{model}'"), key=lambda version: int(version.version))


def of_content(client: "MlflowClient", model: str, content: str, experiment: str | None) -> "ModelVersion | None":
    """Return the newest version of a result, preferably from the run of this experiment."""
    same = [version for version in versions(client, model) if version.tags.get(runs.CONTENT_TAG) == content]
    own = [v for v in same if v.run_id and client.get_run(v.run_id).info.run_name == experiment]
    return next(reversed(own or same), None)


def aliases(client: "MlflowClient", model: str) -> dict[str, str]:
    """Return alias -> version of all aliases of a model; empty if the model does not exist."""
    registered = client.search_registered_models(f"name = '{model}'")
    return {alias: str(number) for alias, number in registered[0].aliases.items()} if registered else {}


def by_alias(client: "MlflowClient", model: str, alias: str) -> "ModelVersion | None":
    """Return the version of an alias."""
    number = aliases(client, model).get(alias)
    return client.get_model_version(model, number) if number else None


def move(client: "MlflowClient", model: str, alias: str, version: str, *, revision: str, forced: str = "") -> None:
    """Set an alias to another version and record the previous one."""
    before = by_alias(client, model, alias)
    client.set_registered_model_alias(model, alias, version)
    if before is None or str(before.version) != version:
        replaced = str(before.version) if before else "0"
        client.set_model_version_tag(model, version, f"{REPLACED_TAG}{alias}", replaced)
    client.set_model_version_tag(model, version, REVISION_TAG, revision)
    if forced:
        client.set_model_version_tag(model, version, FORCED_TAG, forced)


def replaced(version: "ModelVersion", alias: str) -> str | None:
    """Return the version that an alias had before it was set to this one; "0" for none, None if unknown."""
    return version.tags.get(f"{REPLACED_TAG}{alias}")


def holders(client: "MlflowClient", model: str, alias: str) -> list["ModelVersion"]:
    """Return the version of an alias and those that it replaced, newest first, without promotions that were undone."""
    found: dict[str, ModelVersion] = {}
    version = by_alias(client, model, alias)
    while version is not None and version.version not in found:
        found[version.version] = version
        before = replaced(version, alias)
        version = client.get_model_version(model, before) if before not in (None, "0") else None
    return list(found.values())


def md5(version: "ModelVersion") -> str:
    """Return the MD5 of a version's ONNX file as it would be served, to compare with DVC's."""
    with tempfile.TemporaryDirectory() as folder:
        graph = _download(
            version.name, str(version.version), Path(folder), f"models:/{version.name}/{version.version}"
        )
        return hashlib.md5(graph.read_bytes(), usedforsecurity=False).hexdigest()


def artifact(client: "MlflowClient", version: "ModelVersion", path: str) -> bytes:
    """Return the bytes of an artifact of a version's run."""
    assert version.run_id
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(version.run_id, path, folder)).read_bytes()


def model_file(root: Path, uri: str, folder: Path) -> Path:
    """Download the ONNX file of a registered model and return its path.

    Args:
        root: the user's repository, with the default store.
        uri: "models:/NAME@ALIAS" or "models:/NAME/VERSION".
        folder: an empty folder for the model's files.

    Raises:
        TrackingError: the store cannot be reached, has no such model, alias or version, or it is no ONNX model.
    """
    version = resolve(root, uri)
    with _reading(root, uri):
        return _download(version.name, str(version.version), folder, uri)


def resolve(root: Path, uri: str) -> "ModelVersion":
    """Return the version that "models:/NAME@ALIAS" or "models:/NAME/VERSION" is at present.

    Raises:
        TrackingError: the store cannot be reached, or has no such model, alias or version.
    """
    requested = re.fullmatch(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri)
    if not requested:
        raise TrackingError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    address = store.uri(root)
    if address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).exists():
        raise TrackingError(
            f"{uri}: there is no MLflow store {address} yet; dvc repro creates it, MLFLOW_TRACKING_URI selects another"
        )
    store.limit_waiting()
    with _reading(root, uri):
        client = store.client(root)
        return client.get_model_version(
            requested["name"], _requested_version(client, address, uri, **requested.groupdict())
        )


def _reading(root: Path, uri: str) -> AbstractContextManager[None]:
    return store.errors(root, f"so {uri} cannot be read; MLFLOW_TRACKING_URI selects another store")


def _download(name: str, version: str, folder: Path, uri: str) -> Path:
    import mlflow.artifacts

    copy = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(folder)))
    found = sorted(path.name for path in copy.iterdir())
    graphs = [file for file in found if file.endswith(".onnx")]
    if len(graphs) != 1:
        raise TrackingError(f"{uri}: expected a model with one .onnx file, found {', '.join(found)}")
    return copy / graphs[0]


def _requested_version(
    client: "MlflowClient", address: str, uri: str, name: str, alias: str | None, version: str | None
) -> str:
    """Return the version of an alias, or `version` if it exists."""
    models = client.search_registered_models(f"name = '{name}'")
    if not models:
        existing = [model.name for model in client.search_registered_models()]
        raise TrackingError(f"{uri}: MLflow store {address} has no model {name}; {_choice('models', existing)}")
    named = models[0].aliases
    if alias is not None and alias in named:
        return str(named[alias])
    numbers = [int(each.version) for each in versions(client, name)]
    if version is not None and int(version) in numbers:
        return version
    missing = f"version {version}" if alias is None else f"alias {alias}"
    existing = [f"@{each}" for each in sorted(named)] + [f"/{each}" for each in numbers]
    raise TrackingError(f"{uri}: model {name} has no {missing}; {_choice('aliases and versions', existing)}")


def _choice(kind: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"existing {kind}: {shown or 'none'}"
