"""Make torchvision importable on a CPU build of torch.

A torchvision wheel compiled against CUDA cannot load its operators beside a CPU torch. Importing it then fails, and so
does ``from transformers import LlamaForCausalLM``, which imports it. Declaring the two operator schemas that
torchvision's Python side looks for at import time is enough for its models, transforms and datasets.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_library: torch.library.Library | None = None  # the definitions live as long as this object


def declare_missing_operators() -> bool:
    """Declare torchvision's operators when its compiled ones cannot be loaded; call before importing transformers.

    Returns
    -------
    bool
        Whether operators were declared: ``torchvision.ops.nms`` and image decoding do not work in that case.
    """
    global _library  # noqa: PLW0603 - must live as long as the process
    if _library is not None:
        return True
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for compiled in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(compiled)
            return False
        except OSError:
            pass  # linked against libraries that this build of torch does not have
    _library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return True
