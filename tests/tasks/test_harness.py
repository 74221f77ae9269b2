"""lm-eval in memory: the same numbers as ours, honest questions, and no trace of it afterwards."""

from __future__ import annotations

import logging
import math
import random
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from qbench.errors import CellError
from qbench.tasks import corpus
from qbench.tasks.causal_lm import ZooLM
from qbench.tasks.corpus import Document
from qbench.tasks.harness import Harness, passages, questions

if TYPE_CHECKING:
    from qbench.tasks.language import LanguageTask

ONE = ZooLM(name="llama-1m", passages=1, choices=4)


@pytest.fixture(scope="module")
def evaluation() -> list[Document]:
    return corpus.load("evaluation")


def test_bits_per_byte_is_our_loss_in_other_units(small_task: LanguageTask, evaluation: list[Document]) -> None:
    # One passage, with characters of several bytes, that fits the window with the end-of-text token before it.
    text = "Caf\u00e9s, na\u00efve \u2014 and more: " + evaluation[0].text[:120]
    tokenizer, model = small_task.tokenizer, small_task.model
    ids = [tokenizer.eos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
    assert len(ids) <= 128
    row = torch.tensor([ids])
    with torch.no_grad():
        logits = model(input_ids=row).logits[0, :-1].double()
    nats = float(functional.cross_entropy(logits, row[0, 1:], reduction="sum"))
    harness = Harness(tokenizer, [Document("d", "n", text)], ONE, 128)
    found = harness.measure(model, ("bits_per_byte",))
    assert found == {"bits_per_byte/rolling128": pytest.approx(nats / math.log(2) / len(text.encode()), abs=1e-4)}


def test_bits_per_byte_of_a_long_text_is_our_loss_over_windows_that_overlap_by_a_token(
    small_task: LanguageTask, evaluation: list[Document]
) -> None:
    # lm-eval predicts each token once: of L at a time, from the token before them on. So the windows are L + 1 long,
    # each begins with the last token of the one before, and the first with the end-of-text token.
    length, tokenizer = 32, small_task.tokenizer
    end = next(
        end
        for end in range(700, 0, -1)
        if len(tokenizer.encode(evaluation[0].text[:end], add_special_tokens=False)) == 6 * length
    )
    text = evaluation[0].text[:end]
    ids = torch.tensor([tokenizer.eos_token_id, *tokenizer.encode(text, add_special_tokens=False)])
    windows = torch.stack([ids[start : start + length + 1] for start in range(0, 6 * length, length)])
    with torch.no_grad():
        nats = float(small_task.loss(small_task.model, windows)) * 6 * length
    document = [Document("d", "n", text)]
    found = Harness(tokenizer, document, ONE, length).measure(
        small_task.model, ("bits_per_byte", "byte_perplexity", "word_perplexity")
    )
    bits = nats / math.log(2) / len(text.encode())
    assert found == {
        "bits_per_byte/rolling32": pytest.approx(bits, rel=1e-5),
        "byte_perplexity/rolling32": pytest.approx(2**bits, rel=1e-5),
        "word_perplexity/rolling32": pytest.approx(math.exp(nats / len(re.split(r"\s+", text))), rel=1e-5),
    }


def test_perplexities_are_of_whole_documents_spread_over_all(
    small_task: LanguageTask, evaluation: list[Document]
) -> None:
    short = [Document(document.domain, document.name, document.text[:300]) for document in evaluation]
    two = ZooLM(name="llama-1m", passages=2)
    found = Harness(small_task.tokenizer, short, two, 128).measure(small_task.model, ("byte_perplexity",))
    halves = [short[0], short[len(short) // 2]]
    assert found == Harness(small_task.tokenizer, halves, two, 128).measure(small_task.model, ("byte_perplexity",))


def test_the_metrics_that_are_asked_for(small_task: LanguageTask) -> None:
    found = small_task.evaluate(small_task.model, ("loss", "bits_per_byte", "next_sentence")).metrics
    assert set(found) == {
        "loss/blocks128",
        "perplexity/blocks128",
        "bits_per_byte/rolling128",
        "next_sentence/acc",
        "next_sentence/acc_norm",
        "next_sentence/acc_mutual_info",
    }
    assert 1 < found["bits_per_byte/rolling128"] < 3
    for score in ("acc", "acc_norm", "acc_mutual_info"):
        assert found[f"next_sentence/{score}"] in {0, 0.25, 0.5, 0.75, 1}


def test_asking_for_nothing_measures_nothing(small_task: LanguageTask, evaluation: list[Document]) -> None:
    assert Harness(small_task.tokenizer, evaluation, ONE, 128).measure(small_task.model, ("loss",)) == {}


def test_measuring_leaves_no_trace(
    small_task: LanguageTask, evaluation: list[Document], capsys: pytest.CaptureFixture[str]
) -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    level = logging.getLogger("lm_eval").level
    harness = Harness(small_task.tokenizer, evaluation, ONE, 128)
    first = harness.measure(small_task.model, ("bits_per_byte", "next_sentence"))
    assert random.getstate() == before[0]
    assert all(np.array_equal(now, then) for now, then in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])
    assert logging.getLogger("lm_eval").level == level
    assert not any(module.training for module in small_task.model.modules())
    random.seed(4)
    torch.manual_seed(4)
    assert harness.measure(small_task.model, ("bits_per_byte", "next_sentence")) == first
    assert capsys.readouterr() == ("", "")


def test_a_worse_model_is_measured_as_worse(small_task: LanguageTask, evaluation: list[Document]) -> None:
    import copy

    other = copy.deepcopy(small_task.model)
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.zero_()
    harness = Harness(small_task.tokenizer, evaluation, ONE, 128)
    good, bad = (harness.measure(model, ("bits_per_byte",)) for model in (small_task.model, other))
    assert bad["bits_per_byte/rolling128"] > good["bits_per_byte/rolling128"]


def test_passages_are_cut_from_all_over_the_text_and_do_not_overlap(evaluation: list[Document]) -> None:
    found = passages(evaluation, 24)
    assert len(found) == len(set(found)) == 24
    assert all(0 < len(passage) <= 800 for passage in found)
    assert found == passages(evaluation, 24)
    sources = {document.domain for passage in found for document in evaluation if passage in document.text}
    assert sources == set(corpus.SOURCES)


def test_a_short_text_gives_fewer_passages() -> None:
    documents = [Document("d", "a", "x" * 1700), Document("d", "b", "y" * 10)]
    assert passages(documents, 24) == ["x" * 800, "x" * 800, "y" * 10]
    assert passages([], 24) == []


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_right_answer_follows_and_the_wrong_ones_come_from_other_documents(evaluation: list[Document]) -> None:
    texts = [flat(document.text) for document in evaluation]
    found = questions(evaluation, 60)
    assert len(found) == 60
    for question in found:
        assert len(question["options"]) == 4
        right, last = question["options"][question["label"]], question["context"][-30:]
        homes = [text for text in texts if text.rfind(right) > text.find(last) >= 0]
        assert homes, question
        for place, option in enumerate(question["options"]):
            if place != question["label"]:
                assert option != right
                assert any(option in text for text in texts if text not in homes)


def test_questions_on_a_text_whose_order_is_known() -> None:
    def story(name: str) -> Document:
        lines = [f"This is sentence number {index:03d} of the story {name}." for index in range(30)]
        return Document("stories", name, "\n".join(lines))

    found = questions([story("alpha"), story("beta"), story("gamma")], 40)
    assert len(found) == 40
    for question in found:
        context = question["context"].removesuffix(".").split(". ")
        numbers = [int(sentence.split()[4]) for sentence in context]
        homes = {sentence.split()[-1] for sentence in context}
        assert len(homes) == 1 and numbers == list(range(numbers[0], numbers[0] + 3))
        (home,) = homes
        right = question["options"][question["label"]]
        assert right == f"This is sentence number {numbers[-1] + 1:03d} of the story {home}."
        wrong = [option for place, option in enumerate(question["options"]) if place != question["label"]]
        assert not any(option.endswith(f" {home}.") for option in wrong)
    assert {question["label"] for question in found} == {0, 1, 2, 3}


def test_questions_are_always_the_same_and_touch_no_random_state(evaluation: list[Document]) -> None:
    random.seed(1)
    first = questions(evaluation, 20)
    state = random.getstate()
    random.seed(2)
    assert questions(evaluation, 20) == first
    random.seed(1)
    assert random.getstate() == state


def test_no_wrong_option_is_the_right_one(evaluation: list[Document]) -> None:
    assert all(
        question["options"].count(question["options"][question["label"]]) == 1
        for question in questions(evaluation, 400)
    )


def test_the_options_are_four_different_sentences(evaluation: list[Document]) -> None:
    assert all(len(set(question["options"])) == 4 for question in questions(evaluation, 400))


def test_a_sentence_that_many_documents_share_is_never_a_wrong_option_beside_itself() -> None:
    shared = "This sentence stands in each of the documents. "
    documents = [
        Document(
            "d", name, "".join(f"{shared}Here is number {index:02d} of the document {name}. " for index in range(9))
        )
        for name in "abc"
    ]
    assert all(
        question["options"].count(question["options"][question["label"]]) == 1 for question in questions(documents, 40)
    )


def test_a_text_too_short_for_questions() -> None:
    assert questions([], 5) == []
    assert questions([Document("d", "a", "One short text. " * 40)], 5) == []


def test_a_short_window_asks_for_short_sentences_only(small_task: LanguageTask, evaluation: list[Document]) -> None:
    tokenizer = small_task.tokenizer
    harness = Harness(tokenizer, evaluation, ONE, 24)
    found = harness.measure(small_task.model, ("next_sentence",))
    assert set(found) == {f"next_sentence/{score}" for score in ("acc", "acc_norm", "acc_mutual_info")}
    options = [option for question in harness._questions for option in question["options"]]
    assert options and all(len(tokenizer.encode(f" {option}", add_special_tokens=False)) <= 22 for option in options)


def test_a_window_too_short_for_any_sentence_is_refused(small_task: LanguageTask, evaluation: list[Document]) -> None:
    with pytest.raises(CellError, match=r"no question that fits into 8 tokens: make the window longer, or leave the"):
        Harness(small_task.tokenizer, evaluation, ONE, 8).measure(small_task.model, ("next_sentence",))
