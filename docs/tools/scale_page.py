"""The generated parts of docs/scale.md: what cells of the published records took, what many would, and the recipes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from qbench.store.archive import SUFFIX, read_archive
from qbench.store.record import Record
from qbench.store.schema import dump_record
from qbench.store.summary import seconds_of

RECORDS = Path(__file__).parents[2] / "results" / "records"
RECIPES = {"slurm": ("bash", "slurm-ray.sh"), "github": ("yaml", "github-matrix.yml")}

CELLS, WORKERS = 10**5, 10**3
"""For how many the second table is worked out."""


@dataclass(frozen=True)
class Taken:
    """What a cell took: seconds in all, of its method and of its evaluation; bytes of memory and of its record."""

    seconds: float
    method: float
    evaluation: float
    peak: int
    record: int

    @classmethod
    def of(cls, record: Record) -> Taken:
        """Return what a record tells."""
        cost, size = record.cost, len(dump_record(record).encode())
        return cls(seconds_of(record), cost.method_seconds, cost.evaluation_seconds, cost.peak_memory_bytes, size)


def render() -> dict[str, str]:
    """Return each generated part of the page by its name."""
    found: dict[str, dict[str, list[Taken]]] = {}
    for path in sorted(RECORDS.glob(f"*{SUFFIX}")):
        by_method: dict[str, list[Taken]] = defaultdict(list)
        for record in read_archive(path).records:
            if record.status == "ok":
                by_method[str(record.axes["method"]).partition("[")[0]].append(Taken.of(record))
        found[path.name.removesuffix(SUFFIX)] = dict(sorted(by_method.items()))
    return {"costs": "\n".join(_costs(found)), "growth": "\n".join(_growth(found)), **_recipes()}


def _recipes() -> dict[str, str]:
    folder = Path(__file__).parents[1] / "recipes"
    texts = {part: (kind, (folder / file).read_text(encoding="utf-8")) for part, (kind, file) in RECIPES.items()}
    return {part: f"```{kind}\n{text}```" for part, (kind, text) in texts.items()}


def _costs(found: dict[str, dict[str, list[Taken]]]) -> Iterator[str]:
    yield "| suite | method or probe | cells | seconds | method | evaluation | rest | peak MB | record kB |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for suite, methods in found.items():
        for method, cells in methods.items():
            seconds, of_method, evaluation = (
                fmean(getattr(one, field) for one in cells) for field in ("seconds", "method", "evaluation")
            )
            times = [_three(one) for one in (seconds, of_method, evaluation, seconds - of_method - evaluation)]
            peak, record = max(one.peak for one in cells) / 1e6, fmean(one.record for one in cells) / 1e3
            yield f"| {suite} | `{method}` | {len(cells)} | {' | '.join(times)} | {peak:.0f} | {record:.0f} |"


def _growth(found: dict[str, dict[str, list[Taken]]]) -> Iterator[str]:
    yield "| cells like those of | seconds a cell | worker-hours | minutes at least | records a second | records |"
    yield "|---|--:|--:|--:|--:|--:|"
    for suite, methods in found.items():
        cells = [one for of_method in methods.values() for one in of_method]
        seconds, record = fmean(one.seconds for one in cells), fmean(one.record for one in cells)
        hours, size = CELLS * seconds / 3600, f"{CELLS * record / 1e9:.1f} GB"
        numbers = [_three(one) for one in (seconds, hours, 60 * hours / WORKERS, WORKERS / seconds)]
        yield f"| {suite} | {' | '.join(numbers)} | {size} |"


def _three(number: float) -> str:
    """Return a number with three figures that count, and none of them an exponent."""
    for digits in (2, 1, 0):
        if abs(number) < 10 ** (3 - digits):
            return f"{number:.{digits}f}"
    return f"{float(f'{number:.3g}'):.0f}"
