"""The sections of params.yaml as frozen pydantic models: types, ranges and meaning of each parameter."""

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
    ModelParams = architectures.model_params(__name__)


CIFAR10_TRAIN_IMAGES = 50_000


class Cifar10Params(Section):
    """Source of the official archive."""

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
    """Dataset and splits."""

    dataset: Literal["cifar10", "shapes10"]
    archive: str | None
    """File (relative to the repository) or URL of another archive in CIFAR-10's binary layout."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    val_images: Annotated[int, Field(ge=CLASSES, le=1_000_000)]
    split_seed: Seed
    train_share: Annotated[float, Field(gt=0, le=1)]
    """Share of the training images to train on, after the validation images have been split off."""
    cifar10: Cifar10Params
    shapes10: Shapes10Params


class AugmentParams(Section):
    """Random augmentation of training images, redrawn every epoch."""

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
    """The selected optimiser and the settings of each."""

    name: Literal["muon", "sgd", "adamw"]
    muon: MuonParams
    sgd: SgdParams
    adamw: AdamwParams

    @property
    def lr(self) -> float:
        """Peak learning rate of the selected optimiser."""
        settings: MuonParams | SgdParams | AdamwParams = getattr(self, self.name)
        return settings.lr


class TrainParams(Section):
    """Training loop, learning rate schedule and device."""

    seed: Seed
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: BatchSize
    resolutions: Annotated[tuple[Annotated[int, Field(ge=16, le=IMAGE_SIDE)], ...], Field(min_length=1, max_length=64)]
    """Side of the training images in pixels; several are used in this order for equal parts of the training."""
    hardest: Annotated[float, Field(gt=0, le=1)]
    """Share of the training images, those with the highest last recorded loss, used in epochs after the first."""
    schedule: Literal["onecycle", "cosine", "constant"]
    warmup: Annotated[float, Field(ge=0, le=0.9)]
    """Share of all steps in which the learning rate rises linearly from 0."""
    label_smoothing: Annotated[float, Field(ge=0, le=0.9)]
    clip_grad_norm: Annotated[float, Field(ge=0)]
    ema: Annotated[float, Field(ge=0, le=0.9999)]
    """Decay per step of the exponential moving average of the weights; 0: off."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    precision: Literal["auto", "bf16", "fp32"]
    channels_last: bool
    compile: Literal["auto", True, False]
    deterministic: bool
    diagnostics: bool
    """Record gradients and activations of each layer before the first epoch and after each; weights are unaffected."""


class EvaluateParams(Section):
    """Evaluation on the test set."""

    batch_size: BatchSize
    tta: Literal["none", "flip", "six"]
    robustness: Annotated[int, Field(ge=0, le=1_000_000)]
    """Test images to corrupt and shift: the first ones of each class, the same number of each; 0: none."""
    shift: Annotated[int, Field(ge=0, le=IMAGE_SIDE // 2)]
    """Largest shift along each axis in pixels; 0: none."""
    shift_step: Annotated[int, Field(ge=1, le=IMAGE_SIDE // 2)]
    """Distance between neighbouring shifts in pixels."""
    seed: Seed
    """Of the noise and the directions of rotation."""


class InspectParams(Section):
    """Layer activity and learned features: filters, patches, class embedding, confusions, suspicious labels."""

    enabled: bool
    images: Annotated[int, Field(ge=CLASSES, le=1_000_000)]
    """Number of test images: the first ones of each class, the same number of each."""
    seed: Seed


class ExportParams(Section):
    """Export to ONNX and requirements for promotion."""

    tolerance: Annotated[float, Field(gt=0, le=0.1)]
    """Largest allowed difference between probabilities of ONNX Runtime and PyTorch."""
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    min_accuracy: Annotated[float, Field(ge=0, le=1)]
    """Lowest test accuracy of a model that can be promoted."""
    max_drop: Annotated[float, Field(gt=0, le=1)]
    """Largest test accuracy, as a fraction, that a promoted model may lose to the best champion so far."""


class CompareParams(Section):
    """The command compare."""

    margin: Annotated[float, Field(ge=0, le=1)]
    """Difference in accuracy, as a fraction, up to which two configurations are equivalent in practice."""


class TrackingParams(Section):
    """MLflow experiment and registered model."""

    enabled: bool
    experiment: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(pattern="^[^/:]+$")]
    system_metrics: bool
    """Log the machine's CPU, GPU and memory use while a network trains."""


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
    compare: CompareParams
    tracking: TrackingParams

    def effective(self, *groups: str) -> dict[str, Any]:
        """Return the values that have an effect as `{"train.epochs": 8, ...}`, without sections that are not selected.

        Args:
            groups: keys of the first level, e.g. "model", "train"; none means all.
        """
        tree = self.model_dump(mode="json")
        chosen_of = {"data": self.data.dataset, "model": self.model.arch, "optimizer": self.optimizer.name}
        for group, chosen in chosen_of.items():
            fields = type(getattr(self, group)).model_fields
            sections = {name for name, field in fields.items() if is_section(field.annotation)}
            tree[group] = {key: value for key, value in tree[group].items() if key not in sections - {chosen}}
        return dict(flatten({group: tree[group] for group in groups or tree}))
