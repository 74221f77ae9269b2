"""From a suite to its cells: plain enumeration, in one order, nothing left out in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from qbench.errors import QBenchError, UnknownNameError, nearest
from qbench.suite.bounds import seed_range
from qbench.suite.cell import Cell, label_of
from qbench.suite.controls import control_place, controls_of
from qbench.suite.exclude import exclusion_reasons
from qbench.suite.limits import MAX_CALL, MAX_CELLS, MAX_POINTS, count_cells
from qbench.suite.match import Place, cell_names, known_names, matches
from qbench.suite.metrics import asked_of
from qbench.suite.points import with_points
from qbench.suite.problems import shown
from qbench.suite.schema import Block, Suite
from qbench.suite.xref import check_xref

_AXES = ("model", "quantizer", "bits", "method", "seed")


def enumerate_cells(suite: Suite, seeds: int | None = None) -> list[Cell]:
    """Return every cell of a suite, those it leaves out included.

    Parameters
    ----------
    suite : Suite
        What `load_suite` returned.
    seeds : int, optional
        Replaces each block's seeds by ``0 .. seeds-1``.

    Returns
    -------
    list of Cell
        Ordered by model, seed, full precision first, then the controls of methods that train, quantizer, bits from
        many to few, method; names in the order in which the file first gives them. A cell that is left out carries the
        reason as `Cell.skip`; a control that no cell is left for is not there at all.

    Raises
    ------
    SuiteError
        Two blocks give the same cell, an exclusion or a published number means no cell, or there are more cells than a
        suite can have.
    QBenchError
        `seeds` is not a number of seeds.
    """
    _check_size(suite, seeds)
    cells = _all_cells(suite, seeds)
    _check_points(suite, cells.values())
    check_xref(suite, cells.values())
    reasons = exclusion_reasons(suite, cells, seeds_replaced=seeds is not None)
    ordered = []
    for place in sorted(cells, key=_order(suite)):
        cell = cells.pop(place)
        skip = reasons.get(place) or _impossible(cell)
        ordered.append(cell if skip is None else replace(cell, skip=skip))
    ordered = _with_points(suite, ordered)
    if not any(cell.is_control for cell in ordered):
        return ordered
    wanted = controls_of(cell for cell in ordered if cell.skip is None)
    return [cell for cell in ordered if not cell.is_control or cell.skip or control_place(cell) in wanted]


def measured_cells(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells that have a place in the leaderboard and in a baseline: all but those of probes."""
    return [cell for cell in cells if not cell.is_probe]


def measured_labels(cells: Iterable[Cell]) -> set[str]:
    """Return the labels of `measured_cells` that are run: what a baseline and a comparison expect to be there."""
    return {cell.label() for cell in measured_cells(cells) if cell.skip is None}


def axes_of(cells: Iterable[Cell]) -> list[dict[str, str | int | None]]:
    """Return the axes of cells, and under ``skip`` why one is left out, in their order."""
    return [{**cell.axes(), "skip": cell.skip} for cell in cells]


def places(cells: Iterable[Cell]) -> list[dict[str, str | int | None]]:
    """Return the axes of those that have a place in the leaderboard, as `axes_of` does."""
    return axes_of(measured_cells(cells))


def probe_places(cells: Iterable[Cell]) -> list[dict[str, str | int | None]]:
    """Return the axes of probes, which have no place in the leaderboard, as `axes_of` does."""
    return axes_of(cell for cell in cells if cell.is_probe)


def filter_cells(cells: list[Cell], only: str) -> list[Cell]:
    """Return the cells that match, with the full-precision cells and the controls of those that remain.

    Parameters
    ----------
    cells : list of Cell
        From `enumerate_cells`; their order is kept.
    only : str
        ``axis=value|value,axis=value`` with the axes model, quantizer, bits, method, seed. A value is a registry name
        or a full label.

    Raises
    ------
    UnknownNameError
        The text names an axis that there is not, or a value that no cell has.
    QBenchError
        The text is not of that form, or no cell matches all of it.
    """
    wanted = _parse_only(only)
    named = [(cell, cell_names(cell)) for cell in cells]
    for axis, values in wanted.items():
        known = known_names((names for _, names in named), axis)
        for value in sorted(values):
            if value not in known:
                raise UnknownNameError(axis, value, known)
    matching = [cell for cell, names in named if matches(names, wanted)]
    if not matching:
        raise QBenchError(f"no cell matches {shown(only)}")
    rows = {(cell.model.label(), cell.seed) for cell in matching}
    controls = controls_of(cell for cell in matching if cell.skip is None)
    points = {point.label(): point for cell in matching for point in cell.points}
    controls |= controls_of(points.values())
    return [
        cell
        for cell, names in named
        if matches(names, wanted)
        or cell.label() in points
        or (cell.is_fp and (cell.model.label(), cell.seed) in rows)
        or (cell.is_control and control_place(cell) in controls)
    ]


def _check_size(suite: Suite, seeds: int | None) -> None:
    """Count before anything is made: a short file can ask for more cells than memory holds."""
    count = count_cells(suite, seeds if seeds is None else len(_replaced(seeds)))
    if count > MAX_CELLS:
        raise suite.error(("matrix",), f"up to {count} cells (allowed: at most {MAX_CELLS}; split the suite)")


def _replaced(seeds: int) -> tuple[int, ...]:
    try:
        return seed_range(seeds)
    except ValueError as error:
        raise QBenchError(f"seeds: {error}") from None


def _all_cells(suite: Suite, seeds: int | None) -> dict[Place, Cell]:
    replaced = None if seeds is None else _replaced(seeds)
    cells: dict[Place, Cell] = {}
    for index, block in enumerate(suite.matrix):
        for cell in _block_cells(block, suite.metrics, replaced or block.seeds):
            place = tuple(cell.axes().values())
            # A row has one full-precision cell and one control of each kind however many blocks it is in, and replaced
            # seeds can join blocks that the file keeps apart by their seeds.
            if place in cells and cell.quantizer is not None and replaced is None:
                raise suite.error(("matrix", index), f"the cell {cell.label()} is in an earlier block too")
            cells.setdefault(place, cell)
    return cells


def _block_cells(block: Block, asked: tuple[str, ...], seeds: tuple[int, ...]) -> Iterator[Cell]:
    for model in block.models:
        metrics = asked_of(model, asked)
        for seed in seeds:
            yield Cell(model, None, None, None, seed, metrics)
            for method in block.methods:
                if (control := method.control()) is not None:
                    yield Cell(model, None, None, control, seed, metrics)
            for quantizer in block.quantizers:
                for bits in block.bits:
                    for method in block.methods:
                        watched = 0 if method.control() is None else block.trajectory
                        yield Cell(model, quantizer, bits, method, seed, metrics, trajectory=watched)
                    for probe in block.probes:
                        yield Cell(model, quantizer, bits, None, seed, ("loss",), probe=probe)


def _order(suite: Suite) -> Callable[[Place], tuple[int, ...]]:
    ranks: dict[tuple[str, str | int | None], int] = {}
    for block in suite.matrix:
        for axis, entries in (
            ("model", block.models),
            ("quantizer", block.quantizers),
            ("method", block.methods),
        ):
            for entry in entries:
                control = entry.control()
                if control is not None:
                    ranks.setdefault((axis, control.label()), len(ranks))
                ranks.setdefault((axis, entry.label()), len(ranks))
    for block in suite.matrix:  # after all methods: probes read what these leave
        for probe in block.probes:
            ranks.setdefault(("method", probe.label()), len(ranks))

    def order(place: Place) -> tuple[int, ...]:
        model, quantizer, bits, method, seed = place
        # Full precision has neither quantizer nor bits: rank -1 puts it first.
        return (
            ranks["model", model],
            int(seed or 0),
            ranks.get(("quantizer", quantizer), -1),
            -int(bits or 0),
            ranks.get(("method", method), -1),
        )

    return order


def _impossible(cell: Cell) -> str | None:
    """Return why a cell cannot be: no weights of its seed, a method that its model or grid refuses, or no such grid."""
    procedure = cell.procedure
    if (reason := _without_weights(cell)) is not None or procedure is None:
        return reason
    asked = cell.model
    try:
        reason = cell.model.refuses_method(procedure)
        if reason is None and cell.quantizer is not None and cell.bits is not None:
            asked = cell.quantizer
            reason = cell.quantizer.refuses(cell.bits) or procedure.refuses_grid(cell.quantizer) or _of_inputs(cell)
            reason = reason or _of_ranks(cell)
            if reason is None:
                asked = cell.model
                reason = cell.model.refuses_quantizer(cell.quantizer, cell.bits)
    except Exception as error:  # a plugin's own answer; the other cells have theirs
        said = " ".join(str(error).split())[:200]
        return f"{asked.name} or {procedure.name} cannot say whether it fits: {type(error).__name__}: {said}"
    return reason


def _of_ranks(cell: Cell) -> str | None:
    """Return why nobody can look on at a training that several processes share."""
    if cell.trajectory and cell.is_shared and cell.method is not None:
        return f"a trajectory sees whole weights, and {cell.method.label()} shares their rows out (trajectory: 0)"
    return None


def _of_inputs(cell: Cell) -> str | None:
    """Return why what moves weights alone cannot be where inputs are quantized too."""
    if getattr(cell.quantizer, "activations", None) is None or cell.quantizer is None:
        return None
    if cell.is_probe:
        return f"a probe moves weights alone, and {cell.quantizer.label()} quantizes inputs too"
    if cell.trajectory:
        return f"a trajectory measures weights alone, and {cell.quantizer.label()} quantizes inputs too (trajectory: 0)"
    return None


def _with_points(suite: Suite, cells: Sequence[Cell]) -> list[Cell]:
    """Count while they are given out: a short file can have probes read more cells than memory holds."""
    found, count = list[Cell](), 0
    for cell in with_points(cells):
        found.append(cell)
        count += len(cell.points)
        if count > MAX_POINTS:
            raise suite.error(("matrix",), f"probes read more than {MAX_POINTS} cells' weights (allowed: {MAX_POINTS})")
    return found


def _check_points(suite: Suite, cells: Iterable[Cell]) -> None:
    """Make sure that what a probe is told to read is a method of the suite."""
    methods = {id(cell.method): cell for cell in cells if cell.method is not None}
    known = {name for cell in methods.values() for name in cell_names(cell)["method"]}
    for block, part in enumerate(suite.matrix):
        for place, probe in enumerate(part.probes):
            asked: tuple[str, ...] = getattr(probe, "points", ()) if "points" in probe.model_fields_set else ()
            for position, name in enumerate(asked):
                if name not in known:
                    path = ("matrix", block, "probes", place, "points", position)
                    raise suite.error(path, f"{shown(name)} is no method of the suite{nearest(name, known)}")


def _without_weights(cell: Cell) -> str | None:
    available_seeds = getattr(cell.model, "available_seeds", None)
    seeds = None if available_seeds is None else available_seeds()
    if seeds is None or cell.seed in seeds:
        return None
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        listed = f"{ordered[0]} to {ordered[-1]}"
    else:
        listed = ", ".join(map(str, ordered))
    return f"{label_of(cell.model)} was trained with {'seed' if len(ordered) == 1 else 'seeds'} {listed} only"


def _parse_only(only: str) -> dict[str, set[str]]:
    if len(only) > MAX_CALL:
        raise QBenchError(f"--only has {len(only)} characters (allowed: at most {MAX_CALL})")
    wanted: dict[str, set[str]] = {}
    for part in _split(only, ","):
        axis, equals, values = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise QBenchError(
                f"cannot read {shown(part.strip())} in {shown(only)} (allowed: axis=value|value,axis=value)"
            )
        if axis not in _AXES:
            raise UnknownNameError("axis", axis, _AXES)
        if axis in wanted:
            raise QBenchError(f"the axis {axis!r} is given twice in {shown(only)} (allowed: {axis}=value|value)")
        wanted[axis] = {value.strip() for value in _split(values, "|")}
    return wanted


def _split(text: str, separator: str) -> list[str]:
    """Split where no bracket is open: a label such as ``gptq[act_order=false,percdamp=0.1]`` holds commas."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
