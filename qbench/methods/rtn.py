"""RTN: round every weight to the nearest level."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from qbench.methods.base import Method

if TYPE_CHECKING:
    from qbench.methods.problem import Problem, Solution


class RoundToNearest(Method):
    """Round to nearest; sees no data."""

    sources: ClassVar[tuple[str, ...]] = ("qbench.quant.block_grid",)
    block_by_block: ClassVar[bool] = True

    def calibrates_on(self) -> Literal["nothing", "quantized", "full_precision"]:
        """Return that it reads no data."""
        return "nothing"

    def solve(self, problem: Problem) -> Solution:
        """Return the nearest codes of every layer; see `Method.solve`."""
        from qbench.methods.problem import LayerSolution, Solution
        from qbench.quant.block_grid import quantize

        layers = {
            layer.name: LayerSolution(quantize(layer.matrix(), layer.grid), layer.grid) for layer in problem.layers
        }
        return Solution(layers)
