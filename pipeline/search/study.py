"""A study: the trials of a search and its initial settings in a file, so that the search can be continued."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.config import loading
from pipeline.config.section import flatten
from pipeline.errors import TuningError
from pipeline.experiments.repository import Repository
from pipeline.search import space
from pipeline.search.space import Space

FOLDER = ".tune"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SPACE, BASE = "space", "base"
"""Attributes of Optuna's study: its space and its other parameters, as JSON."""


@dataclass(frozen=True)
class Plan:
    """The settings of a search.

    Attributes:
        name: of the study; its experiments are NAME-0000, NAME-0001, ...
        trials: total number of trials to finish, those of earlier starts included.
        jobs: number of concurrent trials.
        sampler: "tpe", "random" or "grid".
        seed: of the sampler.
        startup: number of complete trials before pruning starts.
    """

    name: str
    trials: int
    jobs: int
    sampler: str
    seed: int
    startup: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*", self.name):
            raise TuningError(f"--name: found {self.name}, expected letters, digits and single - or _ between them")

    def experiment(self, number: int) -> str:
        """Return the name of a trial's experiment."""
        return f"{self.name}-{number:04d}"


class Study:
    """Optuna's study for a plan, new or from an earlier start.

    Attributes:
        folder: for the logs and reports of the experiments.
        optuna: Optuna's object.
    """

    def __init__(self, root: Path, plan: Plan, searched: Space) -> None:
        """Open a study.

        Raises:
            TuningError: it was started with another space or other parameters, its file is not a study, or it is new
                and experiments with its name exist.
        """
        self.root, self.plan, self.space = root, plan, searched
        self.folder = root / FOLDER / plan.name
        self.folder.mkdir(parents=True, exist_ok=True)
        file = root / FOLDER / f"{plan.name}.db"
        try:
            self.optuna = optuna.create_study(
                storage=f"sqlite:///{file}",
                study_name=plan.name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=plan.startup),
            )
        except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
            raise TuningError(f"{file}: not a study ({str(error).splitlines()[0]}); use another --name") from None
        began, specs = self.optuna.user_attrs.get(SPACE), json.dumps(searched.specs)
        if began is None:
            self._begin(specs)
        elif began != specs:
            raise TuningError(
                f"the search {plan.name} was started with another space, {began}; choose another --name for this space"
            )
        self.base()

    def base(self) -> Any:
        """Return the content of params.yaml after checking that it is unchanged, so that trials are comparable.

        Raises:
            TuningError: a parameter has changed since the start of the study.
        """
        tree = loading.read(self.root / "params.yaml")
        now, began = self._fixed(tree), json.loads(self.optuna.user_attrs[BASE])
        for key in sorted(began.keys() & now.keys()):  # added or removed sections affect no trial
            if now[key] != began[key]:
                raise TuningError(
                    f"params.yaml: {key}: found {json.dumps(now[key])}, but the search {self.plan.name} was "
                    f"started with {json.dumps(began[key])}; restore it, or start another search with --name"
                )
        return tree

    def ask(self) -> Trial | None:
        """Return the next trial with all its parameters; None if the grid is exhausted."""
        return ask(self.optuna, self.plan, self.space)

    def unfinished(self) -> Iterator[Trial]:
        """Yield the interrupted trials of earlier starts; those without all parameters are set to failed."""
        for frozen in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.params.keys() == self.space.distributions.keys():
                yield Trial(self.optuna, frozen._trial_id)
            else:
                self.optuna.tell(frozen.number, state=TrialState.FAIL)

    def finished(self) -> int:
        """Return the number of complete and pruned trials."""
        return len(self.optuna.get_trials(deepcopy=False, states=FINISHED))

    def best(self) -> list[FrozenTrial]:
        """Return the complete trials, best first, ties by number."""
        complete = self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))

    def _begin(self, specs: str) -> None:
        pattern = re.compile(re.escape(self.plan.name) + r"-\d{4,}")
        with Repository(self.root) as repository:
            names = {experiment.name for experiment in repository.experiments()}
        taken = sorted(filter(pattern.fullmatch, names))
        if taken:
            raise TuningError(
                f"--name: experiments of an earlier search {self.plan.name} exist, such as {taken[0]}; choose "
                f"another name, or remove them: dvc exp remove {taken[0]} ..."
            )
        self.optuna.set_user_attr(BASE, json.dumps(self._fixed(loading.read(self.root / "params.yaml"))))
        self.optuna.set_user_attr(SPACE, specs)

    def _fixed(self, tree: Any) -> dict[str, Any]:
        """Return the parameters that affect a trial's result and are not in the space."""
        settings = loading.validate(tree, "params.yaml").model_dump(mode="json", include={"data", *space.GROUPS})
        return {key: value for key, value in flatten(settings) if key not in self.space.specs}


def ask(study: optuna.Study, plan: Plan, searched: Space) -> Trial | None:
    """Return the next trial of a study with all its parameters; None if the grid is exhausted."""
    known = study.get_trials(deepcopy=False)
    # Seeded by the number of trials, so that a continued search does not repeat its first samples.
    study.sampler = _SAMPLERS[plan.sampler](seed=plan.seed + len(known))
    if plan.sampler == "grid":
        tried = [
            trial.system_attrs.get("fixed_params", trial.params) for trial in known if trial.state != TrialState.FAIL
        ]
        point = next((point for point in searched.grid() if point not in tried), None)
        if point is None:
            return None
        study.enqueue_trial(point)
    return study.ask(searched.distributions)


_SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.RandomSampler,  # not used: `ask` enqueues the points of the grid
}
