"""The answer: which method at which bitwidth, at what cost, and whether QAT is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qbench.report import numbers
from qbench.report.entries import Entry
from qbench.report.leaderboard import Group

INSIDE = "inside"
MOST_ROWS = 14
"""Rows of a regime map that are still read at a glance."""
_RANK = {INSIDE: 0, "grey": 1, "failed": 2}


@dataclass(frozen=True)
class Choice:
    """What to use at one bitwidth.

    Attributes
    ----------
    bits : int
        The bitwidth.
    entry : Entry or None
        The cheapest method that is inside on all seeds, PTQ before QAT; where none is, the one with the least excess.
        None where nothing is complete.
    regime : str
        Of that entry; empty where it is not known.
    qat : str
        Whether QAT is needed: ``no``, ``yes``, ``helps`` (inside nowhere, but nearer than PTQ), ``no gain``,
        ``unknown``, ``not run``.
    missing : int
        Methods at this bitwidth that lack a seed.
    settings : int
        Variants of that method at this bitwidth, of which it is the one that did best.
    """

    bits: int
    entry: Entry | None
    regime: str
    qat: str
    missing: int
    settings: int = 1

    @property
    def trained(self) -> bool:
        """Whether the choice is QAT."""
        return self.entry is not None and self.entry.trained


@dataclass(frozen=True)
class Answer:
    """What is said of one model and quantizer.

    Attributes
    ----------
    group : Group
        Which.
    choices : dict of int to Choice
        By bitwidth, falling; those that the suite leaves out are not there.
    sentence : str
        The same in words.
    """

    group: Group
    choices: dict[int, Choice]
    sentence: str


def answer(group: Group, beside: Sequence[Group] = ()) -> Answer | None:
    """Return what is said of a group; None where nothing of it is quantized, where it is left out, or of a lattice.

    Parameters
    ----------
    group : Group
        A model and a quantizer.
    beside : sequence of Group
        All groups of the suite: what other grids of the model were asked about and this one was not is told.
    """
    if is_lattice(group):
        return None
    choices = {}
    for width in group.bits:
        asked = [row[width] for row in group.rows.values() if width in row and set(row[width].statuses) != {"skipped"}]
        asked = [entry for entry in asked if entry.is_qat or not entry.trained]
        if asked:
            choices[width] = _choose(width, asked)
    if not choices:
        return None
    ours = {name for one in beside if one.model == group.model and not is_lattice(one) for name in _asked(one)}
    gaps = sorted(ours - _asked(group))
    told = f" Not asked on this grid: {', '.join(gaps)}." if gaps else ""
    return Answer(group, choices, _sentence(choices) + told)


def _asked(group: Group) -> set[str]:
    """Return the names of the methods, but for ablations, that a grid was asked about."""
    return {
        label.partition("[")[0]
        for label, row in group.rows.items()
        if any(set(one.statuses) != {"skipped"} and (one.is_qat or not one.trained) for one in row.values())
    }


def is_lattice(group: Group) -> bool:
    """Return whether the grid is a step size, and bits only bound its codes: then no bitwidth is asked about."""
    return str(group.quantizer).partition("[")[0] == "lattice"


def map_rows(group: Group) -> dict[str, dict[int, Entry]]:
    """Return the rows of a regime map: all, or where they are many the plainest of each method, without ablations."""
    if len(group.rows) <= MOST_ROWS:
        return group.rows
    plainest: dict[str, str] = {}
    for label, row in group.rows.items():
        if any(entry.trained and not entry.is_qat for entry in row.values()):
            continue
        name = label.partition("[")[0]
        plainest[name] = min(plainest.get(name, label), label, key=lambda one: (one.count("="), len(one)))
    return {label: group.rows[label] for label in plainest.values()}


def word(entry: Entry | None) -> str:
    """Return the regime of an entry in one word, or what stands in its place."""
    if entry is None:
        return ""
    if entry.regime is not None:
        return entry.regime.text
    others = {status: count for status, count in entry.statuses.items() if status != "ok"}
    told = [status if count == entry.seeds else f"{count} {status}" for status, count in others.items()]
    return ", ".join(told) or numbers.ABSENT


def tone(entry: Entry | None) -> str:
    """Return the class that colours an entry: its regime, or ``bad`` where a seed is missing or failed."""
    if entry is None or entry.regime is not None:
        return "" if entry is None or entry.regime is None else entry.regime.text.partition(" ")[0]
    return "" if entry.complete else "muted" if set(entry.statuses) == {"skipped"} else "bad"


def cost(entry: Entry) -> str:
    """Return the seconds of a method: ``12 s``, ``< .1 s``."""
    seconds = entry.method_seconds
    return "< .1 s" if seconds is not None and seconds < 0.05 else f"{numbers.seconds(seconds)} s"


def told(entry: Entry) -> str:
    """Return what an entry measures and costs in a few words: ``D +.021, 12 s``."""
    kept = "" if entry.accuracy is None else f"{numbers.percent(entry.accuracy)} %, "
    excess = "" if entry.excess is None else f"D {numbers.signed(entry.excess.mean)}, "
    return f"{kept}{excess}{cost(entry)}"


def _choose(width: int, asked: Sequence[Entry]) -> Choice:
    known = [entry for entry in asked if entry.regime is not None and entry.excess is not None]
    missing = sum(not entry.complete for entry in asked)
    ptq, qat = [one for one in known if not one.trained], [one for one in known if one.trained]
    chosen = _cheapest(ptq) or _cheapest(qat) or _nearest(known)
    if chosen is None:  # no regime, but perhaps a loss: full precision is no better than chance, say
        return Choice(width, None, "", "unknown", missing)
    need = _need(ptq, qat, [entry for entry in asked if not entry.complete])
    name = chosen.method.partition("[")[0]
    settings = sum(entry.method.partition("[")[0] == name for entry in known)
    return Choice(width, chosen, word(chosen), need, missing, settings)


def _need(ptq: Sequence[Entry], qat: Sequence[Entry], incomplete: Sequence[Entry]) -> str:
    if any(map(_inside, ptq)):
        return "no"
    if any(not entry.is_qat for entry in incomplete) or not ptq:
        return "unknown"  # what is not there could be inside
    if any(map(_inside, qat)):
        return "yes"
    if any(entry.is_qat for entry in incomplete):
        return "unknown"
    if not qat:
        return "not run"
    best_ptq, best_qat = _nearest(ptq), _nearest(qat)
    assert best_ptq is not None and best_qat is not None
    return "helps" if _excess(best_qat) < _excess(best_ptq) else "no gain"


def _inside(entry: Entry) -> bool:
    return entry.regime is not None and entry.regime.agreed == INSIDE and not entry.fallbacks


def _cheapest(entries: Iterable[Entry]) -> Entry | None:
    return min(
        (entry for entry in entries if _inside(entry)),
        key=lambda entry: (entry.method_seconds or 0.0, entry.method),
        default=None,
    )


def _nearest(entries: Iterable[Entry]) -> Entry | None:
    return min(entries, key=lambda entry: (_excess(entry), entry.method), default=None)


def _excess(entry: Entry) -> float:
    assert entry.excess is not None
    return entry.excess.mean


def _sentence(choices: dict[int, Choice]) -> str:
    widths = list(choices)
    enough = []
    for width in widths:
        if choices[width].qat != "no":
            break
        enough.append(width)
    parts = []
    if enough:
        reach = "at" if len(widths) == 1 else "down to"
        parts.append(f"PTQ is enough {reach} {numbers.bits(enough[-1])}: {_told(choices[enough[-1]])}")
    alike: dict[str, list[Choice]] = {}
    for width in widths[len(enough) :]:
        choice = choices[width]
        alike.setdefault(_SAID[choice.qat] if choice.entry else _SAID[""], []).append(choice)
    parts += [f"{_where(held)} {said}{_nearest_of(held)}" for said, held in alike.items()]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


_SAID = {
    "": "nothing can be said yet: seeds are missing or failed",
    "no": "PTQ is enough",
    "yes": "no PTQ method is inside and QAT is",
    "helps": "nothing is inside on all seeds, and of what was asked QAT comes nearest",
    "no gain": "nothing is inside on all seeds, and QAT is no nearer than PTQ",
    "not run": "no PTQ method is inside, and no QAT was run",
    "unknown": "it is not known yet whether PTQ is enough",
}


def _where(held: Sequence[Choice]) -> str:
    widths = [str(choice.bits) for choice in held]
    if len(widths) == 1:
        return f"at {numbers.bits(held[0].bits)}"
    return f"at {', '.join(widths[:-1])} and {widths[-1]} bits"


def _nearest_of(held: Sequence[Choice]) -> str:
    """Return the choice at each bitwidth."""
    known = [choice for choice in held if choice.entry is not None]
    if not known:
        return ""
    gaps = {choice.bits: f"; {_methods(choice.missing)} incomplete" if choice.missing else "" for choice in known}
    told = [f"{_told(choice)}{f' at {choice.bits}' if len(known) > 1 else ''}{gaps[choice.bits]}" for choice in known]
    return f": {', '.join(told)}"


def _methods(count: int) -> str:
    return "1 method" if count == 1 else f"{count} methods"


def _told(choice: Choice) -> str:
    entry = choice.entry
    assert entry is not None
    flaw = ", a layer fell back" if entry.fallbacks else ""
    regime = "" if choice.regime == INSIDE else f", {choice.regime}"
    best = f", best of {choice.settings} settings" if choice.settings > 1 and choice.regime != INSIDE else ""
    return f"{entry.method} ({told(entry)}{regime}{best}{flaw})"
