"""What can be named in a suite file, and where its code is.

Built-in and third-party names come in by the same door: a lazy ``"package.module:Class"`` reference, imported when
it is first asked for. Third parties use the entry-point groups ``qbench.quantizers``, ``qbench.methods`` and
``qbench.tasks``, or the decorators of `qbench.plugin`.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from pathlib import Path
from typing import Any

from qbench.errors import QBenchError, UnknownNameError
from qbench.interrupt import noted
from qbench.spec import Spec

LOCAL = "qbench_plugins"
"""The package in which files that suites name as plugins are modules; see `qbench.suite.plugins`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class Registry:
    """Names of one kind and the classes behind them.

    Parameters
    ----------
    kind : str
        What the names are, for messages: "quantizer", "method", "model".
    group : str
        The entry-point group that adds names.
    builtin : dict of str to str
        The names that qbench brings, as lazy references.
    base : str
        A reference to the class that all of them are subclasses of.
    needs : tuple of str
        Methods of the base of which a subclass writes at least one.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        builtin: dict[str, str],
        base: str = "qbench.spec:Spec",
        needs: tuple[str, ...] = (),
    ) -> None:
        self.kind = kind
        self._group, self._base, self._needs = group, base, needs
        self._builtin = frozenset(builtin)
        self._references: dict[str, str | type[Spec]] = dict(builtin)
        self._distributions: dict[str, str] = {}
        self._clashes: dict[str, str] = {}
        self._plugins_read = False

    def register(self, name: str, target: str | type[Spec]) -> None:
        """Add a name. A class that is defined again in the same place (a notebook's cell, say) takes the older's place.

        Raises
        ------
        QBenchError
            The name is taken by something else, or the class is none that can have it.
        """
        taken = self._references.get(name)
        if taken is not None and not _is_same(taken, target):
            raise QBenchError(self._twice(name, taken, _place(target)))
        if not isinstance(target, str):
            self._check(name, target)
        if taken is None or not isinstance(target, str):
            self._references[name] = target

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._read_plugins()
        return sorted(self._references)

    def origin(self, name: str) -> str:
        """Return where a name comes from: ``built in``, a distribution with its version, a plugin's file, a module."""
        self._read_plugins()
        if name in self._builtin:
            return "built in"
        return self._distributions.get(name) or _place(self._references[name]).partition(":")[0]

    def home(self, name: str) -> str:
        """Return the module that a name's reference leads to, without importing it."""
        self._read_plugins()
        return _reference(self._references[name]).partition(":")[0]

    def get(self, name: str) -> type[Spec]:
        """Return the class behind a name, importing it when needed.

        Raises
        ------
        UnknownNameError
            Nothing has that name; the message holds the nearest one.
        QBenchError
            The name is registered twice, or the reference does not lead to a class of this kind.
        """
        self._read_plugins()
        if name not in self._references:
            raise UnknownNameError(self.kind, name, self._references)
        if name in self._clashes:
            raise QBenchError(self._clashes[name])
        target = self._references[name]
        if isinstance(target, str):
            reference = target
            with noted() as interrupted:
                try:
                    target = _import(reference)
                except BaseException as error:  # a plugin's module can fail in any way, sys.exit among them
                    if isinstance(error, KeyboardInterrupt) and interrupted():
                        raise
                    said = f"{type(error).__name__}: {error}".removesuffix(": ")
                    raise QBenchError(f"{self.kind} {name!r} cannot be loaded from {reference}: {said}") from error
        self._check(name, target)
        self._references[name] = target
        return target

    def _check(self, name: str, target: Any) -> None:
        where = f"{self.kind} {name!r}: {_place(target)}"
        base = _import(self._base)
        if not _NAME.fullmatch(name):
            raise QBenchError(f"{where}: the name is none (allowed: letters, digits and the signs _ . + -)")
        if not (isinstance(target, type) and issubclass(target, base)):
            raise QBenchError(f"{where} is not a subclass of {self._base.replace(':', '.')}")
        if self._needs and all(getattr(target, need) is getattr(base, need) for need in self._needs):
            raise QBenchError(f"{where} does not write {' or '.join(self._needs)}")

    def _twice(self, name: str, taken: str | type[Spec], place: str) -> str:
        owner = f" of {self._distributions[name]}" if name in self._distributions else ""
        return f"{self.kind} {name!r} is registered twice: {_place(taken)}{owner} and {place}"

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for point in entry_points(group=self._group):
            reference = point.value.partition("[")[0].strip()
            taken = self._references.get(point.name)
            if taken is None or _is_same(taken, reference):
                self._references.setdefault(point.name, reference)
                self._distributions.setdefault(point.name, _distribution(point))
            else:
                # Neither can be meant without saying so, and every other name is as good as before.
                place = f"{reference} of {_distribution(point)}"
                self._clashes.setdefault(point.name, self._twice(point.name, taken, place))


def _import(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    with redirect_stdout(sys.stderr):  # what a module prints must not get into a table or JSON
        return attrgetter(attribute)(importlib.import_module(module))


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value.partition(":")[0]


def _is_same(taken: str | type[Spec], target: str | type[Spec]) -> bool:
    """Return whether two references lead to one class, as far as can be told without importing anything."""
    (home, _, name), (other_home, _, other_name) = (_reference(one).partition(":") for one in (taken, target))
    if isinstance(taken, str) == isinstance(target, str):
        return (home, name) == (other_home, other_name)
    # An entry point may name the package that a class is handed on by; its decorator knows the module it stands in.
    return name == other_name and home.partition(".")[0] == other_home.partition(".")[0]


def _reference(target: object) -> str:
    if isinstance(target, str):
        return target
    return f"{getattr(target, '__module__', '?')}:{getattr(target, '__qualname__', target)}"


def _place(target: object) -> str:
    """Return a reference as its author knows it: with the file, where the module was made up for one."""
    module, _, name = _reference(target).partition(":")
    file = getattr(sys.modules.get(module), "__file__", None) if _is_local(target) else None
    return f"{Path(file).name}:{name}" if file else f"{module}:{name}"


def _is_local(target: object) -> bool:
    return _reference(target).startswith(f"{LOCAL}.")


@dataclass(frozen=True)
class Registered:
    """A name that a plugin brings.

    Attributes
    ----------
    kind : str
        The registry's.
    name : str
        The name.
    target : type of Spec
        The class behind it.
    """

    kind: str
    name: str
    target: type[Spec]


@contextmanager
def scope(names: Iterable[Registered] = ()) -> Iterator[Callable[[], tuple[Registered, ...]]]:
    """Know further names for a while; in the end they are forgotten, with what local plugins registered meanwhile.

    Parameters
    ----------
    names : iterable of Registered
        Names to know beside those known already.

    Yields
    ------
    callable
        Returns what was registered since.

    Raises
    ------
    QBenchError
        One of the names is taken.
    """
    registries = {registry.kind: registry for registry in (MODELS, QUANTIZERS, METHODS, PROBES)}
    # `names` reads the entry points: a local name must not be there before them.
    before = {kind: frozenset(registry.names()) for kind, registry in registries.items()}
    given = tuple(names)

    def added() -> tuple[Registered, ...]:
        return tuple(
            Registered(kind, name, target)
            for kind, registry in registries.items()
            for name, target in registry._references.items()
            if name not in before[kind] and not isinstance(target, str) and Registered(kind, name, target) not in given
        )

    try:
        for one in given:
            registries[one.kind].register(one.name, one.target)
        yield added
    finally:
        for kind, registry in registries.items():
            for name in [name for name in registry._references if name not in before[kind]]:
                if _is_local(registry._references[name]):
                    del registry._references[name]


QUANTIZERS = Registry(
    "quantizer",
    "qbench.quantizers",
    {
        "absmax": "qbench.quantizers.absmax:AbsMax",
        "percentile": "qbench.quantizers.percentile:Percentile",
        "mse": "qbench.quantizers.mse:MeanSquaredError",
        "hessian_mse": "qbench.quantizers.hessian_mse:HessianWeightedError",
        "hqq": "qbench.quantizers.hqq:HalfQuadratic",
        "nf": "qbench.quantizers.nf:NormalFloat",
        "fp": "qbench.quantizers.fp:FloatingPoint",
        "lattice": "qbench.quantizers.lattice:Lattice",
        "pot": "qbench.quantizers.pot:PowersOfTwo",
        "apot": "qbench.quantizers.apot:AdditivePowersOfTwo",
        "seq": "qbench.quantizers.seq:StretchedElastic",
        "ternary": "qbench.quantizers.ternary:Ternary",
        "binary": "qbench.quantizers.binary:Binary",
        "mxfp4": "qbench.quantizers.mxfp4:MXFP4",
        "mx": "qbench.quantizers.mx:MX",
        "nvfp4": "qbench.quantizers.nvfp4:NVFP4",
        "kmeans": "qbench.quantizers.kmeans:KMeans",
    },
    base="qbench.plugin:Quantizer",
    needs=("choose_qparams", "choose_table"),
)
METHODS = Registry(
    "method",
    "qbench.methods",
    {
        "rtn": "qbench.methods.rtn:RoundToNearest",
        "gptq": "qbench.methods.gptq:GPTQ",
        "adaround": "qbench.methods.adaround:AdaRound",
        "brecq": "qbench.methods.brecq:BRECQ",
        "block_ap": "qbench.methods.block_ap:BlockAP",
        "ste_qat": "qbench.methods.ste_qat:StraightThroughQAT",
        "lsq": "qbench.methods.lsq:LearnedStepSize",
        "latent_grad": "qbench.methods.latent_grad:LatentGradient",
        "noise_grad": "qbench.methods.noise_grad:NoiseGradient",
        "random_grad": "qbench.methods.random_grad:RandomGradient",
        "ft_then_ptq": "qbench.methods.ft_then_ptq:FineTuningThenPTQ",
        "qubo": "qbench.methods.qubo:QuadraticRounding",
    },
    base="qbench.plugin:Method",
    needs=("solve",),
)
PROBES = Registry(
    "probe",
    "qbench.probes",
    {
        "ladder": "qbench.geometry.ladder:Ladder",
        "radius": "qbench.geometry.radius:Radius",
        "curvature": "qbench.geometry.curvature:Curvature",
        "inward": "qbench.geometry.inward:Inward",
        "segments": "qbench.geometry.segments:Segments",
        "codewords": "qbench.geometry.codewords:Codewords",
        "margin": "qbench.geometry.margin:Margin",
        "layer_margins": "qbench.geometry.margin:LayerMargins",
    },
    base="qbench.geometry.base:Probe",
    needs=("measure",),
)
MODELS = Registry(
    "model",
    "qbench.tasks",
    {
        "llama-1m": "qbench.tasks.causal_lm:ZooLM",
        "llama-3m": "qbench.tasks.causal_lm:ZooLM",
        "mlp-digits": "qbench.tasks.image_classifier:ZooClassifier",
        "mlp-mnist": "qbench.tasks.image_classifier:ZooClassifier",
        "mobilenet-mnist": "qbench.tasks.image_classifier:ZooClassifier",
        "resnet20-mnist": "qbench.tasks.image_classifier:ZooClassifier",
        "resnet8-fashion": "qbench.tasks.image_classifier:ZooClassifier",
        "resnet8-mnist": "qbench.tasks.image_classifier:ZooClassifier",
        "resnet8nobn-mnist": "qbench.tasks.image_classifier:ZooClassifier",
        "torchvision": "qbench.tasks.torchvision_classifier:TorchvisionClassifier",
        "vit-mnist": "qbench.tasks.image_classifier:ZooClassifier",
        "causal_lm": "qbench.tasks.causal_lm:CausalLM",
        "smollm2-135m": "qbench.tasks.packaged:PackagedLM",
        "valley_a": "qbench.geometry.valley:ValleyCase",
        "valley_b": "qbench.geometry.valley:ValleyCase",
        "valley_c": "qbench.geometry.valley:ValleyCase",
        "river_valley": "qbench.geometry.valley:RiverValley",
    },
)
