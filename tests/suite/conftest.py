"""Names that only these tests know, and suites written to a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, field_validator

from qbench import registry
from qbench.errors import CellError, SuiteError
from qbench.spec import Spec
from qbench.suite.load import load_suite
from qbench.suite.schema import Suite

SUITE = """\
name: s
matrix:
  models: [zoo]
  quantizers: [grid]
  bits: [4, 2]
  methods: [near, {name: train, steps: 10}]
  seeds: 2
"""


class Zoo(Spec):
    def available_seeds(self) -> tuple[int, ...]:
        return {"zoo": (0, 1, 2), "single": (0,), "odd": (1, 4)}[self.name]


class Disk(Spec):
    path: Path | None = None
    text: dict[str, Any] = Field(default_factory=dict)

    def label(self) -> str:
        return self.name


class Speaker(Spec):
    metrics: ClassVar[tuple[str, ...]] = ("loss", "bits_per_byte")


class Seer(Spec):
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "loss", "colour")

    def refuses_method(self, method: Spec) -> str | None:
        return "a seer is not trained" if method.name in ("train", "warm") else None


class Grid(Spec):
    granularity: Literal["per_tensor", "per_channel"] = "per_channel"
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class Near(Spec):
    order: bool = False


class Train(Spec):
    steps: Annotated[int, Field(ge=1)] = 100
    rate: float | Literal["auto"] = 0.1
    layers: tuple[str, ...] = ()

    @field_validator("layers")
    @classmethod
    def _known(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        if "head" in layers:
            raise CellError("the head is never trained")
        return layers


class Look(Spec):
    points: tuple[str, ...] = ()
    width: int = 1


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = {
        "MODELS": ("model", {"zoo": Zoo, "single": Zoo, "odd": Zoo, "disk": Disk, "speaker": Speaker, "seer": Seer}),
        "QUANTIZERS": ("quantizer", {"grid": Grid, "other": Grid}),
        "METHODS": ("method", {"near": Near, "train": Train, "warm": Train}),
        "PROBES": ("probe", {"look": Look, "stare": Look}),
    }
    for attribute, (kind, classes) in fresh.items():
        new = registry.Registry(kind, f"qbench.tests.{kind}", {"broken": "qbench.suite:Missing"})
        for name, spec in classes.items():
            new.register(name, spec)
        monkeypatch.setattr(registry, attribute, new)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Suite]:
    def write_and_load(text: str | bytes = SUITE, file: str = "s.yaml") -> Suite:
        path = tmp_path / file
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_suite(str(path))

    return write_and_load


@pytest.fixture
def refusal(load: Callable[..., Suite], tmp_path: Path) -> Callable[..., str]:
    """Return what is said of a suite that is wrong, after the folder."""

    def refused(text: str | bytes, file: str = "s.yaml") -> str:
        with pytest.raises(SuiteError) as caught:
            load(text, file)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{tmp_path}/")
        return message.removeprefix(f"{tmp_path}/")

    return refused
