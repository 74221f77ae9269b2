"""Other orders of adding the same numbers: what a machine offers beside the one that a run took.

Sums of floating-point numbers depend on the order of their terms, which the width of the vector instructions and the
number of threads set. A cell run under several of them shows how far rounding errors move its loss, and nothing else
does: on one and the same ground every run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import product

# Of PyTorch's own kernels, oneDNN and MKL, by the name that records give to the first.
_NARROWER = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
_WIDEST_FIRST = ("AVX512", "AVX2", "DEFAULT")

Ground = tuple[str, int]
"""Vector instructions as records name them (``cpu_capability``), and threads."""


@dataclass(frozen=True)
class Arithmetic:
    """One way to compute on a CPU.

    Attributes
    ----------
    capability : str
        The vector instructions of torch's operators, as in a record's environment.
    threads : int
        Threads of each process.
    environment : dict of str to str
        What keeps the libraries to these instructions; empty for those they choose themselves.
    """

    capability: str
    threads: int
    environment: dict[str, str] = field(default_factory=dict)


def others(native: str, cores: int, taken: Collection[Ground]) -> list[Arithmetic]:
    """Return the ways to compute that a run has not taken, those that differ in one thing only first.

    Parameters
    ----------
    native : str
        The vector instructions that torch chooses on this machine.
    cores : int
        Cores that may be used; a second thread is possible on one core as well.
    taken : collection of Ground
        What the run was made on.

    Examples
    --------
    >>> [(way.capability, way.threads) for way in others("AVX2", 2, [("AVX2", 1)])]
    [('AVX2', 2), ('DEFAULT', 1), ('DEFAULT', 2)]
    """
    known = _WIDEST_FIRST.index(native) if native in _WIDEST_FIRST else len(_WIDEST_FIRST)
    # Other processors: their plain instructions can always be had, and have one name.
    narrower = _WIDEST_FIRST[known + 1 :] if known < len(_WIDEST_FIRST) else ("DEFAULT",)
    threads = sorted({1, 2, cores, *(count for _, count in taken)})
    ways = [
        Arithmetic(capability, count, _NARROWER[capability] if capability != native else {})
        for capability, count in product((native, *narrower), threads)
        if (capability, count) not in taken
    ]

    def apart(way: Arithmetic) -> int:
        return min(((way.capability != name) + (way.threads != count) for name, count in taken), default=0)

    return sorted(ways, key=apart)
