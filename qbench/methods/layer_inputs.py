"""Fake quantization of what goes into target layers: hooks before their forward pass, and static ranges for them.

A hook puts the quantized input in the place of the input, and the gradient of the one is that of the other. Nothing
else in the model changes, and nothing stays behind when the hooks are taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qbench.errors import CellError, DivergedError
from qbench.methods.problem import Problem, TargetLayer
from qbench.quant.activation import InputHistogram, InputRange, dynamic_grid, grid_of
from qbench.quant.block_grid import BlockGrid
from qbench.quant.qparams import QParams
from qbench.quant.ste import fake_quantize_ste
from qbench.quantizers.activations import Activations
from qbench.quantizers.range_search import best_shrunk_range

# Inputs have outliers that weights have not: at 2 bits the best range can be a small part of the whole one.
_CANDIDATES, _SMALLEST = 200, 0.01


class QuantizedInput:
    """The inputs of one layer through their quantizer; a forward pre-hook of the layer.

    Parameters
    ----------
    layer : TargetLayer
        The layer; `TargetLayer.activations` says how.
    params : QParams, optional
        The static grid: scale and zero point of shape (1, 1). None where the scale is dynamic.
    masked : bool
        Whether clipped inputs get no gradient. Otherwise the gradient passes unchanged.

    Notes
    -----
    Passes over the inputs in memory: one that reads and writes, in cache-sized bands, and where the scale is dynamic
    one (per_tensor) or two (per_token) before it that read. The backward pass has none without a mask, one with it.
    """

    def __init__(self, layer: TargetLayer, params: QParams | None = None, *, masked: bool = False) -> None:
        assert layer.activations is not None
        self.layer, self.activations = layer, layer.activations
        self.levels = layer.activations.levels()
        self._params, self._masked = params, masked

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of the layer with the input quantized."""
        if not args:
            raise CellError(f"layer {self.layer.name!r} is given its input by keyword, where it cannot be quantized")
        x: Tensor = args[0]
        if x.numel() == 0:  # an expert that gets no token
            return args
        rows = _rows(module, x).float()
        return (self.quantized(rows).view(x.shape).to(x.dtype), *args[1:])

    def quantized(self, rows: Tensor) -> Tensor:
        """Return inputs of shape (rows, columns), float32, on their levels."""
        return fake_quantize_ste(rows, self._grid(rows), masked=self._masked)

    def _grid(self, rows: Tensor) -> BlockGrid:
        if self._params is not None:
            return grid_of(self._params, self.levels, rows.shape[1])
        with torch.no_grad():
            return dynamic_grid(rows, self.levels, by_row=self.activations.granularity == "per_token")

    def params(self) -> QParams | None:
        """Return the static grid as it is now; None where the scale is dynamic."""
        return self._params


def _rows(module: nn.Module, x: Tensor) -> Tensor:
    """Return an input as a matrix of shape (tokens or samples, columns)."""
    if isinstance(module, nn.Conv2d):
        return x.reshape(1, -1) if x.ndim == 3 else x.flatten(1)
    return x.reshape(-1, x.shape[-1])


def quantized_inputs(problem: Problem, static: Mapping[str, QParams]) -> list[QuantizedInput]:
    """Return what quantizes the inputs of a problem's layers, those that have any.

    Parameters
    ----------
    problem : Problem
        Its layers say how their inputs are quantized.
    static : dict of str to QParams
        The static grids, by layer name.
    """
    return [QuantizedInput(layer, static.get(layer.name)) for layer in problem.layers if layer.activations is not None]


@contextmanager
def installed(inputs: Sequence[QuantizedInput]) -> Iterator[None]:
    """Quantize inputs within the context, and take all hooks off at its end."""
    with ExitStack() as stack:
        for one in inputs:
            stack.callback(one.layer.module.register_forward_pre_hook(one).remove)
        yield


@torch.no_grad()
def input_ranges(problem: Problem) -> dict[str, InputRange]:
    """Return what the layers with static input quantization are given on the calibration data, by layer name.

    Parameters
    ----------
    problem : Problem
        Its model is run as it is, with the weights that it holds and inputs that are not quantized.

    Raises
    ------
    CellError
        A layer is never called.
    DivergedError
        An input is NaN or infinite.
    """
    layers = [layer for layer in problem.layers if layer.has_static_inputs]
    found = {layer.name: InputRange() for layer in layers}
    _observe(problem, {layer.name: found[layer.name].add for layer in layers})
    for name, seen in found.items():
        if seen.is_empty:
            raise CellError(
                f"layer {name!r} gets no input on the calibration data: there is no static range for its inputs "
                "(allowed here: scale: dynamic)"
            )
        if not (torch.isfinite(seen.low) and torch.isfinite(seen.high)):
            raise DivergedError(f"the inputs of layer {name!r} are NaN or infinite on the calibration data")
    return found


@torch.no_grad()
def static_params(problem: Problem, ranges: Mapping[str, InputRange]) -> dict[str, QParams]:
    """Return the static grids of layers' inputs by the range rule of each, by layer name.

    Parameters
    ----------
    problem : Problem
        The problem.
    ranges : dict of str to InputRange
        What `input_ranges` found in the same model.

    Returns
    -------
    dict of str to QParams
        Scale and zero point of shape (1, 1), on the device of the layer's grid.

    Notes
    -----
    Rules other than absmax need a histogram, and the model is run a second time for it.
    """
    layers = [layer for layer in problem.layers if layer.has_static_inputs]
    histograms = {
        layer.name: InputHistogram(ranges[layer.name].low, ranges[layer.name].high)
        for layer in layers
        if _rule(layer).range != "absmax"
    }
    if histograms:
        _observe(problem, {name: histogram.add for name, histogram in histograms.items()})
    found = {}
    for layer in layers:
        rule, levels = _rule(layer), _rule(layer).levels()
        if rule.range == "absmax":
            params = ranges[layer.name].params(levels)
        elif rule.range == "percentile":
            params = QParams.from_range(*histograms[layer.name].percentile(rule.percentile), levels)
        else:
            histogram = histograms[layer.name]
            params = best_shrunk_range(
                histogram.values()[None],
                levels,
                candidates=_CANDIDATES,
                smallest=_SMALLEST,
                importance=histogram.counts.cpu().float()[None],
            )
        device = layer.grid.scale.device
        found[layer.name] = QParams(params.scale.to(device), params.zero_points().to(device))
    return found


def _rule(layer: TargetLayer) -> Activations:
    assert layer.activations is not None
    return layer.activations


def _observe(problem: Problem, watchers: Mapping[str, Callable[[Tensor], None]]) -> None:
    """Run the model on the calibration data, and show each watcher the inputs of its layer."""
    with ExitStack() as stack:
        for layer in problem.layers:
            if layer.name in watchers:
                handle = layer.module.register_forward_pre_hook(
                    lambda _, args, watch=watchers[layer.name]: watch(args[0].detach())
                )
                stack.callback(handle.remove)
        for batch in problem.calibration if watchers else []:
            problem.forward(problem.model, batch)


def describe_inputs(problem: Problem) -> str | None:
    """Return how the layers' inputs are quantized, and which layers have others; None where none are."""
    kinds: dict[str, list[str]] = {}
    for layer in problem.layers:
        if layer.activations is not None:
            kinds.setdefault(layer.activations.describe(), []).append(layer.name)
    if not kinds:
        return None
    most = max(kinds, key=lambda kind: len(kinds[kind]))
    others = (f"{', '.join(names)}: {kind}" for kind, names in kinds.items() if kind != most)
    return "; ".join([most, *others])
