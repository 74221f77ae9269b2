"""A contract: named properties, each tried on a list of cases, and one row of what was found for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar

from qbench.conformance.blame import told
from qbench.conformance.surroundings import settings_kept

CaseT = TypeVar("CaseT")
Result = Literal["passed", "failed", "skipped", "info"]


class BrokenError(Exception):
    """A property does not hold: the message says what was seen, and what is allowed."""


class UnableError(Exception):
    """A property cannot be tried on a case, for the reason given."""


class MissingError(UnableError):
    """What a property is about is not there, because of another fault."""


@dataclass(frozen=True)
class Property(Generic[CaseT]):
    """One thing that must hold.

    Attributes
    ----------
    name : str
        What holds, in a few words.
    test : callable
        ``test(case)`` returns, or raises `BrokenError` or `UnableError`; a text that it returns goes into the row of an
        information.
    where : callable or None
        Picks the cases that it is tried on; None for all.
    is_info : bool
        Whether it only informs.
    """

    name: str
    test: Callable[[CaseT], str | None]
    where: Callable[[CaseT], bool] | None = None
    is_info: bool = False


@dataclass(frozen=True)
class Row:
    """What became of one property.

    Attributes
    ----------
    property : str
        Its name.
    result : str
        ``passed``, ``failed``, ``skipped`` (it could not be tried: the detail says why) or ``info``.
    detail : str
        Where it was tried; where it failed: what was seen and what is allowed.
    """

    property: str
    result: Result
    detail: str


@dataclass(frozen=True)
class Report:
    """All rows of one subject.

    Attributes
    ----------
    kind : str
        ``quantizer`` or ``method``.
    name : str
        Its name.
    rows : tuple of Row
        In the order of the contract.
    """

    kind: str
    name: str
    rows: tuple[Row, ...]

    @property
    def failed(self) -> list[Row]:
        """The rows that failed."""
        return [row for row in self.rows if row.result == "failed"]

    def verdict(self) -> str:
        """Return one line: whether the contract is kept, and how many properties were tried."""
        counts = {result: sum(row.result == result for row in self.rows) for result in ("passed", "failed", "skipped")}
        told = ", ".join(f"{count} {result}" for result, count in counts.items() if count or result == "passed")
        keeps = f"breaks the contract: {', '.join(row.property for row in self.failed)}" if self.failed else "conforms"
        return f"{self.kind} {self.name} {keeps} ({told})"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "kind": self.kind,
            "name": self.name,
            "conforms": not self.failed,
            "rows": [asdict(row) for row in self.rows],
        }


def judge(
    wanted: Iterable[Property[CaseT]], cases: Sequence[CaseT], code: type, place: Callable[[CaseT], str]
) -> list[Row]:
    """Try every property on every case; one that breaks does not keep the others from being tried.

    Parameters
    ----------
    wanted : iterable of Property
        The contract.
    cases : sequence
        What they are tried on.
    code : type
        The class that is judged, so that a row can name the line of its file which raised.
    place : callable
        ``place(case)`` names a case.
    """
    return [_row(one, [case for case in cases if one.where is None or one.where(case)], code, place) for one in wanted]


def _row(one: Property[CaseT], cases: Sequence[CaseT], code: type, place: Callable[[CaseT], str]) -> Row:
    broken: list[str] = []
    unable: list[str] = []
    missing, said = 0, ""
    for case in cases:
        try:
            with settings_kept():  # what a stranger's code sets must not reach the next case
                said = one.test(case) or said
        except BrokenError as error:
            broken.append(f"{place(case)}: {error}")
        except UnableError as error:
            unable.append(str(error))
            missing += isinstance(error, MissingError)
        except (Exception, SystemExit) as error:  # a stranger's code can fail in any way
            broken.append(f"{place(case)}: {told(error, code)}")
    tried = len(cases) - len(unable)
    if one.is_info and said:
        return Row(one.name, "info", said)
    if broken:
        more = f" (and in {len(broken) - 1} more of {tried} cases)" if len(broken) > 1 else ""
        return Row(one.name, "failed", broken[0] + more)
    if not tried:
        return Row(one.name, "skipped", unable[0] if unable else "no case it could be tried on")
    more = f" ({missing} more left out: another property failed there)" if missing else ""
    return Row(one.name, "passed", f"{tried} {'case' if tried == 1 else 'cases'}{more}")
