"""Train a zoo model from nothing, by the recipe in zoo.yaml.

Warm-up-stable-decay: a linear rise, a constant rate, a linear fall to zero. The ``stable`` checkpoint is taken where
the fall begins, the ``decayed`` one at the end. A run that was killed goes on from its last saved state and sees the
same batches as an unbroken one.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor, nn

from qbench import atomic
from qbench.errors import DivergedError
from qbench.seeds import derive_seed
from qbench.tasks import zoo
from qbench.tasks.recipe import Schedule

_SAVE_EVERY = 250


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
        ``step``, ``train_loss`` (mean since the last row), and what `Trainee.measure` measured.
    """

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


class Trainee(Protocol):
    """What pretraining needs to know of a model: its data, its loss, and what is kept of it."""

    @property
    def recipe(self) -> Schedule:
        """Budget and optimizer."""

    def build(self) -> nn.Module:
        """Return a new model; draws from torch's global generator."""

    def batches(self, start: int) -> Iterator[Any]:
        """Yield training batches for ever, from batch number `start` on."""

    def loss(self, model: nn.Module, batch: Any, device: str) -> Tensor:
        """Return the loss of a batch, a scalar."""

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Return held-out numbers of a model; ``held_out_loss`` is one of them."""

    def checkpoint(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the tensors that are kept."""

    def describe(self) -> dict[str, Any]:
        """Return what ``training.json`` says of the data."""

    def card(self, result: dict[str, Any]) -> str:
        """Return the model card."""


def _trainee(name: str, seed: int) -> Trainee:
    if isinstance(zoo.model(name), zoo.ZooModel):
        from qbench.tasks.pretrain_language import LanguageTrainee

        return LanguageTrainee(name, seed)
    from qbench.tasks.pretrain_images import ImageTrainee

    return ImageTrainee(name, seed)


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
    trainee = _trainee(name, seed)
    recipe = trainee.recipe
    torch.manual_seed(derive_seed("pretrain-init", name, seed))
    model = trainee.build()
    model.to(torch.device(device))
    optimizer = _optimizer(model, recipe)
    state_path, progress = folder / "state.pt", Progress()
    if state_path.exists():
        saved = torch.load(state_path, weights_only=True, map_location=device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        progress = Progress(**saved["progress"])
    step_model: Any = torch.compile(model) if compiled else model

    batches = trainee.batches(progress.step)
    started, train_loss = time.monotonic() - progress.seconds, 0.0
    for batch in islice(batches, recipe.steps - progress.step):
        if progress.step == recipe.decay_start:
            atomic.write_bytes(folder / "stable.safetensors", save(trainee.checkpoint(model)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(progress.step)
        model.train()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss = trainee.loss(step_model, batch, device)
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
            progress.curve.append({"step": progress.step, "train_loss": train_loss / since, **trainee.measure(model)})
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
        "recipe": recipe.model_dump(),
        **trainee.describe(),
        "seconds": round(progress.seconds, 1),
        "device": device,
        "compiled": compiled,
        "torch": torch.__version__,
        "curve": progress.curve,
    }
    atomic.write_text(folder / "training.json", json.dumps(result, indent=1) + "\n")
    atomic.write_text(folder / "README.md", trainee.card(result))
    # Last: where it is, the rest is.
    atomic.write_bytes(folder / "decayed.safetensors", save(trainee.checkpoint(model)))
    state_path.unlink()
    return result


def _optimizer(model: nn.Module, recipe: Schedule) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=True)


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
