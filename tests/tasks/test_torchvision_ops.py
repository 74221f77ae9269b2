"""torchvision's compiled operators may not load; its Python side, and transformers, must."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from qbench.tasks.torchvision_ops import declare_missing_operators
first = declare_missing_operators()
assert declare_missing_operators() == first
from transformers import LlamaForCausalLM
import torch, torchvision
from torchvision.transforms import v2
model = torchvision.models.resnet18(weights=None).eval()
print(model(v2.CenterCrop(32)(torch.zeros(1, 3, 64, 64))).shape[1])
"""


def test_transformers_and_torchvision_can_be_imported() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1000\n"), done.stderr
