"""Promote a model version to an alias such as "champion" if it passes the checks, and undo a promotion."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.errors import PromotionError
from pipeline.experiments import statistics
from pipeline.experiments.comparison import parse_predictions
from pipeline.experiments.repository import Repository, Revision
from pipeline.experiments.results import Results
from pipeline.tracking import registry, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion.

    Attributes:
        version, before: current and previous version of the alias ("" for none).
        comparison: the candidate compared with the champion, as text; "" if there was none.
        objections: failed checks; empty unless forced.
    """

    version: str
    before: str
    comparison: str
    objections: tuple[str, ...] = ()


def promote(
    repository: Repository,
    settings: Mapping[str, Any],
    revision: Revision,
    alias: str,
    *,
    min_accuracy: float,
    force: bool = False,
) -> Promotion:
    """Set an alias to the version of a revision's model if it passes all checks.

    Args:
        settings: "experiment" and "model" of MLflow.
        min_accuracy: lowest test accuracy of a candidate, as a fraction.
        force: promote in spite of failed checks, and record them in a tag of the version.

    Raises:
        PromotionError: the revision has no registered version, or a check failed.
        PipelineError: the revision has no results, or the store cannot be reached.
    """
    record = repository.results(revision)
    if "export" not in record.paths:
        raise PromotionError(
            f"{revision.name}: expected an exported model, found none; dvc exp apply {revision.name}; dvc repro "
            "exports it"
        )
    model = str(record.tracking.get("model", settings["model"]))
    with store.errors(repository.root):
        client = store.client(repository.root)
        candidate = registry.of_content(client, model, record.content, revision.experiment)
        if candidate is None:
            raise PromotionError(
                f"{revision.name}: {model} has no version of this result; "
                f"python -m pipeline sync --rev {revision.name} registers it"
            )
        champion = registry.by_alias(client, model, alias)
        if champion and champion.version == candidate.version:
            return Promotion(str(candidate.version), str(champion.version), "no change")
        objections = _objections(candidate, revision, record, min_accuracy)
        summary = ""
        if champion:
            summary, objection = _against(client, champion, repository, revision, record)
            objections += objection
        if objections and not force:
            raise PromotionError(
                "\n".join(f"{revision.name}: not promoted: {objection}" for objection in objections)
                + "\n--force promotes it anyway and records the failed checks"
            )
        reasons = "; ".join(objections)
        registry.move(client, model, alias, str(candidate.version), revision=revision.sha, forced=reasons)
        repository.remember(alias, revision.sha)
        before = str(champion.version) if champion else ""
        return Promotion(str(candidate.version), before, summary, tuple(objections))


def undo(repository: Repository, settings: Mapping[str, Any], alias: str) -> Promotion:
    """Set an alias back to its previous version.

    Raises:
        PromotionError: there is no previous version.
    """
    model = str(settings["model"])
    with store.errors(repository.root):
        client = store.client(repository.root)
        champion = registry.by_alias(client, model, alias)
        before = registry.replaced(champion, alias) if champion else None
        if champion is None or before is None or before == "0":
            raise PromotionError(f"{model}@{alias}: expected a previous version, found none")
        client.set_registered_model_alias(model, alias, before)
        repository.remember(alias, client.get_model_version(model, before).tags.get(registry.REVISION_TAG, ""))
        return Promotion(before, str(champion.version), "")


def _objections(candidate: "ModelVersion", revision: Revision, record: Results, min_accuracy: float) -> list[str]:
    """Return the failed checks that do not depend on the current version."""
    found = []
    accuracy = record.metrics["test/accuracy"]
    if accuracy < min_accuracy:
        found.append(f"test accuracy {accuracy:.2%}, expected at least {min_accuracy:.2%} (export.min_accuracy)")
    path = record.paths["export"]["out"]
    served, recorded = registry.md5(candidate), record.outputs[path]
    if served != recorded:
        found.append(
            f"version {candidate.version} in MLflow is not the {path} that DVC recorded for {revision.name}: "
            f"expected MD5 {recorded}, found {served}"
        )
    return found


def _against(
    client: "MlflowClient", champion: "ModelVersion", repository: Repository, revision: Revision, record: Results
) -> tuple[str, list[str]]:
    """Compare a candidate with the champion on the same test images; return a summary and the failed checks."""
    path = record.paths["evaluate"]["predictions"]
    new = parse_predictions(repository.output(revision, record, path))
    old = parse_predictions(registry.artifact(client, champion, PurePosixPath(path).name))
    if not new.same_images(old):
        return "", [f"version {champion.version} was tested on other images, so they cannot be compared"]
    difference = statistics.paired(old.correct, new.correct)
    summary = (
        f"{difference.value * 100:+.2f} points against version {champion.version} on the same {len(new.labels):,} "
        f"images (95 % interval {difference.low * 100:+.2f} to {difference.high * 100:+.2f}; McNemar p "
        f"{statistics.p_text(difference.p_value)})"
    )
    worse = difference.value < 0 and difference.p_value < statistics.SIGNIFICANT
    return summary, [f"significantly worse than the current version: {summary}"] if worse else []
