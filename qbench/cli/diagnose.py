"""`qbench diagnose`: whether PTQ will do, or QAT is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qbench.cli import executing, options
from qbench.errors import QBenchError


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench diagnose llama-1m   |   qbench diagnose smollm2-135m --quantizer "
        "'{name: absmax, symmetric: false, granularity: {per_group: 64}}'   |   "
        "qbench diagnose hf:models/mine --mixed 3"
    )(diagnose)


def diagnose(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model of `qbench list models`, hf:ORG/REPO@COMMIT, hf:FOLDER, or torchvision:NAME.",
            metavar="MODEL",
            show_default=False,
        ),
    ] = None,
    quantizer: Annotated[
        list[str] | None,
        typer.Option(
            "--quantizer", "-q", help="A name, or YAML with options; repeatable  [default: mse]", show_default=False
        ),
    ] = None,
    bits: Annotated[str, typer.Option(help="Bits to ask about.")] = "8,4,3,2",
    data: Annotated[
        str | None,
        typer.Option(help="What it reads: a text (see docs/language.md) or images.", show_default=False),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="KEY=VALUE, a further option of the model; repeatable.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the model and of all chance.")] = 0,
    bn: Annotated[str, typer.Option(help="Batch norms: keep, or recalibrate at every point.")] = "keep",
    budget: Annotated[int, typer.Option(min=1, help="Tokens or images of each loss.")] = 4096,
    draws: Annotated[int, typer.Option(min=1, max=64, help="Random errors of each kind.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Training steps that QAT may take.")] = 200,
    layers: Annotated[bool, typer.Option("--layers/--no-layers", help="Measure layers one by one as well.")] = True,
    mixed: Annotated[
        float | None,
        typer.Option(
            min=1, max=8, help="Bits a weight in the mean: say which layers should have which.", show_default=False
        ),
    ] = None,
    write_suite: Annotated[
        Path | None,
        typer.Option(
            "--write-suite",
            help="Write a suite that runs the mixed bits beside the same bits for all.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run rtn and gptq too, to compare.")] = False,
    measured: Annotated[
        list[Path] | None,
        typer.Option(
            "--measured",
            help="Archives or folders of records to compare with; repeatable  [default: results/records, results/runs]",
            show_default=False,
        ),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw it into this folder, as SVG.", show_default=False)] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="No model: judge the forecasts by all published records.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="With --judge: write results/tables/diagnose.md and the corrections.")
    ] = False,
    device: executing.DeviceOption = "auto",
    out: options.OutOption = None,
    fresh: executing.FreshOption = False,
    json: options.JsonOption = False,
) -> None:
    """Foretell what quantizing a model costs at each bitwidth, and whether PTQ is enough, with forward passes alone.

    Weights are moved by random errors as large as the grid's rounding errors; nothing is rounded or trained. What is
    stored already is not measured again.
    """
    if judge:
        _refuse_beside_judge(model)
        from qbench.cli.judging import judge_all

        judge_all(write=write, json=json)
        return
    _refuse(model, bn, mixed, write_suite, layers=layers, write=write)
    from qbench.cli.answering import Answer
    from qbench.cli.asked_model import bits_of, model_entry, quantizer_entry
    from qbench.cli.diagnosing import Question
    from qbench.runner.local import check_device

    check_device(device)
    question = Question(
        model_entry(str(model), data, option or []),
        [quantizer_entry(one) for one in quantizer or ["mse"]],
        bits_of(bits),
        seed,
        bn,
        budget,
        draws,
        measure=measure,
    )
    _refuse_late(question.bits, mixed, write_suite, measured)
    # One process: the model is loaded once, and what is found of it serves all bits.
    answer = Answer(question, out, executing.Way(device, jobs=1), steps, fresh=fresh)
    if layers:
        answer.look_at_layers(fresh=fresh)
    if mixed is not None:
        answer.mix(mixed, write_suite)
    answer.compare(measured)
    if figure is not None:
        answer.draw(figure)
    if json:
        options.print_json(answer.to_json())
    else:
        answer.show()


def _refuse_late(bits: list[int], mixed: float | None, write_suite: Path | None, measured: list[Path] | None) -> None:
    """Refuse what would be refused after the measurements, before any is made."""
    from qbench.cli.diagnosing import require_records
    from qbench.cli.mixed_suite import require_new

    if mixed is not None and mixed < bits[-1]:
        raise QBenchError(f"--mixed {mixed:g}: the fewest bits that are asked about are {bits[-1]} (see --bits)")
    if write_suite is not None:
        require_new(write_suite)
    for path in measured or []:
        require_records(path)


def _refuse_beside_judge(model: str | None) -> None:
    if model is not None:
        raise QBenchError(f"--judge is about all published records: leave out {model!r}")


def _refuse(
    model: str | None, bn: str, mixed: float | None, write_suite: Path | None, *, layers: bool, write: bool
) -> None:
    if write:
        raise QBenchError("--write belongs to --judge; a suite for mixed bits is written by --write-suite")
    if model is None:
        raise QBenchError("diagnose what? name a model: `qbench diagnose llama-1m` (`qbench list models` has them)")
    if bn not in ("keep", "recalibrate"):
        raise QBenchError(f"--bn {bn!r} (allowed: keep, recalibrate)")
    if write_suite is not None and mixed is None:
        raise QBenchError("--write-suite writes mixed bits: say how many with --mixed")
    if mixed is not None and not layers:
        raise QBenchError("--mixed needs the layers: leave out --no-layers")
