"""The tune command: run a search and print the best trials, or preview the first trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from pipeline.config import loading
from pipeline.errors import ParamsError, TuningError
from pipeline.search import space
from pipeline.search.display import rounded
from pipeline.search.launcher import end_in_order, only_one
from pipeline.search.search import Search
from pipeline.search.space import Space
from pipeline.search.study import FOLDER, Plan, Study, ask
from pipeline.search.tune_display import TuningDisplay
from pipeline.tracking.studies import StudyRun

SHOWN = 10
"""Rows of the tables of the best trials and of the preview; TPE samples the first ones at random."""

MLFLOW_RUN = "mlflow_run_id"
"""Attribute of Optuna's study: the id of its MLflow run."""


def run(root: Path, file: Path, plan: Plan) -> bool:
    """Start or continue a search until enough trials are finished; then print the best.

    Args:
        root: the repository.
        file: the space, see `pipeline.search.space`.

    Returns:
        Whether the search finished; False if it was interrupted and the same call continues it.

    Raises:
        TuningError: the space or params.yaml has changed since the start, the study is running elsewhere, or too
            many trials failed.
    """
    searched = _space(root, file, plan)
    end_in_order()
    busy = TuningError(f"the search {plan.name} is already running; choose another --name for another search")
    with only_one(root / FOLDER, plan.name, busy):
        study = Study(root, plan, searched)
        tracked = _track(study)
        status = "FAILED"
        try:
            with TuningDisplay(study) as display:
                complete = Search(study, tracked, display).run()
            status = "FINISHED" if complete else "KILLED"
        finally:
            if tracked:
                tracked.end(status)
    if complete:
        _print_best(study)
    else:
        print(f"interrupted with {study.finished()} of {plan.trials} trials finished; the same command continues")
    return complete


def preview(root: Path, file: Path, plan: Plan) -> None:
    """Print the parameters of a study's first trials and mark invalid combinations, without running them.

    Raises:
        TuningError: the space is invalid.
    """
    searched = _space(root, file, plan)
    base = loading.read(root / "params.yaml")
    study = optuna.create_study(direction="maximize")
    rows: list[tuple[str, ...]] = []
    while len(rows) < min(plan.trials, SHOWN) and (trial := ask(study, plan, searched)):
        note = ""
        try:
            loading.validate(loading.changed(base, searched.values(trial.params)), "pruned")
        except ParamsError as error:
            note = str(error).splitlines()[0]
        rows.append((plan.experiment(trial.number), *_cells(searched, trial.params), note))
    table = _table(searched, *["note"] * any(row[-1] for row in rows))
    for row in rows:
        table.add_row(*row[: len(table.columns)])
    Console().print(table)


def _space(root: Path, file: Path, plan: Plan) -> Space:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    loading.load(root / "params.yaml")
    searched = space.read(file, loading.read(root / "params.yaml"))
    if plan.sampler == "grid":
        searched.grid()
    return searched


def _track(study: Study) -> StudyRun | None:
    """Open the study's run in MLflow; None if tracking is disabled."""
    settings = loading.validate(study.base(), "params.yaml").tracking
    if not settings.enabled:
        return None
    known = study.optuna.user_attrs.get(MLFLOW_RUN)
    tracked = StudyRun(study.root, settings.model_dump(), study.plan.name, known)
    if tracked.run_id != known:
        study.optuna.set_user_attr(MLFLOW_RUN, tracked.run_id)
        tracked.describe(study.space.specs)
    return tracked


def _print_best(study: Study) -> None:
    """Print a table of the best trials and the command to apply the best one."""
    trials = study.optuna.get_trials(deepcopy=False)
    count = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    best = study.best()
    table = _table(study.space, "val accuracy")
    for trial in best[:SHOWN]:
        table.add_row(study.plan.experiment(trial.number), *_cells(study.space, trial.params), f"{trial.value:.2%}")
    console = Console(highlight=False)
    console.print(
        f"{study.plan.name}: {count[TrialState.COMPLETE]} complete, {count[TrialState.PRUNED]} pruned, "
        f"{count[TrialState.FAIL]} failed; the best:"
    )
    console.print(table)
    if best:
        name = study.plan.experiment(best[0].number)
        console.print(f"The best is {name}. Apply and export it:  dvc exp apply {name}; dvc repro", soft_wrap=True)
    else:
        console.print("No trial was completed.")


def _table(searched: Space, *last: str) -> Table:
    table = Table()
    table.add_column("experiment")
    for key in (*searched.specs, *last):
        table.add_column(key, justify="right", overflow="fold")
    return table


def _cells(searched: Space, suggested: Mapping[str, Any]) -> list[str]:
    return [rounded(suggested[key]) for key in searched.specs]
