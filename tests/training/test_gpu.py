"""What a GPU would refuse in a training step, or silently do wrong, found on every machine."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import architectures, presets
from pipeline.training import loop, optim
from pipeline.training.meter import Meter
from tests.paths import ROOT
from tests.training.gpu import META, DeviceOnly, pretend

OPTIONS = {
    "train.batch_size": 250,
    "train.hardest": 0.5,
    "train.ema": 0.9,
    "train.clip_grad_norm": 1.0,
    "augment.flip": "alternating",
    "augment.translate": 2,
    "augment.cutout": 8,
    "augment.brightness": 0.1,
    "augment.contrast": 0.1,
}
"""All that adds operations to a step."""


def train_on_meta(params, data, epochs: int = 2) -> None:
    """Take the steps of some epochs as `loop.train_epoch` does, without its readings, under `DeviceOnly`."""
    options = params.train.model_copy(update={"precision": "bf16"})
    step, average = loop.set_up(params.model_copy(update={"train": options}), data)
    for epoch in range(epochs):
        step.model.train()
        batches = step.loader.begin(epoch, loop.resolution(options, epoch))
        meter = Meter(len(batches), META)
        with DeviceOnly():
            for number, indices in enumerate(batches):
                optim.set_rate(step.optimizer, 0.5)
                meter.add(*step(indices), len(indices))
                if average:
                    average.update(step.model, first=epoch + number == 0)


@pytest.mark.parametrize("name", [preset.name for preset in presets.every()])
def test_presets_stay_on_the_device(data, monkeypatch, name):
    """As they are: resolutions, widths and batch sizes of those for GPUs, too."""
    pretend(monkeypatch)
    params = presets.find(name).applied(ROOT / "params.yaml")
    train_on_meta(params, data, epochs=params.train.epochs)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "googlenet", "densenet121", "convnext_tiny"])
def test_models_of_torchvision_stay_on_the_device(small_params, data, monkeypatch, name):
    """Whatever they are made of."""
    pretend(monkeypatch)
    changes = {"model.arch": "torchvision", "model.torchvision.name": name, "train.batch_size": 500}
    train_on_meta(small_params(changes), data, epochs=1)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda images: images * images.max().item(), "waits for the device|cannot be called on meta"),
        (lambda images: images[images > 0].sum(), "waits for the device|data-independent"),
        (lambda images: images + torch.ones(4), "has tensors on"),
        (lambda images: images.cpu() * 2, "has tensors on|Cannot copy out of meta"),
        (lambda images: images.double(), "computes in float64"),
        (lambda images: F.adaptive_avg_pool2d(images, 3).sum().backward(), "not deterministic"),
        (lambda images: F.pad(images, (1, 1, 1, 1), "reflect").sum().backward(), "not deterministic"),
    ],
    ids=["item", "mask", "mixed", "copy", "float64", "pooling", "padding"],
)
def test_the_instrument_finds_what_a_gpu_refuses(broken, message):
    """Each kind, planted."""
    images = torch.zeros(2, 3, 8, 4, device=META, requires_grad=True)
    with DeviceOnly(), pytest.raises((AssertionError, RuntimeError, NotImplementedError), match=message):
        broken(images)


@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
@pytest.mark.parametrize("arch", architectures.NAMES)
def test_a_step_stays_on_the_device(small_params, data, monkeypatch, arch, optimizer):
    """With all options: nothing is read back, copied, in float64 or without a deterministic implementation."""
    pretend(monkeypatch)
    train_on_meta(small_params(OPTIONS | {"model.arch": arch, "optimizer.name": optimizer}), data)
