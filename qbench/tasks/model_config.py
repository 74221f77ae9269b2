"""What a model's folder and configuration tell before anything is loaded: a tokenizer, and how long a text may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qbench.errors import AssetError

_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


def require_positions(config: dict[str, Any], window: int, label: str) -> None:
    """Make sure that a model has a position for each token of a window.

    Parameters
    ----------
    config : dict
        The model's configuration, as ``config.json`` has it. One that tells of no positions has no limit.
    window : int
        Tokens a window.
    label : str
        The model's, for the message.

    Raises
    ------
    AssetError
        It has fewer: learned positions end there, and rotary ones were never trained beyond.
    """
    most = next((config[name] for name in _POSITIONS if isinstance(config.get(name), int)), None)
    if most is not None and window > most:
        said = f"window {window} is longer than the model's {most} positions (allowed: at most {most})"
        raise AssetError(f"{label}: {said}")


def check_folder(folder: Path, window: int, label: str) -> None:
    """Make sure that a model's folder has a configuration that allows such windows, and a tokenizer.

    Raises
    ------
    AssetError
        Something is missing, or the windows are longer than the model's positions.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AssetError(f"model folder {folder} holds no config.json") from None
    except ValueError as error:
        raise AssetError(f"{folder / 'config.json'} is no JSON: {error}") from error
    if not any((folder / name).exists() for name in _TOKENIZERS):
        raise AssetError(f"model folder {folder} holds no tokenizer (a fast one: tokenizer.json)")
    require_positions(config if isinstance(config, dict) else {}, window, label)
