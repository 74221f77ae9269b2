"""What a cell is called."""

from __future__ import annotations

from dataclasses import replace

from qbench.suite import cell as cells
from qbench.suite.cell import Cell, label_of

from .conftest import Grid, Near, Train, Zoo


def test_a_label_is_its_own_specs_however_many_there_were() -> None:
    for steps in range(1, 2 * cells._MOST_LABELS + 10):
        method = Train(name="train", steps=steps)
        assert label_of(method) == label_of(method) == method.label()
        del method  # the next one may well take its place in memory
    assert len(cells._LABELS) <= cells._MOST_LABELS


def test_a_cell_with_another_method_has_another_name() -> None:
    cell = Cell(Zoo(name="zoo"), Grid(name="grid"), 4, Near(name="near"), 0, ("loss",))
    assert cell.label() == "zoo/grid/4b/near/s0"
    assert replace(cell, method=Near(name="near", order=True)).label() == "zoo/grid/4b/near[order=true]/s0"
    assert replace(cell, model=Zoo(name="odd"), quantizer=None, bits=None, method=None).label() == "odd/fp/s0"
