"""AdamW whose moments are kept in 8 bits, block by block (Dettmers et al., 2022, arXiv:2110.02861)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256
"""Numbers that share a scale."""

SMALLEST = 4096
"""Tensors of fewer numbers keep their moments in float32."""

_EXPONENTS = 7


@cache
def dynamic_levels(*, signed: bool, device: torch.device | str = "cpu") -> Tensor:
    """Return the 256 levels of the dynamic tree code, in ascending order.

    The bits of a code, behind a sign bit where it is signed, are e zeros, a one, and the rest: ``10^-e`` times one of
    the ``2^rest`` middles of equal parts of [0.1, 1] (section 1.3, "dynamic tree quantization"). The two codes without
    a one stand for 0 and 1.

    Parameters
    ----------
    signed : bool
        Of the first moment; the second has no sign, and a bit more for the fraction.
    device : torch.device
        Where the levels are to be.

    Returns
    -------
    Tensor of shape (256,)
        From -1 or 0 to 1, float32.
    """
    levels = [torch.tensor([0.0, 1.0], dtype=torch.float64)]
    for exponent in range(_EXPONENTS):
        parts = 2 ** (_EXPONENTS - 1 - exponent + (not signed))
        middles = 0.1 + 0.9 * (torch.arange(parts, dtype=torch.float64) + 0.5) / parts
        levels.append(middles * 10.0**-exponent)
        if signed:
            levels.append(-levels[-1])
    return torch.cat(levels).sort().values.float().to(device)


@cache
def _boundaries(*, signed: bool, device: torch.device | str) -> Tensor:
    levels = dynamic_levels(signed=signed, device=device)
    return (levels[1:] + levels[:-1]) / 2


def to_codes(values: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Return the nearest codes of a tensor.

    Parameters
    ----------
    values : Tensor
        Float32, of any shape.
    signed : bool
        Whether they can be negative. Without a sign, what is above 0 gets no code that stands for 0: a second moment of
        0 beside a first one that is not would make a step without bounds.

    Returns
    -------
    Tensor of shape (numel,)
        Codes, uint8.
    Tensor of shape (ceil(numel / BLOCK),)
        The largest magnitude of each block, float32.
    """
    flat = values.flatten()
    blocks = functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(dim=1)
    normed = blocks / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    codes = torch.bucketize(normed, _boundaries(signed=signed, device=values.device), out_int32=True).to(torch.uint8)
    if not signed:
        codes = torch.maximum(codes, (blocks > 0).to(torch.uint8))
    return codes.flatten()[: len(flat)], scale


def from_codes(codes: Tensor, scale: Tensor, *, signed: bool) -> Tensor:
    """Return what codes stand for, of shape (numel,); see `to_codes`."""
    found = dynamic_levels(signed=signed, device=codes.device)[codes.int()]
    blocks = functional.pad(found, (0, -len(found) % BLOCK)).view(-1, BLOCK)
    return (blocks * scale[:, None]).flatten()[: len(found)]


class AdamW8bit(torch.optim.Optimizer):
    """AdamW without weight decay, whose moments take a quarter of the memory.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``, ``w <- w - lr m' / (sqrt(v') + eps)`` with
    ``m' = m / (1 - b1^t)`` and ``v' = v / (1 - b2^t)`` (Kingma and Ba, 2015, arXiv:1412.6980), in float32: the moments
    are read from their codes before a step, and only what is kept for the next one is rounded.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them, all of type float32.
    lr : float
        Rate.
    betas : tuple of float
        b1 and b2.
    eps : float
        As above.

    Notes
    -----
    One tensor is in float32 at a time, so the memory beyond the codes is a few copies of the largest one.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make one update.

        Parameters
        ----------
        closure : callable, optional
            Evaluates the loss again, with gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            for name, signed in (("exp_avg", True), ("exp_avg_sq", False)):
                _keep(state, name, torch.zeros_like(gradient), signed=signed)
        state["step"] += 1
        first = _kept(state, "exp_avg", gradient, signed=True)
        second = _kept(state, "exp_avg_sq", gradient, signed=False)
        first_beta, second_beta = group["betas"]
        first.lerp_(gradient, 1 - first_beta)
        second.mul_(second_beta).addcmul_(gradient, gradient, value=1 - second_beta)
        _keep(state, "exp_avg", first, signed=True)
        _keep(state, "exp_avg_sq", second, signed=False)
        # What is not needed any more is computed with in its own place.
        second.div_(1 - second_beta ** state["step"]).sqrt_().add_(group["eps"])
        parameter.addcdiv_(first, second, value=-group["lr"] / (1 - first_beta ** state["step"]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; see `torch.optim.Optimizer.load_state_dict`, which would make floats of the codes."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in [name for name in state if name.endswith("_codes")]:
                state[name] = state[name].to(torch.uint8)


def _keep(state: dict[str, Any], name: str, values: Tensor, *, signed: bool) -> None:
    if values.numel() < SMALLEST:
        state[name] = values.clone()
    else:
        state[f"{name}_codes"], state[f"{name}_scale"] = to_codes(values, signed=signed)


def _kept(state: dict[str, Any], name: str, like: Tensor, *, signed: bool) -> Tensor:
    if name in state:
        found: Tensor = state[name]
        return found
    return from_codes(state[f"{name}_codes"], state[f"{name}_scale"], signed=signed).view(like.shape)
