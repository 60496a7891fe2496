"""First-layer filters and separability of the classes by stage, of the networks that a study trained.

torch and scikit-learn are imported inside functions: they take seconds, which printing a plan does not need.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from pipeline import stage
from pipeline.studies import trained
from pipeline.studies.collected import Collected

if TYPE_CHECKING:
    from pipeline.data.dataset import Split
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

    options = collected.settings(collected.variants[0]).inspect

    @cache
    def split(name: str) -> "Split":  # all experiments share them
        one = next(iter(collected.found))
        return dataset.first_of_each_class(trained.images(collected, one, name), options.images)

    @cache
    def random(count: int, side: int) -> "Chance":
        return filters.chance(count, side, draws=DRAWS, seed=options.seed)

    def measure(name: str) -> Seen:
        saved = trained.network(collected, name)
        layer = filters.first_layer(saved.model)
        chance = random(len(layer.filters), layer.filters.shape[-1])
        untrained = trained.untrained(saved, int(collected.found[name].record.params["train.seed"]))
        after, before = (
            separability.measure(model, split("val"), split("test"), batch_size=BATCH_SIZE, place=torch.device("cpu"))
            for model in (saved.model, untrained)
        )
        return Seen(layer, chance, filters.summary(layer, chance), after, before)

    seen: dict[str, list[Seen]] = {variant: [] for variant in collected.variants}
    with stage.bar("measuring networks", len(collected.found)) as advance:
        for variant, found in seen.items():
            for name in trained.names(collected, variant):
                found.append(collected.measured("network", name, partial(measure, name)))
                advance(1)
    return seen
