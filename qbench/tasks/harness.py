"""Metrics of lm-eval on a model in memory: bits per byte and its kin, a next-sentence choice, and lm-eval's tasks."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qbench.errors import CellError
from qbench.seeds import derive_seed
from qbench.tasks.corpus import Document
from qbench.tasks.harness_fence import fenced
from qbench.tasks.lm_eval_tasks import scores, task_names

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerFast

    from qbench.tasks.causal_lm import LanguageModelSpec

_PASSAGE_CHARS = 800
_OPTIONS = 4
_CONTEXT_SENTENCES = 3
_TRIES = 20
_SCORES = ("acc", "acc_norm", "acc_mutual_info")
_ROLLING = ("word_perplexity", "byte_perplexity")
_AGGREGATIONS = {"bits_per_byte": "bits_per_byte", **dict.fromkeys(_ROLLING, "weighted_perplexity")}
_OURS = ("bits_per_byte", "next_sentence", *_ROLLING)


class Harness:
    """lm-eval with tasks made from evaluation documents, and with tasks of its own.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        The model's tokenizer.
    documents : sequence of Document
        The evaluation split.
    spec : LanguageModelSpec
        How many passages and questions.
    max_length : int
        Tokens the model sees at once.
    rows : int
        Requests a batch.

    Attributes
    ----------
    questions_read : dict of str to dict
        Of each task of lm-eval that has been measured: its version, how many questions were read, and their sha256.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        documents: Sequence[Document],
        spec: LanguageModelSpec,
        max_length: int,
        rows: int = 32,
    ) -> None:
        self._tokenizer, self._documents, self._spec = tokenizer, documents, spec
        self._max_length, self._rows = max_length, rows
        self.questions_read: dict[str, dict[str, Any]] = {}

    def measure(self, model: nn.Module, metrics: tuple[str, ...]) -> dict[str, float]:
        """Return lm-eval's numbers for the metrics that are asked for; others are passed over.

        Returns
        -------
        dict of str to float
            ``bits_per_byte/rolling<max_length>`` of passages; ``word_perplexity/`` and ``byte_perplexity/`` of the same
            convention, of whole documents; ``next_sentence/`` with lm-eval's scores ``acc`` (likelihood), ``acc_norm``
            (likelihood a byte) and ``acc_mutual_info`` (likelihood over that without the context; it tells most of a
            small model, since no option gains by being short or common), chance is one in four; and ``<task>/<score>``
            of each ``lm_eval:<task>``.
        """
        ours = [name for name in _OURS if name in metrics]
        named = task_names(metrics)
        if not ours and not named:
            return {}
        if self._tokenizer.eos_token_id is None and self._tokenizer.bos_token_id is None:
            wanted = [*ours, *(metric for metric in metrics if metric.removeprefix("lm_eval:") in named)]
            raise CellError(
                "the tokenizer has neither a bos nor an eos token, and lm-eval begins each text with one: "
                f"leave out {' and '.join(wanted)}"
            )
        tasks = [self._task(name) for name in ours if name not in _ROLLING]
        if rolling := [name for name in _ROLLING if name in metrics]:
            tasks.append(_rolling("documents", lambda: self._whole, rolling))
        found: dict[str, float] = {}
        with fenced():
            # Not simple_evaluate: it asks git, pip and the compiler about this machine at every call, which takes
            # longer than many a measurement, and it reseeds the process.
            from lm_eval import evaluate
            from lm_eval.models.huggingface import HFLM
            from lm_eval.tasks import TaskManager

            wrapped = HFLM(
                pretrained=model,
                tokenizer=self._tokenizer,
                batch_size=self._rows,
                max_length=self._max_length,
                logits_cache=False,  # gives wrong likelihoods when two requests share tokens but split differently
                softmax_dtype="float32",
            )
            if tasks:
                loaded = TaskManager(include_defaults=False).load(tasks)
                results = evaluate(lm=wrapped, task_dict=loaded, bootstrap_iters=0, log_samples=False)["results"]
            if named:
                found, read = scores(wrapped, named, self._spec.lm_eval_folder, self._spec.lm_eval_limit)
                self.questions_read |= read
        convention = f"rolling{self._max_length}"
        if "bits_per_byte" in metrics:
            found[f"bits_per_byte/{convention}"] = float(results["bits_per_byte"]["bits_per_byte,none"])
        for name in rolling:
            found[f"{name}/{convention}"] = float(results["documents"][f"{name},none"])
        if "next_sentence" in metrics:
            for score in _SCORES:
                found[f"next_sentence/{score}"] = float(results["next_sentence"][f"{score},none"])
        return found

    def _task(self, name: str) -> dict[str, Any]:
        if name == "bits_per_byte":
            return _rolling(name, lambda: self._passages, [name])
        return {
            "task": name,
            "custom_dataset": lambda **_: {"test": self._questions},
            "output_type": "multiple_choice",
            "num_fewshot": 0,
            "test_split": "test",
            "doc_to_text": "{{context}}",
            "doc_to_target": "{{label}}",
            "doc_to_choice": "{{options}}",
            "metric_list": [{"metric": score, "aggregation": "mean", "higher_is_better": True} for score in _SCORES],
            "metadata": {"version": 1.0},
        }

    @cached_property
    def _passages(self) -> Any:
        from datasets import Dataset

        return Dataset.from_list([{"text": text} for text in passages(self._documents, self._spec.passages)])

    @cached_property
    def _whole(self) -> Any:
        from datasets import Dataset

        count = min(self._spec.passages, len(self._documents))
        spread = [self._documents[index * len(self._documents) // count] for index in range(count)]
        return Dataset.from_list([{"text": document.text} for document in spread])

    @cached_property
    def _questions(self) -> Any:
        from datasets import Dataset

        found = questions(self._documents, self._spec.choices, self._fits)
        if not found:
            raise CellError(
                f"next_sentence: the evaluation text gives no question that fits into {self._max_length} tokens: "
                "make the window longer, or leave the metric out"
            )
        return Dataset.from_list(found)

    def _fits(self, sentence: str) -> bool:
        """Return whether a sentence can be an answer: lm-eval cuts a context that is too long, but no answer."""
        room = self._max_length - 2  # the space before it can be a token, or change the one beside it
        if len(sentence.encode()) <= room:
            return True  # no token is shorter than a byte
        return len(self._tokenizer.encode(f" {sentence}", add_special_tokens=False)) <= room


def _rolling(task: str, texts: Callable[[], Any], metrics: list[str]) -> dict[str, Any]:
    """Return a task of lm-eval that predicts each token of texts once."""
    return {
        "task": task,
        "custom_dataset": lambda **_: {"test": texts()},
        "output_type": "loglikelihood_rolling",
        "num_fewshot": 0,
        "test_split": "test",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [
            {"metric": name, "aggregation": _AGGREGATIONS[name], "higher_is_better": False} for name in metrics
        ],
        "metadata": {"version": 1.0},
    }


def passages(documents: Sequence[Document], count: int) -> list[str]:
    """Return `count` passages of up to 800 characters, spread evenly over the documents' text; none overlap.

    Fewer are returned where the text is too short.
    """
    cuts = [
        document.text[start : start + _PASSAGE_CHARS]
        for document in documents
        for start in range(0, max(1, len(document.text) - _PASSAGE_CHARS + 1), _PASSAGE_CHARS)
    ]
    count = min(count, len(cuts))
    return [cuts[index * len(cuts) // count] for index in range(count)]


def questions(
    documents: Sequence[Document], count: int, fits: Callable[[str], bool] = lambda sentence: True
) -> list[dict[str, Any]]:
    """Return next-sentence questions: three sentences, the one that follows, and three from other documents.

    Parameters
    ----------
    documents : sequence of Document
        Two or more; a wrong sentence never comes from the right document.
    count : int
        Questions; fewer where the text is too short. Each document is as likely as any other, however long.
    fits : callable
        Whether the model can be asked for a sentence; the others are passed over.

    Returns
    -------
    list of dict
        ``context``, ``options`` (four) and ``label``, the index of the right one; the same documents give the same.
    """
    generator = random.Random(derive_seed("next-sentence"))
    sentences = [[one for one in _sentences(document.text) if fits(one)] for document in documents]
    long_enough = [index for index, own in enumerate(sentences) if len(own) > _CONTEXT_SENTENCES]
    if len(long_enough) < 2:
        return []
    found: list[dict[str, Any]] = []
    for _ in range(count):
        owner = generator.choice(long_enough)
        start = generator.randrange(len(sentences[owner]) - _CONTEXT_SENTENCES)
        right = sentences[owner][start + _CONTEXT_SENTENCES]
        for _ in range(_TRIES):
            others = [generator.choice([index for index in long_enough if index != owner]) for _ in range(_OPTIONS - 1)]
            options = [right, *(generator.choice(sentences[other]) for other in others)]
            if len(set(options)) == _OPTIONS:
                break
        else:
            continue  # these documents say the same over and over
        generator.shuffle(options)
        context = " ".join(sentences[owner][start : start + _CONTEXT_SENTENCES])
        found.append({"context": context, "options": options, "label": options.index(right)})
    return found


def _sentences(text: str) -> list[str]:
    parts = re.split(r"(?<=[.!?])\s+", " ".join(text.split()))
    return [part for part in parts if 30 <= len(part) <= 160]
