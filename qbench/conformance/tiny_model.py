"""The problem that every method is tried on: a language model of two blocks, cut out of the smallest embedded one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.conformance.matrices import zoo_weight
from qbench.methods.problem import Block, Problem, TargetLayer
from qbench.quant.block_grid import BlockGrid
from qbench.quantizers.base import Quantizer
from qbench.quantizers.layout import choose_grid
from qbench.seeds import derive_seed

TOKENS, FEATURES, HIDDEN, LENGTH = 96, 32, 48, 12


class TinyBlock(nn.Module):
    """A residual gated block: ``x + down(silu(gate n(x)) * up n(x))`` with n the root-mean-square norm.

    Parameters
    ----------
    index : int
        Block of the embedded model whose matrices are cut.
    """

    def __init__(self, index: int) -> None:
        super().__init__()
        self.gate = _linear(f"model.layers.{index}.mlp.gate_proj.weight", HIDDEN, FEATURES)
        self.up = _linear(f"model.layers.{index}.mlp.up_proj.weight", HIDDEN, FEATURES)
        self.down = _linear(f"model.layers.{index}.mlp.down_proj.weight", FEATURES, HIDDEN)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the hidden states after the block; shapes (batch, positions, features)."""
        normed = functional.rms_norm(hidden, (FEATURES,))
        added: Tensor = self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return hidden + added


def _linear(name: str, rows: int, columns: int) -> nn.Linear:
    layer = nn.Linear(columns, rows, bias=False)
    layer.weight.data = zoo_weight(name)[:rows, :columns].clone()
    return layer


class TinyModel(nn.Module):
    """Embedding, two blocks, and the embedding again as the head.

    Parameters
    ----------
    silent : bool
        Whether the embedding of every token is 0, so that no layer is given anything but zeros.
    """

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__()
        rows = zoo_weight("model.embed_tokens.weight")[:TOKENS, :FEATURES].clone()
        self.embedding = nn.Embedding(TOKENS, FEATURES, _weight=rows * 0 if silent else rows)
        self.blocks = nn.ModuleList([TinyBlock(0), TinyBlock(1)])

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits of shape (batch, positions, tokens)."""
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return functional.linear(functional.rms_norm(hidden, (FEATURES,)), self.embedding.weight)


def make_problem(
    quantizer: Quantizer, bits: int, *, batches: Sequence[int] = (4, 3), silent: bool = False, device: str = "cpu"
) -> Problem:
    """Return a problem of its own, the same each time.

    Parameters
    ----------
    quantizer : Quantizer
        Chooses the layers' grids.
    bits : int
        Bits a code.
    batches : sequence of int
        Samples of each calibration batch.
    silent : bool
        Whether all inputs are 0.
    device : str
        Torch device.
    """
    model = TinyModel(silent=silent).to(device).eval()
    blocks = []
    for index, block in enumerate(model.blocks):
        layers = [
            TargetLayer(f"blocks.{index}.{name}", module, _grid(module, quantizer, bits), quantizer)
            for name, module in block.named_children()
        ]
        blocks.append(Block(block, tuple(layers)))
    chance = torch.Generator().manual_seed(20260613)
    return Problem(
        model=model,
        blocks=blocks,
        calibration=[_draw(samples, chance).to(device) for samples in batches],
        forward=lambda model, batch: model(batch),
        loss=_loss,
        train_batches=lambda batch_size, seed: _batches(batch_size, seed, device),
        tokens_of=Tensor.numel,
        seed_of=lambda purpose: derive_seed(purpose, 0),
        predict=_predict,
    )


def _grid(module: nn.Module, quantizer: Quantizer, bits: int) -> BlockGrid:
    weight = module.get_parameter("weight").detach()
    return choose_grid(weight, quantizer, bits, torch.ones(1, weight.shape[1], device=weight.device))


def _draw(samples: int, chance: torch.Generator) -> Tensor:
    # Tokens follow one another as in a text that counts with slips, so that there is something to predict.
    start = torch.randint(0, TOKENS, (samples, 1), generator=chance)
    slips = torch.randint(0, 2, (samples, LENGTH), generator=chance)
    return (start + torch.arange(LENGTH) + slips) % TOKENS


def _batches(batch_size: int, seed: int, device: str) -> Iterator[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    while True:
        yield _draw(batch_size, chance).to(device)


def _predict(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    logits: Tensor = model(batch)[:, :-1]
    return logits.flatten(0, 1), batch[:, 1:].flatten()


def _loss(model: nn.Module, batch: Tensor) -> Tensor:
    return functional.cross_entropy(*_predict(model, batch))
