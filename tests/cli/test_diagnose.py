"""`qbench diagnose`: what it measures, tells, writes and refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from qbench.report.numbers import compact
from qbench.tasks import tokenizer
from qbench.tasks.torchvision_ops import declare_missing_operators

SMALL = ("--option", "evaluation_windows=8", "--option", "calibration_windows=8", "--budget", "256", "--device", "cpu")
LLAMA = ("diagnose", "llama-1m", *SMALL, "-q", "absmax", "--bits", "4,2")
MLP = ("diagnose", "mlp-mnist", "--budget", "64", "--bits", "8,2", "--no-layers", "--device", "cpu")
TINY = ("--option", "window=32", "--option", "evaluation_windows=8", "--option", "calibration_windows=6",
        "--data", "{folder: texts}", "--budget", "128", "--bits", "8,2", "--device", "cpu")  # fmt: skip
RUNS = Path("results/runs")


def records() -> set[str]:
    return {path.name for path in RUNS.glob("*/records/*.json")}


@pytest.fixture(scope="session")
def first_diagnosis(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return a folder in which the installed command has made a diagnosis with all that there is, and what it said."""
    folder = tmp_path_factory.mktemp("first_diagnosis")
    qbench = Path(sys.executable).with_name("qbench")
    command = [qbench, *LLAMA, "--mixed", "3", "--write-suite", "mixed.yaml"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def diagnosed(first_diagnosis: tuple[Path, Any], own_folder: Path) -> Any:
    """Return what that said; the present folder is a copy of its own."""
    shutil.copytree(first_diagnosis[0], own_folder, dirs_exist_ok=True)
    return first_diagnosis[1]


def test_the_table_tells_every_bitwidth_and_ends_with_an_answer(diagnosed: Any) -> None:
    out = diagnosed.stdout
    assert out.startswith(
        "== llama-1m[calibration_windows=8,evaluation_windows=8] on absmax[per_channel], seed 0: inside to D = .050, "
        "failed from .500 nats =="
    )
    assert [line.split()[0] for line in out.splitlines() if line[:5].strip() in ("4", "2")][:2] == ["4", "2"]
    assert "layers that eat the margin at " in out
    assert "mixed precision, 3.00 bits a weight in the mean:" in out or "mixed precision, 2.9" in out
    words = " ".join(out.split())
    assert " at 2 bits for all, " in words and " at 4 bits for all (rounding to nearest)" in words
    assert "answer: the cheapest that stays inside" in out
    assert "tokens or images; this call took " in words
    assert " s; records in results/runs/diagnose-llama-1m" in words
    # The headline names the model, and words are not broken; all else fits a terminal of 80 columns.
    tables = [line for line in out.splitlines() if not line.startswith(("==", "cost:"))]
    assert max(map(len, tables)) <= 80


def test_json_has_the_numbers_of_the_table(diagnosed: Any, call: Any) -> None:
    said = call(*LLAMA, "--mixed", "3", "--json")
    assert said.code == 0, said.err
    held = json.loads(said.out)
    (found,) = held["diagnoses"]
    assert [row["bits"] for row in found["bits"]] == [4, 2]
    for row in found["bits"]:
        assert compact(row["margin"]) in diagnosed.stdout
        for one in row["forecasts"].values():
            assert f"{compact(one['excess'])} [{compact(one['low'])},{compact(one['high'])}]" in diagnosed.stdout
            assert one["low"] <= one["excess"] <= one["high"]
    assert (found["inside"], found["failed"], held["steps"]) == (0.05, pytest.approx(0.5, rel=0.5), 200)
    layers = found["layers"]["layers"]
    assert len(layers) == 28
    assert f"at {found['layers']['bits']} bits" in diagnosed.stdout
    assert max(layers, key=lambda layer: layer["excess"])["name"] in diagnosed.stdout
    assert set(found["mixed"]["bits"]) == {layer["name"] for layer in layers}
    assert set(found["mixed"]["bits"].values()) <= {2, 4}
    assert found["mixed"]["mean_bits"] <= 3
    assert found["mixed"]["excess"] <= found["mixed"]["uniform"]["2"]


def test_what_is_stored_is_not_measured_again(diagnosed: Any, call: Any) -> None:
    before = records()
    said = call(*LLAMA, "--mixed", "3")
    assert (said.code, said.err) == (0, "")
    took = re.compile(r"took\s+\d+ s")  # the one thing that a call says of itself
    assert took.sub("", said.out) == took.sub("", diagnosed.stdout)
    assert records() == before
    # Nor is it by other words for the same: what QAT may take is foretold, and layers can be left out.
    assert "QAT D, 5 steps" in call(*LLAMA, "--no-layers", "--steps", "5").out
    assert records() == before


def test_more_steps_of_training_leave_less(diagnosed: Any, call: Any) -> None:
    def lost(steps: int) -> float:
        found = json.loads(call(*LLAMA, "--no-layers", "--steps", steps, "--json").out)["diagnoses"][0]["bits"]
        return float(found[-1]["forecasts"]["qat"]["excess"])

    assert lost(10) > lost(1000) > lost(100000)


def test_the_mixed_suite_is_sound_and_is_not_overwritten(diagnosed: Any, call: Any) -> None:
    assert "wrote mixed.yaml: `qbench run --suite mixed.yaml` runs it" in diagnosed.stderr
    said = call("validate", "mixed.yaml")
    assert said.code == 0, said.err
    run = [cell["label"].split("/") for cell in json.loads(call("plan", "--suite", "mixed.yaml", "--json").out)["run"]]
    quantizers = {label[1] for label in run if len(label) > 3}
    assert len(quantizers) == 2 and "absmax[per_channel]" in quantizers
    assert {label[3] for label in run if len(label) > 3} == {"rtn", "gptq"}
    text = Path("mixed.yaml").read_text()
    again = call(*LLAMA, "--mixed", "3", "--write-suite", "mixed.yaml")
    assert (again.code, again.out) == (2, "")
    assert again.err == "qbench: mixed.yaml is there already: it is not overwritten\n"
    assert Path("mixed.yaml").read_text() == text


def test_a_figure_is_drawn(diagnosed: Any, call: Any) -> None:
    said = call(*LLAMA, "--no-layers", "--figure", "drawn")
    assert said.code == 0, said.err
    (drawn,) = Path("drawn").iterdir()
    assert said.err == f"wrote {drawn}\n"
    assert drawn.suffix == ".svg" and "<svg" in drawn.read_text()


def test_what_was_measured_stands_beside_it(call: Any) -> None:
    said = call(*MLP, "--measure", "--seed", "1", "-q", "absmax")
    assert said.code == 0, said.err
    assert "measured" in said.out and " gptq" in said.out
    assert "measured: what stored records have" in said.out
    assert said.out.startswith("== mlp-mnist on absmax[per_channel], seed 1: ")
    (folder,) = RUNS.iterdir()
    shutil.move(folder, "elsewhere")
    # Of records that lie elsewhere, and of a folder of such folders; of other models' nothing is known.
    Path("all").mkdir()
    shutil.copytree("elsewhere", "all/one")
    for place in ("elsewhere", "all"):
        found = json.loads(call(*MLP, "--seed", "1", "-q", "absmax", "--measured", place, "--json").out)["diagnoses"][0]
        for row in found["bits"]:
            assert set(row["measured"]) == {"rtn", "gptq"}
            assert row["measured"]["rtn"]["method"] == "rtn"
    Path("empty").mkdir()
    without = call(*MLP, "--seed", "1", "-q", "absmax", "--measured", "empty")
    assert without.code == 0 and "measured" not in without.out


def test_several_quantizers_in_the_order_they_were_asked_for(call: Any) -> None:
    grouped = "{name: mse, granularity: {per_group: 64}}"
    arguments = ("diagnose", "mlp-mnist", "--budget", "64", "--bits", "4,2", "--device", "cpu")
    said = call(*arguments, "-q", grouped, "-q", "absmax", "-q", "ternary", "--mixed", "3", "--write-suite", "m.yaml")
    assert said.code == 0, said.err
    titles = [line for line in said.out.splitlines() if line.startswith("==")]
    assert [title.split(" on ")[1].split("[")[0].split(",")[0] for title in titles] == ["mse", "absmax", "ternary"]
    # ternary has a grid of 2 bits alone: there is nothing to mix.
    assert "left out: ternary has no grid of 4 bits (allowed: 2)" in said.err
    blocks = yaml.safe_load(Path("m.yaml").read_text())["matrix"]
    told = [(block["quantizers"][0]["name"], "layer_bits" in block["quantizers"][0]) for block in blocks]
    assert told == [("mse", False), ("mse", True), ("absmax", False), ("absmax", True), ("ternary", False)]
    assert blocks[1]["quantizers"][0]["granularity"] == {"per_group": 64}
    # Its names of layers are those of the model.
    ran = call("run", "--suite", "m.yaml", "--only", "method=rtn,quantizer=absmax", "--device", "cpu", "--jobs", "1")
    assert ran.code == 0, ran.err


def saved_lm(folder: Path, steps: int) -> None:
    """Save a tiny Llama that was trained for some steps, and texts to read."""
    declare_missing_operators()
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=tokenizer.VOCAB_SIZE, max_position_embeddings=64, **sizes))
    end, own = tokenizer.END_OF_TEXT, tokenizer.load_tokenizer()
    texts = [f"The story of number {index} goes on and on. " * 20 for index in range(40)]
    batch = torch.tensor([own.encode(text).ids[:32] for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=own, bos_token=end, eos_token=end).save_pretrained(folder)
    Path("texts").mkdir()
    for index, text in enumerate(texts):
        (Path("texts") / f"{index}.txt").write_text(text)


def test_a_saved_folder_whole_and_block_by_block(call: Any) -> None:
    saved_lm(Path("models/tiny"), 30)
    found = []
    for way in ("whole", "streamed"):
        given = ("--option", f"device_map={way}", "--out", way, "--json")
        said = call("diagnose", "hf:models/tiny", *TINY, *given)
        assert said.code == 0, said.err
        found += json.loads(said.out)["diagnoses"]
    whole, streamed = found
    assert whole["model"] == streamed["model"] == "tiny"
    assert whole["bits"][0]["answer"] == "ptq"
    for one in (*whole["bits"], *streamed["bits"]):
        del one["seconds"]
    for part in ("bits", "law", "layers", "basin_radius", "failing_bits"):
        assert whole[part] == streamed[part], part


def test_a_saved_folder(call: Any) -> None:
    saved_lm(Path("models/tiny"), 30)
    said = call("diagnose", "hf:models/tiny", *TINY, "--no-layers")
    assert said.code == 0, said.err
    assert said.out.startswith("== tiny on mse[per_channel], seed 0: ")
    assert "PTQ is enough at 8" in said.out


def test_a_model_that_knows_nothing_has_nothing_to_lose(call: Any) -> None:
    saved_lm(Path("models/tiny"), 0)
    said = call("diagnose", "hf:models/tiny", *TINY, "--no-layers")
    assert (said.code, said.out) == (2, "")
    assert re.fullmatch(
        r"qbench: tiny: its loss of \d\.\d+ is no better than chance \(\d\.\d+\), so that there is nothing to lose",
        said.err.splitlines()[-1],
    )


def test_help_has_examples(call: Any) -> None:
    said = call("diagnose", "--help")
    assert said.code == 0
    told = " ".join(said.out.split())
    for example in ("qbench diagnose llama-1m", "hf:models/mine --mixed 3"):
        assert example in told
