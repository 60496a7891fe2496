"""The parts of the inspect stage: each measures a network in one way, writes a table and a figure, returns means."""

from collections.abc import Callable
from pathlib import Path

from pipeline import files, stage
from pipeline.config.schema import InspectParams
from pipeline.inspection import corruptions, shifts, stage_figures, units
from pipeline.inspection.network import Network

FIGURES = "figures"
"""The folder of the pictures beside the tables: `dvc plots` draws whatever is in a folder, tables as curves."""


def measure(network: Network, options: InspectParams, out: Path) -> dict[str, float]:
    """Run all parts that `inspect` in params.yaml switches on, and return the means by the names of metrics.

    Args:
        out: folder for tables; pictures go to its folder `FIGURES`, which is made in any case, as DVC looks for it.
    """
    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    result: dict[str, float] = {"inspect/images": len(network.test), "inspect/clean_accuracy": network.accuracy}
    evaluations = 1 + options.corruptions * corruptions.EVALUATIONS
    evaluations += shifts.evaluations(options.shift, options.shift_step)
    with stage.bar("inspecting", evaluations) as advance:
        result |= layers(network, out)
        advance(1)
        if options.corruptions:
            result |= corrupted(network, out, advance)
        if options.shift:
            result |= moved(network, out, advance, largest=options.shift, step=options.shift_step)
    if options.features:
        from pipeline.inspection import learned  # scikit-learn takes seconds to import

        result |= learned.draw(network, out / FIGURES)
    return result


def layers(network: Network, out: Path) -> dict[str, float]:
    """Measure the activity of activation layers; a network without them has no table."""
    found = units.measure(network.model, network.test, batch_size=network.batch_size, place=network.place)
    if found:
        files.write_csv(out / "layers.csv", found)
        stage_figures.layer_activity(out / FIGURES / "layers.png", found, len(network.test))
    return units.summary(found)


def corrupted(network: Network, out: Path, advance: Callable[[int], None]) -> dict[str, float]:
    """Measure accuracy on corrupted images; calls `advance` after each evaluation."""
    found = corruptions.measure(
        network.model,
        network.test,
        seed=network.seed,
        advance=advance,
        batch_size=network.batch_size,
        place=network.place,
    )
    files.write_csv(out / "corruptions.csv", found)
    image = network.test.images[0]
    examples = corruptions.examples(image, network.seed)
    stage_figures.corruption_curves(out / FIGURES / "corruptions.png", found, network.accuracy, image, examples)
    return corruptions.summary(found)


def moved(network: Network, out: Path, advance: Callable[[int], None], *, largest: int, step: int) -> dict[str, float]:
    """Measure accuracy on images shifted by up to `largest` px in steps; calls `advance` after each evaluation."""
    found = shifts.measure(
        network.model,
        network.test,
        network.probs,
        largest=largest,
        step=step,
        advance=advance,
        batch_size=network.batch_size,
        place=network.place,
    )
    files.write_csv(out / "shifts.csv", found)
    stage_figures.shift_maps(out / FIGURES / "shifts.png", found, network.accuracy)
    return shifts.summary(found)
