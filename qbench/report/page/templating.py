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
            told += Markup('<span class="options">{}</span>').format(escape(part).replace(",", Markup(",<wbr>")))
        else:
            told += escape(part).replace("/", Markup("/<wbr>"))
    return told
