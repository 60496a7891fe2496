"""Complete the MLflow run that train opened for this experiment, or create one from files.

The stage has no outputs, so DVC never restores it from the run cache: restored trainings are tracked, too.
"""

import sys
from pathlib import Path

from pipeline import stage
from pipeline.errors import TrackingError
from pipeline.experiments import results
from pipeline.experiments.baseline import load
from pipeline.tracking import publication, store
from pipeline.tracking.owner import Owner


def main(params: stage.PathOption) -> None:
    settings = load(params).tracking
    if not settings.enabled:
        print("tracking.enabled is false: nothing is logged to MLflow")
        return
    print(f"publishing to {store.uri(stage.root())}", flush=True)
    record = results.read(results.reader(Path.cwd()))  # DVC has written dvc.lock for the previous stages
    owner = Owner.of_this_process()
    try:
        run = publication.publish(stage.root(), settings.model_dump(), record, owner, Path.cwd())
    except TrackingError as error:
        # The results are in git and DVC; if this stage failed, DVC would discard the experiment.
        print(f"warning: {error}", file=sys.stderr)
        return
    print(
        f"MLflow run {run.name} ({run.run_id}) {'already exists' if run.existed else 'is complete'}: "
        f"{settings.model} version {run.model_version}; browse it with: make ui"
    )


if __name__ == "__main__":
    stage.run(main)
