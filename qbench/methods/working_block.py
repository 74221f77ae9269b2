"""A block that is run in float32 with other weights than its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call

from qbench.methods.block_calls import Rest, run
from qbench.methods.matrices import from_matrix
from qbench.methods.problem import Block


class WorkingBlock:
    """A block in float32, to be called with matrices in the place of its target layers' weights.

    Parameters
    ----------
    block : Block
        A block of any floating-point type. One that is not in float32 is copied.
    """

    def __init__(self, block: Block) -> None:
        module = block.module
        names = {id(inner): name for name, inner in module.named_modules()}
        self._layers = [layer.module for layer in block.layers]
        self._names = [f"module.{names[id(layer)]}.weight".replace("..", ".") for layer in self._layers]
        if any(value.is_floating_point() and value.element_size() != 4 for value in module.state_dict().values()):
            module = copy.deepcopy(module).float()
        self._called = _Called(module.requires_grad_(requires_grad=False))

    def __call__(self, matrices: Sequence[Tensor], hidden: Tensor, rest: Rest) -> Tensor:
        """Return the block's output with these weights.

        Parameters
        ----------
        matrices : sequence of Tensor of shape (rows, columns)
            One a target layer, in their order; gradients pass.
        hidden : Tensor
            What the block is given first.
        rest : Rest
            Everything else it is called with.
        """
        pairs = zip(self._names, self._layers, matrices, strict=True)
        weights = {name: from_matrix(layer, matrix) for name, layer, matrix in pairs}
        output: Tensor = functional_call(self._called, weights, (hidden, rest))
        return output


class _Called(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, hidden: Tensor, rest: Rest) -> Tensor:
        return run(self.module, hidden, rest)
