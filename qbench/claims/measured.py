"""A quantized cell against full precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qbench.claims.evidence import options_of
from qbench.claims.regimes import Regime, regime
from qbench.store.record import Record


@dataclass(frozen=True)
class Measured:
    """A quantized cell against full precision of the same model and seed.

    Attributes
    ----------
    record : Record
        The cell.
    excess, se : float
        D and its standard error over documents, nats; 0 where there is one document.
    tau, tau_f : float
        Thresholds of this cell; see `Subject.tau` and `Subject.tau_f`.
    """

    record: Record
    excess: float
    se: float
    tau: float
    tau_f: float

    @property
    def label(self) -> str:
        """Return the label of the method."""
        return str(self.record.axes["method"])

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of the method."""
        return options_of(self.record)

    @property
    def regime(self) -> Regime:
        """Return ``inside``, ``grey`` or ``failed``."""
        return regime(self.excess, self.tau, self.tau_f)

    @property
    def inside(self) -> bool:
        """Whether D <= tau."""
        return self.regime == "inside"

    @property
    def failed(self) -> bool:
        """Whether D > tau_f."""
        return self.regime == "failed"
