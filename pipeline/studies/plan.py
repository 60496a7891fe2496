"""The experiments of a study: their names, parameters and code."""

import hashlib
import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.config import loading
from pipeline.config.schema import Params
from pipeline.config.section import flatten
from pipeline.errors import ParamsError, StudyError
from pipeline.experiments import dependencies
from pipeline.experiments.lock import STAGES, TRACK
from pipeline.experiments.results import ORIGIN, text_of
from pipeline.studies.spec import FOLDER, Overrides, Scale, Setting, Study

DATASET, SEED = "data.dataset", "train.seed"
RESERVED = {DATASET: "set by --data", SEED: "set by seeds"}
WITHOUT_EFFECT = "tracking."
PLACEHOLDERS = {"data.archive": "FILE", "data.sha256": "HASH"}
"""What a page shows for parameters that are private to a machine: where the data came from."""


@dataclass(frozen=True)
class Planned:
    """One experiment of a study.

    Attributes:
        name: STUDY-VARIANT-sSEED-DIGEST; the digest covers all parameters and code that its results depend on, so that
            a name stands for one result.
        values: the parameters that are passed to DVC.
        settings: all parameters.
        code: `code_digest` when the plan was made.
    """

    name: str
    variant: str
    seed: int
    values: Overrides
    settings: Params
    code: str


@dataclass(frozen=True)
class Plan:
    """All experiments of a study, by seed, then by variant, so that an interrupted study has results of every variant.

    Attributes:
        overrides: parameters of all experiments that the user set with --set.
    """

    name: str
    study: Study
    scale: Scale
    dataset: str
    overrides: Overrides
    experiments: tuple[Planned, ...]

    @property
    def setting(self) -> Setting:
        """The small or the full setting."""
        return self.study.setting(self.scale)

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, in the order of the study's file."""
        return tuple(dict.fromkeys(planned.variant for planned in self.experiments))

    @property
    def shared(self) -> Overrides:
        """The parameters that have the same value in all experiments, without those of the data."""
        first, *others = (planned.values for planned in self.experiments)
        same = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
        return {key: value for key, value in same.items() if key not in {DATASET, SEED, *PLACEHOLDERS}}

    @property
    def command(self) -> str:
        """The command that runs this study."""
        words = [f"python -m pipeline study {self.name} --data {self.dataset}"]
        words += ["--full"] if self.scale == "full" else []
        assignments = [f"{key}={PLACEHOLDERS.get(key) or text_of(value)}" for key, value in self.overrides.items()]
        return " ".join([*words, *(f"--set {shlex.quote(assignment)}" for assignment in assignments)])

    def own(self, variant: str) -> Overrides:
        """Return the parameters in which a variant differs from others."""
        values = next(planned.values for planned in self.experiments if planned.variant == variant)
        return {key: value for key, value in values.items() if key not in {DATASET, SEED, *PLACEHOLDERS, *self.shared}}

    def settings(self, variant: str) -> Params:
        """Return a variant's parameters, with its first seed."""
        return next(planned.settings for planned in self.experiments if planned.variant == variant)


def make(
    root: Path,
    name: str,
    study: Study,
    quantities: Collection[str],
    *,
    dataset: str | None,
    scale: Scale,
    overrides: Sequence[str] = (),
) -> Plan:
    """Plan a study; every experiment's parameters are checked.

    Args:
        root: the repository.
        quantities: names of what the study's analysis measures, which the rule may use.
        dataset: a value of data.dataset; None: that of params.yaml.
        overrides: further parameters for all experiments, as "KEY=VALUE".

    Raises:
        StudyError: there are mistakes in the study or in `overrides`; one line for each of them.
        ParamsError: there are mistakes in params.yaml.
    """
    base = loading.read(root / "params.yaml")
    known = dict(flatten(loading.validate(base, "params.yaml").model_dump(mode="json")))
    where, extra = f"{FOLDER}/{name}.yaml", dict(_assignment(assignment) for assignment in overrides)
    lines = (*_rule_mistakes(study, quantities), *_value_mistakes(study, base, known))
    mistakes = [f"{where}: {line}" for line in lines]
    points = study.points(scale)
    varied = {key for values in points.values() for key in values}
    mistakes += [f"--set: {line}" for line in _override_mistakes(varied, extra, base, known)]
    if mistakes:
        raise StudyError("\n".join(mistakes))
    setting, chosen = study.setting(scale), {DATASET: dataset or known[DATASET]}
    shared = study.params | setting.params
    values = {variant: shared | own | extra | chosen for variant, own in points.items()}
    settings = _validated(where, base, values)
    codes = {variant: code_digest(root, one) for variant, one in settings.items()}
    experiments = (
        _planned(name, variant, seed, values[variant], settings[variant], codes[variant])
        for seed in setting.seeds
        for variant in points
    )
    return Plan(name, study, scale, chosen[DATASET], extra, tuple(experiments))


def code_digest(root: Path, settings: Params) -> str:
    """Return a hash of the stages that make the results: their definitions and the code they depend on.

    Raises:
        PipelineError: there is no readable dvc.yaml.
    """
    return dependencies.digest(root, [name for name in STAGES if name != TRACK], settings)


def decisive(settings: Params) -> dict[str, Any]:
    """Return the parameters that results depend on: all that have an effect, without the source of the data."""
    effective = settings.effective()
    return {key: value for key, value in effective.items() if key not in ORIGIN and not key.startswith(WITHOUT_EFFECT)}


def _validated(where: str, base: Any, values: Mapping[str, Overrides]) -> dict[str, Params]:
    """Return the parameters of each variant.

    Raises:
        StudyError: values contradict one another, or two variants are the same; a line for each mistake.
    """
    found: dict[str, Params] = {}
    equal: dict[str, str] = {}
    mistakes: dict[str, list[str]] = {}
    for variant, own in values.items():
        try:
            found[variant] = loading.validate(loading.changed(base, own), "")
        except ParamsError as error:
            for line in str(error).splitlines():
                mistakes.setdefault(line.removeprefix(": "), []).append(variant)
            continue
        first = equal.setdefault(json.dumps(decisive(found[variant]), sort_keys=True), variant)
        if first != variant:
            mistakes[f"same parameters as {first}, expected a difference that has an effect"] = [variant]
    if mistakes:
        named = (
            ("every variant" if len(variants) == len(values) else f"variant {', '.join(variants)}", line)
            for line, variants in mistakes.items()
        )
        raise StudyError("\n".join(f"{where}: {variants}: {line}" for variants, line in named))
    return found


def _planned(name: str, variant: str, seed: int, values: Overrides, settings: Params, code: str) -> Planned:
    """Return the experiment of a variant and a seed."""
    seeded = settings.model_copy(update={"train": settings.train.model_copy(update={"seed": seed})})
    content = json.dumps([decisive(seeded), code], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:6]
    return Planned(f"{name}-{variant}-s{seed}-{digest}", variant, seed, values | {SEED: seed}, seeded, code)


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise StudyError(f"--set: found {text}, expected KEY=VALUE, e.g. train.epochs=2")
    try:
        return key, YAML(typ="safe").load(value)
    except YAMLError:
        raise StudyError(f"--set: {key}: found {value}, which is not YAML") from None


def _rule_mistakes(study: Study, quantities: Collection[str]) -> Iterator[str]:
    """Yield a line for each quantity that the study's analysis does not measure."""
    for number, condition in enumerate(study.rule):
        if condition.quantity not in quantities:
            yield f"rule[{number}].quantity: found {condition.quantity}, expected one of {', '.join(quantities)}"


def _value_mistakes(study: Study, base: Any, known: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each key of the study's file that it may not set, and each invalid value."""
    for section, key, value in _sections(study):
        if mistake := _value_mistake(key, value, base, known):
            yield f"{section}.{mistake}"


def _override_mistakes(
    varied: Collection[str], overrides: Overrides, base: Any, known: Mapping[str, Any]
) -> Iterator[str]:
    for key, value in overrides.items():
        if key in varied:
            yield f"{key}: varied by the study, expected a parameter that is the same for all variants"
        if mistake := _value_mistake(key, value, base, known):
            yield mistake


def _sections(study: Study) -> Iterator[tuple[str, str, Any]]:
    """Yield all values of a study's file: section, parameter, value."""
    parts: dict[str, Study | Setting] = {"": study, "small.": study.small, "full.": study.full}
    for prefix, part in parts.items():
        yield from ((f"{prefix}params", key, value) for key, value in part.params.items())
        for name, values in part.variants.items():
            yield from ((f"{prefix}variants.{name}", key, value) for key, value in values.items())
        for name, axes in part.grids.items():
            for key, axis in axes.items():
                choices = axis.values() if isinstance(axis, Mapping) else axis
                yield from ((f"{prefix}grids.{name}", key, value) for value in choices)


def _value_mistake(key: str, value: Any, base: Any, known: Mapping[str, Any]) -> str | None:
    if key in RESERVED:
        return f"{key}: reserved, {RESERVED[key]}"
    return loading.unknown(key, known) or loading.refusal(base, key, value)


def difference(planned: Planned, record_params: Mapping[str, Any]) -> str | None:
    """Return the first difference between planned and recorded parameters; None: there is none."""
    expected = decisive(planned.settings)
    for key, value in record_params.items():
        if key in expected and expected[key] != value:
            return f"{key}: found {text_of(value)}, expected {text_of(expected[key])}"
    return None
