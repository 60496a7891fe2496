"""The command: open a study, search, print the best; or print what would be tried."""

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
"""Rows of the tables: of the best trials, and of the first ones, which TPE draws before it learns from results."""

MLFLOW_RUN = "mlflow_run_id"
"""Attribute of Optuna's study: its run in MLflow."""


def run(root: Path, file: Path, plan: Plan) -> bool:
    """Search, or go on with a search, until enough trials are finished; then print the best.

    Args:
        root: the repository.
        file: the space, as `pipeline.tuning.space` describes it.

    Returns:
        Whether the search came to its end; False: it was interrupted, and the same call goes on.

    Raises:
        TuningError: the space or params.yaml is not what the study began with, the study is running elsewhere, or
            too many trials failed.
    """
    searched = _space(root, file, plan)
    end_in_order()
    busy = TuningError(f"the search {plan.name} is running already; another needs another --name")
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
        print(f"interrupted with {study.finished()} of {plan.trials} trials finished; the same command goes on")
    return complete


def preview(root: Path, file: Path, plan: Plan) -> None:
    """Print the parameters of a study's first trials, and which of them cannot work together; nothing runs.

    Raises:
        TuningError: the space is wrong.
    """
    searched = _space(root, file, plan)
    base = loading.read(root / "params.yaml")
    study = optuna.create_study(direction="maximize")
    rows: list[tuple[str, ...]] = []
    while len(rows) < min(plan.trials, SHOWN) and (trial := ask(study, plan, searched)):
        note = ""
        try:
            loading.validate(loading.changed(base, searched.values(trial.params)), "given up")
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
    """Open the study's run in MLflow; None: tracking is off."""
    settings = loading.validate(study.base(), "params.yaml").tracking
    if not settings.enabled:
        return None
    known = study.optuna.user_attrs.get(MLFLOW_RUN)
    tracked = StudyRun(study.root, settings.experiment, study.plan.name, known)
    if tracked.run_id != known:
        study.optuna.set_user_attr(MLFLOW_RUN, tracked.run_id)
        tracked.describe(study.space.specs)
    return tracked


def _print_best(study: Study) -> None:
    """Print a table of the best trials and how to take the best one over."""
    trials = study.optuna.get_trials(deepcopy=False)
    count = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    best = study.best()
    table = _table(study.space, "val accuracy")
    for trial in best[:SHOWN]:
        table.add_row(study.plan.experiment(trial.number), *_cells(study.space, trial.params), f"{trial.value:.2%}")
    console = Console(highlight=False)
    console.print(
        f"{study.plan.name}: {count[TrialState.COMPLETE]} complete, {count[TrialState.PRUNED]} given up early, "
        f"{count[TrialState.FAIL]} failed; the best:"
    )
    console.print(table)
    if best:
        name = study.plan.experiment(best[0].number)
        console.print(f"The best is {name}. Take it over, parameters and all:  dvc exp apply {name}", soft_wrap=True)
    else:
        console.print("No trial was completed, so there is no best one.")


def _table(searched: Space, *last: str) -> Table:
    table = Table()
    table.add_column("experiment")
    for key in (*searched.specs, *last):
        table.add_column(key, justify="right", overflow="fold")
    return table


def _cells(searched: Space, suggested: Mapping[str, Any]) -> list[str]:
    return [rounded(suggested[key]) for key in searched.specs]
