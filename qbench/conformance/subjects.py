"""What is to be checked: from names, classes and files to specs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from pydantic import ValidationError

from qbench.conformance import methods, quantizers
from qbench.conformance.contract import Report, Row
from qbench.conformance.surroundings import settings_kept
from qbench.errors import QBenchError, UnknownNameError
from qbench.methods.base import Method
from qbench.quantizers.base import Quantizer
from qbench.registry import METHODS, QUANTIZERS, Registered
from qbench.spec import Spec
from qbench.suite.entry import resolve_entry

Kind = Literal["quantizer", "method"]
KINDS: tuple[Kind, ...] = ("quantizer", "method")
_REGISTRIES = {"quantizer": QUANTIZERS, "method": METHODS}
SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True)
class Subject:
    """A registered name.

    Attributes
    ----------
    kind : str
        ``quantizer`` or ``method``.
    name : str
        Its name in the registry of that kind.
    """

    kind: Kind
    name: str

    def make(self, options: Mapping[str, Any] | None = None) -> Spec:
        """Return the spec with these options.

        Raises
        ------
        QBenchError
            The name's class cannot be loaded, or does not take the options.
        """
        try:
            with settings_kept():  # a stranger's validators run here
                return resolve_entry({**(options or {}), "name": self.name}, _REGISTRIES[self.kind], None)
        except ValidationError as error:
            found = error.errors(include_url=False)
            told = "; ".join(_said(one["msg"], one["loc"]) + _hint(one["msg"], one["loc"]) for one in found)
            raise QBenchError(f"{self.kind} {self.name!r}: {told}") from error

    def check(self, options: Mapping[str, Any] | None = None) -> Report:
        """Try the contract of its kind.

        Raises
        ------
        QBenchError
            As `make`.
        """
        return check(self.make(options))

    def check_or_tell(self) -> Report:
        """Try the contract; what cannot even be made is a report with one row that failed."""
        try:
            return self.check()
        except QBenchError as error:
            return Report(self.kind, self.name, (Row("can be made", "failed", str(error)),))


def _said(text: str, place: tuple[int | str, ...]) -> str:
    where = ".".join(str(part) for part in place)
    return text if not where or where in text else f"{where}: {text}"


def _hint(text: str, place: tuple[int | str, ...]) -> str:
    name, sign, rest = text.partition(" is missing")
    return f" (say it with --option {name.strip(chr(39))}=VALUE)" if sign and not rest and not place else ""


def check(spec: Spec) -> Report:
    """Try the contract on a quantizer or a method."""
    if isinstance(spec, Quantizer):
        return quantizers.check(spec)
    return methods.check(cast(Method, spec))


def registered() -> list[Subject]:
    """Return all names of both kinds."""
    return [Subject(kind, name) for kind in KINDS for name in _REGISTRIES[kind].names()]


def brought(names: tuple[Registered, ...]) -> list[Subject]:
    """Return the quantizers and methods among the names that a plugin brings."""
    return [Subject(kind, one.name) for kind in KINDS for one in names if one.kind == kind]


def known_kind(kind: str) -> Kind:
    """Return a kind, or raise `UnknownNameError` where it is none."""
    for one in KINDS:
        if one == kind:
            return one
    raise UnknownNameError("kind", kind, KINDS)


def named(name: str, kind: str | None = None) -> Subject:
    """Return what has a name.

    Parameters
    ----------
    name : str
        Of a quantizer or a method.
    kind : str, optional
        Which of the two; needed where both have it.

    Raises
    ------
    UnknownNameError
        Neither has it, or the kind is none.
    QBenchError
        Both have it, and no kind is said.
    """
    asked = KINDS if kind is None else (known_kind(kind),)
    found = [one for one in asked if name in _REGISTRIES[one].names()]
    if len(found) > 1:
        raise QBenchError(f"{name!r} is a quantizer and a method (say which: --kind quantizer or --kind method)")
    if not found:
        known = [one for each in asked for one in _REGISTRIES[each].names()]
        raise UnknownNameError(" or ".join(asked), name, known)
    return Subject(found[0], name)


def quantizer_of(given: Quantizer | type[Quantizer] | str) -> Quantizer:
    """Return a quantizer from itself, its class or its registered name; see `method_of`."""
    return _spec_of(given, Quantizer, "quantizer")


def method_of(given: Method | type[Method] | str) -> Method:
    """Return a method from itself, its class or its registered name.

    Raises
    ------
    QBenchError
        It is none of these, or the options have no defaults.
    """
    return _spec_of(given, Method, "method")  # type: ignore[type-abstract, unused-ignore]


def _spec_of(given: object, base: type[SpecT], kind: Kind) -> SpecT:
    if isinstance(given, base):
        return given
    if isinstance(given, str):
        return cast(SpecT, named(given, kind).make())
    if isinstance(given, type) and issubclass(given, base):
        try:
            return given.model_validate({"name": given.__name__})
        except ValidationError as error:
            told = "; ".join(_said(one["msg"], one["loc"]) for one in error.errors(include_url=False))
            raise QBenchError(f"{kind} {given.__name__}: {told} (give an instance with its options set)") from error
    raise QBenchError(f"given {given!r} (allowed: a {base.__name__}, its class, or the name of a {kind})")
