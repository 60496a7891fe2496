"""Self-contained HTML pages: templates, and pictures that are part of the page."""

import base64
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Return a page that needs no network and no other file.

    Args:
        template: a file in pipeline/templates/; a value that it names and that is not given is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(values)


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Return a picture as an address that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
