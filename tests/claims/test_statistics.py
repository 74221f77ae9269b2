"""The intervals: against closed forms, and what they may not claim."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.claims.statistics import Pair, paired_interval, recovery
from qbench.errors import StoreError
from qbench.store.record import Record

MakeRecord = Callable[..., Record]


def pairs_of(make_record: MakeRecord, excess: list[list[float]], tokens: list[int] | None = None) -> list[Pair]:
    """Return pairs whose excess loss is given, one row a seed and one column a document."""
    sizes = tokens or [100] * len(excess[0])
    return [
        (
            make_record(f"m/mse/2b/rtn/s{seed}", row, tokens=sizes),
            make_record(f"m/fp/s{seed}", tokens=sizes),
        )
        for seed, row in enumerate(excess)
    ]


def test_one_seed_has_the_closed_form_of_a_mean_of_clusters(make_record: MakeRecord) -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, 50)
    excess = paired_interval(pairs_of(make_record, [list(values)]))
    assert excess.mean == pytest.approx(values.mean())
    # 2000 resamples know a standard deviation to 1/sqrt(4000) = 1.6 %.
    assert excess.se == pytest.approx(values.std() / math.sqrt(50), rel=0.06)
    assert excess.document_se == excess.se
    assert excess.low == pytest.approx(excess.mean - 1.96 * excess.se, abs=0.15 * excess.se)
    assert excess.high == pytest.approx(excess.mean + 1.96 * excess.se, abs=0.15 * excess.se)
    assert excess.covers == "documents"


def test_documents_of_unequal_size_have_the_linearised_error_of_a_ratio(make_record: MakeRecord) -> None:
    generator = np.random.default_rng(2)
    tokens = generator.integers(50, 500, 200)
    values = generator.normal(0.5, 0.2, 200)
    excess = paired_interval(pairs_of(make_record, [list(values)], list(map(int, tokens))))
    mean = (values * tokens).sum() / tokens.sum()
    assert excess.mean == pytest.approx(mean)
    # Cochran, Sampling Techniques, eq. 2.46: the variance of a ratio of sums.
    se = math.sqrt(((tokens * (values - mean)) ** 2).sum()) / tokens.sum()
    assert excess.se == pytest.approx(se, rel=0.08)


def test_seeds_and_documents_add_their_variances(make_record: MakeRecord) -> None:
    generator = np.random.default_rng(3)
    of_seed, of_document = generator.normal(0.5, 0.1, (4, 1)), generator.normal(0, 0.3, (1, 40))
    excess = paired_interval(pairs_of(make_record, (of_seed + of_document).tolist()))
    documents = of_document.var() / 40
    assert excess.document_se == pytest.approx(math.sqrt(documents), rel=0.06)
    assert excess.se == pytest.approx(math.sqrt(documents + of_seed.var() / 4), rel=0.06)
    assert excess.covers == "documents and seeds"


def test_the_same_documents_are_drawn_in_all_seeds(make_record: MakeRecord) -> None:
    # Were they drawn apart, three seeds would shrink the error of documents by sqrt(3).
    values = list(np.random.default_rng(4).normal(0.5, 0.2, 50))
    one, three = (paired_interval(pairs_of(make_record, [values] * seeds)) for seeds in (1, 3))
    assert three.se == pytest.approx(one.se)


def test_the_interval_holds_the_truth_as_often_as_it_says(make_record: MakeRecord) -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        excess = paired_interval(pairs_of(make_record, [list(generator.normal(0.5, 0.2, 40))]))
        assert excess.low is not None
        assert excess.high is not None
        hits += excess.low <= 0.5 <= excess.high
    assert 0.88 <= hits / 200 <= 0.99


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.lists(st.lists(st.floats(-2, 6), min_size=n, max_size=n), min_size=1, max_size=4)
    ),
    st.integers(0, 2**32),
)
def test_the_interval_contains_the_mean(make_record: MakeRecord, excess: list[list[float]], seed: int) -> None:
    tokens = list(map(int, np.random.default_rng(seed).integers(50, 500, len(excess[0]))))
    found = paired_interval(pairs_of(make_record, excess, tokens))
    assert found.low is not None
    assert found.high is not None
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    assert found.mean == pytest.approx(sum(found.per_seed) / len(found.per_seed))


def test_full_precision_has_no_excess_over_itself(make_record: MakeRecord) -> None:
    full = [make_record(f"m/fp/s{seed}", 0.1 * seed) for seed in range(3)]
    excess = paired_interval([(record, record) for record in full])
    assert (excess.mean, excess.low, excess.high, excess.se) == (0, 0, 0, 0)


def test_tables_are_reproducible(make_record: MakeRecord) -> None:
    pairs = pairs_of(make_record, [[0.1, 0.4, 0.3, 0.9], [0.2, 0.3, 0.3, 0.7]])
    assert paired_interval(pairs) == paired_interval(pairs)


def test_nothing_is_claimed_without_two_documents(make_record: MakeRecord) -> None:
    for sizes in ([100], []):
        quantized, full = (
            make_record(label, documents=[], metrics={"loss/a": loss})
            if not sizes
            else make_record(label, loss, tokens=sizes)
            for label, loss in (("m/mse/2b/rtn/s0", 0.5), ("m/fp/s0", 0.0))
        )
        excess = paired_interval([(quantized, full)])
        assert excess.mean == pytest.approx(0.5)
        assert (excess.low, excess.high, excess.se, excess.covers) == (None, None, None, "nothing")


def test_an_infinite_loss_has_no_interval(make_record: MakeRecord) -> None:
    excess = paired_interval(pairs_of(make_record, [[0.1, math.inf, 0.2]]))
    assert excess.mean == math.inf
    assert excess.low is None


def test_what_cannot_be_paired_is_refused(make_record: MakeRecord) -> None:
    full = make_record("m/fp/s0")
    with pytest.raises(StoreError, match=r"m/mse/2b/rtn/s0 has other documents than its full-precision cell"):
        paired_interval([(make_record("m/mse/2b/rtn/s0", tokens=[100, 300, 200, 401]), full)])
    with pytest.raises(StoreError, match="measured no loss, its full-precision cell loss/blocks128"):
        paired_interval([(make_record("m/mse/2b/rtn/s0", metrics={}), full)])
    others = [(make_record(f"m/{axes}", tokens=[7, 8])) for axes in ("mse/2b/rtn/s1", "fp/s1")]
    with pytest.raises(StoreError, match="m/fp/s1 has other documents than the other seeds"):
        paired_interval([(make_record("m/mse/2b/rtn/s0"), full), (others[0], others[1])])
    with pytest.raises(ValueError, match="no pair"):
        paired_interval([])


def test_recovery_is_the_share_of_the_loss_won_back(make_record: MakeRecord) -> None:
    generator = np.random.default_rng(6)
    lost = generator.normal(0.9, 0.1, (3, 30))
    rounded = pairs_of(make_record, lost.tolist())
    quarter = recovery(pairs_of(make_record, (lost / 4).tolist()), rounded)
    # A fixed share of every document's loss: the pairing leaves no uncertainty.
    assert (quarter.mean, quarter.low, quarter.high) == (pytest.approx(0.75),) * 3
    noisy = recovery(pairs_of(make_record, (lost / 4 + generator.normal(0, 0.1, (3, 30))).tolist()), rounded)
    assert noisy.low is not None
    assert noisy.high is not None
    assert 0.6 < noisy.low < noisy.mean < noisy.high < 0.9
    assert recovery(rounded, rounded).mean == 0
    full = [(pair[1], pair[1]) for pair in rounded]
    assert recovery(full, rounded).mean == 1
