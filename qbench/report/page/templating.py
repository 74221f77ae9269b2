"""The templates: everything that goes into one is escaped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from qbench.errors import QBenchError
from qbench.report import numbers

if TYPE_CHECKING:
    from jinja2 import Environment


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
    return made
