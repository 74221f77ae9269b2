"""A stream of randomness is its name, to the letter, for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.seeds import derive_seed

PARTS = st.lists(
    st.one_of(st.integers(-(10**20), 10**20), st.text(st.characters(exclude_characters="\x1f"))), max_size=4
)


@given(PARTS, PARTS)
def test_other_names_are_other_streams(one: list[str | int], other: list[str | int]) -> None:
    # Python calls 1 and True equal, which no name holds both of.
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)


@given(PARTS)
def test_a_seed_fits_every_generator(parts: list[str | int]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63


@pytest.mark.parametrize(
    ("one", "other"),
    [((0,), ("0",)), (("a", "bc"), ("ab", "c")), (("a", 1), (1, "a")), ((), ("",)), (("a",), ("a", ""))],
)
def test_what_is_written_alike_is_not_the_same(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> None:
    assert derive_seed(*one) != derive_seed(*other)


def test_streams_are_those_that_stored_records_were_made_with() -> None:
    assert derive_seed("calibration", "llama-1m", 0) == 7238573737273080589
    assert derive_seed("train-batches", "mlp-digits", 2) == 2101133307473381266
