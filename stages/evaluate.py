"""Evaluate the trained network on the test set: accuracy, calibration, robustness, figures and a model card."""

from pipeline import files, headline, stage
from pipeline.data import dataset
from pipeline.experiments.baseline import load


def main(
    params: stage.PathOption,
    data: stage.PathOption,
    model: stage.PathOption,
    history: stage.PathOption,
    layers: stage.PathOption,
    predictions: stage.PathOption,
    classes: stage.PathOption,
    robustness: stage.PathOption,
    figures_dir: stage.PathOption,
    card: stage.PathOption,
    metrics: stage.PathOption,
    details: stage.PathOption,
    runtime: stage.PathOption,
) -> None:
    settings = load(params)
    # slow imports after load, so that mistakes in params.yaml are reported immediately
    from pipeline.evaluation import figures, inference, model_card
    from pipeline.evaluation import metrics as evaluation
    from pipeline.evaluation import robustness as robust
    from pipeline.hardware import device, gpu_lock
    from pipeline.models.common.saved import load_model

    options = settings.evaluate
    with gpu_lock.claim(settings.train.device), stage.clock("evaluate", runtime) as measured:
        test = dataset.load(data, "test")["test"]
        saved = load_model(model)
        place = device.choose(settings.train.device)
        print(f"evaluating {saved.arch} on {len(test):,} test images of {saved.metadata.name} ({place})", flush=True)
        probs = inference.predict(saved.model, test, batch_size=options.batch_size, place=place)
        result = evaluation.metrics(probs, test.labels)
        by_class = evaluation.by_class(probs, test.labels, saved.metadata.classes)
        if options.tta != "none":
            averaged = inference.predict_views(saved.model, test, probs, options, place)
            result["test/accuracy_tta"] = inference.accuracy(averaged, test.labels)
        result |= robust.measure(saved, test, probs, options, place, robustness, figures_dir)
        shown, others = headline.split(result)
        files.write_json(metrics, shown)
        files.write_row(details, {"test/data": saved.metadata.name, **others})
        files.write_csv(classes, by_class)
        files.write_csv(predictions, evaluation.table(probs, test.labels, saved.metadata.classes))
        epochs = files.read_csv(history)
        figures.draw(figures_dir, epochs, layers, test, probs, saved.metadata.classes)
        files.write_text(card, model_card.render(saved, epochs[-1], result, by_class))
        measured["evaluate/device"] = place.type
        measured["evaluate/peak_memory_mib"] = round(device.peak_memory_mib(place), 1)
    print(
        f"test accuracy {result['test/accuracy']:.2%} (95 % interval {result['test/accuracy_low']:.2%} to "
        f"{result['test/accuracy_high']:.2%})"
    )
    for name in ("corruption_accuracy", "shift_accuracy", "shift_consistency"):
        if f"test/{name}" in result:
            print(f"{name.replace('_', ' ')} {result[f'test/{name}']:.2%} ({result['test/robustness_images']} images)")


if __name__ == "__main__":
    stage.run(main)
