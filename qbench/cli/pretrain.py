"""`qbench pretrain`: train a zoo model again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qbench.cli import options

if TYPE_CHECKING:
    from qbench.tasks.pretrain import Progress as Training


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Example:  qbench pretrain llama-1m --seed 0 --compile")(pretrain)


def pretrain(
    name: Annotated[str, typer.Argument(help="A zoo model; see `qbench list models`.")],
    seed: Annotated[int, typer.Option(min=0, help="Training seed.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Where to write  [default: pretrained/NAME/seedS]", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads  [default: all cores]", show_default=False)
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile; needs a C++ compiler.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Train a zoo model from nothing and say how close it came to the one that is shipped.

    A run that was stopped goes on where it was. Finished checkpoints in the folder are not overwritten.
    """
    import torch

    from qbench.errors import QBenchError
    from qbench.runner.machine import resolve_device
    from qbench.tasks import zoo
    from qbench.tasks.pretrain import closeness
    from qbench.tasks.pretrain import pretrain as train

    recipe = zoo.model(name).recipe
    device = resolve_device(device)
    folder = out or Path("pretrained") / name / f"seed{seed}"
    if (folder / "decayed.safetensors").exists():
        raise QBenchError(f"{folder} holds a finished {name} already: name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    if threads is not None:
        torch.set_num_threads(threads)
    console = options.console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{name}, seed {seed}", total=recipe.steps)

        def report(now: Training) -> None:
            loss = f"held out {now.curve[-1]['held_out_loss']:.3f}" if now.curve else f"{name}, seed {seed}"
            progress.update(bar, completed=now.step, description=loss)

        try:
            result = train(name, seed, folder, device=device, compiled=compile, report=report)
        except KeyboardInterrupt:
            saved = "the same command goes on from" if (folder / "state.pt").exists() else "no state is saved yet in"
            console.print(f"stopped: {saved} {folder}")
            raise
    close = closeness(name, seed, result)
    if json:
        options.print_json({"training": result, "closeness": close})
        return
    last = result["curve"][-1]
    seen = f"{result['tokens']:,} tokens" if "tokens" in result else f"{result['images']:,} images"
    if "tokens" in result:
        unit, also = "nats a token", f"{last['held_out_bits_per_byte']:.4f} bits a byte"
    else:
        unit, also = "nats an image", f"{100 * last['held_out_accuracy']:.2f} % right"
    typer.echo(
        f"{name}, seed {seed}: {seen} in {result['seconds'] / 60:.1f} minutes; held out "
        f"{last['held_out_loss']:.4f} {unit}, {also}; in {folder}"
    )
    if close is None:
        typer.echo(f"no {name} of seed {seed} is shipped to compare with")
    else:
        typer.echo(
            f"the shipped one has {close['shipped_held_out_loss']:.4f} {unit}: {close['difference']:+.4f} from it"
        )
