"""A suite that runs mixed bits beside the same bits for all layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qbench import atomic
from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.cli.diagnosing import Question
    from qbench.diagnosis.forecast import Ladder
    from qbench.diagnosis.mixed import Mixture
    from qbench.diagnosis.outcome import Place
    from qbench.spec import Spec


def write_mixed(
    path: Path,
    question: Question,
    model: Spec,
    found: Mapping[Place, Ladder],
    hints: Mapping[Place, tuple[Mixture, Mapping[int, float]]],
) -> None:
    """Write the suite; `qbench run --suite` runs it.

    Parameters
    ----------
    path : Path
        Where: a new file, whose name without its ending becomes the suite's.
    question : Question
        What was asked.
    model : Spec
        The model.
    found, hints : mapping
        Ladders and mixed bits, in the order of the question's quantizers.

    Raises
    ------
    QBenchError
        The file is there already, or has another ending.
    """
    import yaml

    if path.suffix not in (".yaml", ".yml"):
        raise QBenchError(f"--write-suite {path} (allowed: a file that ends in .yaml)")
    if path.exists():
        raise QBenchError(f"{path} is there already: it is not overwritten")
    blocks = []
    for entry, place in zip(question.quantizers, found, strict=True):
        hint, uniform = hints[place]
        named = {"name": entry} if isinstance(entry, str) else dict(entry)
        counts: dict[int, float] = {}
        for name, bits in hint.bits.items():
            counts[bits] = counts.get(bits, 0) + found[place].readings[0].layers[name][0]
        most = max(counts, key=lambda bits: counts[bits])
        others = {name: bits for name, bits in hint.bits.items() if bits != most}
        mixed = named | ({"layer_bits": others} if others else {})
        blocks.append(_block(question, [named], sorted(uniform, reverse=True)))
        blocks.append(_block(question, [mixed], [most]))
    suite = {
        "name": path.stem,
        "about": f"{model.label()}: mixed bits that `qbench diagnose` chose, beside the same bits for all layers",
        "matrix": blocks,
        "metrics": ["loss"],
    }
    atomic.write_text(path, yaml.safe_dump(suite, sort_keys=False, width=120))
    typer.echo(f"wrote {path}: `qbench run --suite {path}` runs it", err=True)


def _block(question: Question, quantizers: list[Any], bits: list[int]) -> dict[str, Any]:
    treated = {} if question.bn == "keep" else {"bn": question.bn}
    methods = [{"name": name, **treated} if treated else name for name in ("rtn", "gptq")]
    return {
        "models": [question.model],
        "quantizers": quantizers,
        "bits": bits,
        "methods": methods,
        "seeds": [question.seed],
    }
