"""Records as suites of the claims leave them, with numbers of the size that networks and landscapes have."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from qbench.registry import METHODS, PROBES, QUANTIZERS
from qbench.store.record import Cost, DocumentLosses, LayerRow, Record

TRAINED = ("ste_qat", "latent_grad", "noise_grad", "random_grad", "ft_then_ptq")
PLAIN = {"optimizer": "sgd", "momentum": 0, "schedule": "constant", "clip_norm": None}
DOCUMENTS = 40
RTN = {8: 0.0004, 4: 0.028, 3: 0.153, 2: 0.917}
VALLEY = {"dimension": 256, "flat": 64, "rho": 1.0, "wall": 1.0, "offset": 0.6, "eps": 1e-4}

Options = dict[str, Any]
Trace = dict[str, list[float]]


class Shelf:
    """Records of one model on one grid, put there one by one.

    Parameters
    ----------
    model : str
        Label.
    quantizer : str
        Name in the registry.
    grid : dict
        Its options.
    facts : dict
        Of the model.
    """

    def __init__(self, model: str, quantizer: str = "mse", grid: Options | None = None, facts: Options | None = None):
        self.spec = QUANTIZERS.get(quantizer)(name=quantizer, **(grid or {}))
        self.model, self.facts = model, facts if facts is not None else {"chance_loss": math.log(1024)}
        self.records: list[Record] = []
        self.full: dict[int, float] = {}

    def fp(self, seed: int, loss: float = 2.87) -> None:
        self.full[seed] = loss
        self._put({}, {"quantizer": None, "bits": None, "method": "fp", "seed": seed}, 0.0)

    def method(
        self, seed: int, bits: int, name: str, excess: float, traces: Trace | None = None, **options: Any
    ) -> None:
        spec = METHODS.get(name)(name=name, **options)
        trained = name in TRAINED
        proxy = 4.0 ** (1 - bits) * {"gptq": 0.3, "adaround": 0.35, "ste_qat": 1.4}.get(name, 1.0)
        fields = {
            "layers": [
                LayerRow(name=f"{i}", shape=(2, 2), weight_error=0.1, output_error=proxy * (1 + 0.1 * i), levels=4)
                for i in range(3)
            ],
            "cost": Cost(train_tokens=4096 * trained, train_steps=100 * trained),
            "traces": traces or {},
        }
        key = {"method": _described(spec.model_dump(mode="json"), METHODS.home(name))}
        self._put(key, self._axes(seed, bits, spec.label()), excess, **fields)

    def probe(self, seed: int, bits: int, name: str, metrics: dict[str, float], traces: Trace | None = None) -> None:
        spec = PROBES.get(name)(name=name)
        key = {"probe": _described(spec.model_dump(mode="json"), PROBES.home(name))}
        self._put(key, self._axes(seed, bits, name), 0.0, documents=[], metrics=metrics, traces=traces or {})

    def _axes(self, seed: int, bits: int, label: str) -> dict[str, Any]:
        return {"quantizer": self.spec.label(), "bits": bits, "method": label, "seed": seed}

    def _put(self, key: Options, axes: dict[str, Any], excess: float, **fields: Any) -> None:
        axes = {"model": self.model, **axes}
        loss = self.full[axes["seed"]]
        exact = "tolerance" in self.facts
        count = 1 if exact else DOCUMENTS
        draw = random.Random(f"{self.model}{axes['seed']}")
        base = [loss * (1 + 0.1 * draw.uniform(-1, 1)) if count > 1 else loss for _ in range(count)]
        # A document's own excess varies about the mean, without moving it.
        above = [excess * (1 + 0.3 * math.sin(i)) for i in range(count)] if count > 1 else [excess]
        shift = excess - sum(above) / count
        documents = [
            DocumentLosses(document=f"text/{i}", tokens=100, loss_sum=100 * (b + a + shift))
            for i, (b, a) in enumerate(zip(base, above, strict=True))
        ]
        mean = sum(one.loss_sum for one in documents) / (100 * count)
        quantizer = {"quantizer": {"options": self.spec.model_dump(mode="json"), "version": 1, "sources": {}}}
        filled: dict[str, Any] = {
            "cell_id": "-".join(map(str, axes.values())),
            "key": key if axes["quantizer"] is None else key | quantizer,
            "axes": axes,
            "suite": "drawn",
            "status": "ok",
            "metrics": {"loss/landscape" if exact else "loss/blocks128": mean},
            "documents": documents,
            "facts": self.facts,
        }
        self.records.append(Record(**(filled | fields)))


def _described(options: Options, home: str) -> Options:
    return {"options": options, "version": 1, "sources": {home: "x"}}


def trajectory(steps: Sequence[int], start: float, end: float, scale: float, seed: int) -> Trace:
    """Return a training whose deployed loss falls from `start` to `end` while the latent loss rises."""
    deployed = [end + (start - end) / (1 + step / scale) for step in steps]
    latent = [0.25 * end * math.log1p(step / scale) - 0.004 * (step > 0) * (1 + seed) for step in steps]
    return {
        "trajectory/step": [float(step) for step in steps],
        "trajectory/deployed": deployed,
        "trajectory/latent": latent,
        "trajectory/train": [0.97 * value for value in deployed],
        **{f"trajectory/{name}_se": [0.01] * len(steps) for name in ("deployed", "latent", "train")},
    }


def network(model: str, quantizer: str = "mse", seeds: Sequence[int] = (0, 1, 2)) -> list[Record]:
    """Return the cells and probes of a network at 8, 4, 3 and 2 bits."""
    shelf = Shelf(model, quantizer)
    worse = 1.0 if quantizer == "mse" else 4.0
    for seed in seeds:
        shelf.fp(seed, 2.87 + 0.01 * seed)
        own = worse * (1 + 0.12 * (seed - 1))
        for bits, excess in RTN.items():
            _methods(shelf, seed, bits, own * excess)
            _probes(shelf, seed, bits, own * excess)
    return shelf.records


def _methods(shelf: Shelf, seed: int, bits: int, rtn: float) -> None:
    shelf.method(seed, bits, "rtn", rtn)
    shelf.method(seed, bits, "gptq", 0.75 * rtn)
    shelf.method(seed, bits, "adaround", 0.68 * rtn)
    for place, rate in enumerate((1e-4, 3e-4, 1e-3, 3e-3)):
        shares = {
            "ste_qat": (0.45, 0.6, 0.72, 0.66),
            "noise_grad": (0.1, 0.2, 0.33, 0.36),
            "latent_grad": (0.0, 0.01, 0.03, -0.2),
            "random_grad": (-0.01, -0.05, -0.4, -3.0),
            "ft_then_ptq": (0.01, 0.03, 0.05, 0.02),
        }
        for name, recovered in shares.items():
            left = rtn * (1 - recovered[place] * (1 + 0.05 * seed))
            moments = (0, 1, 2, 4, 8, 16, 32, 64, 128, 160, 200)
            traces = trajectory(moments, rtn, left, 6, seed) if name == "ste_qat" and bits < 4 else None
            shelf.method(seed, bits, name, left, traces, learning_rate=rate, steps=200)
    if bits < 4:
        for rate in (0.05, 0.1, 0.2, 0.4, 0.8):
            moments = (0, 1, 2, 3, 5, 8, 12, 20, 32, 50, 80, 120, 200, 400)
            end = 0.02 if rate > 0.05 or seed else 0.3
            traces = trajectory(moments, rtn, end, 0.2 * (1 + 0.1 * seed) / rate, seed)
            shelf.method(seed, bits, "ste_qat", 0.9 * rtn, traces, learning_rate=rate, steps=400, **PLAIN)


def _probes(shelf: Shelf, seed: int, bits: int, rtn: float) -> None:
    metrics: dict[str, float] = {"null/top_share": 16 / 786432, "gradient_norm": 0.02}
    for place, name in enumerate(("rtn", "gptq", "adaround")):
        excess = rtn * (1, 0.75, 0.68)[place]
        metrics |= {
            f"{name}/excess": excess,
            f"{name}/se": 0.01,
            f"{name}/subset_excess": 1.02 * excess,
            f"{name}/linear": -0.02 * excess,
            f"{name}/hessian": excess**0.8 * 0.6 * (1, 0.6, 0.5)[place],
            f"{name}/gauss_newton": excess**0.8 * 0.55 * (1, 0.6, 0.5)[place],
            f"{name}/distance": 4.0**-bits * 1000,
            f"{name}/step_rms": (0.289, 0.41, 0.37)[place] * (1 + 0.01 * seed + 0.1 / bits),
            f"{name}/top_share": 1e-4 * (3, 0.8, 0.5)[place] * (1 + 0.2 * seed),
        }
    shelf.probe(seed, bits, "curvature", metrics, {"eigenvalues": [3.0, 2.0, 1.0]})
    step, factors = 0.35 * 0.5**bits, [1.25**k for k in range(20)]
    if bits in (4, 8):
        rise = [3.5 / (1 + (0.11 / (step * f)) ** 3) - 0.0002 * (f < 2) for f in factors]
        noise = [3.2 / (1 + (0.13 * (1 + 0.05 * seed) / (step * f)) ** 2.8) for f in factors]
        traces = {
            "factor": factors,
            "step": [step * f * (1 + 0.03 * seed) for f in factors],
            "rtn/excess": rise,
            "rtn/se": [0.01] * 20,
            "noise/excess": noise,
            "noise/se": [0.01] * 20,
            "noise/spread": [0.005] * 20,
        }
        shelf.probe(seed, bits, "ladder", {}, traces)
    cosine = {8: 0.0005, 4: 0.006, 3: 0.031, 2: 0.085}[bits] * (1 + 0.1 * seed)
    shelf.probe(
        seed,
        bits,
        "inward",
        {
            "cosine/deployed": cosine,
            "cosine/latent": 0.002 * (-1) ** seed,
            "null/mean": 0.0,
            "null/sd": 0.0011,
            "null/high": 0.0027,
        },
    )
    if bits < 4:
        _segments(shelf, seed, bits, rtn)


def _segments(shelf: Shelf, seed: int, bits: int, rtn: float) -> None:
    # The witness is the cell with the best rate; its label is what the method gives itself.
    label = METHODS.get("ste_qat")(name="ste_qat", learning_rate=1e-3, steps=200).label()
    places = [i / 20 for i in range(21)]
    end = 0.28 * rtn
    metrics = {
        "rtn/distance": 5.0,
        "rtn/excess": rtn,
        "rtn/se": 0.01,
        "rtn/cosine_to_first": 1.0,
        f"{label}/distance": 6.3,
        f"{label}/excess": end,
        f"{label}/se": 0.01,
        f"{label}/cosine_to_first": 0.7,
    }
    traces = {
        "t": places,
        "fp->rtn": [rtn * t**2.6 for t in places],
        f"fp->{label}": [end * t + 0.05 * rtn * math.sin(math.pi * t) for t in places],
        f"rtn->{label}": [rtn * (1 - t) + end * t - 0.2 * rtn * math.sin(math.pi * t) for t in places],
    }
    shelf.probe(seed, bits, "segments", metrics, traces)


def valley(steps: Sequence[float] = (0.24, 0.35, 0.5, 0.7), seeds: Sequence[int] = range(4)) -> list[Record]:
    """Return runs on a landscape by plain gradient descent, on lattices of several steps."""
    records: list[Record] = []
    for step in steps:
        shelf = Shelf("river_valley", "lattice", {"step": step}, {"tolerance": 0.02, "valley": VALLEY})
        for seed in seeds:
            shelf.fp(seed, 1e-4)
            rtn = max(0.004, 1.1 * step - 0.33) * (1 + 0.05 * seed)
            shelf.method(seed, 8, "rtn", rtn)
            for rate in (0.005, 0.01, 0.02, 0.04):
                moments = list(range(301))
                traces = trajectory(moments, rtn, 0.005 + 0.1 * max(0.0, step - 0.6), 0.4 * step / rate * 0.2, seed)
                traces["trajectory/valley/quantization_error"] = [1.2 * step] * len(moments)
                traces["trajectory/valley/gradient_norm"] = [1.0] * len(moments)
                traces["trajectory/valley/latent_distance"] = [0.6] * len(moments)
                traces["trajectory/valley/normal_distance"] = [0.97 + d for d in traces["trajectory/train"]]
                end = traces["trajectory/deployed"][-1]
                shelf.method(seed, 8, "ste_qat", end, traces, learning_rate=rate, steps=300, **PLAIN)
        records += shelf.records
    return records


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """Return a network with two seeds and a landscape with two."""
    return network("llama-1m", seeds=(0, 1)) + valley((0.24, 0.5, 0.7), seeds=(0, 1))


@pytest.fixture(scope="session")
def network_records() -> list[Record]:
    return network("llama-1m", seeds=(0, 1))


@pytest.fixture(scope="session")
def make_network() -> Callable[..., list[Record]]:
    return network
