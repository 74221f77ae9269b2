"""C5 and C6: the loss on straight lines between full precision, rounding and QAT."""

from __future__ import annotations

from collections.abc import Sequence

from qbench.claims.points import point_of, points_of
from qbench.claims.subject import Subject
from qbench.report.figures.figure import Axis, Curve, Figure, Level, Panel
from qbench.report.figures.paging import Sheet, pages
from qbench.report.figures.places import bits_of, mean, present, probe, where


def segments(subjects: Sequence[Subject]) -> list[Figure]:
    """Return the excess along the three segments."""
    sheets = []
    for subject in subjects:
        for bits in bits_of(subject, "segments"):
            panel = _panel(subject, bits)
            if panel is not None:
                sheets.append(Sheet(subject, [panel]))
    notes = ["QAT: the codeword with the least loss that training found on the same frozen grid."]
    title = "C5, C6: is there a wall on the way to rounded weights, and none on the way to QAT's?"
    return pages("C06_segments", title, notes, sheets, titled=True)


def _panel(subject: Subject, bits: int) -> Panel | None:
    curves, taus, ratios = [], [], []
    for seed in subject.seeds:
        record = probe(subject, seed, bits, "segments")
        first = None if record is None else present(point_of, record, "rtn")
        if record is None or first is None:
            continue
        found = [label for label in points_of(record) if subject.is_witness(seed, bits, label)]
        witness = min(found, key=lambda label: (record.metrics[f"{label}/excess"], label), default=None)
        names = {"fp->ptq": f"fp->{first}"}
        if witness is not None:
            names |= {"fp->qat": f"fp->{witness}", "ptq->qat": f"{first}->{witness}"}
            ratios.append(record.metrics[f"{witness}/distance"] / record.metrics[f"{first}/distance"])
        at = tuple(record.traces.get("t", ()))
        for series, name in names.items():
            if name in record.traces:
                curves.append(Curve(series, seed, at, tuple(record.traces[name])))
        taus.append(subject.tau(record.metrics.get(f"{first}/se", 0.0)))
    if not curves:
        return None
    title = where(subject, bits) + (f"\nQAT lies {mean(ratios):.2g} x as far from fp as rtn" if ratios else "")
    return Panel(
        title,
        Axis("place t on the segment (0: where it begins, 1: where it ends)"),
        Axis("excess loss D over fp (nats)"),
        tuple(curves),
        levels=(Level("y", mean(taus), "τ"),),
    )
