"""The training loop: one for quantized weights and for their full-precision control."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from qbench.errors import DivergedError
from qbench.methods.adamw_8bit import AdamW8bit
from qbench.methods.batch_norm import batch_norms
from qbench.methods.checkpoints import Snapshot, random_state, set_random_state
from qbench.methods.latent import LatentWeight, StepSize
from qbench.methods.problem import Problem
from qbench.methods.training_options import WeightTraining
from qbench.methods.training_steps import autocast, parts_of, recomputed

# Reading a loss makes an accelerator finish what it was given, so there it is read a few at a time.
_READ_EVERY = 16


class Training:
    """A model in training.

    Parameters
    ----------
    problem : Problem
        The model and its training batches.
    options : WeightTraining
        Budget and optimizer.
    weights : sequence of LatentWeight
        What is trained; everything else in the model stays as it is.
    loss : callable
        ``loss(model, batch)`` is a scalar.
    step_sizes : sequence of StepSize
        Scales of layers' inputs that are trained beside the weights.

    Attributes
    ----------
    losses : list of float
        The loss before each update.
    tokens : int
        Tokens (or images) seen.
    watched_seconds : float
        Spent in looking on: in `Problem.watch`, which is no part of the training.
    """

    def __init__(
        self,
        problem: Problem,
        options: WeightTraining,
        weights: Sequence[LatentWeight],
        loss: Callable[[nn.Module, Any], Tensor],
        step_sizes: Sequence[StepSize] = (),
    ) -> None:
        self._problem, self._options, self._weights, self._loss = problem, options, weights, loss
        self._step_sizes = step_sizes
        self.losses: list[float] = []
        self.tokens = 0
        self.watched_seconds = 0.0
        self._unread: list[Tensor] = []
        self._norms = batch_norms(problem.model)
        self._sharding = problem.sharding
        problem.model.requires_grad_(requires_grad=False).train()
        if self._sharding is not None:
            self._sharding.begin(problem.model)
        for norm in self._norms.values() if options.bn_training == "freeze" else []:
            norm.eval()
        for weight in weights:
            weight.layer.module.weight.requires_grad_()
            weight.write()
        self._optimizer = _optimizer(weights, step_sizes, options)
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self._trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        self._device = self._trained[0].device

    @property
    def steps_done(self) -> int:
        """Updates so far."""
        return len(self.losses) + len(self._unread)

    def run(self) -> None:
        """Train to the end, and leave the model as it is evaluated.

        The problem's watch is shown the weights before the first update and after each one, where it wants them. Where
        the problem has checkpoints, training goes on from the last one, and leaves others when they are due.

        Raises
        ------
        CellError
            A step cannot be made as the options ask for, or a checkpoint cannot be used.
        DivergedError
            A loss is NaN or infinite.
        """
        options, problem, checkpoints = self._options, self._problem, self._problem.checkpoints
        batches = problem.train_batches(options.batch_size, problem.seed_of("train-batches"))
        snapshot = None if checkpoints is None else checkpoints.load()
        if snapshot is None:
            self._show()
        else:
            for _ in islice(batches, int(snapshot.facts["steps"])):
                pass  # seen already
            self.restore(snapshot)
        with recomputed(problem, wanted=options.gradient_checkpointing):
            for batch in islice(batches, options.steps - self.steps_done):
                self.step(batch)
                self._show()
                if checkpoints is not None and checkpoints.due():
                    checkpoints.save(self.snapshot())
        self._read_losses()
        for weight in self._weights:
            weight.layer.module.weight.grad = None
        problem.model.eval()

    def step(self, batch: Any) -> None:
        """Make one update."""
        options, done = self._options, self.steps_done
        share = 0.5 * (1 + math.cos(math.pi * done / options.steps)) if options.schedule == "cosine" else 1.0
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        loss = self._backward(batch)
        for weight in self._weights:
            weight.take_gradient()
        if options.clip_norm is not None:
            self._clip(options.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        for weight in self._weights:
            weight.after_update()
            weight.write()
        for step_size in self._step_sizes:
            step_size.after_update()
        self.tokens += self._problem.tokens_of(batch)
        self._unread.append(loss.detach())
        if loss.device.type == "cpu" or len(self._unread) >= _READ_EVERY:
            self._read_losses()

    def _backward(self, batch: Any) -> Tensor:
        """Return the loss of a batch, whose gradient is in the model's weights then."""
        model, options = self._problem.model, self._options
        own = batch if self._sharding is None else self._sharding.share_of(batch)
        parts = parts_of(own, options.accumulation)
        losses = []
        for part in parts:
            with autocast(options, self._device):
                loss = self._loss(model, part)
            if options.precision == "bfloat16":
                loss = loss.float()
            if len(parts) > 1:
                loss = loss / len(parts)  # equal parts: the mean of their means is that of the batch
            loss.backward()
            if self._sharding is not None:
                self._sharding.hand_over_gradients()
            losses.append(loss.detach())
            if len(parts) > 1:
                for weight in self._weights:
                    weight.gather_gradient()
        whole = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        return whole if self._sharding is None else self._sharding.total(whole) / self._sharding.count

    def _clip(self, longest: float) -> None:
        if self._sharding is None:
            nn.utils.clip_grad_norm_(self._trained, longest, foreach=True)
        else:
            self._sharding.clip(self._trained, longest)

    def snapshot(self) -> Snapshot:
        """Return all that the rest of the training depends on, after a step."""
        self._read_losses()
        chance, watch = random_state(), self._problem.watch
        tensors = {f"trained.{index}": one.detach() for index, one in enumerate(self._trained)}
        plain: dict[str, dict[str, Any]] = {}
        for index, parameter in enumerate(self._trained):
            for name, value in self._optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{name}"] = value
                else:
                    plain.setdefault(str(index), {})[name] = value
        for index, weight in enumerate(self._weights):
            tensors |= {f"weight.{index}.{name}": value for name, value in weight.state().items()}
        tensors |= {f"statistics.{name}": value for name, value in self.statistics().items()}
        tensors |= {f"random.{name}": value for name, value in chance.tensors.items()}
        return Snapshot(
            tensors,
            {
                "steps": self.steps_done,
                "losses": self.losses,
                "tokens": self.tokens,
                "watched_seconds": self.watched_seconds,
                "watch": None if watch is None else watch.state(),
                "optimizer": plain,
                "random": chance.facts,
            },
        )

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Go on where an earlier process was; nothing has been trained in this one.

        Parameters
        ----------
        snapshot : Snapshot
            What `snapshot` returned there.
        """
        facts = snapshot.facts
        for index, parameter in enumerate(self._trained):
            parameter.copy_(snapshot.tensors[f"trained.{index}"])
            state = self._optimizer.state[parameter]
            state |= facts["optimizer"].get(str(index), {})
            for name, value in snapshot.part(f"optimizer.{index}").items():
                # In the parameter's order of memory, which fused updates go by.
                like = parameter if value.shape == parameter.shape else value
                place = torch.empty_like(like, dtype=value.dtype, device=parameter.device)
                state[name] = place.copy_(value)
        for index, weight in enumerate(self._weights):
            weight.restore(snapshot.part(f"weight.{index}"))
        buffers = dict(self._problem.model.named_buffers())
        for name, value in snapshot.part("statistics").items():
            buffers[name].copy_(value)
        self.losses, self.tokens = [float(loss) for loss in facts["losses"]], int(facts["tokens"])
        self.watched_seconds = float(facts["watched_seconds"])
        if self._problem.watch is not None:
            self._problem.watch.restore(facts["watch"])
        set_random_state(Snapshot(snapshot.part("random"), facts["random"]))

    def statistics(self) -> dict[str, Tensor]:
        """Return the running statistics of batch-norm layers that were updated, by buffer name."""
        if self._options.bn_training == "freeze":
            return {}
        return {
            f"{name}.{buffer}": value.detach().clone()
            for name, norm in self._norms.items()
            for buffer, value in norm.named_buffers(recurse=False)
        }

    def _show(self) -> None:
        watch, done = self._problem.watch, self.steps_done
        if watch is None or not watch.wants(done):
            return
        # A diverged training is told before its weights are shown, and an accelerator's work on it is not the watch's.
        self._read_losses()
        if self._trained[0].is_cuda:
            torch.cuda.synchronize(self._trained[0].device)
        started = time.monotonic()
        watch.see(done, self._weights)
        self.watched_seconds += time.monotonic() - started

    def _read_losses(self) -> None:
        read = torch.stack(self._unread).tolist() if self._unread else []
        self._unread = []
        for loss in read:
            self.losses.append(loss)
            if not math.isfinite(loss):
                step, steps = len(self.losses), self._options.steps
                raise DivergedError(f"the training loss became {loss} at step {step} of {steps}")


def _optimizer(
    weights: Sequence[LatentWeight], step_sizes: Sequence[StepSize], options: WeightTraining
) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [{"params": [weight.latent for weight in weights], "lr": options.learning_rate}]
    groups += [group for one in [*weights, *step_sizes] for group in one.step_sizes()]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, fused=True)
    if options.optimizer_state == "8bit":
        return AdamW8bit(groups, lr=options.learning_rate)
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
