"""A comparison as JUnit XML, which most machines that run tests can show: one test case a cell."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from qbench.report.comparison_cells import HEADERS, cells_of
from qbench.store.comparison import Comparison
from qbench.store.verdict import ComparisonRow

_ERROR = ("failed", "missing", "blocked")
_NOT_ALLOWED = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(comparison: Comparison) -> str:
    """Return a comparison as JUnit XML, with a newline at its end.

    A cell that changed is a failure, one that could not be judged an error. What does not count (an expected failure,
    a cell that is not in the baseline yet) is skipped.

    Parameters
    ----------
    comparison : Comparison
        What to show.
    """
    suite = ElementTree.Element("testsuite", name=f"qbench.{_clean(comparison.suite)}")
    if comparison.environment:
        properties = ElementTree.SubElement(suite, "properties")
        for name, (then, now) in comparison.environment.items():
            ElementTree.SubElement(properties, "property", name=_clean(name), value=_clean(f"{then} -> {now}"))
    kinds = [_case(suite, comparison, row) for row in (*comparison.seed_means, *comparison.rows)]
    counts = {"tests": len(kinds), **{name: kinds.count(kind) for name, kind in _KINDS.items()}}
    for name, count in counts.items():
        suite.set(name, str(count))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


_KINDS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def _case(suite: ElementTree.Element, comparison: Comparison, row: ComparisonRow) -> str:
    group = f".{row.group}" if row.group else ""
    case = ElementTree.SubElement(
        suite, "testcase", classname=_clean(f"qbench.{comparison.suite}{group}"), name=_clean(row.label)
    )
    kind = _kind(comparison, row)
    if kind:
        message = f"{row.verdict}: {row.note}" if row.note else row.verdict
        told = ElementTree.SubElement(case, kind, message=_clean(message))
        if kind != "skipped":
            told.set("type", row.verdict)
            told.text = _clean("\n".join(f"{name}: {cell}" for name, cell in zip(HEADERS, cells_of(row), strict=True)))
    return kind


def _kind(comparison: Comparison, row: ComparisonRow) -> str:
    if row.verdict in _ERROR:
        return "error"
    if comparison.red(row):
        return "failure"
    return "skipped" if row.verdict in ("expected", "new") else ""


def _clean(text: str) -> str:
    return _NOT_ALLOWED.sub("\ufffd", text)
