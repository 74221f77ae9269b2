"""`qbench export`: a cell's quantized weights as files that stand alone."""

from __future__ import annotations

import difflib
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qbench.cli import options
from qbench.errors import QBenchError, StoreError

if TYPE_CHECKING:
    from qbench.spec import Spec
    from qbench.store.folder import RunFolder
    from qbench.store.record import Record

_SHORTEST_PREFIX = 6
_LONGEST_NAME = 200  # letters; file systems allow 255 bytes


class Format(StrEnum):
    """What an export can be.

    Attributes
    ----------
    PACKED : str
        One safetensors file with packed codes.
    COMPRESSED_TENSORS : str
        A folder for transformers.
    """

    PACKED = "packed"
    COMPRESSED_TENSORS = "compressed-tensors"


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench export 'llama-1m/mse[per_channel]/4b/gptq/s0'   |   "
        "qbench export 3f9a2c --format compressed-tensors --to my-model"
    )(export)


def export(
    cell: Annotated[str, typer.Argument(help="A cell's label, its id, or the first 6 or more letters of the id.")],
    suite: Annotated[
        str | None,
        typer.Option("--suite", "-s", help="The suite that ran it  [default: any]", show_default=False),
    ] = None,
    out: options.OutOption = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="File or folder to write  [default: by the label]", show_default=False)
    ] = None,
    kind: Annotated[
        Format, typer.Option("--format", help="A file with packed codes, or a folder that transformers loads.")
    ] = Format.PACKED,
    force: Annotated[bool, typer.Option("--force", help="Write over an earlier export.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Take the quantized weights of a stored cell away; what was written is read back and compared."""
    folder, record = _find(cell, suite, out)
    name = re.sub(r"[^\w.+=-]+", "-", record.label).strip("-")[:_LONGEST_NAME]
    weights = folder.weights_path(record.cell_id)
    said: dict[str, Any] = {"cell_id": record.cell_id, "label": record.label, "format": kind.value}
    if kind is Format.PACKED:
        from qbench.atomic import sha256_file
        from qbench.runner.packed_file import export_packed

        path = to or Path(f"{name}.safetensors")
        found = export_packed(record, weights, path, force=force)
        said |= {"layers": len(found.layers), "bytes": path.stat().st_size, "sha256": sha256_file(path), "exact": True}
    else:
        from qbench.runner.compressed_folder import export_folder

        path = to or Path(name)
        written = export_folder(record, weights, _model(record, suite), path, force=force)
        said |= {
            "layers": sum(map(len, written.schemes.values())),
            "bytes": sum(file.stat().st_size for file in path.iterdir()),
            "schemes": {scheme.describe(): len(names) for scheme, names in written.schemes.items()},
            "exact": written.exact,
        }
    if json:
        options.print_json({**said, "path": str(path), "effective_bits": record.effective_bits})
        return
    typer.echo(f"{record.label} ({record.cell_id[:12]}): {said['layers']} layers, {said['bytes']:,} bytes in {path}")
    for scheme, count in said.get("schemes", {}).items():
        typer.echo(f"  {scheme}: {count} layers")
    typer.echo("read back: the same weights " + ("to the bit" if said["exact"] else "rounded to bfloat16"))


def _find(cell: str, suite: str | None, out: Path | None) -> tuple[RunFolder, Record]:
    """Return the record that a text means, the newest of its label, and the folder it is in."""
    from qbench.store.folder import RunFolder

    if out is None and suite is None:
        paths = sorted(path.parent for path in (options.results_folder() / "runs").glob("*/records"))
    else:
        paths = [options.run_path(_suite_name(suite), out)]
    # Of a cell that several suites ran, the newest record counts.
    held = [(RunFolder(path), record) for path in paths for record in RunFolder(path).scan().records.values()]
    where = " or ".join(map(str, paths)) if len(paths) in (1, 2) else str(options.results_folder() / "runs")
    if not held:
        raise StoreError(f"{where} holds no record: `qbench run --suite NAME` makes them")
    matching = [(folder, record) for folder, record in held if cell in (record.label, record.cell_id)]
    if not matching and re.fullmatch(r"[0-9a-f]+", cell):
        if len(cell) < _SHORTEST_PREFIX:
            raise QBenchError(f"{cell!r} is too short for an id (allowed: {_SHORTEST_PREFIX} letters or more)")
        matching = [(folder, record) for folder, record in held if record.cell_id.startswith(cell)]
        several = sorted({record.cell_id for _, record in matching})
        if len(several) > 1:
            raise QBenchError(f"{cell!r} begins {len(several)} ids: {', '.join(one[:16] for one in several[:4])}")
    if not matching:
        labels = sorted({record.label for _, record in held})
        close = difflib.get_close_matches(cell, labels, n=3, cutoff=0.5)
        hint = f": did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise StoreError(f"{where} holds no cell {cell!r}{hint} ({len(labels)} labels are there)")
    return max(matching, key=lambda one: (one[1].ended, one[1].cell_id))


def _suite_name(suite: str | None) -> str:
    from qbench.suite.load import load_suite

    return "" if suite is None else load_suite(suite).name


def _model(record: Record, suite: str | None) -> Spec:
    """Return the task of a record: as its suite gives it, or by the options in its key."""
    from qbench.registry import MODELS
    from qbench.suite.enumerate import enumerate_cells
    from qbench.suite.load import list_suites, load_suite

    if suite is not None or record.suite in list_suites():
        cells = enumerate_cells(load_suite(suite or record.suite))
        found = next((one.model for one in cells if one.label() == record.label), None)
        if found is not None:
            return found
    given = record.key["model"]["options"]
    if given.get("path") is not None:
        # A record keeps the name of a folder, not where it lies.
        raise QBenchError(f"{record.label}: its model is a local folder: say --suite FILE, the suite that names it")
    return MODELS.get(given["name"]).model_validate(given)
