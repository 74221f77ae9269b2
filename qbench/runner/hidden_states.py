"""Hidden states between two blocks: in host memory as long as they are few, in a file without a name otherwise."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

import torch
from torch import Tensor

from qbench import atomic

IN_MEMORY = 1 << 30
"""Bytes of hidden states that a cell keeps in memory; further streams of them are spilled to disk."""


class HiddenStates(Sequence[Tensor]):
    """A tensor for each batch, which can be replaced by another of its shape.

    Parameters
    ----------
    shapes : sequence of torch.Size
        Of each batch's tensor.
    dtype : torch.dtype
        Of all.
    device : str
        Where tensors are wanted.
    file : binary file, optional
        Where they are kept; in memory when left out.
    """

    def __init__(
        self, shapes: Sequence[torch.Size], dtype: torch.dtype, device: str, file: IO[bytes] | None = None
    ) -> None:
        self._shapes, self._dtype, self._device, self._file = list(shapes), dtype, device, file
        sizes = [shape.numel() * dtype.itemsize for shape in shapes]
        self._starts = [sum(sizes[:index]) for index in range(len(sizes))]
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        if self._file is None:
            return self._kept[index].to(self._device)
        tensor = torch.empty(self._shapes[index], dtype=self._dtype)
        self._file.seek(self._starts[index])
        self._file.readinto(_bytes_of(tensor))  # type: ignore[attr-defined]
        return tensor.to(self._device)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def empty(self, spill: Spill) -> HiddenStates:
        """Return room for tensors of the same shapes.

        Raises
        ------
        UnwritableError
            No file can be made.
        """
        return spill.hold(self._shapes, self._dtype)

    def put(self, index: int, value: Tensor) -> None:
        """Keep a tensor in the place of the one before it.

        Raises
        ------
        UnwritableError
            The disk is full, say.
        """
        value = value.detach().to("cpu").contiguous()
        assert value.shape == self._shapes[index]
        assert value.dtype == self._dtype
        if self._file is None:
            self._kept[index] = value
            return
        try:
            self._file.seek(self._starts[index])
            self._file.write(_bytes_of(value))
            self._file.flush()
        except OSError as error:
            raise atomic.unwritable(Path(str(self._file.name)), error) from error


class Spill:
    """Gives room for hidden states, and takes all of it back at the end of its context.

    Files have no name in their folder: a process that is killed leaves nothing behind.

    Parameters
    ----------
    folder : Path
        Where there is room for files.
    device : str
        Where tensors are wanted.
    limit : int
        Bytes in memory.
    """

    def __init__(self, folder: Path, device: str, limit: int = IN_MEMORY) -> None:
        self._folder, self._device, self._left = folder, device, limit
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def hold(self, shapes: Sequence[torch.Size], dtype: torch.dtype) -> HiddenStates:
        """Return room for tensors of these shapes.

        Raises
        ------
        UnwritableError
            No file can be made in the folder.
        """
        size = sum(shape.numel() for shape in shapes) * dtype.itemsize
        if size <= self._left:
            self._left -= size
            return HiddenStates(shapes, dtype, self._device)
        atomic.require_writable(self._folder)
        file = self._files.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed by the stack
        return HiddenStates(shapes, dtype, self._device, file)


def _bytes_of(tensor: Tensor) -> memoryview:
    flat: Any = tensor.view(-1).view(torch.uint8).numpy()
    return memoryview(flat)
