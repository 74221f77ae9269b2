"""What pretraining needs to know of a zoo's language model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.seeds import derive_seed
from qbench.tasks import corpus, zoo
from qbench.tasks.language_card import render_card
from qbench.tasks.llama import build_llama, checkpoint_state
from qbench.tasks.tokenizer import encode, load_tokenizer
from qbench.tasks.windows import cut, spread, stream

_HELD_OUT_WINDOWS = 512


class LanguageTrainee:
    """A language model to be trained on the three texts; see `qbench.tasks.pretrain.Trainee`.

    Parameters
    ----------
    name : str
        A language model of the zoo.
    seed : int
        Training seed.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed, self._spec = name, seed, zoo.language_model(name)
        self.recipe = self._spec.recipe
        tokenizer = load_tokenizer()
        train = encode(tokenizer, corpus.load("train"))
        self._tokens = torch.cat([torch.tensor([0, *ids]) for ids in train])
        self._held_out = _HeldOut(tokenizer, self.recipe.sequence_length)

    def build(self) -> nn.Module:
        """Return a new model; draws from torch's global generator."""
        return build_llama(self._spec.architecture)

    def batches(self, start: int) -> Iterator[Tensor]:
        """Yield tokens of shape (batch_size, sequence_length) for ever, from batch number `start` on."""
        seed = derive_seed("pretrain-batches", self._name, self._seed)
        return stream(self._tokens, self.recipe.sequence_length, self.recipe.batch_size, seed, start)

    def loss(self, model: nn.Module, batch: Tensor, device: str) -> Tensor:
        """Return the loss of a batch, in nats a token."""
        return next_token_loss(model, batch.to(device))

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Return held-out loss in nats a token and bits a byte."""
        return self._held_out.measure(model)

    def checkpoint(self, model: Any) -> dict[str, Tensor]:
        """Return the tensors that are kept."""
        return checkpoint_state(model)

    def describe(self) -> dict[str, Any]:
        """Return what ``training.json`` says of the data."""
        return {"tokens": self.recipe.tokens, "corpus": dict(corpus.PINNED)}

    def card(self, result: dict[str, Any]) -> str:
        """Return the model card."""
        return render_card(result)


def next_token_loss(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy, in nats, of each token given those before it in its row.

    Parameters
    ----------
    model : Module
        A transformers causal LM.
    tokens : Tensor of shape (batch, length), int64
        The first token of a row is not predicted. The labels are shifted here, once.
    """
    logits = model(input_ids=tokens, use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())


class _HeldOut:
    """The held-out loss that the training curve shows: evaluation windows spread over all documents."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        ids = encode(tokenizer, corpus.load("evaluation"))
        self.tokens = spread(cut(ids, length), _HELD_OUT_WINDOWS).tokens
        predicted = self.tokens[:, 1:].flatten().tolist()
        # In a byte-level vocabulary each character of a token stands for one byte.
        self.bytes_per_token = sum(len(tokenizer.id_to_token(token)) for token in predicted) / len(predicted)

    @torch.no_grad()
    def measure(self, model: torch.nn.Module) -> dict[str, float]:
        model.eval()
        device = next(model.parameters()).device
        losses = [next_token_loss(model, batch.to(device)).item() * len(batch) for batch in self.tokens.split(64)]
        loss = sum(losses) / len(self.tokens)
        return {"held_out_loss": loss, "held_out_bits_per_byte": loss / self.bytes_per_token / math.log(2)}
