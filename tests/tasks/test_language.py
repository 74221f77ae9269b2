"""A language model with its data: the loss, the windows, and what a table must say of them."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

import pytest
import torch

from qbench.errors import AssetError, CellError
from qbench.tasks import corpus
from qbench.tasks.causal_lm import ZooLM

if TYPE_CHECKING:
    from qbench.tasks.language import LanguageTask


def token_losses(model: torch.nn.Module, row: torch.Tensor) -> list[float]:
    """Return ``-log p(token | those before it)`` of every token but the first, one prefix at a time."""
    losses = []
    with torch.no_grad():
        for place in range(1, len(row)):
            last = model(input_ids=row[None, :place]).logits[0, -1].double()
            losses.append(float(last.logsumexp(0) - last[row[place]]))
    return losses


def test_the_loss_is_that_of_each_token_given_those_before_it(small_task: LanguageTask) -> None:
    batch = small_task.evaluation.tokens[:2, :24]
    expected = [loss for row in batch for loss in token_losses(small_task.model, row)]
    with torch.no_grad():
        assert float(small_task.loss(small_task.model, batch)) == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_the_loss_is_that_of_transformers(small_task: LanguageTask) -> None:
    batch = small_task.evaluation.tokens[:4]
    with torch.no_grad():
        theirs = small_task.model(input_ids=batch, labels=batch).loss
        assert float(small_task.loss(small_task.model, batch)) == pytest.approx(float(theirs), abs=1e-6)


def test_an_evaluation_is_the_mean_over_all_windows_and_its_documents_add_up(small_task: LanguageTask) -> None:
    found = small_task.evaluate(small_task.model, ("loss",))
    assert set(found.metrics) == {"loss/blocks128", "perplexity/blocks128"}
    loss = found.metrics["loss/blocks128"]
    with torch.no_grad():
        rows = [float(small_task.loss(small_task.model, row[None])) for row in small_task.evaluation.tokens]
    assert loss == pytest.approx(sum(rows) / len(rows), abs=1e-5)
    assert found.metrics["perplexity/blocks128"] == pytest.approx(math.exp(loss))
    assert sum(tokens for _, tokens, _ in found.documents) == 8 * 127
    assert sum(total for _, _, total in found.documents) / (8 * 127) == pytest.approx(loss, abs=1e-12)
    names = {f"{document.domain}/{document.name}" for document in corpus.load("evaluation")}
    assert {name for name, _, _ in found.documents} <= names
    assert 2.5 < loss < 4  # far below chance, log 1024 = 6.93


def test_evaluating_twice_gives_the_same_floats(small_task: LanguageTask) -> None:
    assert small_task.evaluate(small_task.model, ("loss",)) == small_task.evaluate(small_task.model, ("loss",))


def test_an_evaluation_sees_the_weights_it_is_given(small_task: LanguageTask) -> None:
    import copy

    other = copy.deepcopy(small_task.model)
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.zero_()
    before = small_task.evaluate(small_task.model, ("loss",)).metrics
    assert small_task.evaluate(other, ("loss",)).metrics["loss/blocks128"] > before["loss/blocks128"] + 0.1
    assert small_task.evaluate(small_task.model, ("loss",)).metrics == before


def test_a_model_that_gives_nan_has_a_nan_loss(small_task: LanguageTask) -> None:
    import copy

    other = copy.deepcopy(small_task.model)
    with torch.no_grad():
        other.model.norm.weight.fill_(math.nan)
    assert math.isnan(small_task.evaluate(other, ("loss",)).metrics["loss/blocks128"])


def test_calibration_and_evaluation_share_no_text(small_task: LanguageTask) -> None:
    texts = {split: [document.text for document in corpus.load(split)] for split in ("calibration", "evaluation")}
    windows = {"calibration": torch.cat(small_task.calibration), "evaluation": small_task.evaluation.tokens}
    for split, rows in windows.items():
        other = "evaluation" if split == "calibration" else "calibration"
        for row in rows:
            # A window may begin or end inside a character of several bytes.
            text = small_task.tokenizer.decode(row.tolist()).strip("\ufffd")
            assert any(text in document for document in texts[split])
            assert not any(text in document for document in texts[other])


def test_the_seed_chooses_the_calibration_data_and_not_the_evaluation_data(
    small_task: LanguageTask, small_spec: ZooLM
) -> None:
    again, other = small_spec.load(0, "cpu"), small_spec.load(1, "cpu")
    assert torch.equal(torch.cat(again.calibration), torch.cat(small_task.calibration))
    assert not torch.equal(torch.cat(other.calibration), torch.cat(small_task.calibration))
    assert torch.equal(other.evaluation.tokens, small_task.evaluation.tokens)
    assert sum(len(batch) for batch in other.calibration) == 8


def test_each_seed_has_its_own_model(small_task: LanguageTask, small_spec: ZooLM) -> None:
    first = small_task.model.state_dict()["model.layers.0.mlp.up_proj.weight"]
    second = small_spec.load(1, "cpu").model.state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(first, second)


def test_training_batches_are_of_the_train_split_and_repeatable(small_task: LanguageTask) -> None:
    batches = list(islice(small_task.train_batches(3, 7), 3))
    assert [tuple(batch.shape) for batch in batches] == [(3, 128)] * 3
    again, other = list(islice(small_task.train_batches(3, 7), 3)), list(islice(small_task.train_batches(3, 8), 3))
    assert all(torch.equal(one, two) for one, two in zip(batches, again, strict=True))
    assert not torch.equal(batches[0], other[0])
    train = "\x00".join(document.text for document in corpus.load("train"))
    for row in torch.cat(batches):
        # The end-of-text token stands between documents, and is no text.
        text = small_task.tokenizer.decode(row.tolist(), skip_special_tokens=False)
        for part in text.split(small_task.tokenizer.eos_token):
            assert part.strip("\ufffd") in train


def test_the_blocks_are_the_decoder_layers(small_task: LanguageTask) -> None:
    assert [name for name, _ in small_task.blocks()] == [f"model.layers.{index}" for index in range(4)]
    assert [block for _, block in small_task.blocks()] == list(small_task.model.model.layers)


def test_a_model_without_blocks(small_task: LanguageTask, small_spec: ZooLM) -> None:
    from qbench.tasks.language import LanguageTask as Task

    class Flat(torch.nn.Linear):
        config = small_task.model.config

    task = Task(Flat(2, 2), small_task.tokenizer, small_task.text, small_spec, 0, "cpu")
    with pytest.raises(CellError, match="no list of decoder blocks found in Flat"):
        task.blocks()


def test_what_a_table_must_say(small_task: LanguageTask) -> None:
    facts = small_task.facts()
    assert facts["chance_loss"] == pytest.approx(math.log(1024))
    assert facts["parameters"] == sum(parameter.numel() for parameter in small_task.model.parameters()) == 922_752
    assert facts["calibration"] == "8 windows of 128 tokens, calibration split"
    assert facts["evaluation"].startswith("8 windows of 128 tokens, ")
    assert facts["evaluation"].endswith(" documents, evaluation split")


def test_the_evaluation_reaches_every_domain() -> None:
    task = ZooLM(name="llama-1m", evaluation_windows=24).load(0, "cpu")
    names = [f"{document.domain}/{document.name}" for document in corpus.load("evaluation")]
    reached = {names[index].partition("/")[0] for index in task.evaluation.document.tolist()}
    assert reached == set(corpus.SOURCES)


def test_windows_longer_than_every_document() -> None:
    task = ZooLM(name="llama-1m", window=10_000_000).load(0, "cpu")
    with pytest.raises(AssetError, match="no document of the calibration split has 10000000 tokens"):
        _ = task.calibration


def test_a_checkpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(AssetError, match="no decayed checkpoint of llama-1m, seed 77"):
        ZooLM(name="llama-1m").load(77, "cpu")


def test_the_two_phases_are_two_models() -> None:
    stable = ZooLM(name="llama-1m", phase="stable", evaluation_windows=8)
    decayed = ZooLM(name="llama-1m", evaluation_windows=8)
    assert stable.fingerprint(0)["weights"] != decayed.fingerprint(0)["weights"]
    assert stable.label() != decayed.label()


def test_evaluation_batches_are_the_evaluation_and_fewer_are_spread_over_it(small_task: LanguageTask) -> None:
    windows = small_task.evaluation.tokens
    assert torch.equal(torch.cat(small_task.evaluation_batches()), windows)
    assert torch.equal(torch.cat(small_task.evaluation_batches(4)), windows[::2])
    assert torch.equal(torch.cat(small_task.evaluation_batches(100)), windows)
    with torch.no_grad():
        losses = [float(small_task.loss(small_task.model, batch)) for batch in small_task.evaluation_batches()]
    found = small_task.evaluate(small_task.model, ("loss",)).metrics["loss/blocks128"]
    assert sum(losses) / len(losses) == pytest.approx(found, rel=1e-6)
