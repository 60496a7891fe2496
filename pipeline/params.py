"""params.yaml read, checked and changed. Imports neither torch nor mlflow: a mistake is reported at once."""

import copy
import difflib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import ParamsError
from pipeline.schema import (
    CIFAR10_TRAIN_IMAGES,
    CLASSES,
    IMAGE_SIDE,
    CnnParams,
    MlpParams,
    ModelParams,
    Params,
    Section,
    TrainParams,
    architecture,
)

SectionT = TypeVar("SectionT", bound=Section)

ADDED = {
    "data.train_share": 1.0,
    "model.cnn.init_scale": 1.0,
    "model.mlp.init_scale": 1.0,
    "train.diagnostics": False,
    "inspect.features": False,
}
"""Parameters that earlier versions of this pipeline did not have, each with the value that does what they did."""


def parse_architecture(arch: str, values: Any) -> Section:
    """Validate the JSON-able values of one architecture's section; what is `ADDED` may be absent.

    Raises:
        ValueError: there is no such architecture, or the values are not its own.
    """
    fields = ModelParams.model_fields
    if arch not in get_args(fields["arch"].annotation):
        raise ValueError(f"no architecture {arch!r}")
    if isinstance(values, Mapping):
        prefix = f"model.{arch}."
        values = completed({f"{prefix}{key}": value for key, value in values.items()})
        values = {key.removeprefix(prefix): value for key, value in values.items()}
    section: Section = fields[arch].annotation.model_validate_json(json.dumps(values))  # type: ignore[union-attr]
    return section


def load(path: Path) -> Params:
    """Read and validate a params.yaml.

    Raises:
        ParamsError: the file is missing, is not YAML, or has mistakes; one line for each of them.
    """
    return validate(read(path), str(path))


def read(path: Path) -> Any:
    """Read a YAML file, unchecked.

    Raises:
        ParamsError: the file is missing or is not YAML.
    """
    try:
        return YAML(typ="safe").load(path)  # YAML 1.2 like DVC's own reader: 1e-3 is a number, `off` is a string
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run the stages from the repository's root") from None
    except MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParamsError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def validate(tree: Any, source: str, *, combinations: bool = True) -> Params:
    """Turn what a params.yaml holds into checked parameters.

    Args:
        source: named in the errors: where the values come from.
        combinations: check also that values which are each in range can work together.

    Raises:
        ParamsError: there are mistakes; one line for each of them.
    """
    params = parse(Params, tree, source)
    mistakes = [f"{source}: {mistake}" for mistake in _combinations(params)] if combinations else []
    if mistakes:
        raise ParamsError("\n".join(mistakes))
    return params


def parse(model: type[SectionT], tree: Any, source: str) -> SectionT:
    """Turn what a YAML file holds into a checked model.

    Args:
        source: named in the errors: where the values come from.

    Raises:
        ParamsError: there are mistakes; one line for each of them.
    """
    try:
        # In JSON mode strict types still let a list become a tuple.
        return model.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ParamsError("\n".join(f"{source}: {_line(detail, model)}" for detail in error.errors())) from None


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded parameters by their full names, with what is `ADDED` to the sections they are from."""
    sections = {key.rpartition(".")[0] for key in values}
    return {key: value for key, value in ADDED.items() if key.rpartition(".")[0] in sections} | dict(values)


def changed(tree: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of what params.yaml holds with some values changed, by their full names: `{"train.lr": 0.1}`."""
    result = copy.deepcopy(tree)
    for key, value in values.items():
        *sections, last = key.split(".")
        section = result
        for name in sections:
            section = section[name]
        section[last] = value
    return result


def unknown(key: str, known: Collection[str]) -> str | None:
    """Say in a line that a full name is no known parameter's, and which may be meant; None: it is one."""
    if key in known:
        return None
    close = difflib.get_close_matches(key, known, n=1)
    return f"{key}: unknown parameter{f'; did you mean {close[0]}?' if close else ''}"


def refusal(tree: Any, key: str, value: Any) -> str | None:
    """Say in a line why a parameter cannot have a value in what params.yaml holds, all else as it is; None: it can."""
    try:
        validate(changed(tree, {key: value}), "", combinations=False)
    except ParamsError as error:
        return str(error).splitlines()[0].removeprefix(": ")
    return None


def _key(loc: tuple[int | str, ...]) -> str:
    parts = (part for part in loc if part != "[key]")  # what pydantic adds where a mapping's key is wrong
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")


def _line(detail: ErrorDetails, model: type[Section]) -> str:
    """Say where a mistake is, what was found and what is allowed, in one line."""
    key = _key(detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _keys_beside(detail["loc"], model)
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{key}: missing; it has no default"
    found = json.dumps(detail["input"], default=str)
    found = found if len(found) <= 60 else found[:57] + "..."
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ").removeprefix("expected ")
    return f"{key or 'the file'}: found {found}, expected {message[0].lower()}{message[1:]}"


def _keys_beside(loc: tuple[int | str, ...], model: type[Section]) -> list[str]:
    """Return the keys that the section has in which the last part of `loc` is not known."""
    section: Any = model
    for part in loc[:-1]:
        section = get_args(section)[0] if isinstance(part, int) else section.model_fields[part].annotation
    return list(section.model_fields)


def _combinations(params: Params) -> Iterator[str]:
    """Yield a line for every combination of values, each in range, that cannot work together."""
    data, train = params.data, params.train
    yield from _numbers_of_images(params)
    if (data.archive is None) != (data.sha256 is None):
        given, absent = ("archive", "sha256") if data.sha256 is None else ("sha256", "archive")
        yield f"data.{absent}: found null, expected a value, as data.{given} is set (sha256sum FILE prints a file's)"
    cnn = params.model.cnn
    convs = cnn.convs_per_block
    if params.model.arch == "cnn" and not isinstance(convs, int) and len(convs) != len(cnn.widths):
        yield (
            f"model.cnn.convs_per_block: found {len(convs)} numbers, expected one for each of the "
            f"{len(cnn.widths)} model.cnn.widths, or a single number for all blocks"
        )
    if params.model.arch == "cnn" and cnn.pooling != "none" and IMAGE_SIDE >> len(cnn.widths) < 1:
        yield (
            f"model.cnn.widths: found {len(cnn.widths)} blocks, expected at most 5 with model.cnn.pooling "
            f"{cnn.pooling}, as each block halves the {IMAGE_SIDE} px side; use fewer blocks or pooling none"
        )
    side = min(train.resolutions)
    if len(train.resolutions) > train.epochs:
        yield (
            f"train.resolutions: found {len(train.resolutions)} sides, expected at most train.epochs, {train.epochs}"
        )
    if side < IMAGE_SIDE and params.model.arch in ("cnn", "mlp"):
        yield (
            f"train.resolutions: found {list(train.resolutions)}, expected [{IMAGE_SIDE}] with model.arch "
            f"{params.model.arch}, whose fully connected layers take images of one size; speednet and resnet take any"
        )
    if params.inspect.shift % params.inspect.shift_step:
        yield (
            f"inspect.shift: found {params.inspect.shift}, expected a multiple of inspect.shift_step, "
            f"{params.inspect.shift_step}"
        )
    speednet = params.model.speednet
    if params.model.arch == "speednet" and (side - speednet.patch + 1) >> len(speednet.widths) < 1:
        yield (
            f"model.speednet.widths: found {len(speednet.widths)} groups, which halve images of {side} px "
            "(train.resolutions) to nothing; expected fewer groups or larger images"
        )


def _numbers_of_images(params: Params) -> Iterator[str]:
    """Yield a line if images are too few: for validation, to train on, or for a batch."""
    data, batch_size = params.data, params.train.batch_size
    if data.dataset == "cifar10":
        total, source = CIFAR10_TRAIN_IMAGES, "CIFAR-10's 50000 training images"
    else:
        total, source = data.shapes10.train_images, "data.shapes10.train_images"
    rest = total - data.val_images
    used = data.used(rest)
    if rest < CLASSES:
        yield f"data.val_images: found {data.val_images}, expected at most {total - CLASSES}, 10 less than {source}"
    elif used < CLASSES:
        yield (
            f"data.train_share: found {data.train_share}, which is {used} of the {rest} training images that "
            "data.val_images leaves; expected at least 10, one of each class"
        )
    elif batch_size > used:
        yield (
            f"train.batch_size: found {batch_size}, expected at most {used}, the training images that "
            f"data.val_images and data.train_share leave of {source}"
        )
    elif _smallest_batch(params.train, used) < 2 and _normalises_vectors(params.model):
        yield (
            f"train.batch_size: found {batch_size}, which makes a batch of one of the {used} training images; "
            "expected at least 2 in each, as batch normalisation of vectors needs"
        )


def _smallest_batch(train: TrainParams, images: int) -> int:
    """Return the size of the smallest batch: an epoch's batches differ by at most one image."""
    counts = {images, math.ceil(train.hardest * images)}
    return min(count // math.ceil(count / train.batch_size) for count in counts)


def _normalises_vectors(model: ModelParams) -> bool:
    """Say whether batch normalisation sees one value for each image and channel."""
    section = architecture(model)
    if isinstance(section, CnnParams):
        to_one_pixel = section.pooling == "stride" and IMAGE_SIDE >> len(section.widths) <= 1
        return section.norm == "batch" and bool(section.hidden or to_one_pixel)
    return isinstance(section, MlpParams) and section.norm == "batch" and bool(section.hidden)
