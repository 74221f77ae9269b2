"""Where in a model errors are put, one place at a time: layers, or blocks and kinds of layers where they are many."""

from __future__ import annotations

import re
from collections.abc import Sequence

_IN_BLOCK = re.compile(r"(?P<block>.*?\b\d+)\.(?P<kind>.+)")
_NUMBER = re.compile(r"\b\d+\b")


def places(layers: Sequence[str], most: int) -> dict[str, frozenset[str]]:
    """Return the places of a model by name.

    Parameters
    ----------
    layers : sequence of str
        Names in the model, in forward order.
    most : int
        At most so many places are wanted; kinds of layers may make it a few more.

    Returns
    -------
    dict of str to frozenset of str
        The layers of each place. Each layer is a place of its own where they are few enough. Otherwise a run of blocks
        is one (``model.layers.0``, or ``model.layers.0..model.layers.1``), and so is each kind of layer that there is
        more than once (``*.mlp.down_proj``, or ``*.experts.*.down_proj`` for all experts of all blocks): every layer
        lies in one of the former and, mostly, in one of the latter.
    """
    if len(layers) <= most:
        return {name: frozenset({name}) for name in layers}
    blocks: dict[str, list[str]] = {}
    kinds: dict[str, list[str]] = {}
    for name in layers:
        block, kind = parts(name)
        blocks.setdefault(block, []).append(name)
        if kind:
            kinds.setdefault(kind, []).append(name)
    several = {kind: own for kind, own in kinds.items() if len(own) > 1}
    names = list(blocks)
    run = -(-len(names) // max(1, most - len(several)))
    found = {}
    for start in range(0, len(names), run):
        held = names[start : start + run]
        label = held[0] if len(held) == 1 else f"{held[0]}..{held[-1]}"
        found[label] = frozenset(layer for block in held for layer in blocks[block])
    return found | {f"*.{kind}": frozenset(own) for kind, own in several.items()}


def parts(layer: str) -> tuple[str, str]:
    """Return the block and the kind of a layer: ``model.layers.3.mlp.down_proj`` is of ``model.layers.3``.

    A number in a kind is any number: experts of one block are of one kind, which would be too many otherwise. A layer
    outside of numbered blocks is a block of its own, of no kind.
    """
    found = _IN_BLOCK.fullmatch(layer)
    return (found["block"], _NUMBER.sub("*", found["kind"])) if found else (layer, "")
