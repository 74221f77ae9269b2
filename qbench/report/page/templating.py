"""The templates: everything that goes into one is escaped."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from qbench.errors import QBenchError
from qbench.report import numbers

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_ONE_PIECE = 28


@cache
def environment() -> Environment:
    """Return the templates of the page; what a template is not given is an error.

    Raises
    ------
    QBenchError
        jinja2 is missing.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as missing:
        raise QBenchError("the page needs jinja2: pip install qbench[report]") from missing
    made = Environment(
        loader=PackageLoader("qbench.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["bits"] = numbers.bits
    made.filters["label"] = _label
    return made


def _label(text: str) -> Markup:
    """Return a label whose options are in smaller letters, and which may be broken between its parts."""
    from markupsafe import Markup, escape

    told = Markup("")
    for part in re.split(r"(\[[^\]]*\])", text):
        if part.startswith("["):
            told += Markup('<wbr><span class="options">{}</span>').format(escape(part).replace(",", Markup(",<wbr>")))
        else:
            told += _names(part)
    return told


def _names(text: str) -> Markup:
    """Return names between slashes, each in one piece where it is short."""
    from markupsafe import Markup, escape

    slash = Markup("/<wbr>")
    short = Markup('<span class="name">{}</span>')
    return slash.join(short.format(name) if 0 < len(name) <= _ONE_PIECE else escape(name) for name in text.split("/"))
