"""Where figures find their data: the same evidence that claims are judged by, with what is missing left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from qbench.claims.measured import Measured
from qbench.claims.subject import LackingError, Subject
from qbench.report.figures.figure import Guide
from qbench.report.figures.paging import brief
from qbench.store.record import Record

P = ParamSpec("P")
T = TypeVar("T")

_LINE = 46  # letters


def present(make: Callable[P, T], *args: P.args, **options: P.kwargs) -> T | None:
    """Return what a call returns, or None where a claim would say that something is lacking."""
    try:
        return make(*args, **options)
    except LackingError:
        return None


def cells(subject: Subject, seed: int, bits: int, name: str) -> list[Measured]:
    """Return the sound cells of a method, sorted by label; none where there is none.

    Parameters
    ----------
    subject : Subject
        The model and quantizer.
    seed, bits : int
        Where.
    name : str
        Of the method in the registry.
    """
    return present(subject.arms, seed, bits, name) or []


def rounding(subject: Subject, seed: int, bits: int) -> Measured | None:
    """Return round-to-nearest, or None."""
    return present(subject.rounding, seed, bits)


def probe(subject: Subject, seed: int, bits: int, name: str) -> Record | None:
    """Return the record of a probe, or None.

    Parameters
    ----------
    subject : Subject
        The model and quantizer.
    seed, bits : int
        Where.
    name : str
        Of the probe in the registry.
    """
    return present(subject.probe, seed, bits, name)


def bits_of(subject: Subject, *names: str) -> list[int]:
    """Return the bits of any of some methods or probes in any seed, falling."""
    found = {bits for name in names for seed in subject.seeds for bits in subject.bits(name, seed)}
    return sorted(found, reverse=True)


def outside(subject: Subject, *names: str) -> list[int]:
    """Return the bits of some methods or probes at which rounding is outside the basin in any seed, falling."""
    return [
        bits
        for bits in bits_of(subject, *names)
        if any((cell := rounding(subject, seed, bits)) is not None and not cell.inside for seed in subject.seeds)
    ]


def where(subject: Subject, bits: int | None = None) -> str:
    """Return what a panel is called: in one line, or in two where it is long."""
    # Of lattices bits say nothing.
    told = "" if bits is None or subject.is_lattice else f", {counted(bits)}"
    model, rest = brief(subject.model), brief(subject.quantizer) + told
    return f"{model}, {rest}" if len(model) + len(rest) < _LINE else f"{model}\n{rest}"


def counted(bits: int) -> str:
    """Return ``1 bit`` or ``N bits``, which no line is broken in."""
    return f"{bits}\N{NO-BREAK SPACE}bit{'' if bits == 1 else 's'}"


def thresholds_by_bits(subject: Subject, bits: Iterable[int]) -> tuple[Guide, ...]:
    """Return tau and tau_f of rounding as lines by bits, means over seeds."""
    held = {
        width: [cell for seed in subject.seeds if (cell := rounding(subject, seed, width)) is not None]
        for width in sorted(bits, reverse=True)
    }
    rows = [(float(width), found) for width, found in held.items() if found]
    if not rows:
        return ()
    x = tuple(width for width, _ in rows)
    return (
        Guide("τ", x, tuple(mean(cell.tau for cell in found) for _, found in rows)),
        Guide("τ_f", x, tuple(mean(cell.tau_f for cell in found) for _, found in rows)),
    )


def mean(values: Iterable[float]) -> float:
    """Return the mean of at least one number."""
    held = list(values)
    return sum(held) / len(held)
