"""Long names, shortened by one rule so that a table of them fits a terminal, and told in full once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

LONG = 24
"""Characters that a name may have as it is."""


def shorten(names: Iterable[str], most: int = LONG) -> dict[str, str]:
    """Return what each name is called in a table: ``..`` stands for the options that all of one name have.

    Parameters
    ----------
    names : iterable of str
        Labels such as ``ste_qat[steps=200,batch_size=64]``, all that the tables show.
    most : int
        Names of no more characters are left as they are, as are those that begin alike and share no option.

    Examples
    --------
    >>> shorten(["rtn", "lsq[steps=200,batch_size=64]"])
    {'rtn': 'rtn', 'lsq[steps=200,batch_size=64]': 'lsq[..]'}
    >>> list(shorten(["lsq[bn=keep,steps=200,batch_size=64]", "lsq[bn=fold,steps=200,batch_size=64]"]).values())
    ['lsq[bn=keep,..]', 'lsq[bn=fold,..]']
    """
    known = list(dict.fromkeys(names))
    families: dict[str, list[str]] = {}
    for name in known:
        families.setdefault(_parts(name)[0], []).append(name)
    found: dict[str, str] = {}
    for family in families.values():
        shared = set.intersection(*(set(_parts(name)[1]) for name in family))
        long = any(len(name) > most for name in family)
        found |= {name: _short(name, shared) if long and shared else name for name in family}
    # Two that would be called alike, or as a third is called, keep their names.
    unclear = len(set(found.values())) < len(found)
    return {name: name if unclear else found[name] for name in known}


def abbreviate(label: str, most: int) -> str:
    """Return one label for a place where it is told in full elsewhere: options left out from the left, then an end cut.

    Parameters
    ----------
    label : str
        Of a cell.
    most : int
        Characters there are.

    Examples
    --------
    >>> abbreviate("resnet8[images=512]/mse[per_channel]/2b/lsq[steps=200]/s0", 44)
    'resnet8[..]/mse[..]/2b/lsq[steps=200]/s0'
    """
    while len(label) > most:
        shorter = re.sub(r"\[(?!\.\.\])[^\[\]]*\]", "[..]", label, count=1)
        if shorter == label:
            return label[: max(most - 2, 0)] + ".."[:most]
        label = shorter
    return label


def explained(names: Mapping[str, str]) -> Sequence[str]:
    """Return the lines that say which names were shortened, and to what."""
    shown = [f"{short} = {name}" for name, short in names.items() if short != name]
    return ["names: .. stands for options that all of one name share: " + "; ".join(shown)] if shown else []


def _short(name: str, shared: set[str]) -> str:
    base, options = _parts(name)
    return f"{base}[{','.join([*(one for one in options if one not in shared), '..'])}]"


def _parts(name: str) -> tuple[str, list[str]]:
    """Return the name in front of the bracket, and the options in it; commas inside other brackets part none."""
    base, bracket, rest = name.partition("[")
    if not bracket or not rest.endswith("]"):
        return name, []
    options, depth = [""], 0
    for sign in rest[:-1]:
        depth += (sign in "[({") - (sign in "])}")
        if sign == "," and not depth:
            options.append("")
        else:
            options[-1] += sign
    return base, options
