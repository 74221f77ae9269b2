"""What `qbench diagnose` runs and reads: probes of one model, and what is known of it already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbench.cli import asked_model, executing, options
from qbench.errors import QBenchError, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from qbench.diagnosis.forecast import Ladder
    from qbench.diagnosis.outcome import Place
    from qbench.store.folder import RunFolder
    from qbench.store.record import Record
    from qbench.suite.cell import Cell


_LAYER_BUDGET = 1024
"""Tokens or images below which layers' losses are mostly chance."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes
    ----------
    model : dict
        As a suite names it.
    quantizers : list
        As a suite names them.
    bits : list of int
        Falling.
    seed : int
        Of the model and all chance.
    bn : str
        What batch norms are; see `qbench.geometry.base.Probe`.
    budget, draws : int
        Options of the probe `margin`.
    measure : bool
        Whether rounding and GPTQ are run as well.
    """

    model: dict[str, Any]
    quantizers: list[Any]
    bits: list[int]
    seed: int = 0
    bn: str = "keep"
    budget: int = 4096
    draws: int = 2
    measure: bool = False

    def block(self, **more: Any) -> dict[str, Any]:
        """Return a block of a suite with the model, its quantizers and bits."""
        found = {"models": [self.model], "quantizers": self.quantizers, "bits": self.bits, "seeds": [self.seed]}
        return found | more

    def probe(self, name: str, **more: Any) -> dict[str, Any]:
        """Return a probe as a suite names it, with batch norms treated as they are asked for."""
        return {"name": name, "bn": self.bn, **more}


@dataclass
class Answered:
    """What was run.

    Attributes
    ----------
    folder : Path
        Where its records are.
    records : dict of str to Record
        By cell id.
    """

    folder: Path
    records: dict[str, Record] = field(default_factory=dict)


class Runner:
    """Runs cells of one model into a folder of its own.

    Parameters
    ----------
    question : Question
        Names the model.
    out : Path or None
        The folder; by default ``results/runs/diagnose-MODEL``.
    way : Way
        How cells are executed.
    console : Console
        Where messages go.
    """

    def __init__(self, question: Question, out: Path | None, way: executing.Way, console: Console) -> None:
        self.question, self._way, self._console = question, way, console
        probes = [question.probe("margin", budget=question.budget, draws=question.draws)]
        methods = {"methods": [self._method("rtn"), self._method("gptq")]} if question.measure else {}
        self.cells = self._enumerated([question.block(probes=probes, **methods)], say=True)
        self.entries = {self._label(entry): entry for entry in question.quantizers}
        """What a suite says of each quantizer, by its label."""
        self.model = self.cells[0].model
        self.name = asked_model.folder_name(self.model)
        self.answered = Answered(options.run_path(self.name, out))

    def first(self, *, fresh: bool) -> None:
        """Measure the margins at all bits, and run what else is asked for.

        Raises
        ------
        StoreError
            The model cannot be evaluated.
        QBenchError
            Its loss is no better than chance.
        """
        self.run([cell for cell in self.cells if cell.is_fp], fresh=fresh)
        require_sound(self.answered.records.values())
        require_better_than_chance(self.answered.records.values())
        self.run(self.cells, fresh=fresh)

    def layers(self, places: Sequence[tuple[Any, int]], *, fresh: bool) -> None:
        """Measure layers one by one, on the grids of some quantizers and bits."""
        budget = min(self.question.budget, max(_LAYER_BUDGET, self.question.budget // 4))
        probe = self.question.probe("layer_margins", budget=budget)
        blocks = [
            self.question.block(probes=[probe]) | {"quantizers": [quantizer], "bits": [bits]}
            for quantizer, bits in places
        ]
        if blocks:
            self.run(self._enumerated(blocks), fresh=fresh)

    def run(self, cells: Sequence[Cell], *, fresh: bool) -> None:
        """Run cells that the folder does not hold yet; full precision is run once a call, also where it is fresh."""
        from qbench.runner.planning import plan
        from qbench.store.folder import RunFolder

        held = [cell for cell in cells if not (cell.is_fp and self.answered.records)]
        folder: RunFolder = RunFolder(self.answered.folder)
        with folder.lock():
            executing.fetch(held, self._console)
            todo = plan(held, folder, fresh=fresh)
            found = executing.execute(todo, self.name, folder, self._way, self._console)
        self.answered.records |= found

    def _method(self, name: str) -> dict[str, Any]:
        return {"name": name, "bn": self.question.bn} if self.question.bn != "keep" else {"name": name}

    def _label(self, quantizer: Any) -> str:
        probes = [self.question.probe("margin")]
        block = self.question.block(probes=probes) | {"quantizers": [quantizer]}
        return next(str(cell.axes()["quantizer"]) for cell in self._all([block]) if cell.is_probe)

    def _all(self, blocks: Sequence[dict[str, Any]]) -> list[Cell]:
        from qbench.suite.enumerate import enumerate_cells

        return enumerate_cells(asked_model.suite_of("diagnose", blocks))

    def _enumerated(self, blocks: Sequence[dict[str, Any]], *, say: bool = False) -> list[Cell]:
        cells = self._all(blocks)
        sound = [cell for cell in cells if cell.skip is None]
        if not any(cell.is_probe for cell in sound):
            reasons = [cell.skip for cell in cells if cell.skip is not None]
            raise QBenchError(f"nothing can be diagnosed: {reasons[0] if reasons else 'no bits are left'}")
        for reason in dict.fromkeys(cell.skip for cell in cells if cell.skip is not None) if say else ():
            self._console.print(f"left out: {reason}")
        return sound


def require_sound(records: Iterable[Record]) -> None:
    """Make sure that every cell gave a number.

    Raises
    ------
    StoreError
        One did not; the message has its reason.
    """
    for record in records:
        if record.status != "ok":
            raise StoreError(f"{record.label}: {record.status}: {record.reason}")


def require_better_than_chance(records: Iterable[Record]) -> None:
    """Make sure that the model has something to lose.

    Raises
    ------
    QBenchError
        Its loss is that of guessing, or worse.
    """
    for record in records:
        chance = record.facts.get("chance_loss")
        if record.axes["method"] == "fp" and chance is not None and record.loss is not None and record.loss >= chance:
            raise QBenchError(
                f"{record.axes['model']}: its loss of {record.loss:.3f} is no better than chance ({chance:.3f}), so "
                "that there is nothing to lose"
            )


def known(paths: Sequence[Path] | None, models: Iterable[str], own: Iterable[Record]) -> dict[tuple[Place, int], Any]:
    """Return what was measured of models before, and in this run.

    Parameters
    ----------
    paths : sequence of Path or None
        Archives, folders of records, or folders that hold some; by default ``results/records`` and ``results/runs``,
        where they are.
    models : iterable of str
        Labels.
    own : iterable of Record
        Of this run; what it measured goes before others, method by method.
    """
    from qbench.diagnosis.outcome import merged, outcomes

    wanted = set(models)
    found: dict[tuple[Place, int], Any] = {}
    for _, records in stored(paths):
        kept = [record for record in records if record.axes["model"] in wanted]
        found = merged(found, outcomes(kept))
    return merged(outcomes(own), found)


def stored(paths: Sequence[Path] | None) -> Iterable[tuple[str, Sequence[Record]]]:
    """Yield name and records of every archive and folder of records, in order.

    Raises
    ------
    StoreError
        A path that was named is none of these, or cannot be read.
    """
    from qbench.store.archive import is_archive, read_archive
    from qbench.store.folder import RunFolder

    standing = [options.results_folder() / part for part in ("records", "runs")]
    for path in [one for one in standing if one.is_dir()] if paths is None else paths:
        require_records(path)
        if is_archive(path):
            yield path.name, read_archive(path).records
        elif (path / "records").is_dir():
            yield path.name, list(RunFolder(path).scan().records.values())
        else:
            for inner in sorted(path.iterdir()):
                if is_archive(inner):
                    yield inner.name, read_archive(inner).records
                elif (inner / "records").is_dir():
                    yield inner.name, list(RunFolder(inner).scan().records.values())


def require_records(path: Path) -> None:
    """Make sure that a path is an archive or a folder.

    Raises
    ------
    StoreError
        It is neither.
    """
    from qbench.store.archive import SUFFIX, is_archive

    if not is_archive(path) and not path.is_dir():
        raise StoreError(f"{path} is no archive of records and no folder (allowed: *{SUFFIX}, or a folder)")


def watched(ladder: Ladder) -> int:
    """Return the bits at which layers are looked at: the most at which rounding is foretold to fail, else the fewest.

    There single layers cost more than the sample's noise, and not yet as much as they can.
    """
    failing = ladder.failing()
    return ladder.rows[-1].reading.bits if failing is None else failing
