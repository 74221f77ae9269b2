"""The command line: one file a verb."""

from __future__ import annotations

import sys

import typer

from qbench.cli import (
    archive,
    bless,
    check,
    claims,
    compare,
    diagnose,
    doctor,
    export,
    fetch,
    listing,
    merge,
    new,
    options,
    planning,
    pretrain,
    repeat,
    report,
    run,
    schema,
    settings,
    validate,
    verify,
    why,
)
from qbench.errors import QBenchError

app = typer.Typer(
    name="qbench",
    help="A reproducibility benchmark suite for neural-network quantization.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples:  qbench run --suite smoke   |   qbench plan --suite llm_lowbit   |   qbench validate mine.yaml",
)
for verb in (
    run,
    repeat,
    planning,
    listing,
    validate,
    schema,
    report,
    archive,
    verify,
    why,
    diagnose,
    claims,
    compare,
    check,
    settings,
    bless,
    export,
    new,
    fetch,
    pretrain,
    merge,
    doctor,
):
    verb.add_to(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    if version:
        import qbench

        typer.echo(qbench.__version__)
        raise typer.Exit


def main() -> int:
    """Run the command line.

    Returns
    -------
    int
        0: all well; 1: a cell failed or a baseline regressed; 2: the call or a file is wrong; 130: interrupted.
    """
    try:
        app(prog_name="qbench", standalone_mode=True)
    except QBenchError as error:
        options.console().print(f"qbench: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`head`, say) has seen enough.
        sys.stderr.close()
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        options.console().print(f"qbench: {place}{error.strerror}")
        return 2
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0
