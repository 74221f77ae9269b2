"""A packed file that is written layer by layer: the same bytes as of all layers at once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save
from torch import Tensor

from qbench import atomic
from qbench.methods.problem import Solution
from qbench.quant.packed_layer import pack_layer
from qbench.quantizers.activations import Activations
from qbench.runner.packed_file import ACTIVATIONS, LAYERS, with_metadata

_PIECE = 1 << 24
_PREFIX = 8  # bytes that tell the length of a safetensors header


class PackedWriter:
    """Collects packed layers in a file without a name, and puts them in order at the end.

    Parameters
    ----------
    path : Path
        The file to make; wholly written or not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        self._about: dict[str, dict[str, Any]] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._like: dict[str, Tensor] = {}
        self._end = 0
        self._activations: dict[str, Any] = {}

    def __enter__(self) -> Self:
        atomic.require_writable(self._path.parent)
        self._file = self._stack.enter_context(tempfile.TemporaryFile(dir=self._path.parent))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, solution: Solution, activations: dict[str, Activations]) -> None:
        """Pack the layers of a block.

        Parameters
        ----------
        solution : Solution
            Their codes and grids.
        activations : dict of str to Activations
            How the inputs of layers are quantized.
        """
        for name, found in solution.layers.items():
            parts, self._about[name] = pack_layer(found.codes, found.grid)
            for part, tensor in parts.items():
                self._append(f"{name}.{part}", tensor)
        self._activations |= {name: asked.model_dump(mode="json") for name, asked in activations.items()}

    def finish(self) -> str:
        """Write the file and return its sha256.

        Raises
        ------
        UnwritableError
            The disk is full, say.
        """
        header, order = self._header()
        digest = hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            for piece in self._pieces(header, order):
                digest.update(piece)
                yield piece

        atomic.write_pieces(self._path, pieces())
        return digest.hexdigest()

    def _pieces(self, header: bytes, order: list[str]) -> Iterator[bytes]:
        yield header
        for name in order:
            start, size = self._places[name]
            self._file.seek(start)
            for begin in range(0, size, _PIECE):
                yield self._file.read(min(_PIECE, size - begin))

    def _append(self, name: str, tensor: Tensor) -> None:
        data: Any = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        try:
            self._file.seek(self._end)
            self._file.write(memoryview(data))
        except OSError as error:
            raise atomic.unwritable(self._path, error) from error
        self._places[name] = (self._end, data.nbytes)
        self._end += data.nbytes
        self._like[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    def _header(self) -> tuple[bytes, list[str]]:
        """Return all bytes before the tensors, and the order of these."""
        # safetensors itself says in which order it puts tensors of these names and types, and how it calls the types.
        tiny = save({name: torch.zeros(1, dtype=like.dtype) for name, like in self._like.items()})
        entries = json.loads(tiny[_PREFIX : _PREFIX + int.from_bytes(tiny[:_PREFIX], "little")])
        end, header = 0, {}
        for name, entry in entries.items():
            size = self._places[name][1]
            header[name] = {
                "dtype": entry["dtype"],
                "shape": list(self._like[name].shape),
                "data_offsets": [end, end + size],
            }
            end += size
        text = json.dumps(header, separators=(",", ":")).encode()
        metadata = {LAYERS: json.dumps(self._about, sort_keys=True)}
        if self._activations:
            metadata[ACTIVATIONS] = json.dumps(self._activations, sort_keys=True)
        return with_metadata(len(text).to_bytes(_PREFIX, "little") + text, metadata), list(header)
