"""JSON with an indent of one, about twice as fast as ``json.dumps``, whose encoder in C knows no indents.

What holds no other list or dict is written by that encoder, with the line's indent in its separator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from json import encoder
from json.encoder import JSONEncoder, encode_basestring
from typing import Any

_CONTAINERS = (dict, list, tuple)


def indented(value: Any, depth: int = 0) -> str:
    """Return what ``json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)`` does.

    Parameters
    ----------
    value : object
        JSON-like data whose keys are strings.
    depth : int
        How deep it stands in what it is a part of.

    Raises
    ------
    ValueError
        It holds NaN or an infinity, or a key that is no string.
    """
    if not isinstance(value, _CONTAINERS):
        return encode_basestring(value) if isinstance(value, str) else _flat(0)(value)
    items: Iterable[Any] = value
    if isinstance(value, dict):
        items = value.values()
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key is no string")
    if not value:
        return "{}" if isinstance(value, dict) else "[]"
    start, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    if not any(isinstance(item, _CONTAINERS) for item in items):
        flat = _flat(depth)(value)
        return f"{flat[0]}{start}{flat[1:-1]}{end}{flat[-1]}"
    if isinstance(value, dict):
        lines = [f"{encode_basestring(key)}: {indented(value[key], depth + 1)}" for key in sorted(value)]
        return f"{{{start}{f',{start}'.join(lines)}{end}}}"
    return f"[{start}{f',{start}'.join([indented(item, depth + 1) for item in value])}{end}]"


@cache
def _flat(depth: int) -> Callable[[Any], str]:
    between, default = ",\n" + " " * (depth + 1), JSONEncoder().default
    c_make_encoder: Any = getattr(encoder, "c_make_encoder", None)
    if c_make_encoder is None:  # another Python than CPython
        return JSONEncoder(sort_keys=True, separators=(between, ": "), ensure_ascii=False, allow_nan=False).encode
    # Made once: `JSONEncoder.encode` makes it anew for each value, which takes longer than a short value does.
    encode = c_make_encoder(None, default, encode_basestring, None, ": ", between, True, False, False)
    return lambda value: "".join(encode(value, 0))
