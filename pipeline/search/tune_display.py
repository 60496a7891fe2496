"""Progress display of a search."""

from optuna.trial import TrialState

from pipeline.search.display import ExperimentsDisplay
from pipeline.search.search import Outcome
from pipeline.search.study import Study

WORDS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class TuningDisplay(ExperimentsDisplay):
    """Shows the trials of a search, as its listener."""

    def __init__(self, study: Study) -> None:
        plan, finished = study.plan, study.finished()
        super().__init__(plan.name, plan.trials, finished, plan.jobs)
        self.best = max((trial.value or 0.0 for trial in study.best()), default=0.0)
        if finished:
            self.say(f"continuing {plan.name}: {finished} of {plan.trials} trials are finished")

    def ended(self, name: str, outcome: Outcome, seconds: float, finished: int) -> None:
        """Print the outcome of a trial, and whether it is the best so far."""
        if outcome.state == TrialState.RUNNING:
            self.interrupted(name)
            return
        message = outcome.reason
        if outcome.value is not None:
            with self.lock:
                message = f"val accuracy {outcome.value:.2%}{', the best so far' if outcome.value > self.best else ''}"
                self.best = max(self.best, outcome.value)
        self.finish(name, f"{WORDS[outcome.state]:8}  {message}", seconds, finished)
