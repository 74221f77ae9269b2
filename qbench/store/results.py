"""Results of a suite on one class of device, in the compact form that a baseline keeps and a comparison reads."""

from __future__ import annotations

import hashlib
import math

from pydantic import BaseModel, ConfigDict, Field

from qbench.store.floats import dumps
from qbench.store.ground import BYTES_DEPEND_ON, unlike
from qbench.store.record import Status, find_accuracy, find_loss
from qbench.suite.cell import FP, cell_label

SQNR = "weight_sqnr_db"
"""The metric that tells how large the error of the weights is: far steadier than any loss."""

Axes = dict[str, str | int | None]


class CellResult(BaseModel):
    """What is kept of one cell.

    Attributes
    ----------
    axes, status, reason, metrics, effective_bits, weights_sha256
        As in `Record`.
    fallback : bool
        Whether a layer fell back.
    losses : list of float
        Summed loss of each document of the cell's `Evaluation`, nats; empty where the cell has no documents, or others.
    repeats : list of float
        What the cell is judged by (see `Results.excess`) in each repeat under other arithmetic; nats a token (or an
        image).
    accuracy_repeats, sqnr_repeats : list of float
        Its accuracy in each repeat, shares; and its `sqnr`, decibels.
    environment : dict of str to str
        What the cell's ground has otherwise than the environment of its `Results`.
    """

    model_config = ConfigDict(extra="forbid")

    axes: Axes
    status: Status
    reason: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    effective_bits: float | None = None
    weights_sha256: str | None = None
    fallback: bool = False
    losses: list[float] = Field(default_factory=list)
    repeats: list[float] = Field(default_factory=list)
    accuracy_repeats: list[float] = Field(default_factory=list)
    sqnr_repeats: list[float] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)

    @property
    def is_fp(self) -> bool:
        """Whether this is the full-precision cell of its model and seed."""
        return self.axes["method"] == FP and self.axes["quantizer"] is None

    @property
    def loss_key(self) -> str | None:
        """Return the name of the loss in `metrics`, or None; see `find_loss`."""
        return find_loss(self.metrics)

    @property
    def loss(self) -> float | None:
        """Return the evaluation loss in nats a token (or an image), or None."""
        return None if self.loss_key is None else self.metrics[self.loss_key]

    @property
    def accuracy(self) -> float | None:
        """Return the share of images classified as they are labelled, or None."""
        return find_accuracy(self.metrics)

    @property
    def sqnr(self) -> float | None:
        """Return the signal-to-noise ratio of the quantized weights, decibels; None where nothing is quantized."""
        return self.metrics.get(SQNR)

    @property
    def breakdown(self) -> str | None:
        """Return why the cell has no numbers to judge, or None."""
        if self.status != "ok":
            return f"{self.status}: {self.reason or 'no reason given'}"
        return None if self.loss is None or math.isfinite(self.loss) else f"loss is {self.loss}"

    @property
    def flaw(self) -> str | None:
        """Return why the cell is not clean, or None."""
        return self.breakdown or ("a layer fell back" if self.fallback else None)


class Evaluation(BaseModel):
    """What the cells of one model and seed are evaluated on.

    Attributes
    ----------
    documents : list of str
        Names, in the order of `CellResult.losses`.
    tokens : list of int
        Predicted tokens (or images) of each.
    chance_loss, chance_accuracy : float or None
        What a guess reaches: nats, a share.
    """

    model_config = ConfigDict(extra="forbid")

    documents: list[str] = Field(default_factory=list)
    tokens: list[int] = Field(default_factory=list)
    chance_loss: float | None = None
    chance_accuracy: float | None = None


class Expected(BaseModel):
    """A cell that is known to fail, to fall back or to be missing.

    Attributes
    ----------
    reason : str
        Why that is accepted.
    date : str or None
        Since when, UTC; None in a baseline from before dates were kept.
    """

    model_config = ConfigDict(extra="forbid")

    reason: str
    date: str | None = None


class Blessing(BaseModel):
    """One entry of a baseline's history.

    Attributes
    ----------
    date, reason, qbench_version : str
        When (UTC), why, and by which version.
    counts : dict of str to int
        Cells of each kind of change, such as ``worse`` or ``new``.
    sha256 : str
        Of what was blessed, see `Results.digest`: an edit by hand shows.
    """

    model_config = ConfigDict(extra="forbid")

    date: str
    reason: str
    qbench_version: str
    counts: dict[str, int] = Field(default_factory=dict)
    sha256: str = ""


class Results(BaseModel):
    """Results of a suite on one class of device.

    Attributes
    ----------
    environment : dict of str to str
        The ground of most cells, in words.
    qbench_version : str
        What ran it.
    evaluations : dict of str to Evaluation
        By model and seed, see `evaluation_name`.
    cells : dict of str to CellResult
        By label (`cell_label` of the axes): a cell keeps its place when its identity changes.
    expected : dict of str to Expected
        Expected failures, by label; those that are missing are in no other field.
    history : list of Blessing
        Oldest first; empty for results that are not blessed.
    """

    model_config = ConfigDict(extra="forbid")

    environment: dict[str, str] = Field(default_factory=dict)
    qbench_version: str
    evaluations: dict[str, Evaluation] = Field(default_factory=dict)
    cells: dict[str, CellResult]
    expected: dict[str, Expected] = Field(default_factory=dict)
    history: list[Blessing] = Field(default_factory=list)

    @property
    def digest(self) -> str:
        """Return the sha256 of all but the history.

        What is at its default is left out, so that a field that comes later breaks none.
        """
        plain = self.model_dump(exclude={"history"}, exclude_defaults=True)
        return hashlib.sha256(dumps(plain).encode()).hexdigest()

    @property
    def intact(self) -> bool:
        """Whether this is what was blessed last; so are results that come from a file of before there were digests."""
        return not self.history or not self.history[-1].sha256 or self.history[-1].sha256 == self.digest

    def full_precision(self, axes: Axes) -> CellResult | None:
        """Return the full-precision cell of the same model and seed, or None."""
        return self.cells.get(full_precision_label(axes))

    def evaluation(self, axes: Axes) -> Evaluation:
        """Return what the cells of the same model and seed are evaluated on."""
        return self.evaluations.get(evaluation_name(axes), Evaluation())

    def ground(self, cell: CellResult) -> dict[str, str]:
        """Return the environment of one cell."""
        return {**self.environment, **cell.environment}

    def excess(self, cell: CellResult) -> float | None:
        """Return what a cell is judged by: its loss above full precision in the same run; the loss of full precision.

        Nats a token (or an image); None where it was not measured.
        """
        return excess(cell, self.full_precision(cell.axes))


def excess(cell: CellResult, full: CellResult | None) -> float | None:
    """Return the loss of a cell above that of its full-precision cell, or that cell's own loss; nats, or None."""
    if cell.loss is None or cell.is_fp:
        return cell.loss
    return None if full is None or full.loss is None or full.loss_key != cell.loss_key else cell.loss - full.loss


def full_precision_label(axes: Axes) -> str:
    """Return the label of the full-precision cell of the same model and seed."""
    return cell_label({"model": axes["model"], "quantizer": None, "bits": None, "method": FP, "seed": axes["seed"]})


def evaluation_name(axes: Axes) -> str:
    """Return model and seed in one word, such as ``llama-1m/s0``."""
    return f"{axes['model']}/s{axes['seed']}"


def same_ground(first: dict[str, str], second: dict[str, str]) -> bool:
    """Return whether bytes made on two grounds have to be the same."""
    return bool(first and second) and not unlike(first, second)


def matters(environment: dict[str, str]) -> dict[str, str]:
    """Return the part of an environment that bytes depend on."""
    return {name: value for name, value in environment.items() if name in BYTES_DEPEND_ON}
