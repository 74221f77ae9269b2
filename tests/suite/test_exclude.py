"""Exclusions mean what they name, however many cells there are, and the first that means a cell tells why."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from qbench.suite.enumerate import enumerate_cells
from qbench.suite.match import cell_names, matches
from qbench.suite.schema import Suite

VALUES: dict[str, list[str]] = {
    "models": ["zoo", "disk"],
    "quantizers": ["grid", "other"],
    "bits": ["2", "3", "4", "8"],
    "methods": ["near", "train", "'train[steps=7]'", "'train[steps=23]'"],
    "seeds": ["0", "1", "2"],
}
AXES = {"models": "model", "quantizers": "quantizer", "bits": "bits", "methods": "method", "seeds": "seed"}
SUITE = f"""\
name: s
matrix:
  models: [zoo, disk]
  quantizers: [grid, other]
  bits: [8, 4, 3, 2]
  methods: [near, {", ".join(f"{{name: train, steps: {steps}}}" for steps in range(1, 31))}]
  seeds: 3
"""


@pytest.mark.parametrize("seed", range(6))
def test_they_mean_what_matches_them(load: Callable[..., Suite], seed: int) -> None:
    chance = random.Random(seed)
    whens: list[dict[str, list[str]]] = []
    for _ in range(8):
        axes = chance.sample(list(VALUES), chance.randint(1, 4))
        whens.append({axis: chance.sample(VALUES[axis], chance.randint(1, 2)) for axis in axes})
    lines = [
        f"  - when: {{{', '.join(f'{axis}: [{chr(44).join(values)}]' for axis, values in when.items())}}}\n"
        f"    reason: r{number}\n"
        for number, when in enumerate(whens)
    ]
    suite = load(f"{SUITE}exclude:\n{''.join(lines)}")
    cells = enumerate_cells(suite)
    assert len(cells) == 2 * 3 * (1 + 2 * 4 * 31)
    asked = [{AXES[axis]: [one.strip("'") for one in values] for axis, values in when.items()} for when in whens]
    for cell in cells:
        hits = [number for number, wanted in enumerate(asked) if matches(cell_names(cell), wanted)]
        assert cell.skip == (f"r{hits[0]}" if hits else None), cell.label()
