"""A language model with its data: what is calibrated, trained and evaluated on."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from qbench.errors import AssetError, CellError
from qbench.seeds import derive_seed
from qbench.tasks import tokenizer as embedded_tokenizer
from qbench.tasks import zoo
from qbench.tasks.corpus import Document, Split
from qbench.tasks.evaluation import Evaluation, announce
from qbench.tasks.harness import Harness
from qbench.tasks.llama import load_llama
from qbench.tasks.text import TextSource, ThreeTexts
from qbench.tasks.tokens import encoded, kept_at
from qbench.tasks.windows import Windows, calibration_rows, cut, draw, evaluation_rows, first, spread, stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from qbench.tasks.causal_lm import LanguageModelSpec, ZooLM

# Logits of more columns are not copied to leave out each row's last: the copy would be the largest tensor there is.
_SMALL_VOCABULARY = 4096
_NO_LABEL = -100


class LanguageTask:
    """A causal LM with tokenized calibration, training and evaluation data.

    Parameters
    ----------
    model : nn.Module
        A transformers causal LM in float32.
    tokenizer : PreTrainedTokenizerFast
        Its tokenizer.
    text : TextSource
        Where the documents come from.
    spec : LanguageModelSpec
        Window length and counts.
    seed : int
        The cell's seed.
    device : str
        Torch device.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerFast,
        text: TextSource,
        spec: LanguageModelSpec,
        seed: int,
        device: str,
    ) -> None:
        # The blocks of a streamed model have no weights yet, and the rest of it is where it belongs.
        streamed = any(parameter.is_meta for parameter in model.parameters())
        self.model = (model if streamed else model.to(device)).eval()
        self.tokenizer, self.text, self.spec, self.seed, self.device = tokenizer, text, spec, seed, device
        self.vocab_size = int(model.config.vocab_size)  # type: ignore[union-attr, arg-type]

    def blocks(self) -> list[tuple[str, nn.Module]]:
        """Return the decoder blocks in forward order, with their names.

        Raises
        ------
        CellError
            The model has no list of blocks that hold linear layers.
        """
        name = largest_list(self.model)
        if name is None:
            raise CellError(f"{self.spec.label()}: no list of decoder blocks found in {type(self.model).__name__}")
        chosen = cast("nn.ModuleList", self.model.get_submodule(name))
        return [(f"{name}.{index}", block) for index, block in enumerate(chosen)]

    @cached_property
    def calibration(self) -> list[Tensor]:
        """Batches of windows drawn from the calibration split by the cell's seed."""
        windows = draw(self._windows("calibration"), self.spec.calibration_windows, self._seed_of("calibration"))
        return [batch.to(self.device) for batch in windows.tokens.split(calibration_rows(self.spec.window))]

    @cached_property
    def evaluation(self) -> Windows:
        """Windows of the evaluation split, the same for all seeds.

        They are spread evenly over its documents; by the convention of GPTQ, the first blocks of the joined text.
        """
        count = self.spec.evaluation_windows
        return first(self._blocks(), count) if self._is_joined else spread(self._windows("evaluation"), count)

    def evaluation_batches(self, limit: int | None = None) -> list[Tensor]:
        """Return the evaluation windows in batches for `loss`; at most `limit` of them, spread evenly over all."""
        announce("evaluation", self.spec.label())
        windows = self.evaluation if limit is None else spread(self.evaluation, limit)
        return list(windows.tokens.to(self.device).split(self.loss_rows))

    @property
    def loss_rows(self) -> int:
        """How many windows a loss is asked of at once where only its value is wanted; see `evaluation_rows`."""
        return evaluation_rows(self.spec.window, self.vocab_size)

    def train_batches(self, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Return training batches of shape (batch_size, window) for ever."""
        # Not a generator of this object's: who has it must not reach the evaluation text by it.
        device = self.device
        return (batch.to(device) for batch in stream(self._train_tokens, self.spec.window, batch_size, seed))

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean next-token cross entropy of a batch, in nats."""
        return self._token_losses(model, batch).mean()

    def predict(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a model predicts of a batch, and what stands there; the labels are shifted here, once.

        Returns
        -------
        tuple of Tensor
            Logits of shape (rows * (window - 1), vocabulary) in float32, and tokens of shape (rows * (window - 1),).
        """
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        return logits.flatten(0, 1).float(), batch[:, 1:].flatten()

    def forward(self, model: nn.Module, batch: Tensor) -> object:
        """Run the model on a batch of tokens."""
        return model(input_ids=batch, use_cache=False)

    @staticmethod
    def tokens_of(batch: Tensor) -> int:
        """Return how many tokens a batch has."""
        return batch.numel()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, metrics: tuple[str, ...]) -> Evaluation:
        """Measure a model on the evaluation split.

        Parameters
        ----------
        model : nn.Module
            The model, with whatever weights it has now.
        metrics : tuple of str
            Of ``loss`` and what `Harness.measure` knows; the loss is always measured.
        """
        windows = self.evaluation
        by_batch = [self._token_losses(model, batch).sum(dim=1) for batch in self.evaluation_batches()]
        by_window = torch.cat(by_batch).double().cpu()
        predicted = self.spec.window - 1
        rows = []
        for index in windows.document.unique().tolist():
            own = by_window[windows.document == index]
            rows.append((self._name_of(index), len(own) * predicted, float(own.sum())))
        loss = float(by_window.sum()) / (len(windows) * predicted)
        convention = self.spec.windows_name()
        found = {
            f"loss/{convention}": loss,
            f"perplexity/{convention}": math.exp(loss) if loss < 700 else math.inf,
        }
        facts: dict[str, Any] = {}
        if set(metrics) - {"loss"}:
            found |= self._harness.measure(model, metrics)
            facts = {"lm_eval": self._harness.questions_read} if self._harness.questions_read else {}
        return Evaluation(found, rows, facts)

    def facts(self) -> dict[str, Any]:
        """Return what a table must say of the model and its data."""
        return {
            "chance_loss": math.log(self.vocab_size),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "calibration": f"{sum(map(len, self.calibration))} windows of {self.spec.window} tokens, calibration split",
            "evaluation": self._evaluation_in_words(),
            **self.spec.facts(),
        }

    def _evaluation_in_words(self) -> str:
        count, window = len(self.evaluation), self.spec.window
        if self._is_joined:
            return f"the first {count} blocks of {window} tokens, joined evaluation split"
        documents = len(self.evaluation.document.unique())
        return f"{count} windows of {window} tokens, {documents} documents, evaluation split"

    def _token_losses(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the loss of each predicted token, of shape (rows, window - 1)."""
        if self.vocab_size <= _SMALL_VOCABULARY:
            return functional.cross_entropy(*self.predict(model, batch), reduction="none").view(len(batch), -1)
        logits = model(input_ids=batch, use_cache=False).logits.flatten(0, 1).float()
        labels = functional.pad(batch[:, 1:], (0, 1), value=_NO_LABEL).flatten()
        losses = functional.cross_entropy(logits, labels, reduction="none", ignore_index=_NO_LABEL)
        return losses.view(len(batch), -1)[:, :-1]

    def _seed_of(self, purpose: str) -> int:
        return derive_seed(purpose, self.spec.label(), self.seed)

    @cached_property
    def evaluation_files(self) -> tuple[Path, ...]:
        """Files that hold evaluation data and nothing else: a method has no business there."""
        tokens = kept_at(self._evaluation_documents, self._backend().to_str())
        joined = (kept_at([self._joined], self._calling()),) if self._is_joined else ()
        return (*self.text.evaluation_files(), *self.spec.task_files(), tokens, *joined)

    @cached_property
    def _evaluation_documents(self) -> list[Document]:
        return self.text.documents("evaluation")

    @property
    def _is_joined(self) -> bool:
        return self.spec.convention == "gptq"

    @cached_property
    def _joined(self) -> Document:
        return Document("joined", "evaluation", self.text.joined())

    def _blocks(self) -> Windows:
        """Return the blocks of the joined evaluation text, as the evaluation of GPTQ cuts them.

        The text is encoded at once by the tokenizer as it is called, with the tokens it puts before and behind.
        """
        (ids,) = encoded([self._joined], self._calling(), lambda texts: self.tokenizer(texts, verbose=False).input_ids)
        most = self.text.most_blocks()
        blocks = cut([ids if most is None else ids[: most * self.spec.window]], self.spec.window)
        if not len(blocks):
            raise AssetError(f"{self.spec.label()}: the joined evaluation text has less than {self.spec.window} tokens")
        return Windows(blocks.tokens, torch.arange(len(blocks)))

    def _calling(self) -> str:
        return f"with special tokens\x1f{self._backend().to_str()}"

    def _name_of(self, index: int) -> str:
        if self._is_joined:
            return f"joined/block {index}"
        document = self._evaluation_documents[index]
        return f"{document.domain}/{document.name}"

    def _windows(self, split: Split) -> Windows:
        windows = cut(self._encoded(split), self.spec.window)
        if not len(windows):
            raise AssetError(f"{self.spec.label()}: no document of the {split} split has {self.spec.window} tokens")
        return windows

    @cached_property
    def _train_tokens(self) -> Tensor:
        separator = self.tokenizer.eos_token_id
        start = torch.tensor([] if separator is None else [separator], dtype=torch.int64)
        return torch.cat([part for ids in self._encoded("train") for part in (start, ids)])

    def _encoded(self, split: Split) -> list[Tensor]:
        backend = self._backend()
        documents = self._evaluation_documents if split == "evaluation" else self.text.documents(split)

        def encode(texts: list[str]) -> list[list[int]]:
            return [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]

        return encoded(documents, backend.to_str(), encode)

    def _backend(self) -> Any:
        # A tokenizer's file can tell it to pad or to cut what it encodes: documents are neither.
        backend = copy.deepcopy(self.tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.no_truncation()
        return backend

    @cached_property
    def _harness(self) -> Harness:
        return Harness(self.tokenizer, self._evaluation_documents, self.spec, self.spec.window, self.loss_rows)


def largest_list(model: nn.Module) -> str | None:
    """Return the name of the module list with the most parameters, which holds the decoder blocks; None for no list."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    sizes = {name: sum(one.numel() for one in module.parameters()) for name, module in lists.items()}
    return max(sizes, key=lambda name: sizes[name]) if sizes else None


def load_zoo(spec: ZooLM, seed: int, device: str) -> LanguageTask:
    """Load an embedded model; see `ZooLM.load`."""
    zoo.require_checkpoint(spec.name, seed, spec.phase)
    model = load_llama(zoo.language_model(spec.name).architecture, zoo.checkpoint_path(spec.name, seed, spec.phase))
    from transformers import PreTrainedTokenizerFast

    end = embedded_tokenizer.END_OF_TEXT
    fast = PreTrainedTokenizerFast(
        tokenizer_object=embedded_tokenizer.load_tokenizer(), bos_token=end, eos_token=end, pad_token=end
    )
    return LanguageTask(model, fast, ThreeTexts(), spec, seed, device)
