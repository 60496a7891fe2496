"""MODEL_CARD.md: a trained model's data, architecture, results, usage and limits."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.models.common.saved import Saved

TEMPLATE = """\
# {arch} for {dataset}

Classifies 32x32 colour images into ten classes: {classes}.

| | |
| --- | --- |
| data | {dataset}, archive SHA-256 `{archive}` |
| architecture | `{arch}` |
| parameters | {parameters:,} trainable, {macs:,} multiply-accumulates an image |
| training | {epochs} epochs of {train_images:,} images; final validation accuracy {val:.2%} |
| test accuracy | **{accuracy:.2%}** (95 % interval {low:.2%} to {high:.2%}, {images:,} images) |
| top-2 accuracy | {top2:.2%} |
| macro-F1 | {f1:.4f} |
| expected calibration error | {ece:.4f} |
{robustness}| weights | SHA-256 `{weights}`; `model.onnx`, made from them, has it as `weights_sha256` in its metadata |

## Use it

Input `images`: uint8, (N, 32, 32, 3), RGB. Output `probabilities`: float32, (N, 10). Normalisation is inside.

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
classes = session.get_modelmeta().custom_metadata_map["classes"].split(",")
images = np.zeros((1, 32, 32, 3), np.uint8)  # your images here
(probabilities,) = session.run(["probabilities"], {{"images": images}})
print([classes[i] for i in probabilities.argmax(1)])
```

## Intended use

Teaching, and comparing architectures on a small, well-known task.

## Limits

- It predicts one of these ten classes for any image, also for images of none of them.
- It was trained on 32x32 images of one source. Photographs scaled down to that size look different; the accuracy
  above does not apply to them. {per_class}
- Confidence differs from accuracy by the calibration error above on average, and by more for other images.
- It has not been tested for fairness; do not use it for decisions about people or safety.

## Parameters

```json
{params}
```
"""


ROBUSTNESS = """\
| accuracy on corrupted images | {test/corruption_accuracy:.2%}, of {test/robustness_images:,} images, mean over \
25 corruptions (unchanged {test/clean_accuracy:.2%}) |
"""


def render(
    saved: Saved, last_epoch: Mapping[str, str], results: Mapping[str, Any], by_class: Sequence[Mapping[str, Any]]
) -> str:
    """Return the card as Markdown.

    Args:
        last_epoch: the last row of the training's history.csv.
        results: metrics of evaluate under their usual names.
        by_class: rows with "class" and "recall".
    """
    worst = min(by_class, key=lambda row: row["recall"])
    return TEMPLATE.format(
        arch=saved.arch,
        dataset=saved.metadata.name,
        classes=", ".join(saved.metadata.classes),
        archive=saved.metadata.archive_sha256,
        parameters=saved.parameters,
        macs=saved.macs,
        epochs=last_epoch["epoch"],
        train_images=saved.metadata.train_images,
        val=float(last_epoch["val/accuracy"]),
        accuracy=results["test/accuracy"],
        low=results["test/accuracy_low"],
        high=results["test/accuracy_high"],
        images=results["test/images"],
        top2=results["test/accuracy_top2"],
        f1=results["test/f1_macro"],
        ece=results["test/calibration_error"],
        robustness=ROBUSTNESS.format_map(results) if "test/corruption_accuracy" in results else "",
        weights=saved.weights_sha256,
        per_class=f"The class with the lowest recall is {worst['class']}: {worst['recall']:.0%}.",
        params=json.dumps(saved.params.model_dump(mode="json"), indent=2),
    )
