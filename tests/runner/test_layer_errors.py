"""Every layer of an embedded model: post-training methods never do worse than rounding to nearest there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.methods.adaround import AdaRound
from qbench.methods.base import Method
from qbench.methods.gptq import GPTQ
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.suite.cell import Cell

MakeCell = Callable[..., Cell]


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("method", [GPTQ(name="gptq"), AdaRound(name="adaround")], ids=["gptq", "adaround"])
def test_the_error_of_every_layer_is_below_that_of_rounding_to_nearest(
    llama: MakeCell, session: Session, tmp_path: Path, method: Method, bits: int
) -> None:
    record = execute(identify(llama(method, bits=bits)), "test", session, tmp_path / "weights")
    assert record.clean, record.reason
    assert len(record.layers) == 28
    for layer in record.layers:
        assert layer.objective is not None and layer.rtn_objective is not None
        assert layer.objective < layer.rtn_objective, layer.name
