"""What `qbench diagnose` cannot do is said in one line on stderr, with exit code 2, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "diagnose what? name a model: `qbench diagnose llama-1m` (`qbench list models` has them)"),
        (("lama-1m",), "MODEL: unknown model 'lama-1m': did you mean 'llama-1m'? (allowed: "),
        (("torchvision:resnet99",), "MODEL: 'resnet99' is no image classifier of torchvision: did you mean "),
        (("hf:nowhere",), "MODEL: 'hf:nowhere': there is no such folder, and"),
        (("hf:org/model@main",), "MODEL: 'hf:org/model@main': the revision 'main' is not a full commit hash"),
        (("llama-1m", "-q", "mes"), "--quantizer: unknown quantizer 'mes': did you mean 'mse'? (allowed: "),
        (
            ("llama-1m", "-q", "{name: mse, granul: 3}"),
            "--quantizer: unknown option 'granul' of mse: did you mean 'granularity'? (allowed: ",
        ),
        (
            ("llama-1m", "-q", "{name: mse"),
            "--quantizer '{name: mse' is no YAML (allowed: a name, or {name: mse, granularity: per_tensor})",
        ),
        (("llama-1m", "-q", "mse", "-q", "mse"), "--quantizer: 'mse[per_channel]' is listed twice"),
        (
            ("llama-1m", "--option", "window_=4"),
            "MODEL: unknown option 'window_' of llama-1m: did you mean 'window'? (allowed: ",
        ),
        (("llama-1m", "--option", "window"), "--option 'window' is no option (allowed: KEY=VALUE, such as p=2.4)"),
        (("llama-1m", "--bits", "9"), "--bits '9' (allowed: whole numbers from 1 to 8, such as 8,4,3,2)"),
        (("llama-1m", "--bits", "4,,2"), "--bits '4,,2' (allowed: whole numbers from 1 to 8, such as 8,4,3,2)"),
        (("llama-1m", "--bits", "four"), "--bits 'four' (allowed: "),
        (("llama-1m", "--bn", "fold"), "--bn 'fold' (allowed: keep, recalibrate)"),
        (
            ("mlp-mnist", "--bn", "recalibrate"),
            "nothing can be diagnosed: mlp-mnist has no batch norm: there is nothing to recalibrate",
        ),
        (("llama-1m", "--seed", "7"), "nothing can be diagnosed: llama-1m was trained with seeds 0 to 2 only"),
        (
            ("llama-1m", "-q", "ternary", "--bits", "4"),
            "nothing can be diagnosed: ternary has no grid of 4 bits (allowed: 2)",
        ),
        (
            ("llama-1m", "-q", "{name: absmax, activations: {bits: 8}}"),
            "nothing can be diagnosed: a probe moves weights alone, and absmax[per_channel,a8] quantizes inputs too",
        ),
        (("llama-1m", "--data", "c4"), "--data 'c4': llama-1m has data of its own, and no others to choose"),
        (("mlp-mnist", "--data", "c4"), "--data 'c4': mlp-mnist has data of its own, and no others to choose"),
        (("smollm2-135m", "--data", "{folder"), "--data '{folder' is no YAML (allowed: a name, or {folder: PATH})"),
        (("smollm2-135m", "--data", "c5"), "MODEL: 'c5' is not a text source (allowed: "),
        (("llama-1m", "--write"), "--write belongs to --judge; a suite for mixed bits is written by --write-suite"),
        (("llama-1m", "--judge"), "--judge is about all published records: leave out 'llama-1m'"),
        (
            ("--judge",),
            "results/records has no records of the suite diagnose: run it, then `qbench archive diagnose`",
        ),
        (
            ("llama-1m", "--mixed", "2.5", "--bits", "8,3"),
            "--mixed 2.5: the fewest bits that are asked about are 3 (see --bits)",
        ),
        (("llama-1m", "--mixed", "3", "--no-layers"), "--mixed needs the layers: leave out --no-layers"),
        (
            ("llama-1m", "--write-suite", "m.yaml"),
            "--write-suite writes mixed bits: say how many with --mixed",
        ),
        (
            ("llama-1m", "--write-suite", "m.txt", "--mixed", "3"),
            "--write-suite m.txt (allowed: a file that ends in .yaml)",
        ),
        (
            ("llama-1m", "--measured", "nowhere"),
            "nowhere is no archive of records and no folder (allowed: *.jsonl.xz, or a folder)",
        ),
        (("llama-1m", "--device", "gpu"), "--device 'gpu' is not a device (allowed: auto, cpu, cuda)"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line_before_anything_runs(
    call: Any, arguments: tuple[str, ...], message: str
) -> None:
    said = call("diagnose", *arguments)
    assert (said.code, said.out) == (2, ""), said
    assert said.err.startswith(f"qbench: {message}"), said.err
    assert len(said.err.splitlines()) == 1
    assert not list(Path("results").rglob("*.json"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--budget", "0"),
        ("--draws", "65"),
        ("--steps", "0"),
        ("--mixed", "9"),
        ("--mixed", "0.5"),
        ("--seed", "-1"),
        ("--what",),
        ("mlp-mnist",),
    ],
)
def test_an_unreadable_call_shows_the_usage(call: Any, arguments: tuple[str, ...]) -> None:
    said = call("diagnose", "llama-1m", *arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Usage: qbench diagnose")
    assert "Traceback" not in said.err
