"""How each study is read: `ANALYSES`, a dict from the name of a file in studies/ to its analysis."""

from pipeline.studies.analyses import (
    activations,
    augmentation,
    batchnorm,
    conv_or_dense,
    depth_and_width,
    filters,
    pooling,
    translation,
)
from pipeline.studies.analysis import Analysis

ANALYSES: dict[str, Analysis] = {
    "activations": activations.ANALYSIS,
    "augmentation": augmentation.ANALYSIS,
    "batchnorm": batchnorm.ANALYSIS,
    "conv-or-dense": conv_or_dense.ANALYSIS,
    "depth-and-width": depth_and_width.ANALYSIS,
    "filters": filters.ANALYSIS,
    "pooling": pooling.ANALYSIS,
    "translation": translation.ANALYSIS,
}
