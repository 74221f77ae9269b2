"""What can be named in a suite file, and where its code is.

Built-in and third-party names come in by the same door: a lazy ``"package.module:Class"`` reference, imported when
it is first asked for. Third parties use the entry-point groups ``qbench.quantizers``, ``qbench.methods`` and
``qbench.tasks``.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from qbench.errors import QBenchError, UnknownNameError
from qbench.spec import Spec


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
    """

    def __init__(self, kind: str, group: str, builtin: dict[str, str]) -> None:
        self.kind = kind
        self._group = group
        self._references: dict[str, str | type[Spec]] = dict(builtin)
        self._plugins_read = False

    def register(self, name: str, target: str | type[Spec]) -> None:
        """Add a name.

        Raises
        ------
        QBenchError
            The name is taken by something else.
        """
        taken = self._references.get(name)
        if taken is not None and _reference(taken) != _reference(target):
            raise QBenchError(f"{self.kind} {name!r} is registered twice: {_reference(taken)} and {_reference(target)}")
        self._references.setdefault(name, target)

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._read_plugins()
        return sorted(self._references)

    def get(self, name: str) -> type[Spec]:
        """Return the class behind a name, importing it when needed.

        Raises
        ------
        UnknownNameError
            Nothing has that name; the message holds the nearest one.
        QBenchError
            The reference does not lead to a `Spec` class.
        """
        self._read_plugins()
        if name not in self._references:
            raise UnknownNameError(self.kind, name, self._references)
        target = self._references[name]
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            try:
                target = getattr(importlib.import_module(module), attribute)
            except Exception as error:  # a plugin's module can fail in any way
                raise QBenchError(
                    f"{self.kind} {name!r} cannot be loaded from {module}:{attribute}: {type(error).__name__}: {error}"
                ) from error
        if not (isinstance(target, type) and issubclass(target, Spec)):
            raise QBenchError(f"{self.kind} {name!r}: {_reference(target)} is not a subclass of qbench.spec.Spec")
        self._references[name] = target
        return target

    def _read_plugins(self) -> None:
        if not self._plugins_read:
            for point in entry_points(group=self._group):
                self.register(point.name, point.value)
            self._plugins_read = True


def _reference(target: object) -> str:
    if isinstance(target, str):
        return target
    return f"{getattr(target, '__module__', '?')}:{getattr(target, '__qualname__', target)}"


QUANTIZERS = Registry(
    "quantizer",
    "qbench.quantizers",
    {"absmax": "qbench.quantizers.absmax:AbsMax", "mse": "qbench.quantizers.mse:MeanSquaredError"},
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
    },
)
MODELS = Registry(
    "model",
    "qbench.tasks",
    {
        "llama-1m": "qbench.tasks.causal_lm:ZooLM",
        "llama-3m": "qbench.tasks.causal_lm:ZooLM",
        "causal_lm": "qbench.tasks.causal_lm:CausalLM",
    },
)
