"""Causal language models as tasks: the embedded zoo, a local folder, or a Hugging Face repository at a revision."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from qbench import atomic
from qbench.errors import AssetError
from qbench.tasks import lm_eval_files, lm_eval_tasks, model_config, tokenizer, zoo
from qbench.tasks.model_spec import ModelSpec
from qbench.tasks.text import Commit, TextField, ThreeTexts

if TYPE_CHECKING:
    from qbench.tasks.language import LanguageTask


_TITLE = re.compile(r"\w[\w .+@-]*")
_TITLES = "letters, digits, spaces and . _ + @ -, one line"


def _nameable(value: str) -> str:
    if not _TITLE.fullmatch(value):
        raise ValueError(f"{value!r} is not a title (allowed: {_TITLES})")
    return value


Title = Annotated[str, AfterValidator(_nameable)]


class LanguageModelSpec(ModelSpec):
    """What every language-model task can be told.

    Attributes
    ----------
    window : int
        Tokens a window, in calibration, training and the windowed loss.
    calibration_windows : int
        Windows drawn at random from the calibration split.
    evaluation_windows : int
        Windows spread evenly over the evaluation split; by the convention ``gptq`` the first blocks, as many.
    convention : str
        ``documents``: windows lie in one document each. ``gptq``: the evaluation text is joined, encoded at once with
        the tokenizer's special tokens, and cut into blocks, as papers since GPTQ measure perplexity.
    passages : int
        Evaluation passages for bits per byte; documents for the perplexities a word and a byte.
    choices : int
        Four-way next-sentence questions.
    lm_eval_folder : Path or None
        A folder of YAML files that define tasks for lm-eval on data files in it; inside the suite's folder. A metric
        ``lm_eval:NAME`` is a task of the folder, or else one of lm-eval's own, whose data come from the hub.
    lm_eval_limit : int or None
        Questions of each such task, from its first; all when left out.
    """

    sources: ClassVar[tuple[str, ...]] = tuple(
        f"qbench.tasks.{module}"
        for module in (
            "corpus",
            "evaluation",
            "harness",
            "harness_fence",
            "language",
            "lazy_checkpoint",
            "llama",
            "lm_eval_files",
            "lm_eval_tasks",
            "pretrained",
            "streamed_model",
            "text",
            "text_files",
            "text_sets",
            "text_source",
            "tokenizer",
            "tokens",
            "torchvision_ops",
            "windows",
        )
    )

    metrics: ClassVar[tuple[str, ...]] = (
        "loss",
        "bits_per_byte",
        "next_sentence",
        "word_perplexity",
        "byte_perplexity",
        "lm_eval",
    )

    window: Annotated[int, Field(ge=8)] = 128
    calibration_windows: Annotated[int, Field(ge=1)] = 128
    evaluation_windows: Annotated[int, Field(ge=1)] = 256
    convention: Literal["documents", "gptq"] = "documents"
    passages: Annotated[int, Field(ge=1)] = 16
    choices: Annotated[int, Field(ge=1)] = 40
    lm_eval_folder: Path | None = None
    lm_eval_limit: Annotated[int, Field(ge=1)] | None = None

    def metric_needs_hub(self, metric: str) -> bool:
        """Return whether a metric reads a repository; see `qbench.tasks.lm_eval_tasks.needs_hub`."""
        return lm_eval_tasks.needs_hub(metric, self.lm_eval_folder)

    def task_files(self) -> list[Path]:
        """Return the files in `lm_eval_folder`: they hold questions to evaluate on."""
        return [] if self.lm_eval_folder is None else lm_eval_files.files_in(self.lm_eval_folder)

    def tasks_fingerprint(self) -> dict[str, str]:
        """Return the hashes of the files in `lm_eval_folder`."""
        return {} if self.lm_eval_folder is None else lm_eval_files.folder_sha256(self.lm_eval_folder)

    def windows_name(self) -> str:
        """Return what records call the windows of the loss: their convention, and their length."""
        return f"{'gptq' if self.convention == 'gptq' else 'blocks'}{self.window}"

    def metric_names(self, metrics: Iterable[str]) -> tuple[str, ...]:
        """Return what records will call these metrics; a name that ends in a slash has more behind it.

        Parameters
        ----------
        metrics : iterable of str
            As a suite names them.
        """
        rolling = f"rolling{self.window}"
        found = [f"loss/{self.windows_name()}", f"perplexity/{self.windows_name()}"]
        for metric in metrics:
            if metric.startswith(lm_eval_tasks.PREFIX):
                found.append(f"{metric.removeprefix(lm_eval_tasks.PREFIX)}/")
            elif metric == "next_sentence":
                found.append("next_sentence/")
            elif metric != "loss":
                found.append(f"{metric}/{rolling}")
        return tuple(found)

    def has_batch_norm(self) -> bool:
        """Return False: language models normalise over features, not over a batch."""
        return False

    def facts(self) -> dict[str, Any]:
        """Return what a table must say of the model, as far as its options tell."""
        return {}


class ZooLM(LanguageModelSpec):
    """An embedded model; a cell's seed is the training seed.

    Attributes
    ----------
    phase : str
        ``decayed``: the finished model; ``stable``: before the learning rate fell.
    """

    phase: zoo.Phase = "decayed"

    def available_seeds(self) -> tuple[int, ...]:
        """Return the training seeds there are."""
        return zoo.language_model(self.name).seeds

    def load(self, seed: int, device: str) -> LanguageTask:
        """Load the checkpoint of training seed `seed`; see `ModelSpec.load`."""
        from qbench.tasks.language import load_zoo

        return load_zoo(self, seed, device)

    def prepare(self) -> None:
        """Fetch the three texts where they are missing."""
        ThreeTexts().prepare()

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return the hashes of the checkpoint, the architecture, the embedded tokenizer and the corpus."""
        weights = zoo.require_checkpoint(self.name, seed, self.phase)
        made = {"design": zoo.design_sha256(self.name), "tokenizer": tokenizer.SHA256}
        return {"weights": weights, **made, **ThreeTexts().fingerprint(), **self.tasks_fingerprint()}


class PretrainedLM(LanguageModelSpec):
    """A transformers causal LM as its authors trained it, loaded from a folder or a repository.

    Attributes
    ----------
    dtype : str
        The number format that the weights are loaded in and the model computes in: ``float32``, ``bfloat16`` or
        ``float16``.
    device_map : str
        ``whole``: the model is on the device. ``streamed``: one decoder block at a time is, and the others stay in the
        checkpoint's file.
    text : text source
        ``three_texts``, ``wikipedia``, ``wikitext2``, ``c4``, ``{folder: PATH}``, ``{parquet: PATH}``,
        ``{set: wikitext2, folder: PATH}`` or ``{repo: NAME, revision: COMMIT}``.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device_map: Literal["whole", "streamed"] = "whole"
    text: TextField = ThreeTexts()

    def place(self) -> tuple[str, dict[str, str]]:
        """Return what transformers loads the model from, and the options that pin it.

        Raises
        ------
        AssetError
            It is not on this machine.
        """
        raise NotImplementedError

    def has_safetensors(self) -> bool:
        """Return whether the weights are read from safetensors files."""
        return True

    def load(self, seed: int, device: str) -> LanguageTask:
        """Load the model from its folder or repository; see `ModelSpec.load`."""
        from qbench.tasks.pretrained import load_pretrained

        return load_pretrained(self, seed, device)

    def prepare(self) -> None:
        """Fetch its text where it is missing."""
        self.text.prepare()

    def needs_hub(self) -> bool:
        """Return whether its text comes from a repository."""
        return self.text.needs_hub()

    def facts(self) -> dict[str, Any]:
        """Return the number format, where it is not float32."""
        return {} if self.dtype == "float32" else {"dtype": self.dtype}


class CausalLM(PretrainedLM):
    """A transformers causal LM from a repository or a folder; short: ``hf:ORG/REPO@COMMIT`` or ``hf:FOLDER``.

    Attributes
    ----------
    title : str or None
        What tables call it; the last part of the repository's or the folder's name when left out.
    path : Path or None
        A folder made by ``save_pretrained``, with safetensors weights and a tokenizer; inside the suite's folder.
    repo, revision : str or None
        A repository and the full commit hash in it.
    weights : str
        ``safetensors``, or ``pytorch``: the tensors of ``pytorch_model.bin``, for places that hold nothing else. No
        code in such a file is run.
    """

    title: Title | None = None
    path: Path | None = None
    repo: str | None = None
    revision: Commit | None = None
    weights: Literal["safetensors", "pytorch"] = "safetensors"

    @model_validator(mode="after")
    def _can_be_streamed(self) -> CausalLM:
        if self.device_map == "streamed" and self.weights != "safetensors":
            raise ValueError("blocks are read one by one from safetensors files only (allowed: device_map: whole)")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> CausalLM:
        if (self.path is None) == (self.repo is None):
            raise ValueError("give either path or repo")
        if (self.repo is None) != (self.revision is None):
            raise ValueError("repo needs revision, the full commit hash: a branch or tag can move; revision needs repo")
        return self

    @model_validator(mode="after")
    def _has_a_title(self) -> CausalLM:
        if not _TITLE.fullmatch(self.label()):
            raise ValueError(f"{self.label()!r} is not a title (allowed: {_TITLES}): give one as title")
        return self

    def label(self) -> str:
        """Return the title."""
        named = self.repo.rpartition("/")[2] if self.repo is not None else self.path.name if self.path else ""
        return self.title or named

    def place(self) -> tuple[str, dict[str, str]]:
        """Return the folder, or the repository and its commit."""
        if self.path is not None:
            return str(self.path), {}
        return str(self.repo), {"revision": str(self.revision)}

    def has_safetensors(self) -> bool:
        """Return whether the weights are read from safetensors files."""
        return self.weights == "safetensors"

    def needs_hub(self) -> bool:
        """Return whether the model or its text comes from a repository."""
        return self.repo is not None or super().needs_hub()

    def fingerprint(self, seed: int) -> dict[str, str]:
        """Return the hashes of the folder's files (or the repository's commit) and of the text."""
        data = {**self.text.fingerprint(), **self.tasks_fingerprint()}
        if self.path is None:
            return {"weights": f"{self.repo}@{self.revision}", **data}
        if not self.path.is_dir():
            raise AssetError(f"model folder {self.path} does not exist")
        # A tokenizer may be in tokenizer.json, or in vocab.txt, merges.txt or a sentencepiece .model.
        ending = ".safetensors" if self.has_safetensors() else ".bin"
        files = sorted(file for file in self.path.iterdir() if file.suffix in {ending, ".json", ".txt", ".model"})
        if not any(file.suffix == ending for file in files):
            way_out = " (weights: pytorch reads its .bin)" if self.has_safetensors() and _holds_bin(self.path) else ""
            raise AssetError(f"model folder {self.path} holds no {ending} file{way_out}")
        model_config.check_folder(self.path, self.window, self.label())
        return {**{f"model/{file.name}": atomic.sha256_file(file) for file in files}, **data}


def _holds_bin(folder: Path) -> bool:
    return any(file.suffix == ".bin" for file in folder.iterdir())
