"""HTML pages that open from disk: one file, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

# What would be invisible, break a line, or turn the reading direction of the text around it.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_STYLE_PACKAGE = "syncdiff.pipeline.report"


def render(package: str, template: str, **values: Any) -> str:
    """A template of a package (`report.html.j2`) with these values; it may include this package's too."""

    def load(name: str) -> str | None:
        for place in (package, _STYLE_PACKAGE):
            file = files(place) / name
            if file.is_file():
                return file.read_text(encoding="utf-8")
        return None

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(load),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(visible=visible, signed=signed, grouped=grouped)
    return environment.get_template(template).render(**values)


def visible(text: object) -> str:
    """Text with its invisible characters written out, a line break as `\\n`: names can be told apart."""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def signed(number: int) -> str:
    """A whole number with its sign: +3, −2, 0."""
    return f"{number:+d}".replace("-", "−") if number else "0"


def grouped(number: int) -> str:
    """A whole number with thousands apart: 1,234."""
    return f"{number:,}"
