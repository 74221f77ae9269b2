"""Which activation function takes a layer's output."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qbench.methods.problem import Problem

_ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU)
# By name: a model that holds one has brought transformers along, and nobody else needs to.
_OF_TRANSFORMERS = {"SiLUActivation", "GELUActivation", "NewGELUActivation", "PytorchGELUTanh", "GELUTanh"}


@dataclass(frozen=True)
class Activation:
    """What happens to a layer's output next.

    Attributes
    ----------
    function : nn.Module
        An elementwise activation.
    norm : nn.Module or None
        The batch norm in between, which uses its running statistics.
    """

    function: nn.Module
    norm: nn.Module | None = None

    def __call__(self, output: Tensor) -> Tensor:
        """Apply it to an output of shape (groups, positions, rows), the layer's rows cut into groups.

        The output is used up: an activation may work in place.
        """
        if self.norm is not None:
            values = {**dict(self.norm.named_buffers()), **dict(self.norm.named_parameters())}
            scale = (values["running_var"].double() + float(self.norm.eps)).rsqrt()  # type: ignore[arg-type]
            if "weight" in values:
                scale = scale * values["weight"].detach()
            shift = values.get("bias", torch.zeros(())).detach() - values["running_mean"] * scale
            groups = output.shape[0]
            output = output * scale.to(output.dtype).view(groups, 1, -1) + shift.to(output.dtype).view(groups, 1, -1)
        result: Tensor = self.function(output)
        return result


@torch.no_grad()
def activations_of(problem: Problem) -> dict[str, Activation]:
    """Return the activations of the layers whose output goes into one, by layer name.

    Parameters
    ----------
    problem : Problem
        Its model is run once on the first sample; a layer's output is recognised where it comes in again, in its block
        or behind it.
    """
    found: dict[str, Activation] = {}
    # An address may be used again once its tensor is gone: tensors are kept with what is known of them.
    outputs: dict[int, tuple[Tensor, str, nn.Module | None]] = {}

    def note_output(name: str, output: Tensor, norm: nn.Module | None = None) -> None:
        outputs[id(output)] = (output, name, norm)

    def note_norm(norm: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        known = outputs.get(id(args[0]))
        if known is not None and known[2] is None and norm.track_running_stats and not norm.training:
            note_output(known[1], output, norm)

    def note_activation(function: nn.Module, args: tuple[Any, ...]) -> None:
        known = outputs.pop(id(args[0]), None)  # its own output may be the same tensor, worked on in place
        if known is not None:
            found[known[1]] = Activation(function, known[2])

    with ExitStack() as stack:
        for layer in problem.layers:
            hook = layer.module.register_forward_hook(
                lambda _, args, output, name=layer.name: note_output(name, output)
            )
            stack.callback(hook.remove)
        for module in problem.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                stack.callback(module.register_forward_hook(note_norm).remove)
            elif isinstance(module, _ELEMENTWISE) or type(module).__name__ in _OF_TRANSFORMERS:
                stack.callback(module.register_forward_pre_hook(note_activation).remove)
        problem.forward(problem.model, problem.calibration[0][:1])
    return found
