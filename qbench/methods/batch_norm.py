"""Batch norm beside quantized weights: its statistics estimated again, or its scale and shift folded into layers.

Quantized weights have outputs of another mean and variance than those that a batch norm's running statistics tell of.
Estimated again, they take that part of the error away without touching a weight (batch-norm tuning in Hubara et al.,
2020, arXiv:2006.10518; after training in Nagel et al., 2022, arXiv:2203.11086).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.utils._pytree import tree_leaves

from qbench.errors import CellError

Forward = Callable[[nn.Module, Tensor], object]
BatchNorm = nn.modules.batchnorm._BatchNorm

_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Folding:
    """A model whose batch norms are folded into the layers before them.

    Attributes
    ----------
    model : nn.Module
        A copy; the batch norms that could be folded are ``nn.Identity``, and their layers have a bias.
    norms : dict of str to str
        The name of the batch norm that each layer took in, by the layer's name.
    """

    model: nn.Module
    norms: dict[str, str]


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """Return a model's batch-norm layers by name, whatever their dimensions."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BatchNorm)}


def estimable(model: nn.Module) -> dict[str, BatchNorm]:
    """Return the batch norms that have running statistics, by name.

    Raises
    ------
    CellError
        None has.
    """
    norms = {name: norm for name, norm in batch_norms(model).items() if norm.running_mean is not None}
    if not norms:
        raise CellError(
            "the model has no batch norm with running statistics that could be estimated again (allowed here: bn: keep)"
        )
    return norms


@torch.no_grad()
def recalibrate(model: nn.Module, forward: Forward, calibration: Sequence[Tensor]) -> dict[str, Tensor]:
    """Estimate the running statistics of all batch norms again, in the model as it is.

    Parameters
    ----------
    model : nn.Module
        Gets the new statistics, and is left in evaluation mode. Only its batch norms are in training mode meanwhile.
    forward : callable
        ``forward(model, batch)`` runs the model on a batch.
    calibration : sequence of Tensor
        Batches.

    Returns
    -------
    dict of str to Tensor
        The statistics of every batch norm that has any, by buffer name.

    Raises
    ------
    CellError
        No batch norm has running statistics, or a batch gives one a single value a channel, which has no variance.

    Notes
    -----
    Mean and variance are averages of those of the batches, weighted by the batches' sizes. As in training, each batch
    is normalised by its own statistics on its way to the next layer. A batch norm that is never called keeps what it
    had, and so does one without running statistics: it takes those of its batch in any case.
    """
    norms = estimable(model)
    model.eval()
    with ExitStack() as stack:
        for name, norm in norms.items():
            stack.enter_context(_averaging(name, norm))
        for batch in calibration:
            forward(model, batch)
    return {
        f"{name}.{buffer}": value.clone()
        for name, norm in norms.items()
        for buffer, value in norm.named_buffers(recurse=False)
    }


@contextmanager
def _averaging(name: str, norm: BatchNorm) -> Iterator[None]:
    """Let a batch norm average the statistics of what it is given, each call by its size."""
    momentum, seen = norm.momentum, 0
    before = {buffer: value.clone() for buffer, value in norm.named_buffers(recurse=False)}

    def weigh(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal seen
        x: Tensor = args[0]
        if x.numel() == x.shape[1]:
            raise CellError(
                f"batch norm {name!r} gets one value a channel from a calibration batch of one sample: it has no "
                "variance (allowed here: more samples a batch, or bn: keep)"
            )
        seen += len(x)
        norm.momentum = len(x) / seen

    handle = norm.register_forward_pre_hook(weigh)
    norm.reset_running_stats()
    norm.train()
    try:
        yield
    finally:
        handle.remove()
        norm.eval()
        norm.momentum = momentum
        if not seen:
            for buffer, value in norm.named_buffers(recurse=False):
                value.copy_(before[buffer])


@torch.no_grad()
def fold(model: nn.Module, forward: Forward, calibration: Sequence[Tensor]) -> Folding:
    """Fold each batch norm into the ``Conv2d`` or ``Linear`` whose output it is given, and nothing else is.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode; stays as it is.
    forward : callable
        ``forward(model, batch)`` runs the model on a batch.
    calibration : sequence of Tensor
        Batches; the first one is run.

    Raises
    ------
    CellError
        No batch norm can be folded, or the folded model gives other logits.

    Notes
    -----
    A batch norm stays where its input is no layer's own output (after an addition or an activation), where another
    module is given that output too or one of the two is called twice, and where it has no running statistics.
    """
    folded = copy.deepcopy(model).eval()
    if not batch_norms(folded):
        raise CellError("the model has no batch norm that could be folded (allowed here: bn: keep)")
    norms = _foldable(folded, forward, calibration[0][:2])
    if not norms:
        raise CellError("no batch norm follows a Conv2d or Linear layer directly (allowed here: bn: keep, recalibrate)")
    # In float64: what single precision makes of a folded model grows with its depth and its batch norms' factors.
    exact, images = copy.deepcopy(folded).double(), calibration[0].double()
    wanted = forward(exact, images)
    _take_in(exact, norms)
    _require_same(wanted, forward(exact, images))
    _take_in(folded, norms)
    return Folding(folded, norms)


def _take_in(model: nn.Module, norms: dict[str, str]) -> None:
    for name, norm in norms.items():
        weight, bias = _fused(model.get_submodule(name), model.get_submodule(norm))
        put_folded(model, name, norm, bias, weight)


@torch.no_grad()
def put_folded(model: nn.Module, layer: str, norm: str, bias: Tensor, weight: Tensor | None = None) -> None:
    """Give a layer the bias of itself and the batch norm behind it, which becomes ``nn.Identity``.

    Parameters
    ----------
    model : nn.Module
        Is changed.
    layer, norm : str
        Names in the model.
    bias : Tensor of shape (rows,)
        Of both.
    weight : Tensor, optional
        Of both; the layer keeps its own when left out.
    """
    taker, taken = model.get_submodule(layer), model.get_submodule(norm)
    own = taker.get_parameter("weight")
    if weight is not None:
        own.copy_(weight)
    taker.bias = nn.Parameter(bias.detach().to(own), requires_grad=own.requires_grad)
    # By every name that the model has for it, not by this one alone.
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is taken:
                setattr(parent, name, nn.Identity())


def _fused(layer: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(norm, BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    ones = torch.ones_like(norm.running_mean)
    scale, shift = (ones, ones * 0) if norm.weight is None else (norm.weight, norm.bias)
    fuse = fuse_conv_bn_weights if isinstance(layer, nn.Conv2d) else fuse_linear_bn_weights
    weight, bias = layer.get_parameter("weight"), layer._parameters["bias"]
    return fuse(weight, bias, norm.running_mean, norm.running_var, norm.eps, scale, shift)


def _foldable(model: nn.Module, forward: Forward, images: Tensor) -> dict[str, str]:
    """Return the batch norm of each layer that has one to take in, in the order of the model."""
    shared = Counter(id(one) for module in model.modules() for one in module._parameters.values() if one is not None)
    names = {module: name for name, module in model.named_modules()}
    holders = {module: {id(one) for one in module.modules()} for module in model.modules()}
    made: dict[int, tuple[nn.Module, Tensor, int]] = {}  # the tensor is kept so that its address is not used again
    takers: dict[int, list[nn.Module]] = {}
    calls: Counter[nn.Module] = Counter()
    changed: set[int] = set()

    def note_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[module] += 1
        for key in {id(leaf) for leaf in tree_leaves((args, kwargs)) if id(leaf) in made}:
            takers.setdefault(key, []).append(module)
            if made[key][1]._version != made[key][2]:
                changed.add(key)  # an operation in place came between

    def note_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if _can_take(module) and all(shared[id(one)] == 1 for one in module.parameters()):
            flat = output.ndim == 2 if isinstance(module, nn.Linear) else output.ndim == 4
            if flat:  # of (n, length, features) a batch norm normalises the length
                made[id(output)] = (module, output, output._version)

    with ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(note_input, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(note_output).remove)
        forward(model, images)
    found = {}
    for key, (layer, _, _) in made.items():
        given = takers.get(key, [])
        # The modules around a batch norm are handed the same tensor on its way in.
        norm = given[-1] if given else None
        if (
            isinstance(norm, BatchNorm)
            and norm.running_mean is not None
            and key not in changed
            and calls[layer] == calls[norm] == 1
            and all(id(norm) in holders[module] for module in given)
        ):
            found[names[layer]] = names[norm]
    return found


def _can_take(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear) and "weight" in module._parameters


def _require_same(wanted: object, found: object) -> None:
    pairs = [
        (one.double(), other.double())
        for one, other in zip(tree_leaves(wanted), tree_leaves(found), strict=True)
        if isinstance(one, Tensor)
    ]
    if not pairs:
        raise CellError("the model returns no tensor that could show whether folded batch norms change it")
    for one, other in pairs:
        difference, size = float((one - other).abs().max()), float(one.abs().max())
        if not difference <= _TOLERANCE * size:
            raise CellError(
                f"with batch norms folded the model's outputs differ by {difference:.3g}, of at most {size:.3g}: "
                "it uses a layer's output elsewhere too (allowed here: bn: keep, recalibrate)"
            )
