"""Text made small, to lie in a page until a browser asks for it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CELLS = 24


@dataclass(frozen=True)
class Chunks:
    """Cells packed some at a time.

    Attributes
    ----------
    packed : tuple of str
        Each a JSON object: the name of a part of a cell, then cells by route. What is alike lies close together, where
        the compression finds it.
    of : dict of str to int
        Which one a cell is in.
    """

    packed: tuple[str, ...]
    of: dict[str, int]


def pack(text: str) -> str:
    """Return text, compressed, in letters that end no HTML element; the same text gives the same letters."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def unpack(packed: str) -> str:
    """Return what `pack` was given."""
    return gzip.decompress(base64.b64decode(packed)).decode()


def pack_json(data: Any) -> str:
    """Return plain data, packed; NaN and infinities are not allowed in it."""
    return pack(json.dumps(data, separators=(",", ":"), allow_nan=False))


def chunks(cells: Mapping[str, Mapping[str, Any]]) -> Chunks:
    """Return cells in chunks that a browser opens in a blink.

    Parameters
    ----------
    cells : mapping of str to mapping of str to plain data
        By route, then by part; all have the same parts.
    """
    routes: Sequence[str] = list(cells)
    starts = range(0, len(routes), _CELLS)
    packed = []
    for at in starts:
        held = {route: cells[route] for route in routes[at : at + _CELLS]}
        parts = next(iter(held.values())).keys()
        packed.append(pack_json({part: {route: cell[part] for route, cell in held.items()} for part in parts}))
    return Chunks(tuple(packed), {route: place // _CELLS for place, route in enumerate(routes)})
