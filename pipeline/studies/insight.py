"""First-layer filters and separability of the classes by stage, of the networks that a study trained.

torch and scikit-learn are imported inside functions: they take seconds, which printing a plan does not need.
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
"""Random layers that a first layer is compared with."""

BATCH_SIZE = 500


@dataclass(frozen=True)
class Seen:
    """Measurements of one experiment's network.

    Attributes:
        first: measures of its first layer and of random ones, as `filters.summary` returns them.
        stages, before: separability of the classes by stage, after and before training.
    """

    layer: "FirstLayer"
    random: "Chance"
    first: dict[str, float]
    stages: list["Separability"]
    before: list["Separability"]


def look(collected: Collected) -> dict[str, list[Seen]]:
    """Measure the networks of all experiments, on the CPU so that every machine gives the same numbers.

    Returns:
        Measurements by variant, for each seed whose training did not diverge.
    """
    import torch

    from pipeline.data import dataset
    from pipeline.inspection import filters, separability

    seen: dict[str, list[Seen]] = {variant: [] for variant in collected.variants}
    options = collected.settings(collected.variants[0]).inspect
    test = val = None
    by_chance: dict[tuple[int, int], Chance] = {}
    with stage.bar("measuring networks", len(collected.found)) as advance:
        for variant, found in seen.items():
            for name in trained.names(collected, variant):
                if test is None or val is None:  # all experiments share them
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
