"""Train a zoo model from nothing, by the recipe in zoo.yaml.

Warm-up-stable-decay: a linear rise, a constant rate, a linear fall to zero. The ``stable`` checkpoint is taken where
the fall begins, the ``decayed`` one at the end. A run that was killed goes on from its last saved state and sees the
same batches as an unbroken one.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch.nn import functional

from qbench import atomic
from qbench.errors import DivergedError
from qbench.seeds import derive_seed
from qbench.tasks import corpus, zoo
from qbench.tasks.llama import build_llama, checkpoint_state
from qbench.tasks.model_card import render_card
from qbench.tasks.tokenizer import encode, load_tokenizer
from qbench.tasks.windows import cut, spread, stream

_SAVE_EVERY = 250
_HELD_OUT_WINDOWS = 512


@dataclass
class Progress:
    """What a training run has measured so far.

    Attributes
    ----------
    step : int
        Optimizer steps done.
    seconds : float
        Training time, over all resumed parts.
    curve : list of dict
        ``step``, ``train_loss`` (mean since the last row), ``held_out_loss`` and ``held_out_bits_per_byte``.
    """

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def learning_rate_at(step: int, recipe: zoo.Recipe) -> float:
    """Return the learning rate of a zero-based step."""
    rise = min(1.0, (step + 1) / recipe.warmup_steps)
    fall = min(1.0, (recipe.steps - step) / (recipe.steps - recipe.decay_start))
    return recipe.learning_rate * min(rise, fall)


def pretrain(
    name: str,
    seed: int,
    folder: Path,
    *,
    device: str = "cpu",
    compiled: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Train one zoo model and write its two checkpoints, ``training.json`` and a model card into `folder`.

    Parameters
    ----------
    name : str
        A zoo model.
    seed : int
        Training seed: initial weights and batch order.
    folder : Path
        Where to write; a state left by an earlier, unfinished run there is resumed.
    device : str
        Torch device.
    compiled : bool
        Use ``torch.compile`` for the training step (needs a C++ compiler; the last bits of the weights differ).
    report : callable
        Called with the progress after each step.

    Returns
    -------
    dict
        The content of ``training.json``.

    Raises
    ------
    DivergedError
        The training loss is not finite.
    """
    spec = zoo.model(name)
    recipe = spec.recipe
    tokenizer = load_tokenizer()
    train = encode(tokenizer, corpus.load("train"))
    stream_tokens = torch.cat([torch.tensor([0, *ids]) for ids in train])
    held_out = _HeldOut(tokenizer, recipe.sequence_length)

    torch.manual_seed(derive_seed("pretrain-init", name, seed))
    model = build_llama(spec.architecture)
    model.to(torch.device(device))  # type: ignore[arg-type]
    optimizer = _optimizer(model, recipe)
    state_path, progress = folder / "state.pt", Progress()
    if state_path.exists():
        saved = torch.load(state_path, weights_only=True, map_location=device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        progress = Progress(**saved["progress"])
    step_model: Any = torch.compile(model) if compiled else model

    batches = stream(
        stream_tokens,
        recipe.sequence_length,
        recipe.batch_size,
        derive_seed("pretrain-batches", name, seed),
        progress.step,
    )
    started, train_loss = time.monotonic() - progress.seconds, 0.0
    for batch in islice(batches, recipe.steps - progress.step):
        if progress.step == recipe.decay_start:
            atomic.write_bytes(folder / "stable.safetensors", save(checkpoint_state(model)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(progress.step, recipe)
        model.train()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss = next_token_loss(step_model, batch.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        train_loss += loss.item()
        progress.step += 1
        progress.seconds = time.monotonic() - started
        if progress.step % _SAVE_EVERY == 0 or progress.step == recipe.steps:
            since = progress.step - (int(progress.curve[-1]["step"]) if progress.curve else 0)
            if not train_loss < float("inf"):
                raise DivergedError(f"pretraining {name} (seed {seed}) diverged before step {progress.step}")
            progress.curve.append({"step": progress.step, "train_loss": train_loss / since, **held_out.measure(model)})
            train_loss = 0.0
            buffer = io.BytesIO()
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(progress)}, buffer
            )
            atomic.write_bytes(state_path, buffer.getvalue())
        report(progress)

    result: dict[str, Any] = {
        "name": name,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": recipe.tokens,
        "recipe": recipe.model_dump(),
        "corpus": dict(corpus.PINNED),
        "seconds": round(progress.seconds, 1),
        "device": device,
        "compiled": compiled,
        "torch": torch.__version__,
        "curve": progress.curve,
    }
    atomic.write_text(folder / "training.json", json.dumps(result, indent=1) + "\n")
    atomic.write_text(folder / "README.md", render_card(result))
    # Last: where it is, the rest is.
    atomic.write_bytes(folder / "decayed.safetensors", save(checkpoint_state(model)))
    state_path.unlink()
    return result


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


def _optimizer(model: torch.nn.Module, recipe: zoo.Recipe) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=True)


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


def closeness(name: str, seed: int, result: dict[str, Any]) -> dict[str, float] | None:
    """Return how far a training's held-out loss is from the shipped model's; None when none is shipped.

    Parameters
    ----------
    name, seed
        The zoo model.
    result : dict
        What `pretrain` returned.
    """
    shipped = zoo.FOLDER / name / f"seed{seed}" / "training.json"
    if not shipped.exists():
        return None
    before = json.loads(shipped.read_text())["curve"][-1]["held_out_loss"]
    now = result["curve"][-1]["held_out_loss"]
    return {"shipped_held_out_loss": before, "held_out_loss": now, "difference": now - before}
