"""Whose results a run shows: a DVC experiment's, or those of a plain `dvc repro` or commit."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run

# Tags with the names of DVC's environment variables that have the same values.
EXPERIMENT_TAG = "DVC_EXP_NAME"
BASELINE_TAG = "DVC_EXP_BASELINE_REV"


@dataclass(frozen=True)
class Owner:
    """The DVC experiment of results; none for those of a plain `dvc repro` or commit."""

    experiment: str | None = None
    baseline: str | None = None

    @classmethod
    def of_this_process(cls) -> "Owner":
        """Return the experiment that DVC names in the environment of its stages."""
        return cls(os.environ.get(EXPERIMENT_TAG) or None, os.environ.get(BASELINE_TAG) or None)

    @classmethod
    def of(cls, run: "Run") -> "Owner":
        """Return the owner of a run."""
        return cls(run.data.tags.get(EXPERIMENT_TAG), run.data.tags.get(BASELINE_TAG))

    @property
    def tags(self) -> dict[str, str]:
        """The owner as tags; MLflow's tag of the commit is the baseline."""
        named = {
            EXPERIMENT_TAG: self.experiment,
            BASELINE_TAG: self.baseline,
            "mlflow.source.git.commit": self.baseline,
        }
        return {key: value for key, value in named.items() if value} if self.experiment else {}

    def owns(self, run: "Run") -> bool:
        """Return whether a run has this owner."""
        return Owner.of(run) == self
