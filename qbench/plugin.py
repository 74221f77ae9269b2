"""What a quantizer or a method of your own is made of: everything to import, and nothing else; see docs/extending.md.

``API_VERSION`` is 1. It is raised when a plugin that was right before has to be changed: a name here is taken away or
means something else, a method gets another argument, or blocks come in another shape. A new name or a new option with
a default does not raise it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from qbench import registry
from qbench.errors import CellError, QBenchError
from qbench.methods.base import Method
from qbench.quant.grid import IntegerGrid
from qbench.quant.levels import Codebook, Levels, LevelTable
from qbench.quant.qparams import QParams
from qbench.quantizers.base import IntegerQuantizer, Quantizer
from qbench.quantizers.granularity import Granularity

if TYPE_CHECKING:
    from qbench.methods.problem import Block, LayerSolution, Problem, Solution, TargetLayer
    from qbench.quant.block_grid import BlockGrid, dequantize, fake_quantize, quantize
    from qbench.quantizers.layout import choose_grid

API_VERSION = 1

__all__ = [
    "API_VERSION",
    "Block",
    "BlockGrid",
    "CellError",
    "Codebook",
    "Granularity",
    "IntegerGrid",
    "IntegerQuantizer",
    "LayerSolution",
    "LevelTable",
    "Levels",
    "Method",
    "Problem",
    "QBenchError",
    "QParams",
    "Quantizer",
    "Solution",
    "TargetLayer",
    "choose_grid",
    "dequantize",
    "fake_quantize",
    "quantize",
    "register_method",
    "register_quantizer",
]

# Modules that bring torch, which `qbench list` starts without.
_LATER = {
    "Block": "qbench.methods.problem",
    "BlockGrid": "qbench.quant.block_grid",
    "LayerSolution": "qbench.methods.problem",
    "Problem": "qbench.methods.problem",
    "Solution": "qbench.methods.problem",
    "TargetLayer": "qbench.methods.problem",
    "choose_grid": "qbench.quantizers.layout",
    "dequantize": "qbench.quant.block_grid",
    "fake_quantize": "qbench.quant.block_grid",
    "quantize": "qbench.quant.block_grid",
}

_Quantizer = TypeVar("_Quantizer", bound=Quantizer)
_Method = TypeVar("_Method", bound=Method)


def register_quantizer(name: str) -> Callable[[type[_Quantizer]], type[_Quantizer]]:
    """Give a quantizer the name that suites know it by.

    Parameters
    ----------
    name : str
        Letters, digits and the signs ``_ . + -``.

    Returns
    -------
    callable
        A decorator for a subclass of `Quantizer` that writes `choose_qparams` or `choose_table`.

    Raises
    ------
    QBenchError
        By the decorator: the name is taken, or the class is no such subclass.
    """

    def register(quantizer: type[_Quantizer]) -> type[_Quantizer]:
        registry.QUANTIZERS.register(name, quantizer)
        return quantizer

    return register


def register_method(name: str) -> Callable[[type[_Method]], type[_Method]]:
    """Give a method the name that suites know it by.

    Parameters
    ----------
    name : str
        Letters, digits and the signs ``_ . + -``.

    Returns
    -------
    callable
        A decorator for a subclass of `Method` that writes `solve`.

    Raises
    ------
    QBenchError
        By the decorator: the name is taken, or the class is no such subclass.
    """

    def register(method: type[_Method]) -> type[_Method]:
        registry.METHODS.register(name, method)
        return method

    return register


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
