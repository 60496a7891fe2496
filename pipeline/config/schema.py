"""The parameters: every section of params.yaml as a frozen model: types, ranges, and what each value means."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pipeline.config import architectures
from pipeline.config.section import (
    CLASSES,
    IMAGE_SIDE,
    BatchSize,
    Momentum,
    Rate,
    Section,
    Seed,
    WeightDecay,
    flatten,
    is_section,
)

if TYPE_CHECKING:
    from pipeline.config.architectures import ModelParams as ModelParams
else:
    ModelParams = architectures.model_params()


CIFAR10_TRAIN_IMAGES = 50_000


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


class AugmentParams(Section):
    """What happens to training images, anew in every epoch."""

    flip: Literal["none", "random", "alternating"]
    translate: Annotated[int, Field(ge=0, le=IMAGE_SIDE // 2)]
    """Largest shift along each axis in pixels."""
    cutout: Annotated[int, Field(ge=0, le=IMAGE_SIDE)]
    """Side of the erased square in pixels."""
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]


class MuonParams(Section):
    """Orthogonalised momentum for the hidden weights; Nesterov SGD for vectors and the head."""

    lr: Rate
    """Peak learning rate of the hidden weights."""
    lr_vectors: Rate
    """Peak learning rate of biases and normalisation."""
    lr_head: Rate
    """Peak learning rate of the last layer's weights."""
    momentum: Momentum
    steps: Annotated[int, Field(ge=1, le=20)]
    """Newton-Schulz iterations of the orthogonalisation."""
    weight_decay: WeightDecay


class SgdParams(Section):
    """Stochastic gradient descent with Nesterov momentum."""

    lr: Rate
    """Peak learning rate."""
    momentum: Momentum
    weight_decay: WeightDecay


class AdamwParams(Section):
    """Adam with decoupled weight decay; the second moment's decay is 0.999."""

    lr: Rate
    """Peak learning rate."""
    beta1: Momentum
    """Decay of the first moment."""
    weight_decay: WeightDecay


class OptimizerParams(Section):
    """The optimiser in use, and the settings of each."""

    name: Literal["muon", "sgd", "adamw"]
    muon: MuonParams
    sgd: SgdParams
    adamw: AdamwParams

    @property
    def lr(self) -> float:
        """Peak learning rate of the optimiser in use."""
        settings: MuonParams | SgdParams | AdamwParams = getattr(self, self.name)
        return settings.lr


class TrainParams(Section):
    """Length and randomness of the training, its schedule, and the machine it runs on."""

    seed: Seed
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: BatchSize
    resolutions: Annotated[tuple[Annotated[int, Field(ge=16, le=IMAGE_SIDE)], ...], Field(min_length=1, max_length=64)]
    """Side of the training images in pixels; several share the epochs equally, in this order."""
    hardest: Annotated[float, Field(gt=0, le=1)]
    """Share of the training images, those with the highest loss when last seen, in epochs after the first."""
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
    optimizer: OptimizerParams
    train: TrainParams
    evaluate: EvaluateParams
    inspect: InspectParams
    export: ExportParams
    tracking: TrackingParams

    def effective(self, *groups: str) -> dict[str, Any]:
        """Return the values that have an effect as `{"train.epochs": 8, ...}`: sections not in use are left out.

        Args:
            groups: keys of the first level, e.g. "model", "train"; none: all.
        """
        tree = self.model_dump(mode="json")
        chosen_of = {"data": self.data.dataset, "model": self.model.arch, "optimizer": self.optimizer.name}
        for group, chosen in chosen_of.items():
            fields = type(getattr(self, group)).model_fields
            sections = {name for name, field in fields.items() if is_section(field.annotation)}
            tree[group] = {key: value for key, value in tree[group].items() if key not in sections - {chosen}}
        return dict(flatten({group: tree[group] for group in groups or tree}))
