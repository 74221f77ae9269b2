"""`qbench export` on one small stored run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from qbench.runner.packed_file import read_packed
from qbench.store.folder import RunFolder
from qbench.store.record import Record

RUN = Path("results/runs/tiny")
MODEL = "llama-1m[calibration_windows=8,evaluation_windows=8,passages=2,choices=4]"
LABEL = f"{MODEL}/absmax[per_channel]/4b/rtn/s0"


def record_of(label: str) -> Record:
    return next(record for record in RunFolder(RUN).read_all().values() if record.label == label)


def test_by_label_by_id_and_by_the_beginning_of_an_id(stored: Path, call: Any) -> None:
    record = record_of(LABEL)
    for index, cell in enumerate((LABEL, record.cell_id, record.cell_id[:6])):
        said = call("export", cell, "--to", f"{index}.safetensors")
        assert (said.code, said.err) == (0, "")
        size = Path(f"{index}.safetensors").stat().st_size
        assert said.out.splitlines() == [
            f"{LABEL} ({record.cell_id[:12]}): 28 layers, {size:,} bytes in {index}.safetensors",
            "read back: the same weights to the bit",
        ]
    weights = read_packed(Path("0.safetensors")).layers
    for name, found in read_packed(RunFolder(RUN).weights_path(record.cell_id)).layers.items():
        assert torch.equal(weights[name].weight(), found.weight())


def test_the_default_name_is_that_of_the_label(stored: Path, call: Any) -> None:
    found = json.loads(call("export", LABEL, "--json").out)
    slug = "llama-1m-calibration_windows=8-evaluation_windows=8-passages=2-choices=4-absmax-per_channel-4b-rtn-s0"
    assert found["path"] == f"{slug}.safetensors" and Path(found["path"]).stat().st_size == found["bytes"]
    assert (found["label"], found["layers"], found["exact"]) == (LABEL, 28, True)
    assert found["effective_bits"] == record_of(LABEL).effective_bits
    again = call("export", LABEL)
    assert (again.code, again.out) == (2, "")
    assert (
        again.err == f"qbench: {slug}.safetensors is there already: --force writes over it, --to names another file\n"
    )
    assert call("export", LABEL, "--force").code == 0


def test_suite_and_out_tell_where_to_look(stored: Path, call: Any) -> None:
    shutil.move(RUN, "elsewhere")
    Path("results/runs").rmdir()
    assert call("export", LABEL).err == ("qbench: results/runs holds no record: `qbench run --suite NAME` makes them\n")
    assert call("export", LABEL, "--out", "elsewhere").code == 0
    said = call("export", LABEL, "--suite", "tiny.yaml")
    assert (said.code, said.err) == (
        2,
        "qbench: results/runs/tiny holds no record: `qbench run --suite NAME` makes them\n",
    )
    assert call("export", LABEL, "--suite", "tiny.yaml", "--out", "elsewhere", "--force").code == 0


def test_of_several_records_of_a_label_the_newest_counts(stored: Path, call: Any) -> None:
    folder, record = RunFolder(RUN), record_of(LABEL)
    newer = record.model_copy(update={"cell_id": "f" * 64, "ended": "9999"})
    folder.write(newer)
    shutil.copy(folder.weights_path(record.cell_id), folder.weights_path(newer.cell_id))
    assert json.loads(call("export", LABEL, "--json").out)["cell_id"] == newer.cell_id


def test_cells_that_there_are_not(stored: Path, call: Any) -> None:
    said = call("export", LABEL.replace("absmax", "absmx"))
    assert said.code == 2 and said.err.startswith(f"qbench: {RUN} holds no cell ") and said.err.count("\n") == 1
    assert f"did you mean {LABEL!r} or " in said.err and said.err.endswith("(5 labels are there)\n")
    assert "holds no cell 'abcdef' (5 labels are there)" in call("export", "abcdef").err
    assert call("export", "abcde").err == "qbench: 'abcde' is too short for an id (allowed: 6 letters or more)\n"
    for one in ("a", "b"):
        record = record_of(LABEL)
        RunFolder(RUN).write(record.model_copy(update={"cell_id": "c0ffee" + one * 58}))
    assert "'c0ffee' begins 2 ids: c0ffeeaaaaaaaaaa, c0ffeebbbbbbbbbb" in call("export", "c0ffee").err


def test_a_full_precision_cell_has_nothing_to_export(stored: Path, call: Any) -> None:
    said = call("export", f"{MODEL}/fp/s0")
    assert (said.code, said.err) == (
        2,
        f"qbench: {MODEL}/fp/s0 is in full precision: there are no quantized weights to export\n",
    )


@torch.no_grad()
def test_a_folder_for_transformers(stored: Path, call: Any) -> None:
    said = call("export", LABEL, "--format", "compressed-tensors", "--to", "my-model", "--suite", "tiny.yaml")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[1:] == [
        "  pack-quantized, 4 bits, channel: 28 layers",
        "read back: the same weights to the bit",
    ]
    assert call("export", LABEL, "--format", "compressed-tensors", "--to", "my-model").err == (
        "qbench: my-model is there already: --force writes over it, --to names another folder\n"
    )
    # Without --suite the options in the record's key tell which model it was.
    again = call("export", LABEL, "--format", "compressed-tensors", "--to", "my-model", "--force", "--json")
    assert json.loads(again.out)["schemes"] == {"pack-quantized, 4 bits, channel": 28}
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("my-model")
    model(input_ids=torch.tensor([[1, 2, 3]]))  # weights are made of codes at the first call
    for name, found in read_packed(RunFolder(RUN).weights_path(record_of(LABEL).cell_id)).layers.items():
        assert torch.equal(model.get_submodule(name).weight, found.weight())
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec("from transformers" + page.split("```python\nfrom transformers")[1].split("```")[0], names)
    assert names["text"].startswith("The")


def test_a_model_in_a_local_folder_needs_its_suite(stored: Path, call: Any) -> None:
    record = record_of(LABEL)
    record.key["model"]["options"] |= {"name": "causal_lm", "path": "mine"}
    RunFolder(RUN).write(record)
    said = call("export", LABEL, "--format", "compressed-tensors")
    assert said.err == f"qbench: {LABEL}: its model is a local folder: say --suite FILE, the suite that names it\n"


def test_an_unknown_format_is_refused(stored: Path, call: Any) -> None:
    said = call("export", LABEL, "--format", "gguf")
    assert said.code == 2 and "'gguf' is not one of 'packed', 'compressed-tensors'" in said.err


def test_the_file_is_safetensors_like_any_other(stored: Path, call: Any) -> None:
    call("export", LABEL, "--to", "away.safetensors")
    with safe_open("away.safetensors", "pt") as file:
        assert set(file.metadata()) == {"qbench", "cell"}
        assert file.get_slice("model.layers.0.mlp.down_proj.codes").get_dtype() == "U8"
