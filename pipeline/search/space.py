"""The search space: parameters with their ranges or choices, read from a YAML file and validated.

```yaml
optimizer.muon.lr: {low: 0.02, high: 0.5, log: true}  # a range; log: log-uniform
train.epochs: {low: 4, high: 8, step: 2}              # 4, 6 or 8
model.cnn.activation: [relu, gelu, silu]              # choices
model.cnn.widths: [[32, 64], [32, 64, 128]]           # a choice may be a list
```
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.config import loading
from pipeline.config.section import flatten
from pipeline.errors import ParamsError, TuningError
from pipeline.experiments.results import text_of

GROUPS = ("augment", "model", "optimizer", "train")
"""Sections that a search may vary: the others change the objective or do not affect it."""

RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        specs: parameter -> its entry in the file.
        distributions: the same for Optuna; choices are text, as Optuna does not store lists.
    """

    specs: Mapping[str, Any]
    distributions: dict[str, BaseDistribution]

    def values(self, suggested: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters for values suggested by Optuna."""
        return {key: self._value(key, value) for key, value in suggested.items()}

    def grid(self) -> list[dict[str, Any]]:
        """Return all combinations as Optuna's values, the last parameter varying fastest.

        Raises:
            TuningError: a parameter has infinitely many values.
        """
        axes = [[(key, value) for value in _points(key, spread)] for key, spread in self.distributions.items()]
        return [dict(point) for point in itertools.product(*axes)]

    def _value(self, key: str, suggested: Any) -> Any:
        if isinstance(self.distributions[key], CategoricalDistribution):
            return next(choice for choice in self.specs[key] if text_of(choice) == suggested)
        return suggested


def read(path: Path, base: Any) -> Space:
    """Read and validate a search space.

    Args:
        base: the content of a valid params.yaml.

    Raises:
        TuningError: the file is missing, is not YAML, or has mistakes; one line for each mistake.
    """
    if not path.is_file():
        raise TuningError(f"{path}: no such file; it names parameters and their ranges or choices")
    try:
        specs = loading.read(path)
    except ParamsError as error:
        raise TuningError(str(error)) from None
    if not isinstance(specs, dict) or not specs:
        raise TuningError(
            f"{path}: expected parameters and their ranges, e.g. optimizer.muon.lr: {{low: 0.02, high: 0.5}}"
        )
    known = dict(flatten(loading.validate(base, "params.yaml").model_dump(mode="json")))
    mistakes: list[str] = []
    spreads: dict[str, BaseDistribution] = {}
    for key, spec in specs.items():
        found = list(_mistakes(str(key), spec, known, base))
        if not found:
            spreads[key] = _distribution(spec, whole=not isinstance(known[key], float))
        mistakes += found
    if mistakes:
        raise TuningError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return Space(specs, spreads)


def _mistakes(key: str, spec: Any, known: Mapping[str, Any], base: Any) -> Iterator[str]:
    """Yield the mistakes in one parameter's entry."""
    if unknown := loading.unknown(key, known):
        yield unknown
        return
    if key.split(".")[0] not in GROUPS:
        yield f"{key}: expected a parameter of {', '.join(GROUPS)}: a search varies the network and its training only"
        return
    if isinstance(spec, list):
        wrong = list(_choice_mistakes(spec))
        candidates = spec
    elif isinstance(spec, dict):
        wrong = list(_range_mistakes(spec, whole=not isinstance(known[key], float)))
        candidates = [spec.get("low"), spec.get("high")]
    else:
        wrong = [f"found {text_of(spec)}, expected a list of choices, or a range: {{low: ..., high: ...}}"]
    if wrong:
        yield from (f"{key}: {mistake}" for mistake in wrong)
        return
    yield from filter(None, (loading.refusal(base, key, value) for value in candidates))


def _choice_mistakes(choices: list[Any]) -> Iterator[str]:
    if not choices:
        yield "found an empty list, expected choices"
    labels = [text_of(choice) for choice in choices]
    for label in dict.fromkeys(label for label in labels if labels.count(label) > 1):
        yield f"found {label} more than once"


def _range_mistakes(spec: dict[Any, Any], *, whole: bool) -> Iterator[str]:
    for name in (name for name in spec if name not in RANGE):
        yield f"{name}: unknown key; a range has {', '.join(RANGE)}"
    for name in ("low", "high"):
        if name not in spec:
            yield f"{name}: missing; a range needs both ends"
    numbers = {name: spec[name] for name in ("low", "high", "step") if name in spec}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            yield f"{name}: found {text_of(value)}, expected a {'whole ' if whole else ''}number"
            return
    if not isinstance(spec.get("log", False), bool):
        yield f"log: found {text_of(spec['log'])}, expected true or false"
        return
    low, high = spec.get("low", 0), spec.get("high", 0)
    if low > high and {"low", "high"} <= spec.keys():
        yield f"low: found {low}, expected at most high, {high}"
    if spec.get("step", 1) <= 0:
        yield f"step: found {spec['step']}, expected more than 0"
    if spec.get("log"):
        if low <= 0:
            yield f"low: found {low}, expected more than 0, as log is true"
        if "step" in spec:
            yield "found log and step, expected one of them"


def _distribution(spec: Any, *, whole: bool) -> BaseDistribution:
    if isinstance(spec, list):
        return CategoricalDistribution([text_of(choice) for choice in spec])
    low, high, step = spec["low"], spec["high"], spec.get("step")
    if step:  # the last value of the steps; decimal, as 0.1 + 0.2 is not 0.3 in floats
        first, by = Decimal(str(low)), Decimal(str(step))
        last = first + (Decimal(str(high)) - first) // by * by
        high = int(last) if whole else float(last)
    if whole:
        return IntDistribution(low, high, log=spec.get("log", False), step=step or 1)
    return FloatDistribution(low, high, log=spec.get("log", False), step=step)


def _points(key: str, spread: BaseDistribution) -> list[Any]:
    if isinstance(spread, CategoricalDistribution):
        return list(spread.choices)
    if isinstance(spread, IntDistribution):
        return list(range(spread.low, spread.high + 1, spread.step))
    assert isinstance(spread, FloatDistribution)
    if spread.step is None:
        raise TuningError(f"{key}: a grid needs finitely many values; add a step to the range, or list choices")
    low, step = Decimal(str(spread.low)), Decimal(str(spread.step))
    steps = int((Decimal(str(spread.high)) - low) / step)
    return [float(low + index * step) for index in range(steps + 1)]
