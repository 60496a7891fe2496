"""Results, comparisons and predictions as pandas tables, for notebooks: `from pipeline.notebook import results`.

An error that a user can cause is a `pipeline.errors.PipelineError` whose message says what to do.
"""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import pandas as pd

from pipeline.config import loading
from pipeline.errors import PredictionError
from pipeline.experiments import comparison
from pipeline.experiments.repository import Repository
from pipeline.serving import image_files, prediction
from pipeline.serving.image_files import Unreadable

Folder = str | PathLike[str]


def results(root: Folder = ".", *, everything: bool = True) -> pd.DataFrame:
    """Return all results, experiments before commits.

    Args:
        root: of the repository.
        everything: the experiments and results of every commit; otherwise HEAD and its experiments.

    Returns:
        A row for each distinct result, by its name; "commit" is where it started from, "also" has other names of the
        same result, "seed" is `train.seed`, and then there is a column for each parameter ("train.epochs") and each
        metric ("val/accuracy", fractions and seconds).
    """
    with Repository(Path(root)) as repository:
        rows, _ = comparison.collected(repository, repository.current(everything=everything))
        members = [member for row in rows for member in row.members]
        table = [
            {
                "name": member.revision.name,
                "commit": member.revision.sha[:7],
                "also": ", ".join(member.aliases),
                "seed": member.seed,
                **member.record.params,
                **member.record.metrics,
            }
            for member in members
        ]
    return pd.DataFrame(table, columns=None if table else ["name", "commit", "also", "seed"]).set_index("name")


def compare(
    root: Folder = ".", *, baseline: str = "HEAD", everything: bool = True, sort: str = "val/accuracy"
) -> pd.DataFrame:
    """Return what `python -m pipeline compare` prints: results that differ in the seed only share a row.

    Args:
        root, everything: see `results`.
        baseline: a commit or experiment.
        sort: the metric that decides which row comes first.

    Returns:
        Best row first, by name: "n" seeds, mean "val/accuracy" and "test/accuracy" with their standard deviations
        ("..._sd"; NaN for n = 1), the parameters in which rows differ, and against the baseline the "difference" in
        test accuracy, the limits of its 95 % interval "low" and "high", "p", adjusted by Holm's method, and the
        "verdict". Accuracies are fractions.

    Raises:
        PipelineError: there is no such revision, or nothing to compare.
    """
    root = Path(root)
    with Repository(root) as repository:
        found = comparison.compare(
            repository,
            repository.current(everything=everything),
            baseline=repository.resolve(baseline),
            sort=sort,
            margin=loading.load(root / "params.yaml").compare.margin,
        )
    table = []
    for row in found.rows:
        contest = found.contest(row)
        verdict = contest.verdict if contest else "baseline" if row is found.baseline else ""
        entry = {"name": row.name, "verdict": verdict, "n": len(row.members)}
        for metric in ("val/accuracy", "test/accuracy"):
            entry |= {metric: row.mean(metric), f"{metric}_sd": row.spread(metric)}
        if contest:
            difference = contest.difference
            entry |= {"difference": difference.value, "low": difference.low, "high": difference.high}
            entry |= {"p": contest.adjusted}
        table.append(entry | {key: row.params.get(key) for key in found.differing})
    return pd.DataFrame(table).set_index("name")


def predict(images: Folder | Iterable[Folder], model: str = "export/model.onnx", root: Folder = ".") -> pd.DataFrame:
    """Classify image files.

    Args:
        images: files or folders, which are searched.
        model: an ONNX file, "models:/NAME@ALIAS" or "models:/NAME/VERSION".
        root: of the repository with the default MLflow store.

    Returns:
        A row for each image, by its name: the predicted "class", its "probability" in 0..1, and a column for the
        probability of each class.

    Raises:
        PredictionError: there is no such model, or an image cannot be read.
    """
    names = [images] if isinstance(images, str | PathLike) else images
    classifier = prediction.load(model, Path(root))
    found = image_files.find([str(name) for name in names])
    table = []
    for batch in prediction.predict(classifier, found, top=len(classifier.classes)):
        for one in batch:
            if isinstance(one, Unreadable):
                raise PredictionError(f"{one.name}: {one.reason}")
            label, probability = one.best[0]
            chances = dict(one.best)
            table.append(
                {
                    "image": one.image,
                    "class": label,
                    "probability": probability,
                    **{name: chances[name] for name in classifier.classes},
                }
            )
    return pd.DataFrame(table, columns=["image", "class", "probability", *classifier.classes]).set_index("image")
