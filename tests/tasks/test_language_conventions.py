"""The convention of GPTQ's evaluation, against a loop of one's own; and the loss of large vocabularies."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional

from qbench.errors import AssetError
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.suite.cell import Cell
from qbench.tasks import corpus
from qbench.tasks.causal_lm import CausalLM
from qbench.tasks.evaluation_fence import noted
from qbench.tasks.language import LanguageTask
from qbench.tasks.text import ThreeTexts

if TYPE_CHECKING:
    from qbench.tasks.causal_lm import ZooLM

WINDOW = 64


def rows_of(split: corpus.Split, count: int) -> list[str]:
    """Return rows as WikiText has them, of an embedded text."""
    rows = []
    for number, document in enumerate(corpus.load(split)[:count]):
        lines = [f" {line} \n" for line in document.text[:1200].split("\n") if line.strip()]
        rows += ["", f" = Article {number} = \n", "", *lines]
    return rows


@pytest.fixture(scope="module")
def wikitext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds WikiText-2 as it is distributed, but small."""
    place = tmp_path_factory.mktemp("wikitext2")
    for name, rows in (("train", rows_of("train", 60)), ("test", rows_of("evaluation", 6))):
        pq.write_table(pa.table({"text": rows}), place / f"{name}-00000-of-00001.parquet")
    return place


@pytest.fixture(scope="module")
def folder(small_task: LanguageTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded model with a tokenizer that begins what it encodes with a token of its own."""
    from tokenizers.processors import TemplateProcessing

    place = tmp_path_factory.mktemp("model")
    small_task.model.save_pretrained(place)
    tokenizer = copy.deepcopy(small_task.tokenizer)
    end = str(tokenizer.eos_token)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(place)
    return place


def spec_of(folder: Path, text: Any, **options: Any) -> CausalLM:
    return CausalLM.model_validate(
        {"name": "causal_lm", "title": "mine", "path": folder, "text": text, "window": WINDOW}
        | {"calibration_windows": 4, "convention": "gptq", **options}
    )


def loop(folder: Path, text: str, most: int) -> float:
    """Return the perplexity as the scripts of the papers measure it: block by block, each loss weighed alike."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, return_tensors="pt", verbose=False).input_ids
    assert ids[0, 0] == tokenizer.eos_token_id and ids[0, 1] != tokenizer.eos_token_id
    total, blocks = 0.0, min(most, ids.shape[1] // WINDOW)
    for index in range(blocks):
        block = ids[:, index * WINDOW : (index + 1) * WINDOW]
        with torch.no_grad():
            logits = model(block).logits
        total += float(functional.cross_entropy(logits[0, :-1], block[0, 1:])) * WINDOW
    return float(torch.tensor(total / (blocks * WINDOW)).exp())


@pytest.mark.parametrize("most", [10_000, 7])
def test_gptq_is_what_its_loop_measures(folder: Path, wikitext: Path, most: int, tmp_path: Path) -> None:
    spec = spec_of(folder, {"set": "wikitext2", "folder": wikitext}, evaluation_windows=most)
    record = execute(identify(Cell(spec, None, None, None, 0, ("loss",))), "test", Session("cpu"), tmp_path / "weights")
    assert record.clean, record.reason
    text = "\n\n".join(rows_of("evaluation", 6))
    assert set(record.metrics) == {f"loss/gptq{WINDOW}", f"perplexity/gptq{WINDOW}"}
    assert record.metrics[f"perplexity/gptq{WINDOW}"] == pytest.approx(loop(folder, text, most), rel=1e-5)
    # Each block is a row of the paired statistics.
    assert record.documents[0].document == "joined/block 0"
    assert all(row.tokens == WINDOW - 1 for row in record.documents)
    loss = sum(row.loss_sum for row in record.documents) / sum(row.tokens for row in record.documents)
    assert loss == pytest.approx(record.metrics[f"loss/gptq{WINDOW}"])
    assert record.facts["evaluation"] == (
        f"the first {len(record.documents)} blocks of {WINDOW} tokens, joined evaluation split"
    )


def test_calibration_is_of_the_official_train_split(folder: Path, wikitext: Path) -> None:
    task = spec_of(folder, {"set": "wikitext2", "folder": wikitext}).load(0, "cpu")
    train = "".join(rows_of("train", 60))
    for row in torch.cat(task.calibration):
        assert task.tokenizer.decode(row.tolist()).strip("\ufffd") in train


def test_the_two_conventions_differ_in_their_blocks_alone(folder: Path, wikitext: Path) -> None:
    text = {"set": "wikitext2", "folder": wikitext}
    joined, apart = (
        spec_of(folder, text, convention=one, evaluation_windows=9999).load(0, "cpu") for one in ("gptq", "documents")
    )
    assert len(joined.evaluation) > len(apart.evaluation)  # no tail of a document is dropped
    assert joined.evaluation.tokens[0, 0] == joined.tokenizer.eos_token_id
    assert torch.equal(torch.cat(joined.calibration), torch.cat(apart.calibration))


def test_reading_the_joined_text_is_announced_and_its_files_are_fenced(folder: Path, wikitext: Path) -> None:
    task = spec_of(folder, {"set": "wikitext2", "folder": wikitext}).load(0, "cpu")
    with noted() as read:
        task.evaluation_batches()
    assert "the evaluation split of text wikitext2" in read
    assert wikitext / "test-00000-of-00001.parquet" in task.evaluation_files


def test_a_text_shorter_than_a_block(folder: Path, wikitext: Path, tmp_path: Path) -> None:
    shutil.copy(next(wikitext.glob("train*")), tmp_path)
    pq.write_table(pa.table({"text": [" = One = \n", " A few words. \n"]}), tmp_path / "test.parquet")
    task = spec_of(folder, {"set": "wikitext2", "folder": tmp_path}, window=512).load(0, "cpu")
    with pytest.raises(AssetError, match=r"^mine: the joined evaluation text has less than 512 tokens$"):
        _ = task.evaluation


def test_c4_is_read_to_its_256th_block(small_task: LanguageTask, small_spec: ZooLM) -> None:
    class Capped(ThreeTexts):
        def most_blocks(self) -> int:
            return 3

    spec = small_spec.model_copy(update={"convention": "gptq", "evaluation_windows": 100})
    task = LanguageTask(small_task.model, small_task.tokenizer, Capped(), spec, 0, "cpu")
    assert len(task.evaluation) == 3


@pytest.fixture(scope="module")
def large() -> LanguageTask:
    """Return a task with more tokens than any embedded model has."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=5000,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    task: Any = LanguageTask(LlamaForCausalLM(config), None, ThreeTexts(), None, 0, "cpu")  # type: ignore[arg-type]
    return task


def test_large_vocabularies_have_the_same_loss_and_gradient(large: LanguageTask) -> None:
    batch = torch.randint(5000, (3, 20), generator=torch.Generator().manual_seed(1))
    weight = large.model.get_parameter("lm_head.weight")
    found = []
    for losses in (
        large._token_losses(large.model, batch),
        functional.cross_entropy(*large.predict(large.model, batch), reduction="none").view(3, 19),
    ):
        weight.grad = None
        losses.mean().backward()
        found.append((losses.detach(), weight.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
