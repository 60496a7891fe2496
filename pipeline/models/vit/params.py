"""Parameters of the vision transformer."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Architecture, Share


class Params(Architecture):
    """Patches of the image as tokens, blocks of self-attention and fully connected layers, a linear layer."""

    patch: Literal[2, 4, 8, 16]
    """Side of the patches in pixels; each patch is a token."""
    width: Annotated[int, Field(ge=1, le=2048)]
    """Numbers in a token."""
    depth: Annotated[int, Field(ge=1, le=64)]
    """Blocks of [self-attention, fully connected layers]."""
    heads: Annotated[int, Field(ge=1, le=64)]
    """Attention maps of each block, each over its own share of the width."""
    mlp_ratio: Annotated[int, Field(ge=1, le=16)]
    """Hidden units of a block's fully connected layers, as a multiple of the width."""
    pooling: Literal["mean", "token"]
    """What the class scores are computed from: the mean of all tokens, or a learned class token."""
    dropout: Share

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.width % self.heads:
            yield ("heads", f"found {self.heads}, expected a divisor of model.vit.width, {self.width}")
