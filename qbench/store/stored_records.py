"""Records that stay on disk until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from qbench.store.record import Record


class StoredRecords(Mapping[str, Record]):
    """Records by cell id; each is read when it is asked for, and not held.

    Parameters
    ----------
    read : callable
        Returns the record of a cell id, None where there is none.
    ids : iterable of str
        The cells, in the order in which they are gone through.
    """

    def __init__(self, read: Callable[[str], Record | None], ids: Iterable[str]) -> None:
        self._read, self._ids = read, dict.fromkeys(ids)

    def __getitem__(self, cell_id: str) -> Record:
        record = self._read(cell_id) if cell_id in self._ids else None
        if record is None:
            raise KeyError(cell_id)
        return record

    def __contains__(self, cell_id: object) -> bool:
        return cell_id in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._ids.keys() == other.keys() and all(self[one] == other[one] for one in self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} stored records>"
