"""Parameters of the vision transformer."""

from typing import Annotated

from pydantic import Field

from pipeline.config.section import Architecture


class Params(Architecture):
    """Patches, a class token and positions, then blocks of attention and fully connected layers."""

    patch: Annotated[int, Field(ge=2, le=16)]
    """Side of a patch in pixels; divides 32."""
    width: Annotated[int, Field(ge=2, le=512, multiple_of=2)]
    """Features of a token."""
    depth: Annotated[int, Field(ge=1, le=12)]
    """Blocks."""
