"""The lattices of a model: subjects that differ in nothing but the step size of the quantizer `lattice`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qbench.claims.measured import Measured
from qbench.claims.subject import LackingError, Subject


@dataclass(frozen=True)
class Lattice:
    """One step size.

    Attributes
    ----------
    step : float
        In the unit of the quantizer's option.
    subject : Subject
        The model with it.
    bits : int
        Bits of the codes; they only bound them.
    """

    step: float
    subject: Subject
    bits: int

    def rounding(self, seed: int) -> Measured:
        """Return round-to-nearest; see `Subject.rounding`."""
        return self.subject.rounding(seed, self.bits)


@dataclass(frozen=True)
class Family:
    """All lattices of a model that differ in the step size alone.

    Attributes
    ----------
    model, name : str
        Labels; `name` is the quantizer without its step size.
    lattices : tuple of Lattice
        Steps rising.
    """

    model: str
    name: str
    lattices: tuple[Lattice, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds of any of them."""
        return tuple(sorted({seed for one in self.lattices for seed in one.subject.seeds}))

    @property
    def seeds_needed(self) -> int:
        """See `Subject.seeds_needed`."""
        return self.lattices[0].subject.seeds_needed

    @property
    def facts(self) -> dict[str, Any]:
        """See `Subject.facts`."""
        return self.lattices[0].subject.facts

    def of_seed(self, seed: int) -> list[Lattice]:
        """Return the lattices that a seed was rounded on.

        Raises
        ------
        LackingError
            None was.
        """
        found = [one for one in self.lattices if one.bits in one.subject.bits("rtn", seed)]
        if not found:
            raise LackingError("rtn on a lattice")
        return found


def families(subjects: Sequence[Subject]) -> list[Family]:
    """Return the families of lattices with more than one step size, sorted."""
    held: dict[tuple[str, str], list[Lattice]] = {}
    for subject in subjects:
        options = _options(subject)
        if options.get("name") != "lattice" or "step" not in options:
            continue
        others = {key: value for key, value in options.items() if key != "step"}
        step = float(options["step"])
        for bits in sorted({int(record.axes["bits"] or 0) for record in subject.records}):
            key = (subject.model, json.dumps({**others, "bits": bits}, sort_keys=True, default=str))
            held.setdefault(key, []).append(Lattice(step, subject, bits))
    groups = {key: sorted(found, key=lambda one: one.step) for key, found in held.items()}
    names: dict[str, int] = {}
    made = []
    for (model, _), found in sorted(groups.items()):
        if len(found) > 1:
            names[model] = names.get(model, 0) + 1
            name = "lattice" if names[model] == 1 else f"lattice ({names[model]})"
            made.append(Family(model, name, tuple(found)))
    return made


def _options(subject: Subject) -> dict[str, Any]:
    described: dict[str, Any] = next(
        (record.key["quantizer"] for record in subject.records if "quantizer" in record.key), {}
    )
    found: dict[str, Any] = described.get("options", {})
    return found
