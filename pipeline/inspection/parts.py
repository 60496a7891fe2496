"""The parts of the inspect stage: layer activity and learned features, as tables and figures with means."""

from pathlib import Path

from pipeline import files
from pipeline.inspection import activity_figures, learned, units
from pipeline.inspection.network import Network

FIGURES = "figures"
"""The folder of the pictures beside the tables: `dvc plots` draws whatever is in a folder, tables as curves."""


def measure(network: Network, out: Path) -> dict[str, float]:
    """Measure and draw everything, and return the means by the names of metrics.

    Args:
        out: folder for tables; pictures go to its folder `FIGURES`.
    """
    result: dict[str, float] = {"inspect/images": len(network.test), "inspect/clean_accuracy": network.accuracy}
    return result | layers(network, out) | learned.draw(network, out / FIGURES)


def layers(network: Network, out: Path) -> dict[str, float]:
    """Measure the activity of activation layers; a network without them has no table."""
    found = units.measure(network.model, network.test, batch_size=network.batch_size, place=network.place)
    if found:
        files.write_csv(out / "layers.csv", found)
        activity_figures.layer_activity(out / FIGURES / "layers.png", found, len(network.test))
    return units.summary(found)
