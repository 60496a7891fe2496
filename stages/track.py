"""Make this experiment's MLflow run whole: the one that train opened, or a new one made from files.

The stage has no outputs, so DVC never restores it from the run cache: a restored training is tracked, too.
"""

import sys
from pathlib import Path

from pipeline import stage
from pipeline.config.loading import load
from pipeline.errors import TrackingError
from pipeline.experiments import results
from pipeline.tracking import runs, store


def main(params: stage.PathOption) -> None:
    settings = load(params).tracking
    if not settings.enabled:
        print("tracking.enabled is false: nothing goes to MLflow")
        return
    print(f"publishing to {store.uri(stage.root())}", flush=True)
    record = results.read(results.reader(Path.cwd()))  # DVC has just written dvc.lock for the stages before
    owner = runs.Owner.of_this_process()
    try:
        run = runs.publish(stage.root(), settings.model_dump(), record, owner, Path.cwd())
    except TrackingError as error:
        # The results are in git and DVC; to fail here would make DVC drop the experiment that holds them.
        print(f"warning: {error}", file=sys.stderr)
        return
    print(
        f"MLflow run {run.name} ({run.run_id}) {'was there already' if run.existed else 'is complete'}: "
        f"{settings.model} version {run.model_version}; look at it with: make ui"
    )


if __name__ == "__main__":
    stage.run(main)
