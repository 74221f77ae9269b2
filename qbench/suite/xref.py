"""Published numbers that a suite names: what others have found where it has a cell, and how close a run should come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from qbench.errors import nearest
from qbench.suite.bounds import parse_bits
from qbench.suite.cell import FP, Cell
from qbench.suite.match import Names, known_names, matches
from qbench.suite.problems import shown

if TYPE_CHECKING:
    from qbench.suite.schema import Suite

_AXES = ("model", "quantizer", "bits", "method")
_TEXT = StringConstraints(strip_whitespace=True, min_length=1)


class Xref(BaseModel):
    """A number that others have published of a cell.

    Attributes
    ----------
    model : str
        Label of one of the suite's models, as tables have it, or the part of it before its options.
    quantizer : str or None
        The same of a quantizer; left out for full precision.
    bits : int or None
        Bits a weight code; left out for full precision.
    method : str
        The same of a method; ``fp`` for full precision.
    metric : str
        The metric as records name it, its convention included, such as ``perplexity/gptq2048``.
    value : float
        What the source says.
    fp : float or None
        What the source says of full precision, in the same metric.
    compare : str
        ``value``: the number itself; ``ratio``: the number over full precision's, here and there, for a source that
        measures on other text.
    within : float
        How far the two may lie apart, as a share: at .05 up to 1.05 times more or less.
    source : str
        Where it stands.
    note : str
        What the source does otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Annotated[str, _TEXT]
    quantizer: Annotated[str, _TEXT] | None = None
    bits: Annotated[int, BeforeValidator(parse_bits)] | None = None
    method: Annotated[str, _TEXT] = FP
    metric: Annotated[str, _TEXT]
    value: Annotated[float, Field(gt=0)]
    fp: Annotated[float, Field(gt=0)] | None = None
    compare: Literal["value", "ratio"] = "value"
    within: Annotated[float, Field(gt=0, le=10)] = 0.05
    source: Annotated[str, _TEXT]
    note: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        of_grid = (self.quantizer is not None, self.bits is not None, self.method != FP)
        if len(set(of_grid)) > 1:
            raise ValueError("quantizer, bits and method go together (allowed: all three, or none for full precision)")
        if self.compare == "ratio" and (self.fp is None or self.method == FP):
            raise ValueError("compare ratio needs fp, and a cell that is quantized")
        return self

    def wanted(self) -> dict[str, list[str]]:
        """Return by axis the name that it gives of a cell; see `qbench.suite.match.matches`."""
        axes = {"model": self.model, "quantizer": self.quantizer, "bits": self.bits, "method": self.method}
        return {axis: [str(value)] for axis, value in axes.items() if value is not None}


def place_names(axes: Mapping[str, str | int | None]) -> Names:
    """Return by axis the names that a published number may give to the cells of a place, all of its seeds."""
    found = {axis: str(axes[axis]) for axis in _AXES if axes[axis] is not None}
    return {axis: frozenset({found[axis], found[axis].partition("[")[0]} if axis in found else ()) for axis in _AXES}


def cells_of(rows: Iterable[Xref], cells: Iterable[Cell]) -> list[list[Cell]]:
    """Return for each published number the cells that it is about: those of one place, of all seeds."""
    named = [(cell, place_names(cell.axes())) for cell in cells if not cell.is_probe]
    return [[cell for cell, names in named if matches(names, row.wanted())] for row in rows]


def check_xref(suite: Suite, cells: Iterable[Cell]) -> None:
    """Make sure that each published number is about a cell of the suite, and about one only.

    Raises
    ------
    SuiteError
        It names a model, quantizer, bitwidth or method of no cell, or means cells of several places.
    """
    if not suite.xref:
        return
    everything = list(cells)
    named = [place_names(cell.axes()) for cell in everything if not cell.is_probe]
    for index, found in enumerate(cells_of(suite.xref, everything)):
        row, labels = suite.xref[index], sorted({_place(cell) for cell in found})
        for axis, (value,) in row.wanted().items():
            known = known_names(named, axis)
            if value not in known:
                raise suite.error(("xref", index, axis), f"{shown(value)} is of no cell{nearest(value, known)}")
        if not found:
            asked = ", ".join(f"{axis}={value}" for axis, (value,) in row.wanted().items())
            raise suite.error(("xref", index), f"no cell has all of {asked}")
        measured = [_metrics_of(cell) for cell in found]
        if all(names is not None and not any(_is_one(row.metric, name) for name in names) for names in measured):
            known = {name for names in measured for name in names or ()}
            said = f"{shown(row.metric)} is not measured{nearest(row.metric, known)}"
            raise suite.error(("xref", index, "metric"), said)
        if len(labels) > 1:
            raise suite.error(("xref", index), f"means {len(labels)} cells: {', '.join(labels[:3])} (allowed: one)")


def _metrics_of(cell: Cell) -> tuple[str, ...] | None:
    """Return what records of a cell call their metrics; None where its model does not tell."""
    told: Callable[[tuple[str, ...]], tuple[str, ...]] | None = getattr(cell.model, "metric_names", None)
    return None if told is None else (*told(cell.metrics), *(() if cell.quantizer is None else ("weight_sqnr_db",)))


def _is_one(metric: str, name: str) -> bool:
    return metric == name or (name.endswith("/") and metric.startswith(name))


def _place(cell: Cell) -> str:
    return cell.label().rpartition("/s")[0]
