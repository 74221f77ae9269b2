"""Suites of the built-in names, from file to cells."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from qbench import registry
from qbench.errors import SuiteError
from qbench.suite.enumerate import enumerate_cells, filter_cells
from qbench.suite.load import list_suites, load_suite
from qbench.suite.schema import Suite

from .test_load import REAL

BUILTIN = {name: getattr(registry, name) for name in ("MODELS", "QUANTIZERS", "METHODS", "PROBES")}


@pytest.fixture(autouse=True)
def builtin_names(names: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for attribute, known in BUILTIN.items():
        monkeypatch.setattr(registry, attribute, known)


def test_from_file_to_cells(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load(REAL, "real.yaml")
    assert suite.matrix[0].models[1].path == tmp_path / "model"
    assert suite.matrix[0].models[1].text.folder == tmp_path / "text"
    cells = enumerate_cells(suite)
    controls = 2  # of methods that train, and of those of llama-1m alone: none of the other model's are left
    assert len(cells) == 2 * (1 + 2 * 3 * 5) + controls
    assert [cell.label() for cell in cells[:5]] == [
        "llama-1m/fp/s0",
        "llama-1m/fine_tune[steps=20]/s0",
        "llama-1m/fine_tune/s0",
        "llama-1m/absmax[per_channel]/4b/rtn/s0",
        "llama-1m/absmax[per_channel]/4b/gptq[act_order=false]/s0",
    ]
    assert {cell.label() for cell in cells if cell.skip} == {
        f"mine/{quantizer}/{bits}b/{method}/s0"
        for quantizer in ("absmax[per_channel]", "mse[g64]")
        for bits in (4, 3, 2)
        for method in ("ste_qat[steps=20]", "lsq")
    }
    assert len(filter_cells(cells, "model=llama-1m,method=gptq,quantizer=mse[g64]")) == 1 + 3
    assert [cell.label() for cell in filter_cells(cells, "model=llama-1m,method=lsq,bits=2,quantizer=mse")] == [
        "llama-1m/fp/s0",
        "llama-1m/fine_tune/s0",
        "llama-1m/mse[g64]/2b/lsq/s0",
    ]
    assert len(filter_cells(cells, "method=fine_tune")) == 1 + 2


def test_language_and_images_in_one_suite(load: Callable[..., Suite]) -> None:
    text = (
        "name: both\nmatrix:\n  models: [llama-1m, resnet8nobn-mnist]\n  quantizers: [mse]\n  bits: [2]\n"
        "  methods: [rtn, {name: rtn, bn: recalibrate}]\n"
    )
    found = {cell.label(): cell for cell in enumerate_cells(load(text, "both.yaml"))}
    assert found["llama-1m/fp/s0"].metrics == ("loss", "bits_per_byte", "next_sentence")
    assert found["resnet8nobn-mnist/fp/s0"].metrics == ("loss", "accuracy")
    skipped = found["resnet8nobn-mnist/mse[per_channel]/2b/rtn[bn=recalibrate]/s0"].skip
    assert skipped == "resnet8nobn-mnist has no batch norm: there is nothing to recalibrate"


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        (
            "act_order: false",
            "actorder: false",
            "real.yaml:10: `matrix.methods[1].actorder`: unknown option 'actorder' of gptq: did you mean 'act_order'? "
            "(allowed: act_order, block_size, bn, cd_sweeps, group_scales, inputs, percdamp, true_sequential)",
        ),
        (
            "{per_group: 64}",
            "{per_group: 0}",
            "real.yaml:8: `matrix.quantizers[1].granularity`: {'per_group': 0} is not a granularity "
            "(allowed: per_tensor, per_channel, {per_group: N} or "
            "{per_block: [R, C]} with N, R and C at least 1)",
        ),
        (
            "act_order: false",
            "act_order: group_awar",
            "real.yaml:10: `matrix.methods[1].act_order`: given 'group_awar': did you mean 'group_aware'? "
            "(allowed: false, group_aware, true)",
        ),
        ("steps: 20", "steps: no", "real.yaml:3: `presets.short.steps`: given false (allowed: 1 or more)"),
        ("path: model, ", "", "real.yaml:5: `matrix.models[1]`: give either path or repo"),
    ],
)
def test_wrong_options(refusal: Callable[..., str], line: str, instead: str, message: str) -> None:
    assert REAL.count(line) == 1
    assert refusal(REAL.replace(line, instead), "real.yaml") == message


def test_every_builtin_name_leads_to_a_class() -> None:
    for known in BUILTIN.values():
        for name in known.names():
            assert known.get(name).__name__ in vars(importlib.import_module(known.get(name).__module__))


@pytest.mark.parametrize("name", list_suites())
def test_every_shipped_suite_is_right(name: str) -> None:
    suite = load_suite(name)
    cells = enumerate_cells(suite)
    assert suite.about, "say in one line what the suite is about"
    assert any(not cell.skip for cell in cells)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("ppl", "'ppl' is not measured (allowed: loss/blocks128, perplexity/blocks128)"),
        ("perplexity/gptq2048", "'perplexity/gptq2048' is not measured: did you mean 'perplexity/blocks128'?"),
        ("perplexity/blocks128", ""),
    ],
)
def test_a_published_number_is_of_a_metric_that_records_will_have(
    load: Callable[..., Suite], metric: str, said: str
) -> None:
    text = "name: s\nmatrix: {models: [llama-1m], quantizers: [mse], bits: [4], methods: [rtn]}\nmetrics: [loss]\n"
    suite = load(f"{text}xref: [{{model: llama-1m, metric: {metric}, value: 24, source: a table}}]\n")
    if not said:
        enumerate_cells(suite)
        return
    with pytest.raises(SuiteError) as caught:
        enumerate_cells(suite)
    assert said in str(caught.value)
