"""How much memory cells need, before any of them runs: from shapes, and from what cells of their kind have taken."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context
from typing import Any, Literal, NamedTuple

from qbench.store.summary import Summary
from qbench.suite.cell import FP, Cell
from qbench.suite.plugins import Plugin, loaded_for

Form = Literal["fp", "control", "quantized", "probe"]


class Kind(NamedTuple):
    """What cells have in common that need the same memory: quantizer, bits and seed change little.

    Attributes
    ----------
    model, method : str
        Labels, which hold every option that was changed.
    form : str
        ``fp``, ``control``, ``quantized`` or ``probe``.
    watched : bool
        Whether the way of a training is measured, in a model of its own.
    """

    model: str
    method: str
    form: Form
    watched: bool = False


@dataclass(frozen=True)
class Need:
    """Memory that a cell needs.

    Attributes
    ----------
    host : int or None
        Bytes of the machine's memory, those of the process included; None where nothing is known.
    device : int or None
        Bytes of a GPU's memory, 0 on a CPU; of a training that several processes share, of all their GPUs together.
    source : str
        How it is known: ``shapes``, ``measured`` or ``unknown``.
    reason : str or None
        Why shapes could not tell.
    """

    host: int | None
    device: int | None
    source: Literal["shapes", "measured", "unknown"]
    reason: str | None = None


def kind_of(cell: Cell) -> Kind:
    """Return the kind of a cell."""
    axes = cell.axes()
    form: Form = "fp" if cell.is_fp else "probe" if cell.is_probe else "control" if cell.is_control else "quantized"
    return Kind(str(axes["model"]), str(axes["method"]), form, cell.trajectory > 0)


def needs(cells: Sequence[Cell], measured: Iterable[Summary], device: str) -> dict[Kind, Need]:
    """Return what cells need, by their kind.

    Parameters
    ----------
    cells : sequence of Cell
        Those that are skipped need nothing.
    measured : iterable of Summary
        Of stored cells. Where shapes and the highest peak of a kind differ, the larger counts: a peak was that of one
        machine, and of the quantizers and bits that were run so far.
    device : str
        Where the cells are to run: ``cpu``, ``cuda``, or ``auto``, for which each number is what it may be at most.

    Notes
    -----
    Models are loaded in a process of its own that ends here, so that this one needs no torch, and keeps nothing of
    them. It asks no hub: of a model that is not on this machine nothing is known.
    """
    first: dict[Kind, Cell] = {}
    for cell in cells:
        if cell.skip is None:
            first.setdefault(kind_of(cell), cell)
    peaks = _peaks(measured)
    return {
        # A peak of a training that several processes share is that of the largest one alone.
        kind: _corrected(found, 0 if first[kind].is_shared else peaks.get(kind[:3], 0), device)
        for kind, found in _from_shapes(first, device).items()
    }


def _peaks(measured: Iterable[Summary]) -> dict[tuple[str, str, str], int]:
    """Return the highest peak of each kind; a record does not tell whether a training was watched."""
    found: dict[tuple[str, str, str], int] = {}
    for one in measured:
        if one.status == "ok":
            method = str(one.axes["method"])
            bare = "fp" if method == FP else "control"
            form = "probe" if one.is_probe else bare if one.axes["quantizer"] is None else "quantized"
            kind = str(one.axes["model"]), method, form
            found[kind] = max(found.get(kind, 0), one.peak_memory_bytes)
    return found


def _corrected(told: Need, peak: int, device: str) -> Need:
    # Peaks are of the process on a CPU and of the device on a GPU.
    if peak <= ((told.device if device == "cuda" else told.host) or 0):
        return told
    if device == "cuda":
        return replace(told, device=peak, source="measured")
    return replace(told, host=peak, device=max(told.device or 0, 0 if device == "cpu" else peak), source="measured")


def _from_shapes(first: Mapping[Kind, Cell], device: str) -> dict[Kind, Need]:
    """Ask a process of its own, model after model; what it cannot tell, or dies of, is unknown."""
    if not first:
        return {}
    seeds: dict[Any, int] = {}
    for cell in first.values():
        seeds.setdefault(cell.model, cell.seed)
    places = {model: place for place, model in enumerate(seeds)}
    order = sorted(first, key=lambda kind: places[first[kind].model])
    found = {kind: Need(None, None, "unknown", "the process that loads models has died") for kind in first}
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, _plugins_of(first.values()), device), name="qbench shapes", daemon=True
    )
    process.start()
    theirs.close()  # so that the end of the process is the end of what comes from it
    try:
        for kind in order:
            cell = replace(first[kind], seed=seeds[first[kind].model])
            try:
                ours.send(cell)
            except OSError:
                break
            except Exception as error:  # a class that a plugin makes inside a function, say
                found[kind] = Need(None, None, "unknown", _in_words(error))
                continue
            try:
                found[kind] = Need(*ours.recv())
            except (EOFError, OSError):
                break
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
    return found


def _plugins_of(cells: Iterable[Cell]) -> tuple[Plugin, ...]:
    """Return the local plugins whose classes cells hold: they must be there before a cell arrives."""
    whole = [one for cell in cells for one in (cell, *cell.points)]
    specs = [spec for cell in whole for spec in (cell.model, cell.quantizer, cell.procedure) if spec is not None]
    return loaded_for({cls.__module__ for spec in specs for cls in type(spec).__mro__})


def _serve(orders: connection.Connection, plugins: tuple[Plugin, ...], device: str) -> None:
    """Tell what the cells need that come in, one at a time, until nobody is there to send any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches every process; the parent ends this one
    # Libraries and plugins print as they load; what goes wrong is told in the answer.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    failed = _failure(plugins)
    with suppress(EOFError, OSError):
        for answer in _answers(orders, device, failed):
            orders.send(answer)


def _failure(plugins: Sequence[Plugin]) -> str | None:
    try:
        for plugin in plugins:
            plugin.load()
    except (Exception, SystemExit) as error:  # it is a stranger's code
        return _in_words(error)
    return None


def _answers(orders: connection.Connection, device: str, failed: str | None) -> Iterator[tuple[Any, ...]]:
    """Yield the fields of a `Need` for each cell."""
    from qbench.runner.cell_memory import ShapeSession, bytes_needed

    session = ShapeSession()
    while True:
        try:
            cell = orders.recv()
        except (EOFError, OSError):
            return
        except Exception as error:  # its class is not to be had here
            yield None, None, "unknown", failed or _in_words(error)
            continue
        try:
            yield *bytes_needed(cell, session, device), "shapes", None
        except (Exception, SystemExit) as error:
            yield None, None, "unknown", _in_words(error)


def _in_words(error: BaseException) -> str:
    from qbench.runner.worker import in_words

    return in_words(error)
