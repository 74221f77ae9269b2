"""Paired statistics of a quantized row against the full-precision cells of the same model and seeds.

The interval is a percentile bootstrap over clusters (Efron & Tibshirani 1993, chapters 13 and 8): whole documents are
drawn with replacement, the same draw for all seeds and for every row of a report, so that what is compared is paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from qbench.errors import StoreError
from qbench.seeds import derive_seed
from qbench.store.record import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 2000
COVERAGE = 0.95

Pair = tuple[Record, Record]
"""A quantized record and the full-precision record of the same model and seed."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, with what resampling says of it.

    Attributes
    ----------
    mean : float
        The point estimate.
    low, high : float or None
        Ends of the 95 % interval; None when there is nothing to resample.
    covers : str
        What was drawn again: ``documents and seeds``, ``documents``, ``seeds`` or ``nothing``.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    covers: str = "nothing"


@dataclass(frozen=True)
class Excess(Interval):
    """Excess loss ``D = L - L_fp``, nats a token (or an image).

    Attributes
    ----------
    se : float or None
        Bootstrap standard deviation of the mean over what `covers` names.
    document_se : float or None
        The same over documents alone, the seeds as they are: what the evaluation set cannot resolve.
    per_seed : tuple of float
        D of each pair.
    """

    se: float | None = None
    document_se: float | None = None
    per_seed: tuple[float, ...] = ()


def paired_interval(pairs: Sequence[Pair]) -> Excess:
    """Return the excess loss over full precision, a mean over seeds, with its interval.

    With one seed the interval covers documents only. With two or more it covers seeds too; with as few as three their
    part is rough, and on average too small by a factor ``sqrt((n - 1) / n)``.

    Parameters
    ----------
    pairs : sequence of (Record, Record)
        Quantized and full-precision record, one pair a seed.

    Raises
    ------
    StoreError
        The records cannot be paired: another loss, or other documents.
    ValueError
        There is no pair.
    """
    import numpy as np

    if not pairs:
        raise ValueError("no pair")
    per_seed = tuple(_excess(quantized, full) for quantized, full in pairs)
    mean = sum(per_seed) / len(per_seed)
    drawn = _resample(pairs)
    if drawn is None:
        return Excess(mean, per_seed=per_seed)
    documents, both = drawn
    low, high = _ends(both)
    covers = "documents and seeds" if len(pairs) > 1 else "documents"
    se, document_se = float(np.std(both, ddof=1)), float(np.std(documents, ddof=1))
    return Excess(mean, low, high, covers, se, document_se, per_seed)


def recovery(trained: Sequence[Pair], rounded: Sequence[Pair]) -> Interval:
    """Return the share of a rounding's excess loss that another method does away with: ``G = 1 - D / D_rounded``.

    That is ``(L_rounded - L) / (L_rounded - L_fp)``: 1 at full-precision loss, 0 where nothing is gained, negative
    where the method is worse. It means nothing where `rounded` lost nothing.

    Parameters
    ----------
    trained, rounded : sequence of (Record, Record)
        As in `paired_interval`, the same seeds in the same order.

    Raises
    ------
    StoreError
        The records cannot be paired.
    """
    import numpy as np

    ours, theirs = paired_interval(trained), paired_interval(rounded)
    mean = 1 - ours.mean / theirs.mean if theirs.mean else math.nan
    draws, reference = _resample(trained), _resample(rounded)
    if draws is None or reference is None:
        return Interval(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _ends(1 - draws[1] / reference[1])
    return Interval(mean) if math.isnan(low) or math.isnan(high) else Interval(mean, low, high, ours.covers)


def accuracy_change(pairs: Sequence[Pair]) -> Interval | None:
    """Return how far accuracy is from full precision, a mean over seeds, as a share; None where it was not measured.

    Single images are not in a record: with two or more seeds the interval covers these, with one there is none.

    Parameters
    ----------
    pairs : sequence of (Record, Record)
        As in `paired_interval`.
    """
    changes = []
    for quantized, full in pairs:
        if quantized.accuracy is None or full.accuracy is None:
            return None
        changes.append(quantized.accuracy - full.accuracy)
    mean = sum(changes) / len(changes)
    if len(changes) < 2:
        return Interval(mean)
    import numpy as np

    return Interval(mean, *_ends(_draws("seeds", len(changes)) @ np.array(changes) / len(changes)), "seeds")


def _excess(quantized: Record, full: Record) -> float:
    if quantized.loss is None or full.loss is None or quantized.loss_key != full.loss_key:
        raise StoreError(
            f"{quantized.label} measured {quantized.loss_key or 'no loss'}, its full-precision cell "
            f"{full.loss_key or 'no loss'}: run both again"
        )
    ours, theirs = ([(row.document, row.tokens) for row in record.documents] for record in (quantized, full))
    if ours != theirs:
        raise StoreError(f"{quantized.label} has other documents than its full-precision cell: run both again")
    if not ours:
        return quantized.loss - full.loss
    difference = sum(a.loss_sum - b.loss_sum for a, b in zip(quantized.documents, full.documents, strict=True))
    return difference / sum(row.tokens for row in full.documents)


def _resample(pairs: Sequence[Pair]) -> tuple[Floats, Floats] | None:
    """Return the mean excess of each resample, shape (RESAMPLES,): documents drawn, then documents and seeds."""
    import numpy as np

    first = pairs[0][1].documents
    for _, full in pairs:
        if [(row.document, row.tokens) for row in full.documents] != [(row.document, row.tokens) for row in first]:
            raise StoreError(f"{full.label} has other documents than the other seeds: run it again")
    differences = np.array(  # (seeds, documents)
        [[a.loss_sum - b.loss_sum for a, b in zip(q.documents, f.documents, strict=True)] for q, f in pairs]
    )
    if len(first) < 2 or not np.isfinite(differences).all():
        return None
    tokens = np.array([float(row.tokens) for row in first])  # (documents,)
    counts = _draws("documents", len(first))  # (RESAMPLES, documents)
    means = (counts @ differences.T) / (counts @ tokens)[:, None]  # (RESAMPLES, seeds)
    shares = _draws("seeds", len(pairs)) / len(pairs)  # (RESAMPLES, seeds)
    return means.mean(axis=1), (means * shares).sum(axis=1)


@lru_cache(maxsize=32)
def _draws(stream: str, size: int) -> Floats:
    """Return how often each of `size` things was drawn in each resample, shape (RESAMPLES, size)."""
    import numpy as np

    generator = np.random.default_rng(derive_seed("report", "bootstrap", stream, size))
    counts = generator.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    return np.asarray(counts, dtype=np.float64)


def _ends(values: Floats) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
