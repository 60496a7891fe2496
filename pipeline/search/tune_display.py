"""What a person sees while a search runs."""

from optuna.trial import TrialState

from pipeline.search.display import ExperimentsDisplay
from pipeline.search.search import Outcome
from pipeline.search.study import Study

WORDS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "given up", TrialState.FAIL: "failed"}


class TuningDisplay(ExperimentsDisplay):
    """Shows trials as they come: the listener of a search, and a context manager around it."""

    def __init__(self, study: Study) -> None:
        plan, finished = study.plan, study.finished()
        super().__init__(plan.name, plan.trials, finished, plan.jobs)
        self.best = max((trial.value or 0.0 for trial in study.best()), default=0.0)
        if finished:
            self.say(f"going on with {plan.name}: {finished} of {plan.trials} trials are finished")

    def ended(self, name: str, outcome: Outcome, seconds: float, finished: int) -> None:
        """Print how a trial ended, and whether it is the best so far."""
        if outcome.state == TrialState.RUNNING:
            self.interrupted(name)
            return
        said = outcome.reason
        if outcome.value is not None:
            with self.lock:
                said = f"val accuracy {outcome.value:.2%}{', the best so far' if outcome.value > self.best else ''}"
                self.best = max(self.best, outcome.value)
        self.finish(name, f"{WORDS[outcome.state]:8}  {said}", seconds, finished)
