from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbench.errors import QBenchError
from qbench.suite.enumerate import enumerate_cells, filter_cells
from qbench.suite.schema import Block, Suite

from .conftest import SUITE, Disk, Grid, Near, Seer, Train, Zoo


def labels(suite: Suite, seeds: int | None = None) -> list[str]:
    return [cell.label() for cell in enumerate_cells(suite, seeds)]


def excluding(when: str, reason: str = "slow") -> str:
    return f"{SUITE}exclude:\n  - when: {when}\n    reason: {reason}\n"


def test_order(load: Callable[..., Suite]) -> None:
    text = SUITE.replace("[zoo]", "[odd, disk]").replace("[4, 2]", "[2, 8]").replace("[grid]", "[other, grid]")
    expected = []
    for model, seed in product(("odd", "disk"), (1, 4)):
        expected.append(f"{model}/fp/s{seed}")
        for quantizer, bits, method in product(("other", "grid"), (8, 2), ("near", "train[steps=10]")):
            expected.append(f"{model}/{quantizer}/{bits}b/{method}/s{seed}")
    assert labels(load(text.replace("seeds: 2", "seeds: [4, 1]"))) == expected


def test_cells_carry_the_resolved_entries(load: Callable[..., Suite]) -> None:
    full, first, *_ = enumerate_cells(load(SUITE + "metrics: [loss]\n"))
    assert (full.model, full.quantizer, full.bits, full.method, full.seed) == (Zoo(name="zoo"), None, None, None, 0)
    assert (first.quantizer, first.bits, first.method) == (Grid(name="grid"), 4, Near(name="near"))
    assert full.metrics == first.metrics == ("loss",)


def test_blocks_share_the_full_precision_cell_and_one_order(load: Callable[..., Suite]) -> None:
    text = (
        "name: s\nmatrix:\n"
        "  - {models: [zoo, disk], quantizers: [grid], bits: [2], methods: [near], seeds: 1}\n"
        "  - {models: [disk], quantizers: [grid, other], bits: [3], methods: [train, near], seeds: 1}\n"
    )
    assert labels(load(text)) == [
        "zoo/fp/s0",
        "zoo/grid/2b/near/s0",
        "disk/fp/s0",
        "disk/grid/3b/near/s0",
        "disk/grid/3b/train/s0",
        "disk/grid/2b/near/s0",
        "disk/other/3b/near/s0",
        "disk/other/3b/train/s0",
    ]


OVERLAP = (
    "name: s\nmatrix:\n"
    "  - {models: [zoo], quantizers: [grid], bits: [4, 2], methods: [near], seeds: %s}\n"
    "  - {models: [zoo], quantizers: [grid], bits: [2], methods: [train, near], seeds: %s}\n"
)


def test_a_cell_in_two_blocks_is_refused(load: Callable[..., Suite]) -> None:
    with pytest.raises(QBenchError) as caught:
        enumerate_cells(load(OVERLAP % ([0], [1, 0])))
    message = "s.yaml:4: `matrix[1]`: the cell zoo/grid/2b/near/s0 is in an earlier block too"
    assert str(caught.value).endswith(f"/{message}")


def test_replaced_seeds_may_join_blocks(load: Callable[..., Suite]) -> None:
    suite = load(OVERLAP % ([0], [1]))
    assert len(enumerate_cells(suite)) == 2 + 2 + 2
    assert labels(suite, seeds=1) == [
        "zoo/fp/s0",
        "zoo/grid/4b/near/s0",
        "zoo/grid/2b/near/s0",
        "zoo/grid/2b/train/s0",
    ]


def test_seeds_replace_those_of_the_file(load: Callable[..., Suite]) -> None:
    suite = load(SUITE.replace("seeds: 2", "seeds: [5, 9]"))
    assert {cell.seed for cell in enumerate_cells(suite)} == {5, 9}
    assert {cell.seed for cell in enumerate_cells(suite, seeds=3)} == {0, 1, 2}


def test_no_seeds_at_all(load: Callable[..., Suite]) -> None:
    with pytest.raises(QBenchError) as caught:
        enumerate_cells(load(), seeds=0)
    assert str(caught.value) == "seeds: given 0 (allowed: a number of seeds from 1 to 1000, or a list of seeds)"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("zoo", "zoo was trained with seeds 0 to 2 only"),
        ("single", "single was trained with seed 0 only"),
        ("odd", "odd was trained with seeds 1, 4 only"),
    ],
)
def test_training_seeds_that_there_are_not(load: Callable[..., Suite], model: str, reason: str) -> None:
    cells = enumerate_cells(load(SUITE.replace("[zoo]", f"[{model}]")), seeds=6)
    there = set(Zoo(name=model).available_seeds())
    assert {cell.seed: cell.skip for cell in cells} == {seed: None if seed in there else reason for seed in range(6)}
    assert len(cells) == 6 * 5


def test_a_model_without_training_seeds_has_all(load: Callable[..., Suite]) -> None:
    assert not any(cell.skip for cell in enumerate_cells(load(SUITE.replace("[zoo]", "[disk]")), seeds=9))


def test_a_cell_measures_what_its_model_can(load: Callable[..., Suite]) -> None:
    suite = load(SUITE.replace("[zoo]", "[speaker, seer, disk]") + "metrics: [accuracy, bits_per_byte, loss]\n")
    assert {cell.model.name: cell.metrics for cell in enumerate_cells(suite)} == {
        "speaker": ("bits_per_byte", "loss"),
        "seer": ("accuracy", "loss"),
        "disk": ("accuracy", "bits_per_byte", "loss"),
    }


def test_a_method_that_a_model_refuses_is_skipped_with_its_control(
    load: Callable[..., Suite], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Train, "control", lambda self: Near(name="warm"))
    cells = enumerate_cells(load(SUITE.replace("[zoo]", "[seer, disk]").replace("seeds: 2", "seeds: 1")))
    assert {cell.label(): cell.skip for cell in cells if cell.skip} == {
        label: "a seer is not trained"
        for label in ("seer/warm/s0", "seer/grid/4b/train[steps=10]/s0", "seer/grid/2b/train[steps=10]/s0")
    }
    assert "disk/warm/s0" in [cell.label() for cell in cells]


@pytest.mark.parametrize("fault", ["model", "quantizer"])
def test_an_answer_that_fails_costs_its_own_cells(
    load: Callable[..., Suite], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def broken(self: object, asked: object) -> None:
        raise KeyError("no\nanswer")

    if fault == "model":
        monkeypatch.setattr(Seer, "refuses_method", broken)
    else:
        monkeypatch.setattr(Grid, "refuses", broken)
    cells = enumerate_cells(load(SUITE.replace("[zoo]", "[seer]").replace(", {name: train, steps: 10}", "")))
    name = "seer" if fault == "model" else "grid"
    assert {cell.is_fp: cell.skip for cell in cells} == {
        True: None,
        False: f"{name} or near cannot say whether it fits: KeyError: 'no\\nanswer'",
    }


@pytest.mark.parametrize(
    ("when", "skipped"),
    [
        ("{methods: train, bits: 2}", {"zoo/grid/2b/train[steps=10]/s0", "zoo/grid/2b/train[steps=10]/s1"}),
        ("{methods: 'train[steps=10]', bits: [2], seeds: 1}", {"zoo/grid/2b/train[steps=10]/s1"}),
        ("{models: [zoo], quantizers: grid, bits: 4, methods: [near], seeds: [0]}", {"zoo/grid/4b/near/s0"}),
        (
            "{seeds: 1}",
            {
                "zoo/fp/s1",
                "zoo/grid/4b/near/s1",
                "zoo/grid/4b/train[steps=10]/s1",
                "zoo/grid/2b/near/s1",
                "zoo/grid/2b/train[steps=10]/s1",
            },
        ),
    ],
)
def test_exclusions(load: Callable[..., Suite], when: str, skipped: set[str]) -> None:
    cells = enumerate_cells(load(excluding(when)))
    assert {cell.label() for cell in cells if cell.skip} == skipped
    assert {cell.skip for cell in cells} == {None, "slow"}
    assert labels(load(excluding(when))) == labels(load())


def test_the_first_reason_is_given_and_before_missing_seeds(load: Callable[..., Suite]) -> None:
    text = excluding("{seeds: 4}", "first") + "  - when: {bits: 2}\n    reason: second\n"
    cells = enumerate_cells(load(text.replace("seeds: 2", "seeds: [4, 5]")))
    reasons = {(cell.seed, cell.bits): cell.skip for cell in cells}
    missing = "zoo was trained with seeds 0 to 2 only"
    assert reasons == {
        (4, None): "first",
        (4, 4): "first",
        (4, 2): "first",
        (5, None): missing,
        (5, 4): missing,
        (5, 2): "second",
    }


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (
            "{methods: [near, trian]}",
            "`exclude[0].when.methods[1]`: 'trian' excludes nothing: did you mean 'train'? "
            "(allowed: near, train, train[steps=10])",
        ),
        (
            "{methods: 'train[steps=20]'}",
            "`exclude[0].when.methods`: 'train[steps=20]' excludes nothing: did you mean 'train[steps=10]'? "
            "(allowed: near, train, train[steps=10])",
        ),
        ("{methods: fp}", "`exclude[0].when.methods`: 'fp' excludes nothing (allowed: near, train, train[steps=10])"),
        ("{bits: 3}", "`exclude[0].when.bits`: '3' excludes nothing (allowed: 2, 4)"),
        ("{seeds: 2}", "`exclude[0].when.seeds`: '2' excludes nothing (allowed: 0, 1)"),
        ("{models: zo}", "`exclude[0].when.models`: 'zo' excludes nothing: did you mean 'zoo'? (allowed: zoo)"),
        (
            "{quantizers: grids}",
            "`exclude[0].when.quantizers`: 'grids' excludes nothing: did you mean 'grid'? (allowed: grid)",
        ),
    ],
)
def test_an_exclusion_of_nothing_is_refused(load: Callable[..., Suite], when: str, message: str) -> None:
    with pytest.raises(QBenchError) as caught:
        enumerate_cells(load(excluding(when)))
    assert str(caught.value).endswith(f"/s.yaml:9: {message}")


def test_an_exclusion_of_no_combination_is_refused(load: Callable[..., Suite]) -> None:
    text = (
        "name: s\nmatrix:\n"
        "  - {models: [zoo], quantizers: [grid], bits: [2], methods: [near], seeds: 1}\n"
        "  - {models: [disk], quantizers: [grid], bits: [3], methods: [near], seeds: 1}\n"
        "exclude:\n  - {when: {models: zoo, bits: [3]}, reason: slow}\n"
    )
    with pytest.raises(QBenchError) as caught:
        enumerate_cells(load(text))
    message = "s.yaml:6: `exclude[0].when`: excludes nothing: no cell has all of models=zoo, bits=3"
    assert str(caught.value).endswith(f"/{message}")


def test_an_exclusion_of_seeds_may_mean_nothing_once_they_are_replaced(load: Callable[..., Suite]) -> None:
    suite = load(excluding("{seeds: 1}"))
    assert [cell.skip for cell in enumerate_cells(suite, seeds=1)] == [None] * 5
    with pytest.raises(QBenchError, match="'8' excludes nothing"):
        enumerate_cells(load(excluding("{seeds: 1, bits: 8}")), seeds=1)


def distinct(items: list[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.sampled_from(items), min_size=1, unique_by=repr).map(tuple)


blocks = st.builds(
    Block,
    models=distinct([Zoo(name="zoo"), Zoo(name="odd"), Disk(name="disk")]),
    quantizers=distinct([Grid(name="grid"), Grid(name="grid", clip=2), Grid(name="other")]),
    bits=distinct([2, 3, 4, 8]),
    methods=distinct([Near(name="near"), Train(name="train"), Train(name="train", steps=3)]),
    seeds=distinct([0, 1, 2, 7]),
)


@given(block=blocks)
def test_every_combination_once_and_a_full_precision_cell_a_row(block: Block) -> None:
    places = [tuple(cell.axes().values()) for cell in enumerate_cells(Suite(name="s", matrix=(block,)))]
    combinations = product(block.models, block.quantizers, block.bits, block.methods, block.seeds)
    expected = {(m.label(), q.label(), bits, p.label(), seed) for m, q, bits, p, seed in combinations}
    expected |= {(model.label(), None, None, "fp", seed) for model in block.models for seed in block.seeds}
    assert len(places) == len(set(places))
    assert set(places) == expected


@given(block=blocks, data=st.data())
def test_order_is_the_files_whatever_the_order_of_bits_and_seeds(block: Block, data: st.DataObject) -> None:
    shuffled = block.model_copy(
        update={
            "bits": tuple(data.draw(st.permutations(block.bits))),
            "seeds": tuple(data.draw(st.permutations(block.seeds))),
        }
    )
    assert enumerate_cells(Suite(name="s", matrix=(block,))) == enumerate_cells(Suite(name="s", matrix=(shuffled,)))


@given(block=blocks, data=st.data())
def test_full_precision_is_left_out_only_with_its_whole_row(block: Block, data: st.DataObject) -> None:
    axes = {
        "models": block.models,
        "quantizers": block.quantizers,
        "bits": block.bits,
        "methods": block.methods,
        "seeds": block.seeds,
    }
    chosen = data.draw(st.lists(st.sampled_from(sorted(axes)), min_size=1, unique=True))
    when = {axis: data.draw(st.sampled_from([getattr(one, "name", one) for one in axes[axis]])) for axis in chosen}
    suite = Suite.model_validate({"name": "s", "matrix": [block], "exclude": [{"when": when, "reason": "excluded"}]})
    cells = enumerate_cells(suite)
    left_out = [cell for cell in cells if cell.skip == "excluded"]
    assert left_out
    for full in (cell for cell in left_out if cell.is_fp):
        row = [cell for cell in cells if (cell.model, cell.seed) == (full.model, full.seed)]
        assert all(cell in left_out for cell in row)


@given(block=blocks, data=st.data())
def test_a_filter_keeps_what_matches_and_the_gates_of_its_rows(block: Block, data: st.DataObject) -> None:
    cells = enumerate_cells(Suite(name="s", matrix=(block,)))
    bits = data.draw(st.lists(st.sampled_from(block.bits), min_size=1, unique=True))
    method, seed = data.draw(st.sampled_from(block.methods)), data.draw(st.sampled_from(block.seeds))
    kept = filter_cells(cells, f"bits={'|'.join(map(str, bits))}, method={method.label()}, seed={seed}")
    assert [cell for cell in kept if not cell.is_fp] == [
        cell
        for cell in cells
        if cell.bits in bits
        and cell.method is not None
        and cell.seed == seed
        and method.label() in (cell.method.name, cell.method.label())
    ]
    assert [cell for cell in kept if cell.is_fp] == [cell for cell in cells if cell.is_fp and cell.seed == seed]
    assert [cell for cell in cells if cell in kept] == kept
