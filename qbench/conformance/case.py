"""One trial of a quantizer: at some bits and granularity, on one matrix; with what went wrong, noted and mended.

What a quantizer answers is looked at before it is used. Where an answer is wrong and can be mended (a shape, a scale
that is not positive, a changed input), the trial goes on with the mended one, so that one fault does not hide the
others.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from qbench.conformance.blame import told
from qbench.conformance.contract import BrokenError, MissingError
from qbench.conformance.matrices import Matrix
from qbench.conformance.surroundings import seeded, settings_kept, watching_chance
from qbench.errors import QBenchError
from qbench.quant.block_grid import BlockGrid, fake_quantize, quantize
from qbench.quant.levels import Levels
from qbench.quant.qparams import QParams
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid, zero_points_fit

# Why a grid cannot be judged, by the kind of fault: there is none, or it holds what the quantizer did not answer.
_REASONS = {
    "raises": "there is no grid: the quantizer raised",
    "levels": "its levels are not sound",
    "type": "its parameters are no tensors of floating point",
    "shape": "its parameters have no row a block",
    "scales": "its scales are not positive finite numbers",
    "zero points": "its zero points are not among the levels'",
    "table": "the levels of its codebook do not rise",
}
_OF_LEVELS = ("bits", "count", "quant_min", "quant_max", "zero_points", "real_zero_point", "reach", "snapping")


class _NoGridError(Exception):
    """The answer cannot be mended; the fault is noted already."""


class _Watched:
    """A quantizer as `choose_grid` sees it, whose answers are looked at.

    Parameters
    ----------
    quantizer : Quantizer
        The real one.
    bits : int
        Bits a code.
    """

    def __init__(self, quantizer: Quantizer, bits: int) -> None:
        self._quantizer, self._bits = quantizer, bits
        self.faults: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._quantizer, name)

    def levels(self, bits: int) -> Levels:
        # Nothing can be laid over a matrix where they are not sound.
        try:
            found: Any = self._quantizer.levels(self._bits)
        except QBenchError as error:  # what a table of levels says of its values
            self.note("levels", str(error))
            raise _NoGridError from error
        wrong = _unsound(found, self._bits)
        if wrong is not None:
            self.note("levels", f"levels({self._bits}) {wrong}")
            raise _NoGridError
        return cast(Levels, found)

    def note(self, fault: str, seen: str) -> None:
        self.faults.setdefault(fault, seen)

    def choose_qparams(self, blocks: Tensor, grid: Levels, **given: Tensor) -> QParams:
        handed = blocks.clone()
        kept = {name: value.clone() for name, value in given.items()}
        found = self._quantizer.choose_qparams(handed, grid, **given)  # type: ignore[call-arg, unused-ignore]
        self._look_at_inputs(blocks, handed)
        if not all(torch.equal(given[name], value) for name, value in kept.items()):
            self.note("mutates", "the importance that it was given changed")
        if not isinstance(found, QParams) or not isinstance(found.scale, Tensor):
            self._not_a("choose_qparams", found, "QParams of tensors")
        # Not `zero_points`: where there are none, a broken scale must not count as a broken zero point too.
        zero_point = torch.zeros_like(found.scale) if found.zero_point is None else found.zero_point
        scale = self._shaped("scale", found.scale, (len(blocks), 1))
        zero_point = self._shaped("zero point", zero_point, (len(blocks), 1))
        bad = ~(torch.isfinite(scale) & (scale > 0))
        if bad.any():
            self.note("scales", f"a scale of {float(scale[bad][0]):g} (allowed: positive finite numbers)")
            low, high = blocks.aminmax(dim=1, keepdim=True)
            scale = torch.where(bad, QParams.from_range(low, high, grid).scale, scale)
        if not zero_points_fit(zero_point, grid):
            allowed = "finite numbers" if grid.real_zero_point else f"{grid.zero_points[0]} to {grid.zero_points[-1]}"
            wrong = [value for value in zero_point.flatten() if not zero_points_fit(value, grid)]
            self.note("zero points", f"a zero point of {float(wrong[0]):g} (allowed: {allowed})")
            zero_point = zero_point.nan_to_num().round().clamp(grid.zero_points[0], grid.zero_points[-1])
        return QParams(scale, zero_point)

    def choose_table(self, blocks: Tensor, grid: Levels) -> Tensor:
        handed = blocks.clone()
        found: Any = self._quantizer.choose_table(handed, grid)
        self._look_at_inputs(blocks, handed)
        if not isinstance(found, Tensor):
            self._not_a("choose_table", found, "a tensor")
        table = self._shaped("table", found, (len(blocks), grid.count))
        if not torch.isfinite(table).all():
            self.note("table", "a level that is not finite (allowed: finite numbers)")
        if (table[:, 1:] < table[:, :-1]).any():
            self.note("table", "levels that fall (allowed: each at least as large as the one before)")
        return table.nan_to_num().sort(dim=1).values

    def _look_at_inputs(self, blocks: Tensor, handed: Tensor) -> None:
        if not torch.equal(blocks, handed):
            self.note(
                "mutates", f"{int((blocks != handed).sum())} of {blocks.numel()} weights that it was given changed"
            )

    def _not_a(self, where: str, found: object, allowed: str) -> None:
        self.note("type", f"{where} returned {type(found).__name__} (allowed: {allowed})")
        raise _NoGridError

    def _shaped(self, what: str, tensor: Tensor, expected: tuple[int, int]) -> Tensor:
        if tensor.shape != expected:
            self.note("shape", f"a {what} of shape {tuple(tensor.shape)} (allowed: {expected})")
            if tensor.numel() != expected[0] * expected[1]:
                raise _NoGridError
        if not tensor.is_floating_point():
            self.note("type", f"a {what} of type {tensor.dtype} (allowed: floating point)")
        return tensor.detach().reshape(expected).float()


def _reason(faults: dict[str, str]) -> str | None:
    return next((text for kind, text in _REASONS.items() if kind in faults), None)


def _unsound(levels: Any, bits: int) -> str | None:
    if not all(hasattr(levels, name) for name in _OF_LEVELS):
        return f"returned {type(levels).__name__} (allowed: IntegerGrid, LevelTable or Codebook)"
    if levels.bits != bits:
        return f"returned levels of {levels.bits} bits (allowed: {bits})"
    if levels.count > 2**bits:
        return f"returned {levels.count} levels (allowed: at most {2**bits})"
    return None


class Case:
    """One trial.

    Parameters
    ----------
    quantizer : Quantizer
        With its granularity.
    bits : int
        Bits a code.
    matrix : Matrix
        The weights.
    is_repeated : bool
        Whether the properties that ask the quantizer again are tried on it too.
    is_first : bool
        Whether it is the first of its granularity: what is about options alone is tried there.
    is_timed : bool
        Whether it is the one case of all that what is about the class alone is tried on.

    Attributes
    ----------
    faults : dict of str to str
        What went wrong when the quantizer was asked, by kind.
    drawn : list of str
        The global generators that it drew from, once `answers` are known.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        bits: int,
        matrix: Matrix,
        *,
        is_repeated: bool = False,
        is_first: bool = False,
        is_timed: bool = False,
    ) -> None:
        self.quantizer, self.bits, self.matrix = quantizer, bits, matrix
        self.is_repeated, self.is_first, self.is_timed = is_repeated, is_first, is_timed
        self.weight = matrix.weight
        self.drawn: list[str] = []
        with seeded(0):  # a case must not depend on what an earlier one drew
            self._grid, self.faults = self._asked(self.weight.clone())

    def __str__(self) -> str:
        return f"{self.bits} {'bit' if self.bits == 1 else 'bits'}, {self.quantizer.granularity}, {self.matrix.name}"

    @cached_property
    def answers(self) -> tuple[BlockGrid, BlockGrid, BlockGrid]:
        """Three more grids of the weights: two after the same seeding of the global generators, one after another."""
        with seeded(1):
            first = self.again()
        with seeded(1):
            second = self.again()
        with watching_chance(2) as self.drawn:
            third = self.again()
        return first, second, third

    @property
    def has_grid(self) -> bool:
        """Whether there is a grid."""
        return self._grid is not None

    @property
    def grid(self) -> BlockGrid:
        """The grid, as the quantizer answered.

        Raises
        ------
        MissingError
            There is none, or an answer had to be mended: then it says nothing of the quantizer.
        """
        reason = _reason(self.faults)
        if self._grid is None or reason is not None:
            raise MissingError(reason or "there is no grid")
        return self._grid

    @cached_property
    def _snapped(self) -> tuple[Tensor, Tensor] | None:
        if self._grid is None or _reason(self.faults) is not None:
            return None
        found = None
        with settings_kept() as changed:
            try:
                found = quantize(self.weight, self._grid), fake_quantize(self.weight, self._grid)
            except (Exception, SystemExit) as error:  # levels of a stranger's own
                self.faults.setdefault("raises", told(error, type(self.quantizer)))
        if changed:
            self.faults.setdefault("state", f"its levels changed the {changed[0]} of the process")
        return found

    @property
    def codes(self) -> Tensor:
        """The codes of the weights, of shape (rows, columns)."""
        return self._both()[0]

    @property
    def quantized(self) -> Tensor:
        """The quantized weights, of shape (rows, columns)."""
        return self._both()[1]

    def _both(self) -> tuple[Tensor, Tensor]:
        snapped = self._snapped
        _ = self.grid
        if snapped is None:
            raise MissingError("there are no quantized weights")
        return snapped

    def fault(self, kind: str) -> str | None:
        """Return what went wrong of one kind, after everything was asked."""
        _ = self._snapped
        return self.faults.get(kind)

    def again(self, weight: Tensor | None = None, importance: Tensor | None = None) -> BlockGrid:
        """Return the grid of the weights, or of others, when the quantizer is asked once more.

        Parameters
        ----------
        weight : Tensor of shape (rows, columns), optional
            Other weights.
        importance : Tensor of shape (1, columns), optional
            Other second moments of the inputs.

        Raises
        ------
        BrokenError
            It gives none that is sound, though it gave one the first time.
        """
        _ = self.grid
        grid, faults = self._asked((self.weight if weight is None else weight).clone(), importance)
        wrong = next((seen for kind, seen in faults.items() if kind in _REASONS), None)
        if grid is None or wrong is not None:
            raise BrokenError(f"when it was asked again: {wrong or 'no grid'}")
        return grid

    def _asked(self, weight: Tensor, importance: Tensor | None = None) -> tuple[BlockGrid | None, dict[str, str]]:
        watched = _Watched(self.quantizer, self.bits)
        importance = self.matrix.importance if importance is None else importance
        grid = None
        with settings_kept() as changed:
            try:
                grid = choose_grid(weight, cast(Quantizer, watched), self.bits, importance.to(weight.device))
            except _NoGridError:
                pass  # noted already
            except (Exception, SystemExit) as error:  # a stranger's code can fail in any way
                watched.note("raises", told(error, type(self.quantizer)))
        if changed:
            watched.note("state", f"it changed the {changed[0]} of the process (allowed: to put it back)")
        if grid is None:
            return None, watched.faults
        bad = ~(torch.isfinite(grid.scale) & (grid.scale > 0))
        if bad.any():
            seen = f"a scale of {float(grid.scale[bad][0]):g} as it is stored in {grid.scale_format.name}"
            watched.note("scales", f"{seen} (allowed: positive finite numbers)")
            return None, watched.faults
        return grid, watched.faults
