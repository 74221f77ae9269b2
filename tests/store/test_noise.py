"""Pools of repeats, and the tolerances that are made of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import pytest
from scipy import special

from qbench.store.gathering import gather
from qbench.store.noise import accuracy_noise, loss_noise, pool_of, pooled
from qbench.store.record import Record
from qbench.store.spread import measure_spread
from qbench.store.tolerance import Tolerances

MakeRun = Callable[..., list[Record]]
MakeRecord = Callable[..., Record]

GPTQ = ("m/mse/2b/gptq/s0", "m/mse/2b/gptq/s1", "m/absmax/2b/gptq[act_order=false]/s0")


def test_a_pool_is_of_one_model_method_and_bitwidth() -> None:
    axes = {"model": "m", "quantizer": "mse", "bits": 2, "method": "gptq[act_order=false]", "seed": 3}
    assert pool_of(axes) == pool_of({**axes, "quantizer": "absmax", "seed": 0, "method": "gptq"}) == ("m", "gptq", 2)
    assert (
        len({pool_of({**axes, name: value}) for name, value in (("model", "n"), ("bits", 3), ("method", "rtn"))}) == 3
    )


def test_pooling_is_that_of_analysis_of_variance() -> None:
    a, b = [1.0, 1.2, 0.9], [5.0, 5.4]
    noise = pooled([(("m", "gptq", 2), a), (("m", "gptq", 2), b), (("m", "rtn", 2), [3.0])])
    assert set(noise) == {("m", "gptq", 2)}, "what was measured once says nothing"
    found = noise["m", "gptq", 2]
    assert found.freedom == 3
    within = 2 * statistics.variance(a) + statistics.variance(b)
    assert found.sd == pytest.approx(math.sqrt(within / 3))
    assert found.tolerance == pytest.approx(special.stdtrit(3, 0.9995) * math.sqrt(2) * found.sd)


def test_a_repeat_is_measured_against_its_own_full_precision(make_run: MakeRun) -> None:
    run = make_run(dict.fromkeys(GPTQ, 0.6))
    # Full precision moves in the repeats, and with it everything else: no noise but in one cell.
    repeats = [make_run({**dict.fromkeys(GPTQ, 0.6), GPTQ[0]: 0.6 + d}, full=2.9 + d) for d in (0.01, -0.01)]
    results = gather(run, repeats)
    assert results.cells[GPTQ[1]].repeats == pytest.approx([0.6, 0.6])
    noise = loss_noise(results)
    assert noise["m", "gptq", 2].freedom == 6
    assert noise["m", "gptq", 2].sd == pytest.approx(math.sqrt(2 * 0.01**2 / 6))
    assert noise["m", "fp", None].sd == pytest.approx(0.01), "of full precision the loss itself"


def test_repeats_of_something_else_are_left_out(make_run: MakeRun) -> None:
    run = make_run({GPTQ[0]: 0.6})
    other_code = [record.model_copy(update={"cell_id": "other"}) for record in run]
    gpu = [record.model_copy(update={"environment": {"device": "cuda", "device_name": "H100"}}) for record in run]
    broken = [run[0], run[1].model_copy(update={"status": "failed", "metrics": {}})]
    diverged = [run[0], run[1].model_copy(update={"status": "diverged"})]
    layers = [layer.model_copy(update={"fallback": "rtn"}) for layer in run[1].layers]
    fallen = [run[0], run[1].model_copy(update={"layers": layers})]
    without_full = run[1:]
    assert gather(fallen, [fallen]).cells[GPTQ[0]].repeats == pytest.approx([0.6]), "in both"
    for repeat in (other_code, gpu, broken, diverged, fallen, without_full):
        assert gather(run, [repeat]).cells[GPTQ[0]].repeats == []
    assert gather(run, [run]).cells[GPTQ[0]].repeats == pytest.approx([0.6])
    newest = [*run, *(record.model_copy(update={"ended": "2020", "status": "failed"}) for record in run)]
    assert gather(run, [newest]).cells[GPTQ[0]].repeats == pytest.approx([0.6])


def test_the_tolerance_of_a_loss(make_run: MakeRun) -> None:
    run = make_run({"m/mse/2b/gptq/s0": 0.6, "m/mse/2b/gptq/s1": 0.7, "m/mse/2b/rtn/s0": 0.9})
    silent = Tolerances(gather(run))
    gptq, rtn, full = (gather(run).cells[label] for label in ("m/mse/2b/gptq/s0", "m/mse/2b/rtn/s0", "m/fp/s0"))
    assert [silent.of(cell, alike=True).loss for cell in (gptq, rtn, full)] == [0.002, 0.002, 0.001]
    assert silent.of(gptq, alike=False).loss == pytest.approx(3 * 0.1 / math.sqrt(2))
    assert silent.of(rtn, alike=False).loss == 0.02
    assert silent.of(full, alike=False).loss == 0.001
    assert [silent.of(rtn, alike=alike).measured for alike in (True, False)] == [True, False]
    repeat = make_run({"m/mse/2b/gptq/s0": 0.6, "m/mse/2b/gptq/s1": 0.71, "m/mse/2b/rtn/s0": 0.9 + 1e-8})
    noisy = Tolerances(gather(run, [repeat]))
    expected = special.stdtrit(2, 0.9995) * math.sqrt(2) * math.sqrt(0.01**2 / 2 / 2)
    assert noisy.of(gptq, alike=False).loss == pytest.approx(expected)
    assert noisy.of(gptq, alike=True).loss == 0.002, "equal code gives equal bytes, however noisy other arithmetic is"
    assert [noisy.of(rtn, alike=alike).loss for alike in (True, False)] == [0.002, 0.01], "noise far below the floor"
    assert noisy.of(rtn, alike=False).measured


def test_the_tolerance_of_an_accuracy_is_of_repeats_where_there_are_any(make_record: MakeRecord) -> None:
    def images(accuracy: float, seed: int = 0) -> list[Record]:
        metrics = {"loss/cross_entropy": 0.1, "accuracy/top1": 0.98}
        full = make_record(f"r/fp/s{seed}", metrics=metrics)
        return [full, make_record(f"r/mse/2b/rtn/s{seed}", metrics=metrics | {"accuracy/top1": accuracy})]

    run = images(0.90) + images(0.94, seed=1)
    cell = gather(run).cells["r/mse/2b/rtn/s0"]
    assert Tolerances(gather(run)).of(cell, alike=False).accuracy == pytest.approx(3 * 0.04 / math.sqrt(2))
    repeated = gather(run, [images(0.902) + images(0.94, seed=1)])
    sd = accuracy_noise(repeated)["r", "rtn", 2].sd
    assert sd == pytest.approx(math.sqrt(0.002**2 / 2 / 2))
    expected = max(0.005, special.stdtrit(2, 0.9995) * math.sqrt(2) * sd)
    assert Tolerances(repeated).of(cell, alike=False).accuracy == pytest.approx(expected)
    assert Tolerances(repeated).of(cell, alike=True).accuracy == 0.005


def test_readers_of_a_baseline_see_seeds_and_repeats(make_run: MakeRun) -> None:
    run = make_run({"m/mse/2b/gptq/s0": 0.6, "m/mse/2b/gptq/s1": 0.8})
    (spread,) = measure_spread(gather(run, [make_run({"m/mse/2b/gptq/s0": 0.62, "m/mse/2b/gptq/s1": 0.8})]))
    assert (spread.seeds, spread.mean, spread.sd) == (2, pytest.approx(0.7), pytest.approx(0.2 / math.sqrt(2)))
    assert (spread.freedom, spread.noise) == (2, pytest.approx(math.sqrt(0.02**2 / 2 / 2)))


def test_a_noisy_quantizer_is_not_lost_among_quiet_ones(make_run: MakeRun) -> None:
    labels = [f"m/q{number}/2b/gptq/s0" for number in range(20)]
    run, noisy = dict.fromkeys(labels, 0.5), labels[7]
    repeated = Tolerances(gather(make_run(run), [make_run(run | {noisy: 0.5 + change}) for change in (0.03, -0.02)]))
    cells = gather(make_run(run)).cells
    pooled = repeated.of(cells[labels[0]], alike=False).loss
    assert 0.01 < pooled < 0.1
    assert repeated.of(cells[noisy], alike=False).loss == pytest.approx(max(2 * 0.05, pooled))


def test_on_another_ground_a_hundredth_is_tolerated_however_quiet_the_repeats(make_run: MakeRun) -> None:
    run = make_run({"m/mse/2b/gptq/s0": 0.6})
    quiet, cell = Tolerances(gather(run, [run, run, run])), gather(run).cells["m/mse/2b/gptq/s0"]
    assert [quiet.of(cell, alike=alike).loss for alike in (True, False)] == [0.002, 0.01]
    full = gather(run).cells["m/fp/s0"]
    assert [quiet.of(full, alike=alike).loss for alike in (True, False)] == [0.001, 0.001]
