"""HTML from the templates beside this module. Everything that goes into one is escaped, unless it is Markup."""

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> Markup:
    """A template with these values, as HTML that needs no escaping."""
    return Markup(_environment().get_template(template).render(**values))


def asset(name: str) -> Markup:
    """A style or program of the page, as it stands in `templates/` or `uplot/`."""
    return Markup((HERE / name).read_text())


def anchor(text: str) -> str:
    """An `id` made of letters, digits and hyphens."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
