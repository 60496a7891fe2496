"""Self-contained HTML pages from templates, with embedded images."""

import base64
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Return a rendered page that needs no network and no other file.

    Args:
        template: a file in pipeline/templates/; a missing value is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(values)


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Return an image as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
