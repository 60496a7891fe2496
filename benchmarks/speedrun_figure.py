"""Draw what `benchmarks.speedrun --json` wrote: accuracy against seconds of training, ours and the peer's.

Several files may be given, of one machine and the same images.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.axes import Axes

from benchmarks.axes import plain_ticks
from benchmarks.measuring import BenchmarkError
from pipeline import files, stage
from pipeline.plotting import BLUE, GREY, ORANGE, headline, saved

SIDES = (("peer", "the recipe of airbench94_muon", ORANGE, "s"), ("ours", "preset of this pipeline", BLUE, "o"))


def main(
    results: Annotated[list[Path], typer.Argument(help="What --json wrote.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    data: Annotated[str | None, typer.Option(help="What to call the images. Default: as the results do.")] = None,
) -> None:
    found = [files.read_json(path) for path in results]
    for path, result in zip(results, found, strict=True):
        place = (result["machine"]["device_name"], result["data"])
        expected = (found[0]["machine"]["device_name"], found[0]["data"])
        if place != expected:
            raise BenchmarkError(
                f"{path}: found results of {' and '.join(place)}, expected {' and '.join(expected)} as in {results[0]}"
            )
    entries = [entry for result in found for entry in result.items()]
    presets = {name: value for name, value in entries if isinstance(value, dict) and "vs_peer" in value}
    draw(out, presets, {"machine": found[0]["machine"], "data": data or found[0]["data"]})


def draw(path: Path, presets: dict[str, Any], about: dict[str, Any]) -> None:
    """Draw every run as a small mark, both sides' means as large ones, and between them how much less time ours took.

    Args:
        presets: by name, as `--json` has them.
        about: "machine" and "data" of the results.
    """
    with saved(path, (7.2, 4.4)) as figure:
        axes = figure.subplots()
        for side, label, colour, marker in SIDES:
            runs = [run for preset in presets.values() for run in preset[side]["outcomes"]]
            _marks(axes, runs, color=colour, marker=marker, ms=3, alpha=0.5)
            means = [
                {"seconds": preset[side]["seconds_mean"], "accuracy": preset[side]["accuracy_mean"]}
                for preset in presets.values()
            ]
            _marks(axes, means, color=colour, marker=marker, ms=8, label=label)
        for name, preset in presets.items():
            ours, peer = preset["ours"], preset["peer"]
            ends = [(side["seconds_mean"], 100 * side["accuracy_mean"]) for side in (ours, peer)]
            axes.plot(*zip(*ends, strict=True), color=GREY, lw=1, zorder=0)
            slowest = max(run["seconds"] for run in peer["outcomes"])
            text = f"{name}: {preset['vs_peer']:.2f} x the time, n = {ours['n']}"
            beside = (slowest, ends[1][1])
            axes.annotate(text, beside, (8, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set(xlabel="seconds of training", ylabel="test accuracy with six views, %", xscale="log")
        plain_ticks(axes.xaxis)
        axes.margins(x=0.2, y=0.12)
        axes.set_xlim(right=2.2 * axes.get_xlim()[1])  # room for what is beside the slowest
        axes.legend(loc="lower right")
        machine = f"{about['machine']['device_name']}, {about['machine']['cores']} cores"
        headline(figure, f"How long training takes to an accuracy ({machine}, {about['data']})")


def _marks(axes: Axes, points: list[dict[str, float]], **style: Any) -> None:
    axes.plot([point["seconds"] for point in points], [100 * point["accuracy"] for point in points], ls="", **style)


if __name__ == "__main__":
    stage.command(main)
