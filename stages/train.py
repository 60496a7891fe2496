"""Train the network that params.yaml describes; resume an interrupted training with the same fingerprint."""

from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from pipeline import files, headline, stage
from pipeline.data import dataset
from pipeline.experiments import dependencies, epoch_reports
from pipeline.experiments.baseline import load
from pipeline.tracking import live

REPOSITORY = Path(__file__).resolve().parents[1]


def main(
    params: stage.PathOption,
    data: stage.PathOption,
    out: stage.PathOption,
    history: stage.PathOption,
    layers: stage.PathOption,
    metrics: stage.PathOption,
    time: stage.PathOption,
    details: stage.PathOption,
    runtime: stage.PathOption,
    checkpoints: stage.PathOption,
) -> None:
    settings = load(params)
    tracking = settings.tracking
    # started here, so that its process imports MLflow while this one imports torch
    run = None
    if tracking.enabled:
        run = live.LiveRun(stage.root(), tracking.experiment, system_metrics=tracking.system_metrics)
    # slow imports after load, so that mistakes in params.yaml are reported immediately
    from pipeline.hardware import compiler, device, gpu_lock
    from pipeline.models.common import numerics
    from pipeline.models.common.saved import save_model
    from pipeline.progress import TrainingDisplay
    from pipeline.training import checkpoint, loop, probe

    compiler.spare_import()
    with gpu_lock.claim(settings.train.device), stage.clock("train", runtime) as measured, ExitStack() as stack:
        splits = dataset.load(data, "train", "val")
        place = device.choose(settings.train.device)
        machine = device.describe(place) | {"precision": numerics.choose_precision(settings.train.precision, place)}
        decisive = {"params": settings.effective("model", "augment", "optimizer", "train"), "machine": machine}
        code = dependencies.digest(REPOSITORY, ["train"], settings)
        identity = checkpoint.fingerprint(decisive, files.sha256_all(data.iterdir(), root=data), code)
        print(
            f"training {settings.model.arch} on {splits.metadata.name} ({place}, {machine['precision']})", flush=True
        )

        state = checkpoint.TrainingState(stage.root() / checkpoints / identity)
        display = stack.enter_context(TrainingDisplay(settings.train.epochs))
        report = stack.enter_context(epoch_reports.reporting(state.path.parent, settings.train.epochs))
        listeners = [display.epoch, report]
        if run:
            listeners.append(stack.enter_context(run.opened(identity, settings.model.arch)))
        result = loop.train(settings, splits, state, on_step=display.step, listeners=listeners)

        save_model(out, result.model, settings.model, splits.metadata)
        files.write_csv(history, result.history)
        files.write_csv(layers, result.progress.layers, probe.COLUMNS)
        shown, others = headline.split(loop.summary(result))
        files.write_json(metrics, shown)
        files.write_row(details, others)
        measured |= {f"train/{key}": value for key, value in machine.items()}
        measured |= {f"train/{package}": version(package) for package in ("dvc", "mlflow")}
        measured["train/fingerprint"] = identity
        progress = result.progress
        files.write_json(time, {"train/seconds": round(progress.seconds, 3)})
        measured["train/val_seconds"] = round(progress.val_seconds, 3)
        measured["train/preparation_seconds"] = round(progress.preparation_seconds, 3)
        measured["train/diagnostics_seconds"] = round(progress.diagnostics_seconds, 3)
        measured["train/images_per_second"] = round(progress.images / progress.seconds, 1)
        measured["train/peak_memory_mib"] = round(device.peak_memory_mib(place), 1)
    state.remove()


if __name__ == "__main__":
    stage.run(main)
