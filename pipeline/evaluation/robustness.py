"""Robustness of a trained network: tables, figures and mean accuracies on corrupted and shifted test images."""

from pathlib import Path

import torch

from pipeline import files, stage
from pipeline.config.schema import EvaluateParams
from pipeline.data import dataset
from pipeline.data.dataset import Split
from pipeline.evaluation import corruptions, inference, robustness_figures, shifts
from pipeline.evaluation.inference import Probs
from pipeline.models.common.saved import Saved


def measure(
    saved: Saved, test: Split, probs: Probs, options: EvaluateParams, place: torch.device, tables: Path, figures: Path
) -> dict[str, float]:
    """Measure the accuracy on corrupted images, and accuracy and consistency on shifted ones.

    Args:
        test, probs: the test set of N images, and the predictions (N, C) for them as they are.
        options: `robustness` is the number of images, the first ones of each class; 0: nothing is measured.
        tables, figures: folders for corruptions.csv and shifts.csv, and for figures of the same names.

    Returns:
        The means by the names of metrics.
    """
    tables.mkdir(parents=True, exist_ok=True)  # DVC expects it in any case
    if not options.robustness:
        return {}
    chosen = dataset.first_indices(test.labels, options.robustness)
    part, unchanged = Split(test.images[chosen], test.labels[chosen]), probs[chosen]
    clean = inference.accuracy(unchanged, part.labels)
    total = corruptions.EVALUATIONS + shifts.evaluations(options.shift, options.shift_step)
    with stage.bar("measuring robustness", total) as advance:
        corrupted = corruptions.measure(
            saved.model, part, seed=options.seed, batch_size=options.batch_size, place=place, advance=advance
        )
        moved = shifts.measure(
            saved.model,
            part,
            unchanged,
            largest=options.shift,
            step=options.shift_step,
            batch_size=options.batch_size,
            place=place,
            advance=advance,
        )
    files.write_csv(tables / "corruptions.csv", corrupted)
    examples = corruptions.examples(part.images[0], options.seed)
    robustness_figures.corruption_curves(figures / "corruptions.png", corrupted, clean, part.images[0], examples)
    result = {"test/robustness_images": len(part), "test/clean_accuracy": clean, **corruptions.summary(corrupted)}
    if options.shift:
        files.write_csv(tables / "shifts.csv", moved)
        if options.shift > options.shift_step:  # a map of 3 x 3 shows no more than the means
            robustness_figures.shift_maps(figures / "shifts.png", moved, clean)
        result |= shifts.summary(moved)
    return result
