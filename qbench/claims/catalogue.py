"""All claims, in their order, and what records say of them.

A distribution adds claims by the entry-point group ``qbench.claims``: its points lead to instances of `Claim`.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable
from importlib.metadata import entry_points

from qbench.claims.base import Claim, Judgement
from qbench.claims.subject import Axes, subjects
from qbench.errors import QBenchError, UnknownNameError
from qbench.store.record import Record

BUILT_IN = {
    "C1": "qbench.claims.c01_sharp_failure",
    "C2": "qbench.claims.c02_noise_width",
    "C3": "qbench.claims.c03_quadratic_underestimates",
    "C4": "qbench.claims.c04_second_order_fails_too",
    "C5": "qbench.claims.c05_near_witness",
    "C6": "qbench.claims.c06_wall_on_the_way",
    "C7": "qbench.claims.c07_inward_gradient",
    "C8": "qbench.claims.c08_deployed_first",
    "C9": "qbench.claims.c09_gradient_locus",
    "C9b": "qbench.claims.c09b_displacement",
    "C10": "qbench.claims.c10_finite_entry",
    "C11": "qbench.claims.c11_compatibility",
    "C12": "qbench.claims.c12_gap_vanishes",
    "C13": "qbench.claims.c13_price_of_second_order",
    "C14": "qbench.claims.c14_wider_later",
    "T1": "qbench.claims.t1_entry_bound",
    "T2": "qbench.claims.t2_inverse_law",
    "T3": "qbench.claims.t3_predicted_exit",
    "T4": "qbench.claims.t4_latent_stays",
}
"""The modules of the built-in claims by id; each has its claim under ``CLAIM``."""

GROUP = "qbench.claims"


def all_claims() -> dict[str, Claim]:
    """Return all claims by id: the built-in ones in their order, then those of plugins, sorted.

    Raises
    ------
    QBenchError
        A plugin's claim cannot be loaded, or has an id that is taken.
    """
    found: dict[str, Claim] = {name: importlib.import_module(module).CLAIM for name, module in BUILT_IN.items()}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            claim = point.load()
        except Exception as error:  # a plugin's module can fail in any way
            raise QBenchError(f"claim {point.name!r} cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(claim, Claim) or claim.id != point.name:
            raise QBenchError(f"claim {point.name!r}: {point.value} is no Claim of that id")
        if claim.id in found:
            raise QBenchError(f"claim {point.name!r} is there twice: {point.value} and another")
        found[claim.id] = claim
    return found


def judge(
    records: Iterable[Record], expected: Iterable[Axes] = (), only: Collection[str] | None = None
) -> list[Judgement]:
    """Return what records say of every claim, claim by claim, then by model and quantizer.

    Parameters
    ----------
    records : iterable of Record
        In any order; of several of one label the newest counts.
    expected : iterable of mapping, optional
        `Cell.axes` of the cells there should be.
    only : collection of str, optional
        Ids of the claims that are asked for.

    Raises
    ------
    UnknownNameError
        There is no claim of an id in `only`.
    """
    claims = all_claims()
    for name in only or ():
        if name not in claims:
            raise UnknownNameError("claim", name, claims)
    about = subjects(records, expected)
    return [
        judgement
        for name, claim in claims.items()
        if only is None or name in only
        for judgement in claim.judge(claim, about)
    ]
