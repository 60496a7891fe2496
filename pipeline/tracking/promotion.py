"""Promote a model version to an alias such as "champion" if it passes the checks, and undo a promotion."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import ExportParams
from pipeline.errors import PromotionError
from pipeline.experiments import statistics
from pipeline.experiments.predictions import Predictions
from pipeline.experiments.repository import Repository, Revision
from pipeline.experiments.results import Results
from pipeline.tracking import registry, store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion.

    Attributes:
        version, before: current and previous version of the alias ("" for none).
        comparison: the candidate compared with the best champion so far, as text; "" if there was none.
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
    requirements: ExportParams,
    force: bool = False,
) -> Promotion:
    """Set an alias to the version of a revision's model if it passes all checks.

    Args:
        settings: "experiment" and "model" of MLflow.
        requirements: lowest test accuracy of a candidate, and what it may lose to the best champion so far.
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
        champions = registry.holders(client, model, alias)
        if champions and champions[0].version == candidate.version:
            return Promotion(str(candidate.version), str(candidate.version), "no change")
        objections = _objections(candidate, revision, record, requirements.min_accuracy)
        summary = ""
        if champions:
            path = record.paths["evaluate"]["predictions"]
            predictions = Predictions.parse(repository.output(revision, record, path))
            results = {
                str(version.version): Predictions.parse(registry.artifact(client, version, PurePosixPath(path).name))
                for version in champions
            }
            summary, objection = non_inferiority(results, predictions, requirements.max_drop)
            objections += objection
        if objections and not force:
            raise PromotionError(
                "\n".join(f"{revision.name}: not promoted: {objection}" for objection in objections)
                + "\n--force promotes it anyway and records the failed checks"
            )
        reasons = "; ".join(objections)
        registry.move(client, model, alias, str(candidate.version), revision=revision.sha, forced=reasons)
        repository.remember(alias, revision.sha)
        before = str(champions[0].version) if champions else ""
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


def non_inferiority(champions: Mapping[str, Predictions], new: Predictions, max_drop: float) -> tuple[str, list[str]]:
    """Test a candidate for non-inferiority to the best champion so far on the same test images.

    A test against the last champion alone would let accuracy drift down, a little with each promotion.

    Args:
        champions: version -> predictions, the current one first.
        new: the candidate's predictions.
        max_drop: accuracy that the candidate may lose: the interval of the difference must lie above its negative.

    Returns:
        A summary and the failed checks.
    """
    comparable = {version: old for version, old in champions.items() if new.same_images(old)}
    current = next(iter(champions))
    if current not in comparable:
        return "", [f"version {current} was tested on other images, so they cannot be compared"]
    best = max(comparable, key=lambda version: comparable[version].correct.mean())
    difference = statistics.paired(comparable[best].correct, new.correct)
    summary = (
        f"{difference.value * 100:+.2f} points against version {best}, the best champion so far, on the same "
        f"{len(new.labels):,} images (95 % interval {difference.low * 100:+.2f} to {difference.high * 100:+.2f})"
    )
    if difference.low > -max_drop:
        return summary, []
    return summary, [f"may lose more than {max_drop * 100:g} points (export.max_drop): {summary}"]
