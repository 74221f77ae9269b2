"""The result of one cell, as it is kept: one JSON file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from qbench.suite.cell import cell_label

SCHEMA_VERSION = 2

Status = Literal["ok", "failed", "diverged", "timeout", "skipped"]


class LayerRow(BaseModel):
    """What a method did to one layer.

    Attributes
    ----------
    name : str
        The layer's name in the model.
    shape : tuple of int
        Weight shape.
    weight_error : float
        ``|W - Wq|_F^2 / |W|_F^2``.
    output_error : float
        ``|W X - Wq X|_F^2 / |W X|_F^2`` on the calibration inputs of the full-precision model: one measure for all
        methods.
    objective, rtn_objective : float or None
        The error the method minimised (with the inputs it saw), reached by the method and by rounding to nearest.
    levels : int
        Most distinct codes found in any one block of the deployed weight; at most 2^bits.
    fallback : str or None
        What the method did instead of itself, and why; a row with a fallback never passes as clean.
    damping : float or None
        The relative damping of the Hessian that was really used.
    details : dict
        Further numbers of the method.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    shape: tuple[int, ...]
    weight_error: float
    output_error: float
    objective: float | None = None
    rtn_objective: float | None = None
    levels: int
    fallback: str | None = None
    damping: float | None = None
    details: dict[str, float] = Field(default_factory=dict)


class DocumentLosses(BaseModel):
    """Losses of one evaluation document, for paired statistics.

    Attributes
    ----------
    document : str
        Domain and title; for image classifiers which images, a group of ten.
    tokens : int
        Predicted tokens, or images.
    loss_sum : float
        Sum of their losses, nats.
    """

    model_config = ConfigDict(extra="forbid")

    document: str
    tokens: int
    loss_sum: float


class Cost(BaseModel):
    """What a cell cost.

    Attributes
    ----------
    method_seconds, evaluation_seconds : float
        Wall-clock seconds.
    peak_memory_bytes : int
        Highest resident (CPU) or allocated (GPU) memory of the process while the cell ran.
    calibration_tokens, train_tokens, train_steps : int
        Data the method consumed, and its optimizer steps over a block or the model. `train_tokens` counts what the
        whole model was trained on: above zero means QAT.
    """

    model_config = ConfigDict(extra="forbid")

    method_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    peak_memory_bytes: int = 0
    calibration_tokens: int = 0
    train_tokens: int = 0
    train_steps: int = 0


class Record(BaseModel):
    """The result of one cell.

    Attributes
    ----------
    schema_version : int
        Version of this layout.
    cell_id : str
        sha256 over `key`.
    key : dict
        The parts the identity is made of: specs with all defaults, versions, source hashes, weight and data hashes,
        seed.
    axes : dict
        ``model``, ``quantizer``, ``bits``, ``method``, ``seed``: the place in the leaderboard (see `Cell.axes`).
    suite : str
        The suite that ran it.
    status : str
        ``ok``, ``failed``, ``diverged``, ``timeout`` (not done in the time it was given) or ``skipped``.
    reason : str or None
        Why the status is not ``ok``, in one line.
    metrics : dict of str to float
        At full precision; a name carries its convention, such as ``loss/blocks128`` (nats a token),
        ``loss/cross_entropy`` (nats an image), ``accuracy/top1`` (a share of the images).
    documents : list of DocumentLosses
        The losses behind ``loss/...``.
    layers : list of LayerRow
        Empty in the full-precision cell.
    effective_bits : float or None
        Stored bits a quantized weight, scales and zero points included.
    facts : dict
        What a table must say of the model: ``chance_loss`` (nats), ``chance_accuracy`` (of image classifiers, a share),
        ``parameters``, ``quantized_layers``, ``quantized_parameters``, ``floating_point`` (what is left alone),
        ``calibration``, ``evaluation``, ``grid``, ``activations`` (how inputs are quantized), ``plugins`` (what is not
        built in, and where it comes from), ``batch_norm_layers``, ``bn`` (what became of these: ``keep``,
        ``recalibrate``, ``fold``, or ``update`` while training).
    cost : Cost
        Time, memory, data.
    traces : dict of str to list of float
        Curves, such as ``train_loss``.
    weights_sha256 : str or None
        Hash of the deployed quantized weights.
    environment : dict
        Versions, device name, threads, flags.
    started, ended : str
        UTC times, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    cell_id: str
    key: dict[str, Any]
    axes: dict[str, str | int | None]
    suite: str
    status: Status
    reason: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    documents: list[DocumentLosses] = Field(default_factory=list)
    layers: list[LayerRow] = Field(default_factory=list)
    effective_bits: float | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    cost: Cost = Field(default_factory=Cost)
    traces: dict[str, list[float]] = Field(default_factory=dict)
    weights_sha256: str | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    started: str = ""
    ended: str = ""

    @property
    def clean(self) -> bool:
        """Whether the cell ended well and no layer fell back."""
        return self.status == "ok" and not self.fallbacks

    @property
    def is_probe(self) -> bool:
        """Whether a probe measured this, and no method was run."""
        return "probe" in self.key

    @property
    def label(self) -> str:
        """Return the place in the leaderboard in one line, such as ``llama-1m/mse/2b/gptq/s0``."""
        return cell_label(self.axes)

    @property
    def fallbacks(self) -> list[str]:
        """Return why layers fell back, one entry a layer that did."""
        return [layer.fallback for layer in self.layers if layer.fallback]

    @property
    def loss_key(self) -> str | None:
        """Return the name of the loss in `metrics`, or None; see `find_loss`."""
        return find_loss(self.metrics)

    @property
    def loss(self) -> float | None:
        """Return the evaluation loss in nats a token (or an image), or None when none was measured."""
        return None if self.loss_key is None else self.metrics[self.loss_key]

    @property
    def accuracy(self) -> float | None:
        """Return the share of evaluation images that are classified as they are labelled, or None."""
        return find_accuracy(self.metrics)


def find_loss(metrics: Iterable[str]) -> str | None:
    """Return the name that begins with ``loss/`` (of several the first in alphabetical order), or None."""
    return min((name for name in metrics if name.startswith("loss/")), default=None)


def find_accuracy(metrics: Mapping[str, float]) -> float | None:
    """Return what is measured under ``accuracy/top1``, or None."""
    return metrics.get("accuracy/top1")
