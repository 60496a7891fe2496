"""The parameters: every section of params.yaml as a frozen model: types, ranges, and what each value means."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

IMAGE_SIDE = 32
CIFAR10_TRAIN_IMAGES = 50_000
CLASSES = 10

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
    features: bool
    """Draw what the network has learned: filters, patches, a map of the classes, mistakes, suspicious labels."""
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


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their keys, e.g. ("train.lr", 0.2)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)
