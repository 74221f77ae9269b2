"""How a model calls its blocks is found without running them, and what cannot be found so is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qbench.errors import CellError
from qbench.runner.hidden_states import Spill
from qbench.runner.streamed_calls import BlockCalls


class Squared(nn.Module):
    def __init__(self, *, pair: bool) -> None:
        super().__init__()
        self.inner, self.pair = nn.Linear(6, 6), pair

    def forward(self, hidden: Tensor, scale: Tensor | float = 1.0) -> Any:
        found = hidden + scale * self.inner(hidden).square()
        return (found, None) if self.pair else found


class Small(nn.Module):
    """Three blocks, with whatever comes between them."""

    def __init__(self, *, pair: bool = False, between: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(10, 6)
        self.blocks = nn.ModuleList(Squared(pair=pair) for _ in range(3))
        self.scale: Callable[[Tensor], Tensor | float] = lambda tokens: 0.5
        self.between = between

    def forward(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.embed(tokens)
        for place, block in enumerate(self.blocks):
            if place and self.between is not None:
                hidden = self.between(hidden)
            output = block(hidden, scale=self.scale(tokens))
            hidden = output[0] if isinstance(output, tuple) else output
        return hidden.sum(dim=-1)


def calls_of(model: Small) -> BlockCalls:
    named = [(f"blocks.{place}", block) for place, block in enumerate(model.blocks)]
    task: Any = SimpleNamespace(
        model=model,
        blocks=lambda: named,
        forward=lambda given, batch: given(batch),
        loss=None,
        train_batches=None,
        tokens_of=None,
        spec=SimpleNamespace(label=lambda: "small"),
    )
    return BlockCalls(task)


BATCHES = [torch.arange(12).view(3, 4) % 10, torch.arange(5, 17).view(3, 4) % 10, torch.arange(4).view(1, 4)]


@pytest.mark.parametrize("pair", [False, True], ids=["a tensor", "a pair"])
@torch.no_grad()
def test_block_by_block_the_model_gives_what_it_gives_at_once(tmp_path: Path, pair: bool) -> None:
    model = Small(pair=pair)
    expected = [model(batch) for batch in BATCHES]
    calls = calls_of(model)
    with Spill(tmp_path, "cpu") as spill:
        hidden = calls.enter(BATCHES, spill)
        for place, block in enumerate(model.blocks):
            calls.advance(place, block, hidden)
        for place, batch in enumerate(BATCHES):
            with calls.ending(lambda place=place: hidden[place]):
                assert torch.equal(model(batch), expected[place])
    assert torch.equal(model(BATCHES[0]), expected[0])


@torch.no_grad()
def test_what_blocks_are_called_with_is_kept_by_shape(tmp_path: Path) -> None:
    model = Small()
    model.scale = lambda tokens: torch.full((len(tokens), 1, 1), 0.5)
    calls = calls_of(model)
    with Spill(tmp_path, "cpu") as spill:
        calls.enter(BATCHES, spill)
    rest_of = calls.rests(1)
    assert rest_of(torch.zeros(3, 4, 6)).kwargs["scale"].shape == (3, 1, 1)
    assert rest_of(torch.zeros(1, 4, 6)).kwargs["scale"].shape == (1, 1, 1)


def test_models_that_do_more_between_their_blocks_are_refused(tmp_path: Path) -> None:
    calls = calls_of(Small(between=lambda hidden: 2 * hidden))
    with Spill(tmp_path, "cpu") as spill, pytest.raises(CellError) as caught:
        calls.enter(BATCHES, spill)
    assert str(caught.value) == (
        "small: the model does more between its blocks than to hand on hidden states (device_map: streamed runs them "
        "one after the other; allowed: device_map: whole)"
    )


def test_blocks_called_with_what_depends_on_the_tokens_are_refused(tmp_path: Path) -> None:
    model = Small()
    model.scale = lambda tokens: tokens.float().mean()
    with Spill(tmp_path, "cpu") as spill, pytest.raises(CellError) as caught:
        calls_of(model).enter(BATCHES, spill)
    assert str(caught.value) == (
        "small: what its blocks are called with depends on the tokens (device_map: streamed keeps it once; allowed: "
        "device_map: whole)"
    )
