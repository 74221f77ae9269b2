"""From a GGUF file to a folder that transformers loads like any other: weights de-quantised to float32, once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from qbench.errors import AssetError

WEIGHTS = "model.safetensors"

_CONVERT = "import sys; from qbench.tasks.gguf_checkpoint import convert; convert(*sys.argv[1:])"
_QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}


def convert_apart(gguf: Path, folder: Path) -> None:
    """Do what `convert` does in a process of its own, which is quiet, asks no hub, and gives its memory back.

    Raises
    ------
    AssetError
        It failed; the message holds the last line that was said.
    """
    command = [sys.executable, "-c", _CONVERT, str(gguf), str(folder)]
    done = subprocess.run(command, env={**os.environ, **_QUIET}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise AssetError(f"{gguf.name} cannot be converted: {said}")


def convert(gguf: str, folder: str) -> None:
    """Write the model and the tokenizer of a GGUF file to a folder, in float32.

    Parameters
    ----------
    gguf : str
        A causal LM of a family that transformers reads from GGUF.
    folder : str
        Where they go; must exist.

    Notes
    -----
    What transformers makes of a GGUF file is marked as quantized, and refuses to be cast and to be saved: the weights
    are moved to a model that was made from the same configuration without that mark.
    """
    from qbench.tasks.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    place, file = str(Path(gguf).parent), Path(gguf).name
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.float32)
    options = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**options), dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place, gguf_file=file).save_pretrained(folder)


def tensors_sha256(file: Path) -> str:
    """Return the sha256 of what a safetensors file holds: name, type, shape and bytes of each tensor, by name.

    The head of the file, whose text is the library's own affair, does not count.
    """
    from safetensors import safe_open

    digest = hashlib.sha256()
    with safe_open(file, framework="numpy") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            digest.update(f"{name}\x1f{tensor.dtype}\x1f{tensor.shape}\x1e".encode())
            digest.update(memoryview(tensor).cast("B"))
    return digest.hexdigest()


def config_sha256(file: Path) -> str:
    """Return the sha256 of a model's configuration, without the release of the library that wrote it."""
    said = {name: value for name, value in json.loads(file.read_text()).items() if name != "transformers_version"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
