"""`qbench fetch`: bring assets into the cache ahead of time."""

from __future__ import annotations

from typing import Annotated

import typer

from qbench.cli import options


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Examples:  qbench fetch   |   qbench fetch shakespeare")(fetch)


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Assets; all when left out.")] = None,
    json: options.JsonOption = False,
) -> None:
    """Download assets, verify them by sha256, and build the text corpus; what is there already is left alone.

    The cache folder is that of the platform, or what the environment variable QBENCH_CACHE names.
    """
    from qbench.tasks import assets, corpus

    wanted = names or list(assets.manifest())
    for name in wanted:
        assets.asset(name)
    console = options.console()
    with console.status("fetching") as status:
        for name in wanted:
            status.update(f"fetching {name}")
            assets.fetch(name)
        built = {}
        if set(corpus.SOURCES) <= set(wanted):
            status.update("cleaning and splitting the texts")
            built = {split: str(corpus.split_path(split)) for split in corpus.build()}
    if json:
        options.print_json({"assets": {name: str(assets.asset_path(name)) for name in wanted}, "corpus": built})
    else:
        typer.echo(f"{len(wanted)} assets are in {assets.cache_folder()}")
