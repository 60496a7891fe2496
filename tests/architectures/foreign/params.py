"""Parameters of a network that was written for another project."""

from pydantic import BaseModel


class Params(BaseModel):
    """A plain pydantic model."""

    channels: int
