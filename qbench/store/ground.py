"""The ground that numbers stand on: which machines count as alike, and where the same cell gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BYTES_DEPEND_ON = (
    "allocator",
    "cpu_capability",
    "device",
    "device_name",
    "lm-eval",
    "numpy",
    "platform",
    "python",
    "threads",
    "torch",
    "transformers",
)
"""What can change the last bits of a sum, or the order of its terms, without being part of a cell's identity."""


def device_class(environment: Mapping[str, Any]) -> str:
    """Return the kind of device a record was made on, such as ``cpu x86_64`` or ``cuda NVIDIA H100 80GB HBM3``.

    Numbers of one class differ by rounding errors and what these set off; a baseline is kept for each class.

    Parameters
    ----------
    environment : mapping
        Of a record; one that says nothing (the cell was not executed) is of the class ``unknown``.
    """
    device = str(environment.get("device", ""))
    if not device:
        return "unknown"
    if device.startswith("cuda"):
        return f"cuda {environment.get('device_name', 'unknown')}"
    machine = str(environment.get("platform", "unknown")).split()[-1]
    return f"{device} {machine}"


def unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return what two environments differ in that bytes can depend on: name to both values; empty on equal ground."""
    return {
        name: (str(first.get(name, "-")), str(second.get(name, "-")))
        for name in BYTES_DEPEND_ON
        if first.get(name) != second.get(name)
    }
