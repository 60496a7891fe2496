"""Parameters of torchvision's models."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Architecture


class Params(Architecture):
    """A classification model of torchvision, untrained."""

    name: Annotated[str, Field(min_length=1)]
    """As torchvision spells it; checked where the network is built, as importing torchvision takes seconds."""
    stem: Literal["small", "original"]
    """small: the first layers keep the image's side; original: as for images of 224 px."""

    @property
    def smallest_batch(self) -> int:
        return 2  # most have batch norm, and some, with their original stem, on maps of one pixel
