"""Measure layer activity and draw learned features of the trained network, if `inspect.enabled`."""

from pathlib import Path

from PIL import Image, ImageDraw

from pipeline import files, stage
from pipeline.data import dataset
from pipeline.experiments.baseline import load


def main(
    params: stage.PathOption,
    data: stage.PathOption,
    model: stage.PathOption,
    out: stage.PathOption,
    details: stage.PathOption,
    runtime: stage.PathOption,
) -> None:
    settings = load(params)
    options, batch_size = settings.inspect, settings.evaluate.batch_size
    if not options.enabled:
        with stage.clock("inspect", runtime):
            files.write_row(details, {})
            leave_note(out / "figures/off.png", "inspect.enabled is false")
        print("inspect.enabled is false; to add learned features: dvc exp run --temp -n NAME -S inspect.enabled=true")
        return
    (out / "figures").mkdir(parents=True, exist_ok=True)  # DVC expects it in any case
    # slow imports after load, so that mistakes in params.yaml are reported immediately
    from pipeline.evaluation import inference
    from pipeline.hardware import device, gpu_lock
    from pipeline.inspection import parts
    from pipeline.inspection.network import Network
    from pipeline.models.common.saved import load_model

    with gpu_lock.claim(settings.train.device), stage.clock("inspect", runtime) as measured:
        test = dataset.first_of_each_class(dataset.load(data, "test")["test"], options.images)
        saved = load_model(model)
        place = device.choose(settings.train.device)
        print(f"inspecting {saved.arch} on {len(test):,} test images of {saved.metadata.name} ({place})", flush=True)
        probs = inference.predict(saved.model, test, batch_size=batch_size, place=place)
        network = Network(saved.model, saved.metadata.classes, test, probs, batch_size, place, options.seed)
        files.write_row(details, parts.measure(network, out))
        measured["inspect/device"] = place.type
        measured["inspect/peak_memory_mib"] = round(device.peak_memory_mib(place), 1)


def leave_note(path: Path, text: str) -> None:
    """Write a picture of a line of text: DVC neither keeps a folder without files nor draws plots from it."""
    picture = Image.new("L", (220, 32), 255)
    ImageDraw.Draw(picture).text((12, 10), text, fill=0)
    with files.atomic(path) as temporary:
        picture.save(temporary, "PNG")


if __name__ == "__main__":
    stage.run(main)
