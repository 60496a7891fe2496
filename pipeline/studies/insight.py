"""What is inside the networks that a study's experiments trained: first-layer filters, and separability by stage.

torch and scikit-learn are imported where they are used: they take seconds, and a study's plan is to be shown at once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import stage
from pipeline.studies import trained
from pipeline.studies.collected import Collected

if TYPE_CHECKING:
    from pipeline.inspection.filters import Chance, FirstLayer
    from pipeline.inspection.separability import Separability

DRAWS = 500
"""Layers of random filters that a first layer is held against."""

BATCH_SIZE = 500


@dataclass(frozen=True)
class Seen:
    """What was found in one experiment's network.

    Attributes:
        first: its first layer's measures beside chance, as `filters.summary` returns them.
        stages, before: how separable the classes are by stage, after training and before it.
    """

    layer: "FirstLayer"
    random: "Chance"
    first: dict[str, float]
    stages: list["Separability"]
    before: list["Separability"]


def look(collected: Collected) -> dict[str, list[Seen]]:
    """Look into the networks of all experiments, on the processor, so that every machine finds the same.

    Returns:
        What was found by variant, by seed; nothing for trainings that diverged.
    """
    import torch

    from pipeline.data import dataset
    from pipeline.inspection import filters, separability

    seen: dict[str, list[Seen]] = {variant: [] for variant in collected.variants}
    options = collected.settings(collected.variants[0]).inspect
    test = val = None
    by_chance: dict[tuple[int, int], Chance] = {}
    with stage.bar("looking into networks", len(collected.found)) as advance:
        for variant, found in seen.items():
            for name in trained.names(collected, variant):
                if test is None or val is None:  # the same for all
                    val, test = (
                        dataset.first_of_each_class(trained.images(collected, name, split), options.images)
                        for split in ("val", "test")
                    )
                saved = trained.network(collected, name)
                layer = filters.first_layer(saved.model)
                shape = len(layer.filters), layer.filters.shape[-1]
                if shape not in by_chance:
                    by_chance[shape] = filters.chance(*shape, draws=DRAWS, seed=options.seed)
                untrained = trained.untrained(saved, int(collected.found[name].record.params["train.seed"]))
                after, before = (
                    separability.measure(model, val, test, batch_size=BATCH_SIZE, place=torch.device("cpu"))
                    for model in (saved.model, untrained)
                )
                first = filters.summary(layer, by_chance[shape])
                found.append(Seen(layer, by_chance[shape], first, after, before))
                advance(1)
    return seen
