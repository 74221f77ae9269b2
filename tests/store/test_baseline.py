"""The file of a baseline: what survives it, which older ones load, and what is said of one that is none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.errors import StoreError
from qbench.store.baseline import BASELINE_VERSION, Baseline, read_baseline, write_baseline
from qbench.store.comparison import compare, compare_results
from qbench.store.gathering import classes_of, gather, one_class
from qbench.store.record import Record
from qbench.store.results import Blessing, Expected
from qbench.store.spread import measure_spread

MakeRun = Callable[..., list[Record]]
MakeRecord = Callable[..., Record]

KEPT = Path(__file__).parents[2] / "results" / "baselines"
HISTORIC = Path(__file__).parents[1] / "historic"
GPTQ = "m/mse/2b/gptq/s0"


@pytest.fixture
def baseline(make_run: MakeRun) -> Baseline:
    run = make_run({GPTQ: 0.6, "m/mse/2b/gptq/s1": [0.61, 0.7, 0.5, 0.6, 0.62, 0.6], "m/mse/4b/rtn/s0": 0.03})
    results = gather([*run[:-1], run[-1].model_copy(update={"weights_sha256": "ab"})], [run])
    results.expected["m/mse/2b/lsq/s0"] = Expected(reason="diverges", date="2026-08-01")
    results.history.append(Blessing(date="2026-08-01", reason="first", qbench_version="0.1.0", counts={"new": 5}))
    return Baseline(suite="tiny", devices={"cpu x86_64": results, "cuda H100": gather(run)})


def test_a_baseline_survives_its_file(baseline: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    write_baseline(path, baseline)
    assert read_baseline(path) == baseline
    lines = path.read_text().splitlines()
    cells = [line for line in lines if line.startswith('"m/') and '"axes"' in line]
    assert len(cells) == sum(len(part.cells) for part in baseline.devices.values()), "one line a cell"
    assert cells[:5] == sorted(cells[:5])
    before = path.read_bytes()
    write_baseline(path, read_baseline(path))
    assert path.read_bytes() == before


def test_document_names_are_kept_once_a_model_and_seed(baseline: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    write_baseline(path, Baseline(suite="tiny", devices={"cpu": baseline.devices["cpu x86_64"]}))
    assert path.read_text().count('"d0"') == 2, "seeds 0 and 1"


def test_a_nan_survives_and_the_file_is_strict_json(make_record: MakeRecord, tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    write_baseline(path, Baseline(suite="tiny", devices={"cpu": gather([make_record(GPTQ, math.nan)])}))
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"bare {word} in the file"))
    assert math.isnan(read_baseline(path).devices["cpu"].cells[GPTQ].loss or 0.0)


def test_the_spread_in_a_file_is_for_readers_only(baseline: Baseline, tmp_path: Path) -> None:
    # It follows from the cells: nobody can loosen a tolerance by writing a larger number there.
    path = tmp_path / "tiny.json"
    write_baseline(path, baseline)
    data = json.loads(path.read_text())
    written = data["devices"]["cpu x86_64"]["spread"]
    assert written == [spread.model_dump() for spread in measure_spread(baseline.devices["cpu x86_64"])]
    for row in written:
        row["sd"] = row["noise"] = 100.0
    path.write_text(json.dumps(data))
    assert read_baseline(path) == baseline


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no baseline at .*bless"),
        ("{", "not JSON"),
        ("[]", "no schema_version"),
        ('{"suite": "a"}', "no schema_version"),
        ('{"schema_version": 0}', "no schema_version"),
        ('{"schema_version": 99}', "newer qbench"),
        ('{"schema_version": 1, "suite": "a", "qbench_version": "1"}', "cells: Field required"),
        ('{"schema_version": 1, "suite": "a", "cells": {"x": 3}}', "is no baseline: "),
        ('{"schema_version": 2, "suite": "a"}', "devices: Field required"),
        ('{"schema_version": 2, "suite": "a", "devices": {"cpu": 3}}', r"devices.cpu: Input should be"),
        ('{"schema_version": 2, "suite": "a", "devices": {}, "more": 1}', "more: Extra inputs"),
    ],
)
def test_what_is_no_baseline_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "tiny.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StoreError, match=message):
        read_baseline(path)


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
def test_every_kept_baseline_loads_and_equals_itself(path: Path, tmp_path: Path) -> None:
    loaded = read_baseline(path)
    assert loaded.schema_version == BASELINE_VERSION
    write_baseline(tmp_path / path.name, loaded)
    assert read_baseline(tmp_path / path.name) == loaded
    for results in loaded.devices.values():
        found = compare_results(results, results)
        assert found.passed and set(found.counts) <= {"same", "expected"}


def test_a_baseline_of_version_1_has_one_class_and_no_documents() -> None:
    data = json.loads((HISTORIC / "baseline_v1.json").read_text())
    assert data["schema_version"] == 1
    results = read_baseline(HISTORIC / "baseline_v1.json").devices
    assert list(results) == ["cpu x86_64"]
    part = results["cpu x86_64"]
    assert set(part.cells) == set(data["cells"])
    assert all(not cell.losses and not cell.repeats for cell in part.cells.values())
    # What the old file had measured over seeds follows from its cells.
    assert [(row.row, row.sd) for row in measure_spread(part)] == [
        ((row["model"], row["quantizer"], row["bits"], row["method"]), pytest.approx(row["sd"]))
        for row in data["spread"]
    ]
    # What was accepted then is expected to fail now.
    assert part.expected == {"m/mse/2b/lsq/s0": Expected(reason="accepted before reasons were kept")}
    found = compare_results(part, part)
    assert found.passed and found.counts == {"expected": 1, "same": len(part.cells) - 1}


def test_documents_that_are_not_those_of_full_precision_are_not_kept(make_run: MakeRun) -> None:
    full, cell = make_run({GPTQ: 0.6})
    other = cell.model_copy(
        update={"documents": [row.model_copy(update={"document": f"{row.document}!"}) for row in cell.documents]}
    )
    results = gather([full, other])
    assert results.cells[GPTQ].losses == []
    assert len(results.cells["m/fp/s0"].losses) == len(full.documents)


def test_the_ground_of_most_cells_is_kept_once(make_run: MakeRun) -> None:
    run = make_run({GPTQ: 0.6, "m/mse/4b/rtn/s0": 0.03}, environment={"device": "cpu", "threads": 1})
    run[-1] = run[-1].model_copy(update={"environment": {"device": "cpu", "threads": 2}})
    results = gather(run)
    assert results.environment == {"device": "cpu", "threads": "1"}
    assert {label: cell.environment for label, cell in results.cells.items() if cell.environment} == {
        "m/mse/4b/rtn/s0": {"threads": "2"}
    }
    assert results.ground(results.cells["m/mse/4b/rtn/s0"])["threads"] == "2"
    assert compare(run, results).counts == {"same": 3}


def test_results_are_of_one_class_of_device(make_run: MakeRun) -> None:
    cpu = make_run({GPTQ: 0.6}, environment={"device": "cpu", "platform": "Linux x86_64"})
    gpu = make_run({GPTQ: 0.6}, environment={"device": "cuda", "device_name": "H100"})
    not_executed = cpu[0].model_copy(update={"environment": {}})
    assert one_class([*cpu, not_executed]) == "cpu x86_64"
    assert classes_of([*cpu, *gpu]) == ["cpu x86_64", "cuda H100"]
    with pytest.raises(StoreError, match=r"several classes of device \(cpu x86_64, cuda H100\)"):
        one_class([*cpu, *gpu])
    with pytest.raises(StoreError, match="not one cell was executed"):
        one_class([not_executed])
