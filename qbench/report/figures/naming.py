"""Short names for labels that stand side by side, and names of files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from qbench.report.figures.paging import brief


def short(labels: Iterable[str]) -> dict[str, str]:
    """Return each label without the options that it has in common with all others of its name.

    Examples
    --------
    >>> short(["gptq", "gptq[bn=fold]", "lsq[steps=9,bn=fold]"])
    {'gptq': 'gptq', 'gptq[bn=fold]': 'gptq[bn=fold]', 'lsq[steps=9,bn=fold]': 'lsq'}
    """
    given = list(dict.fromkeys(labels))
    found = {}
    for label in given:
        name, options = _parts(label)
        kin = [_parts(other)[1] for other in given if _parts(other)[0] == name]
        own = [option for option in options if not all(option in others for others in kin)]
        found[label] = brief(f"{name}[{','.join(own)}]" if own else name)
    return found


def plainest(labels: Sequence[str], most: int, rank: Callable[[str], float] = lambda label: 0.0) -> list[str]:
    """Return at most so many labels, in their own order: of every name the plainest, then variants of one option.

    Parameters
    ----------
    labels : sequence of str
        Distinct.
    most : int
        How many.
    rank : callable
        Which come first of as plain ones, where there are too many; lower ones do.
    """
    place = {label: number for number, label in enumerate(labels)}
    ranks: dict[str, tuple[bool, float, int]] = {}
    fewest: dict[str, int] = {}
    for label in sorted(labels, key=lambda one: (len(_parts(one)[1]), place[one])):
        name, options = _parts(label)
        variant = name in fewest
        if len(options) <= fewest.setdefault(name, len(options)) + 1:
            ranks[label] = (variant, rank(label), place[label])
    kept = sorted(ranks, key=lambda label: ranks[label])[:most]
    return sorted(kept, key=lambda label: place[label])


def file_names(labels: Iterable[str]) -> dict[str, str]:
    """Return for each label a name that every file system takes, no two the same; see `short`."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for label, name in short(labels).items():
        safe = re.sub(r"[^A-Za-z0-9.=-]+", "-", name).strip("-.") or "model"
        number, free = 1, safe
        while free.lower() in taken:
            number += 1
            free = f"{safe}-{number}"
        taken.add(free.lower())
        found[label] = free
    return found


def _parts(label: str) -> tuple[str, list[str]]:
    """Return the name and the options of a label; options may have brackets of their own."""
    name, _, rest = label.partition("[")
    options, depth = [""], 0
    for letter in rest.removesuffix("]"):
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and not depth:
            options.append("")
        else:
            options[-1] += letter
    return name, [option for option in options if option]
