"""Which layers are quantized on other bits than the cell's, as a suite says it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from qbench.errors import CellError, nearest

MOST_BITS = 8
MOST_PATTERNS, MOST_CHARACTERS = 10_000, 100
"""Of one option, and of one pattern: no more than a suite's keys may have."""

_BITS = f"a whole number from 1 to {MOST_BITS}"
_ALLOWED = "a mapping of layer names or shell patterns to bits"


class LayerBits(BaseModel):
    """Bits of layers by name, in place of the cell's.

    Attributes
    ----------
    patterns : tuple of (str, int)
        A layer's name, or a shell pattern of names, and bits; of several that fit a layer the first one counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: tuple[tuple[str, int], ...]

    def of(self, names: Collection[str]) -> dict[str, int]:
        """Return the bits of those layers that a pattern fits.

        Parameters
        ----------
        names : collection of str
            The layers of a model that can be quantized.

        Raises
        ------
        CellError
            A pattern fits none of them.
        """
        return dict(_fitted(self.patterns, tuple(names)))

    def __str__(self) -> str:
        written = json.dumps(self.patterns, separators=(",", ":"))
        return hashlib.sha256(written.encode()).hexdigest()[:8]


@lru_cache(maxsize=4)  # a model whose blocks come one by one asks again for each
def _fitted(patterns: tuple[tuple[str, int], ...], names: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pattern, bits in patterns:
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            ends = {f"*.{name.rpartition('.')[2]}" for name in names if "." in name}
            known = nearest(pattern, ends.union(names))
            raise CellError(f"layer_bits: {pattern!r} fits no layer that can be quantized{known}")
        for name in fitting:
            found.setdefault(name, bits)
    return found


def _parse(value: Any) -> Any:
    if isinstance(value, LayerBits):
        return value
    # Records have pairs: the keys of their mappings are sorted, and here the order counts.
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list | tuple) or not pairs:
        raise ValueError(f"layer_bits {_short(value)} is not to be read (allowed: {_ALLOWED})")
    if len(pairs) > MOST_PATTERNS:
        raise ValueError(f"layer_bits has {len(pairs)} patterns (allowed: at most {MOST_PATTERNS})")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"layer_bits {_short(pair)} is not to be read (allowed: {_ALLOWED})")
        pattern, bits = pair
        if not 0 < len(pattern) <= MOST_CHARACTERS:
            raise ValueError(f"layer_bits: a pattern of {len(pattern)} characters (allowed: 1 to {MOST_CHARACTERS})")
        if type(bits) is not int or not 1 <= bits <= MOST_BITS:
            raise ValueError(f"layer_bits of {pattern!r}: given {_short(bits)} (allowed: {_BITS})")
    return LayerBits(patterns=tuple((pattern, bits) for pattern, bits in pairs))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _dump(value: LayerBits) -> list[list[Any]]:
    return [list(pair) for pair in value.patterns]


LayerBitsField = Annotated[LayerBits, BeforeValidator(_parse), PlainSerializer(_dump)]
