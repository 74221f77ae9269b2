"""The answer of `qbench diagnose`: what was run, what follows from it, and how it is told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qbench.cli import diagnosing, options
from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.cli.executing import Way
    from qbench.diagnosis.layers import LayerLoss
    from qbench.diagnosis.mixed import Mixture
    from qbench.diagnosis.outcome import Outcome, Place
    from qbench.store.record import Record


class Answer:
    """What is foretold of a model on some grids.

    Parameters
    ----------
    question : Question
        What is asked.
    out : Path or None
        The folder of its records.
    way : Way
        How cells are executed.
    steps : int
        Of training.
    fresh : bool
        Whether what is stored is measured again.

    Raises
    ------
    StoreError
        A cell gave no number.
    QBenchError
        The model's loss is no better than chance.
    """

    def __init__(self, question: diagnosing.Question, out: Path | None, way: Way, steps: int, *, fresh: bool) -> None:
        from qbench.diagnosis import shipped
        from qbench.diagnosis.forecast import ladders
        from qbench.diagnosis.reading import readings

        self._question, self._steps, self._began = question, steps, time.monotonic()
        self._runner = diagnosing.Runner(question, out, way, options.console())
        self._runner.first(fresh=fresh)
        diagnosing.require_sound(self._records)
        found = ladders(readings(self._records), shipped.corrections(), steps)
        order = list(self._runner.entries)
        self.ladders = {place: found[place] for place in sorted(found, key=lambda place: order.index(place[1]))}
        self._layers: dict[Place, tuple[int, Sequence[LayerLoss]]] = {}
        self._mixtures: dict[Place, tuple[Mixture, dict[int, float]]] = {}
        self._outcomes: Mapping[tuple[Place, int], Outcome] = {}

    @property
    def _records(self) -> list[Record]:
        return list(self._runner.answered.records.values())

    def look_at_layers(self, *, fresh: bool) -> None:
        """Measure layers one by one, on each grid at the bits where that tells most.

        Raises
        ------
        StoreError
            A cell gave no number.
        """
        from qbench.diagnosis.layers import losses

        grids = {cell.axes()["quantizer"]: cell.quantizer for cell in self._runner.cells if cell.quantizer is not None}
        at = {place: diagnosing.watched(ladder) for place, ladder in self.ladders.items()}
        self._runner.layers([(grids[place[1]], bits) for place, bits in at.items()], fresh=fresh)
        held = {
            (record.axes["quantizer"], record.axes["bits"]): record
            for record in self._records
            if str(record.axes["method"]).partition("[")[0] == "layer_margins"
        }
        diagnosing.require_sound(held.values())
        self._layers = {place: (bits, losses(held[place[1], bits])) for place, bits in at.items()}

    def mix(self, budget: float, write_suite: Path | None) -> None:
        """Say which layers should have how many bits, so many in the mean; write a suite of it where that is wanted.

        Raises
        ------
        QBenchError
            The budget is below the fewest bits that were asked about, or the suite cannot be written.
        """
        from qbench.cli.mixed_suite import write_mixed
        from qbench.diagnosis.mixed import around, mixture, uniform

        for place, ladder in self.ladders.items():
            fewest = ladder.rows[-1].reading.bits
            if budget < fewest:
                raise QBenchError(f"--mixed {budget:g}: the fewest bits that are asked about are {fewest} (see --bits)")
            _, layers = self._layers[place]
            self._mixtures[place] = (
                mixture(layers, ladder.readings, ladder.law, budget),
                {reading.bits: uniform(layers, reading, ladder.law) for reading in around(ladder.readings, budget)},
            )
        if write_suite is not None:
            write_mixed(write_suite, self._question, self._runner, self._mixtures)

    def compare(self, paths: Sequence[Path] | None) -> None:
        """Look for what was measured of the model before; see `diagnosing.known`."""
        self._outcomes = diagnosing.known(paths, {place[0] for place in self.ladders}, self._records)

    def draw(self, folder: Path) -> None:
        """Draw the figure into a folder."""
        from qbench.report.figures.diagnosis import write_diagnosis

        drawn = write_diagnosis(self.ladders, self._outcomes, folder, ("svg",))
        typer.echo(f"wrote {', '.join(map(str, drawn))}", err=True)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        from qbench.report import diagnosis

        shown = []
        for place, ladder in self.ladders.items():
            found: dict[str, Any] = diagnosis.to_json(place, ladder, self._outcomes)
            if place in self._layers:
                bits, layers = self._layers[place]
                found["layers"] = {"bits": bits, "layers": [vars(layer) for layer in layers]}
            if place in self._mixtures:
                hint, uniform = self._mixtures[place]
                found["mixed"] = {**vars(hint), "uniform": {str(bits): excess for bits, excess in uniform.items()}}
            shown.append(found)
        return {"diagnoses": shown, "steps": self._steps, **self._cost()}

    def show(self) -> None:
        """Print all of it."""
        from qbench.diagnosis import shipped
        from qbench.report import diagnosis
        from qbench.report.fitting import wrap

        width = options.text_width()
        for place, ladder in self.ladders.items():
            options.show(f"== {diagnosis.title(place, ladder)} ==\n")
            options.show(diagnosis.forecasts(place, ladder, self._outcomes, self._steps, width) + "\n")
            if place in self._layers:
                bits, layers = self._layers[place]
                options.show(diagnosis.layer_table(layers, bits) + "\n")
            if place in self._mixtures:
                options.show(diagnosis.mixture_lines(*self._mixtures[place], width) + "\n")
            options.show(f"{diagnosis.verdict(ladder)}\n")
        measured = any(
            (place, row.reading.bits) in self._outcomes for place, ladder in self.ladders.items() for row in ladder.rows
        )
        options.show(diagnosis.notes(width, families=shipped.families(), measured=measured))
        cost = self._cost()
        options.show(
            wrap(
                f"cost: {cost['seconds']:.0f} s of measuring, {cost['passes']:.0f} passes of at most "
                f"{cost['sample_tokens']:.0f} tokens or images; this call took {cost['wall_seconds']:.0f} s; records "
                f"in {self._runner.answered.folder}",
                width,
            )
        )

    def _cost(self) -> dict[str, float]:
        probes = [record for record in self._records if record.is_probe]
        return {
            "wall_seconds": time.monotonic() - self._began,
            "seconds": sum(record.cost.evaluation_seconds for record in probes),
            "passes": sum(record.metrics["passes"] for record in probes),
            "sample_tokens": max(record.metrics["sample_tokens"] for record in probes),
        }
