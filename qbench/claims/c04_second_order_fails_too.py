"""C4: Hessian reconstruction delays failure and does not remove it."""

from __future__ import annotations

from qbench.claims import thresholds as limits
from qbench.claims.base import Claim, Outcome, SeedVerdict, each_grid
from qbench.claims.measured import Measured
from qbench.claims.numbers import nats
from qbench.claims.subject import LackingError, Subject

_RIVALS = ("gptq", "adaround")


def _judge(subject: Subject, seed: int) -> SeedVerdict:
    widths = [width for width in subject.bits("rtn", seed) if width >= limits.COARSE_BITS]
    failing = [width for width in subject.failing(seed) if width in widths]
    if not widths:
        raise LackingError(f"rtn at {limits.COARSE_BITS} bits or more")
    lowest = widths[-1]
    if not failing:
        rounded = subject.rounding(seed, lowest)
        grey = f": D = {nats(rounded.excess)} at {lowest} bits is grey" if not rounded.inside else ""
        why = f"rounding fails at none of {limits.COARSE_BITS} bits and more{grey}"
        return SeedVerdict("not applicable", why, {"D_rtn": rounded.excess}, lowest)
    common = set.intersection(*(set(subject.bits(name, seed)) for name in _RIVALS))
    bits = [width for width in subject.bits("rtn", seed) if width >= limits.COARSE_BITS and width in common]
    if not set(failing) <= set(bits):
        raise LackingError(f"gptq and adaround at failing bits, {', '.join(map(str, failing))}")
    rows = {name: {width: subject.plain(seed, width, name) for width in bits} for name in ("rtn", *_RIVALS)}
    recovered = [width for width in bits if width in subject.bits("ste_qat", seed) and subject.best(seed, width).inside]
    first = {name: _first_failure(row) for name, row in rows.items()}
    lower = [b for b in bits if rows["gptq"][b].failed and _proxy(rows["gptq"][b]) < _proxy(rows["rtn"][b])]
    # Where rounding is inside too, staying inside shows nothing.
    telling = [width for width in recovered if width in failing]
    tame = [name for name in _RIVALS if telling and all(rows[name][width].inside for width in recovered)]
    told = ", ".join(f"{name} {_bits(found)}" for name, found in first.items())
    qat = f"QAT is inside at {', '.join(map(str, recovered)) or 'no'} bits"
    proxies = ", ".join(str(width) for width in lower) or "no"
    why = f"first failure {told}; {qat}; gptq fails with a lower layer error than rtn at {proxies} bits"
    numbers = {f"first_failure_{name}": float(found) for name, found in first.items() if found}
    numbers |= {f"D_{name}": row[failing[0]].excess for name, row in rows.items()}
    outcome: Outcome = "inconclusive"
    if tame or first["gptq"] > first["rtn"]:
        outcome = "refutes"
        why += f"; {tame[0]} is inside wherever QAT is" if tame else ""
    elif lower:
        outcome = "supports"
    return SeedVerdict(outcome, why, numbers, failing[0])


def _first_failure(row: dict[int, Measured]) -> int:
    """Return the most bits at which a method fails, 0 where it never does."""
    return max((width for width, cell in row.items() if cell.failed), default=0)


def _bits(first: int) -> str:
    return f"at {first} bits" if first else "nowhere"


def _proxy(cell: Measured) -> float:
    """Return the mean over layers of ``|W X - Wq X|^2 / |W X|^2``."""
    layers = cell.record.layers
    if not layers:
        raise LackingError(f"layers in {cell.record.label}")
    return sum(layer.output_error for layer in layers) / len(layers)


CLAIM = Claim(
    id="C4",
    title="second-order reconstruction delays failure and does not remove it",
    source="abstract",
    supports="GPTQ fails at no more bits than rtn first does, and at some bitwidth >= 2 fails while its mean layer "
    "output error is below rtn's",
    refutes="GPTQ or AdaRound is inside wherever QAT is, failing bits of rtn among these; or GPTQ fails before rtn",
    needs="rtn, gptq, adaround and ste_qat at failing bits at least",
    judge=each_grid(_judge),
)
