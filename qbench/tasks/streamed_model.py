"""A language model of which one decoder block at a time is in memory; the others stay in the checkpoint's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qbench.errors import AssetError
from qbench.tasks.language import LanguageTask, largest_list
from qbench.tasks.lazy_checkpoint import LazyCheckpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from qbench.tasks.causal_lm import LanguageModelSpec
    from qbench.tasks.text import TextSource

_READ = ["*.json", "*.safetensors", "*.txt", "*.model"]


class StreamedModel:
    """A causal LM without the weights of its decoder blocks, and the checkpoint that holds these.

    Parameters
    ----------
    frame : nn.Module
        The model, all on the meta device. Everything outside of its blocks is loaded here.
    checkpoint : LazyCheckpoint
        Holds the weights.
    label : str
        What messages call the model.
    device : str
        Torch device.

    Attributes
    ----------
    frame : nn.Module
        The model; its blocks are on the meta device, except while `block` has one.

    Raises
    ------
    AssetError
        The checkpoint has not the tensors that the model has, or the model keeps some of them in another format.
    """

    def __init__(self, frame: Any, checkpoint: LazyCheckpoint, label: str, device: str) -> None:
        self.frame: nn.Module = frame.eval()
        self._checkpoint, self._label, self._device = checkpoint, label, device
        self._stored = _stored_names(frame, checkpoint)
        self._require_one_format(frame)
        inside = largest_list(frame)
        if inside is None:
            raise AssetError(f"{label}: no list of decoder blocks found in {type(frame).__name__}")
        missing = {name for name in _persistent(frame) if name not in self._stored}
        outer = [name for name in _persistent(frame) if not name.startswith(f"{inside}.") and name not in missing]
        self._load(frame, outer)
        for module in frame.modules():
            for name in module._non_persistent_buffers_set:
                if (buffer := module._buffers[name]) is not None:
                    module._buffers[name] = torch.empty_like(buffer, device=device)
        # As from_pretrained does: buffers that no checkpoint holds are computed, tied weights are made one.
        frame.initialize_weights()
        frame.tie_weights(missing_keys=missing, recompute_mapping=False)
        self._require_loaded(inside, missing)

    @contextmanager
    def block(self, name: str) -> Iterator[nn.Module]:
        """Load a block's weights from the checkpoint for as long as the context lasts.

        Parameters
        ----------
        name : str
            The block's name in the model.

        Yields
        ------
        nn.Module
            The block. Whatever is written into it is forgotten at the end.
        """
        block = self.frame.get_submodule(name)
        before = {key: _owner(block, key)._parameters.get(key.rpartition(".")[2]) for key in _persistent(block)}
        buffers = {key: _owner(block, key)._buffers.get(key.rpartition(".")[2]) for key in before}
        try:
            self._load(block, list(before), f"{name}.")
            yield block
        finally:
            for key, parameter in before.items():
                owner, leaf = _owner(block, key), key.rpartition(".")[2]
                if parameter is None:
                    owner._buffers[leaf] = buffers[key]
                else:
                    owner._parameters[leaf] = parameter

    def _load(self, module: nn.Module, names: list[str], before: str = "") -> None:
        wanted = {self._stored[before + name]: name for name in names}
        for stored, value in self._checkpoint.read(list(wanted)):
            owner, leaf = _owner(module, wanted[stored]), wanted[stored].rpartition(".")[2]
            own = owner._parameters.get(leaf)
            like = owner._buffers[leaf] if own is None else own
            assert like is not None
            if value.shape != like.shape:
                raise AssetError(
                    f"{self._label}: {stored!r} has shape {tuple(value.shape)} in the checkpoint, "
                    f"{tuple(like.shape)} in the model"
                )
            tensor = value.to(self._device, like.dtype, copy=True)
            if own is None:
                owner._buffers[leaf] = tensor
            else:
                owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=own.requires_grad)
            # Tells transformers that there is nothing to be drawn at random here.
            (owner._buffers[leaf] if own is None else owner._parameters[leaf])._is_hf_initialized = True  # type: ignore[union-attr]

    def _require_one_format(self, frame: Any) -> None:
        kept = set(frame._keep_in_fp32_modules_strict or ())
        if frame.dtype == torch.float16:
            kept |= set(frame._keep_in_fp32_modules or ())
        if kept and frame.dtype != torch.float32:
            raise AssetError(
                f"{self._label}: {', '.join(sorted(kept))} stays in float32, which device_map: streamed does not do "
                "(allowed: dtype: float32, or device_map: whole)"
            )

    def _require_loaded(self, inside: str, missing: set[str]) -> None:
        left = [name for name, one in _persistent(self.frame).items() if one.is_meta]
        lost = [name for name in left if name in missing or not name.startswith(f"{inside}.")]
        if lost:
            raise AssetError(
                f"{self._label}: the checkpoint holds no tensor {lost[0]!r} (device_map: streamed reads tensors that "
                "are stored as the model has them; allowed: device_map: whole)"
            )


class StreamedTask(LanguageTask):
    """A language model of which one block at a time is in memory, with its data.

    Parameters
    ----------
    streamed : StreamedModel
        The model.
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

    Attributes
    ----------
    streamed : StreamedModel
        The model; `model` is its frame, whose blocks hold no weights.
    """

    def __init__(
        self,
        streamed: StreamedModel,
        tokenizer: PreTrainedTokenizerFast,
        text: TextSource,
        spec: LanguageModelSpec,
        seed: int,
        device: str,
    ) -> None:
        self.streamed = streamed
        super().__init__(streamed.frame, tokenizer, text, spec, seed, device)


def build_frame(config: Any, dtype: torch.dtype) -> nn.Module:
    """Return a causal LM of a transformers configuration on the meta device: its structure, and no weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        frame: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    return frame


def load_streamed(place: str, pins: dict[str, str], label: str, dtype: torch.dtype, device: str) -> StreamedModel:
    """Load a model from a folder or a repository, all but its decoder blocks.

    Parameters
    ----------
    place : str
        A folder, or the name of a repository.
    pins : dict of str to str
        ``revision``, for a repository.
    label : str
        What messages call the model.
    dtype : torch.dtype
        The number format of its weights.
    device : str
        Torch device.

    Raises
    ------
    AssetError
        There is no such model, or none that can be read block by block.
    """
    from transformers import AutoConfig

    folder = Path(_downloaded(place, pins["revision"]) if pins else place)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        raise AssetError(f"{label}: the checkpoint is quantized, which device_map: streamed does not read")
    return StreamedModel(build_frame(config, dtype), LazyCheckpoint(folder), label, device)


def _downloaded(repo: str, revision: str) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(repo, revision=revision, allow_patterns=_READ)


def _stored_names(frame: Any, checkpoint: LazyCheckpoint) -> dict[str, str]:
    """Return what the checkpoint calls each tensor that it holds as the model has it, by the model's name for it."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    changes = get_model_conversion_mapping(frame)
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    own, found = frame.state_dict(), {}
    for stored in sorted(checkpoint.names()):
        name, converted = rename_source_key(stored, renamings, converters, frame.base_model_prefix, own)
        if converted is None:  # otherwise several tensors are made one, or one several
            found[name] = stored
    return found


def _persistent(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that a checkpoint holds, by name; a tied one under each of its names."""
    return module.state_dict(keep_vars=True)


def _owner(module: nn.Module, name: str) -> nn.Module:
    return module.get_submodule(name.rpartition(".")[0])
