"""See what the trained network can stand and what its layers do: measures beyond the test score."""

from typing import Any

from pipeline import dataset, files, stage
from pipeline.params import load


def main(
    params: stage.PathOption,
    data: stage.PathOption,
    model: stage.PathOption,
    out: stage.PathOption,
    metrics: stage.PathOption,
    runtime: stage.PathOption,
) -> None:
    settings = load(params)
    # torch takes seconds to import, and a mistake in params.yaml is to be reported at once
    from pipeline import checkpoint, device, evaluation, gpu_lock, inference
    from pipeline.inspection import corruptions, shifts, stage_figures, units

    options = settings.inspect
    with gpu_lock.claim(settings.train.device), stage.clock("inspect", runtime) as measured:
        test = dataset.first_of_each_class(dataset.load(data, "test")["test"], options.images)
        saved = checkpoint.load_model(model)
        place = device.choose(settings.train.device)
        print(f"inspecting {saved.arch} on {len(test):,} test images of {saved.metadata.name} ({place})", flush=True)
        way: dict[str, Any] = {"batch_size": settings.evaluate.batch_size, "place": place}
        evaluations = options.corruptions * corruptions.EVALUATIONS
        evaluations += shifts.evaluations(options.shift, options.shift_step)
        with stage.bar("inspecting", evaluations) as advance:
            probs = inference.predict(saved.model, test, **way)
            clean = evaluation.accuracy(probs, test.labels)
            result = {"inspect/images": len(test), "inspect/clean_accuracy": clean}
            if layers := units.measure(saved.model, test, **way):
                result |= units.summary(layers)
                files.write_csv(out / "layers.csv", layers)
                stage_figures.layer_activity(out / "layers.png", layers, len(test))
            if options.corruptions:
                damaged = corruptions.measure(saved.model, test, seed=options.seed, advance=advance, **way)
                result |= corruptions.summary(damaged)
                files.write_csv(out / "corruptions.csv", damaged)
                image = test.images[0]
                examples = corruptions.examples(image, options.seed)
                stage_figures.corruption_curves(out / "corruptions.png", damaged, clean, image, examples)
            if options.shift:
                largest, step = options.shift, options.shift_step
                moved = shifts.measure(saved.model, test, probs, largest=largest, step=step, advance=advance, **way)
                result |= shifts.summary(moved)
                files.write_csv(out / "shifts.csv", moved)
                stage_figures.shift_maps(out / "shifts.png", moved, clean)
        files.write_json(metrics, result)
        measured["inspect/device"] = place.type
        measured["inspect/peak_memory_mib"] = round(device.peak_memory_mib(place), 1)
    for name in ("clean_accuracy", "corruption_accuracy", "shift_accuracy", "shift_consistency"):
        if f"inspect/{name}" in result:
            print(f"{name.replace('_', ' ')} {result[f'inspect/{name}']:.2%}")


if __name__ == "__main__":
    stage.run(main)
