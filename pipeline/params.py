"""params.yaml as frozen, validated models. Imports neither torch nor mlflow: a mistake is reported at once."""

import copy
import difflib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import ParamsError

IMAGE_SIDE = 32
CIFAR10_TRAIN_IMAGES = 50_000
CLASSES = 10

ADDED = {
    "data.train_share": 1.0,
    "model.cnn.init_scale": 1.0,
    "model.mlp.init_scale": 1.0,
    "train.diagnostics": False,
}
"""Parameters that earlier versions of this pipeline did not have, each with the value that does what they did."""

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=0.95)]
Rate = Annotated[float, Field(gt=0, le=1000)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
Activation = Literal["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "silu"]
Norm = Literal["batch", "none"]
Init = Literal["kaiming", "xavier", "orthogonal"]
InitScale = Annotated[float, Field(ge=1e-4, le=1e4)]
PerBlock = Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], Field(min_length=1, max_length=8)]
Hidden = Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(max_length=8)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise PydanticCustomError("odd", "Input should be odd, so that the filter has a centre")
    return value


def _six_n_plus_two(value: int) -> int:
    if (value - 2) % 6:
        raise PydanticCustomError("depth", "Input should be 6n + 2: 8, 14, 20, 32, 44, 56, 110")
    return value


class Section(BaseModel):
    """A part of params.yaml: unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Cifar10Params(Section):
    """Where the official archive comes from."""

    urls: Annotated[tuple[str, ...], Field(min_length=1)]
    """Mirrors of the official archive, tried in turn."""


class Shapes10Params(Section):
    """The generated dataset: its size, difficulty and seed."""

    train_images: Annotated[int, Field(ge=100, le=1_000_000)]
    test_images: Annotated[int, Field(ge=100, le=1_000_000)]
    noise: Annotated[float, Field(ge=0, le=128)]
    """Standard deviation of the pixel noise in grey levels (0..255)."""
    seed: Seed


class DataParams(Section):
    """Which images, and which of them validate."""

    dataset: Literal["cifar10", "shapes10"]
    archive: str | None
    """File (relative to the repository) or URL of another archive in CIFAR-10's binary layout."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    val_images: Annotated[int, Field(ge=CLASSES, le=1_000_000)]
    split_seed: Seed
    train_share: Annotated[float, Field(gt=0, le=1)]
    """Share of the training images that is used, after those for validation were taken."""
    cifar10: Cifar10Params
    shapes10: Shapes10Params

    def used(self, images: int) -> int:
        """Return how many of the images that validation leaves are trained on."""
        return round(self.train_share * images)


class AugmentParams(Section):
    """What happens to training images, anew in every epoch."""

    flip: Literal["none", "random", "alternating"]
    translate: Annotated[int, Field(ge=0, le=IMAGE_SIDE // 2)]
    """Largest shift along each axis in pixels."""
    cutout: Annotated[int, Field(ge=0, le=IMAGE_SIDE)]
    """Side of the erased square in pixels."""
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]


class CnnParams(Section):
    """Blocks of [convolution, norm, activation], pooling, dropout; then fully connected layers."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(min_length=1, max_length=8)]
    """Output channels of each block."""
    convs_per_block: Annotated[int, Field(ge=1, le=8)] | PerBlock
    """Convolutions of each block, or one number for all blocks."""
    kernel_size: Annotated[int, Field(ge=1, le=11), AfterValidator(_odd)]
    activation: Activation
    pooling: Literal["max", "avg", "stride", "none"]
    norm: Norm
    dropout: Share
    hidden: Hidden
    """Units of each fully connected layer between the blocks and the class scores."""
    init: Init
    init_scale: InitScale
    """Factor on the initial weights of all layers but the last, whose scores nothing would normalise."""


class MlpParams(Section):
    """Fully connected layers only: the regular network."""

    hidden: Hidden
    activation: Activation
    norm: Norm
    dropout: Share
    init: Init
    init_scale: InitScale


class ResnetParams(Section):
    """Three stages of residual blocks."""

    depth: Annotated[int, Field(ge=8, le=1202), AfterValidator(_six_n_plus_two)]
    """Layers with weights on the path from image to scores: 6n + 2 for n blocks in each of three stages."""
    width: Annotated[int, Field(ge=1, le=512)]
    """Channels of the first stage."""
    activation: Activation
    dropout: Share


class SpeednetParams(Section):
    """A whitening layer, groups of convolutions that each halve the side, a linear layer."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(min_length=1, max_length=4)]
    """Output channels of each group."""
    convs_per_group: Annotated[int, Field(ge=1, le=8)]
    activation: Activation
    whitening: bool
    """Compute the first layer from the training images and leave it so; false: learn it."""
    patch: Annotated[int, Field(ge=1, le=4)]
    """Side of the first layer's filters in pixels."""
    head_scale: Annotated[float, Field(gt=0, le=1000)]
    """Factor on the class scores of a last layer that starts with weights of standard deviation 1 / channels."""


class ModelParams(Section):
    """The architecture in use, and the settings of each."""

    arch: Literal["cnn", "mlp", "resnet", "speednet"]
    cnn: CnnParams
    mlp: MlpParams
    resnet: ResnetParams
    speednet: SpeednetParams


class TrainParams(Section):
    """Optimisation, randomness, and the machine it runs on."""

    seed: Seed
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: BatchSize
    resolutions: Annotated[tuple[Annotated[int, Field(ge=16, le=IMAGE_SIDE)], ...], Field(min_length=1, max_length=64)]
    """Side of the training images in pixels; several share the epochs equally, in this order."""
    hardest: Annotated[float, Field(gt=0, le=1)]
    """Share of the training images, those with the highest loss when last seen, in epochs after the first."""
    optimizer: Literal["muon", "sgd", "adamw"]
    lr: Rate
    """Peak learning rate of the schedule."""
    lr_rest: Rate
    """Muon's peak learning rate for the vectors, which it leaves to SGD: biases and normalisation."""
    lr_head: Rate
    """Muon's peak learning rate for the last layer, which it leaves to SGD, too."""
    momentum: Annotated[float, Field(ge=0, le=0.999)]
    muon_steps: Annotated[int, Field(ge=1, le=20)]
    """Newton-Schulz iterations of muon's orthogonalisation."""
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    schedule: Literal["onecycle", "cosine", "constant"]
    warmup: Annotated[float, Field(ge=0, le=0.9)]
    """Share of all steps in which the learning rate rises linearly from 0."""
    label_smoothing: Annotated[float, Field(ge=0, le=0.9)]
    clip_grad_norm: Annotated[float, Field(ge=0)]
    ema: Annotated[float, Field(ge=0, le=0.9999)]
    """Decay per step of the moving average of the weights; 0: the weights themselves are used."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    precision: Literal["auto", "bf16", "fp32"]
    channels_last: bool
    compile: Literal["auto", True, False]
    deterministic: bool
    diagnostics: bool
    """Record gradients and activations of every layer before the first epoch and after each; weights are the same."""


class EvaluateParams(Section):
    """How the test set is judged."""

    batch_size: BatchSize
    tta: Literal["none", "flip", "six"]
    tta_share: Annotated[float, Field(gt=0, le=1)]
    """Share of the images, the least confident ones, that are looked at in more than one view."""
    calibration_bins: Annotated[int, Field(ge=2, le=100)]


class InspectParams(Section):
    """What is measured of the trained network beyond the test score."""

    images: Annotated[int, Field(ge=CLASSES, le=1_000_000)]
    """Test images that are looked at: the first ones of each class, equally many."""
    corruptions: bool
    shift: Annotated[int, Field(ge=0, le=IMAGE_SIDE // 2)]
    """Largest shift along each axis in pixels; 0: none."""
    shift_step: Annotated[int, Field(ge=1, le=IMAGE_SIDE // 2)]
    """Distance between neighbouring shifts in pixels."""
    seed: Seed


class ExportParams(Section):
    """How close the exported graph must be."""

    tolerance: Annotated[float, Field(gt=0, le=0.1)]
    """Largest allowed difference between a probability of ONNX Runtime and PyTorch's."""
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    min_accuracy: Annotated[float, Field(ge=0, le=1)]
    """Test accuracy that a model must have to be promoted."""


class TrackingParams(Section):
    """Where runs go in MLflow."""

    enabled: bool
    experiment: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(pattern="^[^/:]+$")]


class Params(Section):
    """The whole of params.yaml."""

    data: DataParams
    augment: AugmentParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams
    inspect: InspectParams
    export: ExportParams
    tracking: TrackingParams

    def effective(self, *groups: str) -> dict[str, Any]:
        """Return the values that have an effect as `{"train.lr": 0.2, ...}`: sections not in use are left out.

        Args:
            groups: keys of the first level, e.g. "model", "train"; none: all.
        """
        tree = self.model_dump(mode="json")
        for group, chosen in (("data", self.data.dataset), ("model", self.model.arch)):
            fields = type(getattr(self, group)).model_fields
            sections = {name for name, field in fields.items() if _is_section(field.annotation)}
            tree[group] = {key: value for key, value in tree[group].items() if key not in sections - {chosen}}
        return dict(flatten({group: tree[group] for group in groups or tree}))


def architecture(params: ModelParams) -> Section:
    """Return the section of the architecture that `model.arch` names."""
    section = getattr(params, params.arch)
    assert isinstance(section, Section)
    return section


def parse_architecture(arch: str, values: Any) -> Section:
    """Validate the JSON-able values of one architecture's section; what is `ADDED` may be absent.

    Raises:
        ValueError: there is no such architecture, or the values are not its own.
    """
    field = ModelParams.model_fields.get(arch)
    if field is None or not _is_section(field.annotation):
        raise ValueError(f"no architecture {arch!r}")
    if isinstance(values, Mapping):
        prefix = f"model.{arch}."
        values = completed({f"{prefix}{key}": value for key, value in values.items()})
        values = {key.removeprefix(prefix): value for key, value in values.items()}
    section: Section = field.annotation.model_validate_json(json.dumps(values))  # type: ignore[union-attr]
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
    try:
        # In JSON mode strict types still let a list become a tuple.
        params = Params.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ParamsError("\n".join(f"{source}: {_line(detail)}" for detail in error.errors())) from None
    mistakes = [f"{source}: {mistake}" for mistake in _combinations(params)] if combinations else []
    if mistakes:
        raise ParamsError("\n".join(mistakes))
    return params


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their keys, e.g. ("train.lr", 0.2)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded parameters, named as by `flatten`, with what is `ADDED` to the sections they are from."""
    sections = {key.rpartition(".")[0] for key in values}
    return {key: value for key, value in ADDED.items() if key.rpartition(".")[0] in sections} | dict(values)


def changed(tree: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of what params.yaml holds with some values changed, named as by `flatten`: `{"train.lr": 0.1}`."""
    result = copy.deepcopy(tree)
    for key, value in values.items():
        *sections, last = key.split(".")
        section = result
        for name in sections:
            section = section[name]
        section[last] = value
    return result


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _key(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _line(detail: ErrorDetails) -> str:
    """Say where a mistake is, what was found and what is allowed, in one line."""
    key = _key(detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _keys_beside(detail["loc"])
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{key}: missing; every key must be given"
    found = json.dumps(detail["input"], default=str)
    found = found if len(found) <= 60 else found[:57] + "..."
    message = detail["msg"].removeprefix("Input should be ").replace("String should", "should")
    return f"{key or 'the file'}: found {found}, expected {message[0].lower()}{message[1:]}"


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Params
    for part in loc[:-1]:
        annotation = section.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        section = annotation
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
