"""A folder made by `save_pretrained` is named in a suite, run, and found again by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qbench.store.folder import RunFolder
from qbench.tasks import tokenizer
from qbench.tasks.torchvision_ops import declare_missing_operators

SUITE = """\
name: mine
presets:
  small: {window: 32, evaluation_windows: 4, calibration_windows: 6, text: {folder: texts}}
matrix:
  models:
    - {name: "hf:models/tiny", preset: small}
    - {name: "hf:models/tiny", preset: small, dtype: bfloat16, title: tiny-half}
  quantizers: [{name: absmax, granularity: {per_group: 16}}]
  bits: [3]
  methods: [rtn, gptq]
metrics: [loss]
"""
RUN = ("run", "--suite", "mine.yaml", "--device", "cpu", "--jobs", "1")


@pytest.fixture
def written(own_folder: Path) -> Path:
    declare_missing_operators()
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=tokenizer.VOCAB_SIZE, max_position_embeddings=64, **sizes)
    LlamaForCausalLM(config).save_pretrained(own_folder / "models" / "tiny")
    end = tokenizer.END_OF_TEXT
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer.load_tokenizer(), bos_token=end, eos_token=end)
    fast.save_pretrained(own_folder / "models" / "tiny")
    (own_folder / "texts").mkdir()
    for index in range(40):
        (own_folder / "texts" / f"{index}.txt").write_text(f"The story of number {index} goes on and on. " * 20)
    (own_folder / "mine.yaml").write_text(SUITE)
    return own_folder


def test_from_a_saved_folder_to_a_leaderboard(written: Path, call: Any) -> None:
    said = call(*RUN)
    assert said.code == 0, said.err
    assert said.out.startswith("mine: 6 cells: 6 ok")
    assert "Loading" not in said.err  # a bar of a library
    records = {record.label: record for record in RunFolder(written / "results" / "runs" / "mine").read_all().values()}
    assert {label.partition("/")[0] for label in records} == {"tiny", "tiny-half"}
    for label, record in records.items():
        assert record.clean, (label, record.reason)
        assert record.facts.get("dtype") == ("bfloat16" if label.startswith("tiny-half") else None)
    # What lies there is part of a cell, and where it lies is not.
    (written / "models").rename(written / "elsewhere")
    (written / "mine.yaml").write_text(SUITE.replace("hf:models", "hf:elsewhere"))
    assert "mine: 0 cells to run, 6 from the records" in call(*RUN).err


def test_a_repository_without_its_commit_is_refused_before_anything_runs(written: Path, call: Any) -> None:
    file = written / "mine.yaml"
    file.write_text(SUITE.replace("hf:models/tiny", "hf:org/model", 1))
    said = call(*RUN)
    assert said.code == 2 and len(said.err.splitlines()) == 1
    assert (
        "'hf:org/model': there is no such folder in the suite's folder, and a repository needs its commit" in said.err
    )
    assert not (written / "results").exists()


def test_the_list_of_models_tells_the_short_form(call: Any) -> None:
    told = " ".join(call("list", "models").out.split())
    assert "hf:ORG/REPO@COMMIT" in told and "hf:FOLDER" in told
