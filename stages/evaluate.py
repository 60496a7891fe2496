"""Evaluate the trained network on the test set: metrics, predictions and figures."""

from pipeline import files, stage
from pipeline.config.loading import load
from pipeline.data import dataset


def main(
    params: stage.PathOption,
    data: stage.PathOption,
    model: stage.PathOption,
    history: stage.PathOption,
    layers: stage.PathOption,
    predictions: stage.PathOption,
    metrics: stage.PathOption,
    figures_dir: stage.PathOption,
    runtime: stage.PathOption,
) -> None:
    settings = load(params)
    import pandas as pd  # slow imports after load, so that mistakes in params.yaml are reported immediately

    from pipeline.evaluation import figures, inference, probe_figures
    from pipeline.evaluation import metrics as evaluation
    from pipeline.hardware import device, gpu_lock
    from pipeline.models.common.saved import load_model

    options = settings.evaluate
    with gpu_lock.claim(settings.train.device), stage.clock("evaluate", runtime) as measured:
        test = dataset.load(data, "test")["test"]
        saved = load_model(model)
        classes = saved.metadata.classes
        place = device.choose(settings.train.device)
        print(f"evaluating {saved.arch} on {len(test):,} test images of {saved.metadata.name} ({place})", flush=True)
        probs = inference.predict(saved.model, test, batch_size=options.batch_size, place=place)
        result = evaluation.metrics(probs, test.labels, classes, bins=options.calibration_bins)
        if options.tta != "none":
            averaged = inference.predict_views(saved.model, test, probs, options, place)
            result["test/accuracy_tta"] = inference.accuracy(averaged, test.labels)
        files.write_json(metrics, {"test/data": saved.metadata.name, **result})
        with files.atomic(predictions) as temporary:
            evaluation.table(probs, test.labels, classes).to_csv(
                temporary, index=False, float_format="%.6g", lineterminator="\n"
            )
        figures.training_curves(figures_dir / "training.png", pd.read_csv(history))
        figures.confusion_matrix(figures_dir / "confusion.png", evaluation.confusion(probs, test.labels), classes)
        bins = evaluation.reliability(probs, test.labels, bins=options.calibration_bins)
        figures.reliability_diagram(figures_dir / "reliability.png", bins, result["test/calibration_error"])
        figures.mistakes(figures_dir / "mistakes.png", test.images, test.labels, probs, classes)
        probe_figures.draw(figures_dir, pd.read_csv(layers))
        measured["evaluate/device"] = place.type
        measured["evaluate/peak_memory_mib"] = round(device.peak_memory_mib(place), 1)
    low, high = result["test/accuracy_low"], result["test/accuracy_high"]
    print(f"test accuracy {result['test/accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%})")


if __name__ == "__main__":
    stage.run(main)
