"""The unit of work: one model, one quantizer, one bitwidth, one method or probe, one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qbench.spec import Spec

FP = "fp"

_MOST_LABELS = 10_000
_LABELS: dict[int, tuple[Spec, str]] = {}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a suite, all options resolved.

    Attributes
    ----------
    model : Spec
        The task: a model with its data.
    quantizer, method : Spec or None
        None in the full-precision cell. A control has a method and no quantizer, a probe's cell no method.
    bits : int or None
        Bits a weight code; None where there is no quantizer.
    seed : int
        Seed of every named stream; zoo models also take their training seed from it.
    metrics : tuple of str
        What is measured.
    skip : str or None
        Why the suite leaves this cell out; None for a cell that runs.
    probe : Spec or None
        What is measured around the weights; None where a method is run.
    points : tuple of Cell
        The cells whose weights the probe reads.
    trajectory : int
        At most how often the weights are measured while the method trains them.
    """

    model: Spec
    quantizer: Spec | None
    bits: int | None
    method: Spec | None
    seed: int
    metrics: tuple[str, ...]
    skip: str | None = None
    probe: Spec | None = None
    points: tuple[Cell, ...] = ()
    trajectory: int = 0

    @property
    def is_fp(self) -> bool:
        """Whether this is the full-precision cell of its model and seed."""
        return self.method is None and self.probe is None

    @property
    def is_probe(self) -> bool:
        """Whether this cell measures what is around the weights."""
        return self.probe is not None

    @property
    def procedure(self) -> Spec | None:
        """The method or the probe; None in the full-precision cell."""
        return self.method if self.probe is None else self.probe

    @property
    def is_control(self) -> bool:
        """Whether this cell trains the model in full precision, for the rows of methods that train as much."""
        return self.quantizer is None and self.method is not None

    @property
    def is_streamed(self) -> bool:
        """Whether one decoder block of the model at a time is in memory."""
        return getattr(self.model, "device_map", "whole") == "streamed"

    @property
    def is_shared(self) -> bool:
        """Whether several processes share the training."""
        return getattr(self.method, "ranks", 1) > 1

    def needs_hub(self) -> bool:
        """Return whether the model, its data or a metric comes from a repository."""
        needs: Callable[[], bool] = getattr(self.model, "needs_hub", bool)
        of_metric: Callable[[str], bool] = getattr(self.model, "metric_needs_hub", lambda metric: False)
        return needs() or any(of_metric(metric) for metric in self.metrics)

    def axes(self) -> dict[str, str | int | None]:
        """Return what the cell is called on each axis; equal axes mean the same place in the leaderboard."""
        return {
            "model": label_of(self.model),
            "quantizer": None if self.quantizer is None else label_of(self.quantizer),
            "bits": self.bits,
            "method": FP if self.procedure is None else label_of(self.procedure),
            "seed": self.seed,
        }

    def label(self) -> str:
        """Return a one-line name, such as ``llama-1m/mse/2b/gptq/s0``."""
        return cell_label(self.axes())


def label_of(spec: Spec) -> str:
    """Return the label of a spec; the cells of a suite share few, which are asked for it again and again."""
    known = _LABELS.get(id(spec))
    if known is None:
        if len(_LABELS) >= _MOST_LABELS:
            _LABELS.clear()
        # It is held, so that no other gets its place in memory while it is known by that.
        known = _LABELS[id(spec)] = spec, spec.label()
    return known[1]


def cell_label(axes: dict[str, str | int | None]) -> str:
    """Return the one-line name of a place in the leaderboard, given by `Cell.axes`."""
    parts = [axes["model"], axes["quantizer"], axes["bits"] and f"{axes['bits']}b", axes["method"], f"s{axes['seed']}"]
    return "/".join(str(part) for part in parts if part is not None)
