"""torchvision's models in worker processes: each kind of method, from the suite's entry to the record."""

from __future__ import annotations

from pathlib import Path

import pytest

from qbench.runner.identity import identify
from qbench.runner.local import LocalExecutor
from qbench.store.folder import RunFolder
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import load_suite

SUITE = """
name: tv
matrix:
  models:
    - {{name: torchvision, model: {model}, images: digits, size: 32, calibration_images: 4, evaluation_images: 10}}
  quantizers: [absmax]
  bits: [4]
  methods:
    - rtn
    - {{name: rtn, bn: recalibrate}}
    - {{name: rtn, bn: fold}}
    - gptq
    - {{name: adaround, iterations: 3, cd_sweeps: 0}}
    - {{name: ste_qat, steps: 1, batch_size: 2}}
"""


@pytest.mark.parametrize("model", ["mobilenet_v2", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_a_model_goes_through_every_kind_of_method_in_a_spawned_worker(model: str, tmp_path: Path) -> None:
    suite = tmp_path / "tv.yaml"
    suite.write_text(SUITE.format(model=model))
    cells = enumerate_cells(load_suite(str(suite)))
    assert not any(cell.skip for cell in cells)
    executor = LocalExecutor(1, "cpu")
    found = list(executor.run([identify(cell) for cell in cells], "tv", RunFolder(tmp_path).weights_path))
    assert len(found) == len(cells) == 8
    assert [record.reason for record in found if record.status != "ok"] == []
    quantized = [record for record in found if record.axes["bits"] is not None]
    layers = {record.label: {row.name for row in record.layers} for record in quantized}
    assert {len(names) for names in layers.values()} == {21 if model == "resnet18" else 53}
    norms = 20 if model == "resnet18" else 52
    assert {record.facts["batch_norm_layers"] for record in quantized} == {norms}
    assert all(0 <= record.metrics["accuracy/top1"] <= 1 for record in found)
    by_method = {str(record.axes["method"]): record for record in quantized}
    assert by_method["rtn"].weights_sha256 != by_method["gptq"].weights_sha256
    assert by_method["ste_qat[steps=1,batch_size=2]"].cost.train_steps == 1
