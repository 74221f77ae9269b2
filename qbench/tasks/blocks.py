"""The blocks of a vision model that nobody has named: parts which a method quantizes one after the other."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@torch.no_grad()
def find_blocks(model: nn.Module, example: Tensor) -> list[tuple[str, nn.Module]]:
    """Return the parts of a model that together hold each layer which is called, in the order in which they are called.

    Parameters
    ----------
    model : nn.Module
        Any model on images; it is run once in evaluation mode.
    example : Tensor of shape (n, channels, height, width)
        Images.

    Returns
    -------
    list of (str, nn.Module)
        Names in the model and modules, each called once in a run. Empty where no ``Linear`` or ``Conv2d`` is called.

    Notes
    -----
    The model is opened, and what it holds is a block or is opened in turn:

    - plain containers (``Sequential`` and the like) with more than one layer are opened, and so are the subclasses of
      ``Sequential`` that are a row of parts with several layers each (RegNet's stages);
    - a module with more than half of the weights is opened if it holds a container of several parts (ViT's encoder);
    - anything else is a block: a residual block, an Inception module, a convolution with its batch norm.

    A module that is called more than once cannot be a block; what holds it is one then, and in the last resort the
    model. Parts without any layer that is called (a lone batch norm, auxiliary heads) are left out.
    """
    calls = _calls(model, example)
    found = _Search(model, calls).blocks_in("", model) or [("", model)]
    layers = [layer for _, block in found for layer in _layers(block, calls)]
    if not layers:
        return []
    if len(layers) > len(set(layers)):  # two blocks share a layer
        found = [("", model)]
    order = list(calls)
    return sorted(found, key=lambda pair: order.index(pair[1]))


@torch.no_grad()
def idle_layers(model: nn.Module, example: Tensor) -> frozenset[str]:
    """Return the names of the ``Linear`` and ``Conv2d`` layers that are not called in a run of a model.

    Some are used all the same: Swin's attention takes their weights and leaves the layers alone. Whether used or not,
    what goes into them cannot be seen.

    Parameters
    ----------
    model, example
        See `find_blocks`.
    """
    calls = _calls(model, example)
    layers = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)}
    return frozenset(name for name, layer in layers.items() if not calls[layer])


class _Search:
    def __init__(self, model: nn.Module, calls: Counter[nn.Module]) -> None:
        self._model, self._calls = model, calls
        self._half = self._weights(model) / 2

    def blocks_in(self, name: str, module: nn.Module) -> list[tuple[str, nn.Module]] | None:
        """Return the blocks of a part of the model; None where it can neither be cut nor be a block."""
        if not _layers(module, self._calls):
            return []
        if module is self._model or self._opens(module):
            inside = [self.blocks_in(f"{name}.{inner}".lstrip("."), child) for inner, child in module.named_children()]
            parts = [part for part in inside if part is not None]
            covered = {layer for part in parts for _, block in part for layer in _layers(block, self._calls)}
            if len(parts) == len(inside) and covered == set(_layers(module, self._calls)):
                return [block for part in parts for block in part]
        return [(name, module)] if self._calls[module] == 1 else None

    def _opens(self, module: nn.Module) -> bool:
        layers = len(_layers(module, self._calls))
        if type(module) in _CONTAINERS:
            return layers > 1 or not self._calls[module]
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            parts = [part for part in module.children() if len(_layers(part, self._calls)) > 1]
            if len(parts) > 1:
                return True
        return self._weights(module) > self._half and self._holds_a_container(module)

    def _holds_a_container(self, module: nn.Module) -> bool:
        """Return whether a module holds a container of several parts, or a module that is opened for holding one."""
        for child in module.children():
            parts = [part for part in child.children() if _layers(part, self._calls)]
            if type(child) in _CONTAINERS and len(parts) > 1:
                return True
            if self._weights(child) > self._half and self._holds_a_container(child):
                return True
        return False

    def _weights(self, module: nn.Module) -> int:
        return sum(layer.weight.numel() for layer in _layers(module, self._calls))


def _layers(module: nn.Module, calls: Counter[nn.Module]) -> list[nn.Linear | nn.Conv2d]:
    """Return the layers in a module that are called."""
    return [
        inner
        for inner in module.modules()
        if isinstance(inner, nn.Linear | nn.Conv2d)
        and not isinstance(inner, NonDynamicallyQuantizableLinear)
        and calls[inner]
    ]


def _calls(model: nn.Module, example: Tensor) -> Counter[nn.Module]:
    """Return how often each module is called in evaluation mode, in the order of first calls."""
    calls: Counter[nn.Module] = Counter()
    modes = {module: module.training for module in model.modules()}
    with ExitStack() as stack:
        for module in modes:
            stack.callback(setattr, module, "training", module.training)
            stack.callback(module.register_forward_pre_hook(lambda called, _: calls.update([called])).remove)
        model.eval()(example)
    return calls
