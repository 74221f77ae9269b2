"""A suite that runs mixed bits beside the same bits for all layers."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qbench import atomic
from qbench.errors import QBenchError

if TYPE_CHECKING:
    from qbench.cli.diagnosing import Question, Runner
    from qbench.diagnosis.mixed import Mixture
    from qbench.diagnosis.outcome import Place


def write_mixed(
    path: Path, question: Question, runner: Runner, hints: Mapping[Place, tuple[Mixture, Mapping[int, float]]]
) -> None:
    """Write the suite; `qbench run --suite` runs it.

    Parameters
    ----------
    path : Path
        Where: a new file, whose name without its ending becomes the suite's.
    question : Question
        What was asked.
    runner : Runner
        Knows the model, and what a suite says of quantizers.
    hints : mapping
        Mixed bits, with those for all layers to set beside them.

    Raises
    ------
    QBenchError
        The file is there already, or has another ending.
    """
    import yaml

    from qbench.diagnosis.mixed import patterns

    require_new(path)
    blocks = []
    for place, (hint, uniform) in hints.items():
        entry = runner.entries[place[1]]
        named = {"name": entry} if isinstance(entry, str) else dict(entry)
        # By layers, not by weights: it is the list of the others that is to be short.
        most = Counter(hint.bits.values()).most_common(1)[0][0]
        others = patterns(hint.bits, most)
        blocks.append(_block(question, [named], sorted(uniform, reverse=True)))
        if others:
            blocks.append(_block(question, [named | {"layer_bits": others}], [most]))
    suite = {
        "name": path.stem,
        "about": f"{runner.model.label()}: mixed bits of `qbench diagnose`, beside the same bits for all layers",
        "matrix": blocks,
        "metrics": ["loss"],
    }
    # What stands there twice is written twice: suite files have no aliases.
    plain = json.loads(json.dumps(suite))
    atomic.write_text(path, yaml.safe_dump(plain, sort_keys=False, width=120))
    typer.echo(f"wrote {path}: `qbench run --suite {path}` runs it", err=True)


def require_new(path: Path) -> None:
    """Make sure that a suite can be written there.

    Raises
    ------
    QBenchError
        The file is there already, or has another ending.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise QBenchError(f"--write-suite {path} (allowed: a file that ends in .yaml)")
    if path.exists():
        raise QBenchError(f"{path} is there already: it is not overwritten")


def _block(question: Question, quantizers: list[Any], bits: list[int]) -> dict[str, Any]:
    treated = {} if question.bn == "keep" else {"bn": question.bn}
    methods = [{"name": name, **treated} if treated else name for name in ("rtn", "gptq")]
    # Of its own: what is the same object twice YAML writes as an alias, which suites do not have.
    block = {
        "models": [question.model],
        "quantizers": quantizers,
        "bits": bits,
        "methods": methods,
        "seeds": [question.seed],
    }
    return copy.deepcopy(block)
