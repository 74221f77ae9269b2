"""What a suite leaves out, and why."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Set

from qbench.errors import nearest
from qbench.suite.cell import FP, Cell
from qbench.suite.match import Place, cell_names
from qbench.suite.problems import shown
from qbench.suite.schema import Suite, When

_CELL_AXES = {"models": "model", "quantizers": "quantizer", "bits": "bits", "methods": "method", "seeds": "seed"}


def exclusion_reasons(suite: Suite, cells: Mapping[Place, Cell], *, seeds_replaced: bool) -> dict[Place, str]:
    """Return why cells are left out; where several exclusions mean a cell, the first one's reason.

    A full-precision cell is left out only with its whole row: an exclusion that names a quantizer, bits or a method
    does not mean it. Nor does one that names a quantizer or bits mean a control.

    Parameters
    ----------
    suite : Suite
        Its exclusions are read.
    cells : mapping of tuple to Cell
        All cells by `Cell.axes` values.
    seeds_replaced : bool
        Whether the cells have other seeds than the suite says; then an exclusion of seeds may mean none.

    Raises
    ------
    SuiteError
        An exclusion, or one of its values, means no cell.
    """
    if not suite.exclude:
        return {}
    places = list(cells)
    named = _named(cells.values())
    reasons: dict[Place, str] = {}
    left = (1 << len(places)) - 1
    for index, exclusion in enumerate(suite.exclude):
        axes = _axes(exclusion.when)
        for axis, values in axes.items():
            if axis != "seeds" or not seeds_replaced:
                _check_known(suite, index, axis, values, named[_CELL_AXES[axis]].members.keys() - {FP})
        hits = (1 << len(places)) - 1
        for axis, values in axes.items():
            hits &= named[_CELL_AXES[axis]].with_any(values)
        if not hits and not (seeds_replaced and "seeds" in axes):
            asked = ", ".join(f"{axis}={'|'.join(values)}" for axis, values in axes.items())
            asked = asked if len(asked) <= 200 else f"{asked[:197]}..."
            raise suite.error(("exclude", index, "when"), f"excludes nothing: no cell has all of {asked}")
        for number in _numbers(hits & left):
            reasons[places[number]] = exclusion.reason
        left &= ~hits
    return reasons


class _Names:
    """The cells that answer to the names of one axis, each cell by its number.

    What an exclusion is held against is one long number, a bit a cell: that stays quick, and small, with as many cells
    and exclusions as a suite can have.
    """

    def __init__(self, cells: int) -> None:
        self._bytes = cells // 8 + 1
        self.members: dict[str, array[int]] = {}
        self._known: dict[str, int] = {}

    def add(self, name: str, number: int) -> None:
        if name not in self.members:
            self.members[name] = array("I")
        self.members[name].append(number)

    def with_any(self, names: Iterable[str]) -> int:
        """Return the bits of the cells that answer to one of some names."""
        found, few = 0, bytearray(self._bytes)
        for name in dict.fromkeys(names):
            members = self.members.get(name, ())
            if len(members) * 64 > self._bytes:  # there cannot be many such names
                found |= self._bits_of(name)
            else:
                _set(few, members)
        return found | int.from_bytes(few, "little")

    def _bits_of(self, name: str) -> int:
        if name not in self._known:
            bits = bytearray(self._bytes)
            _set(bits, self.members[name])
            self._known[name] = int.from_bytes(bits, "little")
        return self._known[name]


def _named(cells: Collection[Cell]) -> dict[str, _Names]:
    found = {axis: _Names(len(cells)) for axis in _CELL_AXES.values()}
    for number, cell in enumerate(cells):
        for axis, names in cell_names(cell).items():
            for name in names:
                found[axis].add(name, number)
    return found


def _set(bits: bytearray, members: Iterable[int]) -> None:
    for number in members:
        bits[number >> 3] |= 1 << (number & 7)


def _numbers(bits: int) -> Iterator[int]:
    """Yield which bits are set, in order."""
    for place, byte in enumerate(bits.to_bytes(bits.bit_length() // 8 + 1, "little")):
        if byte:
            yield from (8 * place + bit for bit in range(8) if byte >> bit & 1)


def _axes(when: When) -> dict[str, list[str]]:
    axes = {axis: [str(value) for value in getattr(when, axis)] for axis in _CELL_AXES}
    return {axis: values for axis, values in axes.items() if values}


def _check_known(suite: Suite, index: int, axis: str, values: list[str], known: Set[str]) -> None:
    for position, value in enumerate(values):
        if value not in known:
            path = ("exclude", index, "when", axis, position)
            raise suite.error(path, f"{shown(value)} excludes nothing{nearest(value, known)}")
