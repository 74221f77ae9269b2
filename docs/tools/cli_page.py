"""The verbs of docs/cli.md, from the command line itself."""

from __future__ import annotations

import inspect
import re

import typer

from qbench.cli import app


def render() -> dict[str, str]:
    """Return the generated parts of the page: a table of the verbs, and a section for each."""
    group = typer.main.get_command(app)
    context = group.make_context("qbench", ["--help"], resilient_parsing=True)
    verbs = {name: group.get_command(context, name) for name in group.list_commands(context)}
    rows = [f"| [`{name}`](#{name}) | {_cell(_paragraphs(verb.help)[0])} |" for name, verb in verbs.items()]
    return {
        "table": "\n".join(["| verb | does |", "|---|---|", *rows]),
        "sections": "\n\n".join(_section(name, verb) for name, verb in verbs.items()),
    }


def _section(name: str, verb: object) -> str:
    context = verb.make_context(name, [], resilient_parsing=True)
    usage = " ".join(verb.collect_usage_pieces(context))
    lines = [f"## {name}", "", *"\n\n".join(_paragraphs(verb.help)).splitlines(), ""]
    lines += ["```console", f"$ qbench {name} {usage}", "```", ""]
    records = [one.get_help_record(context) for one in verb.get_params(context) if one.name != "help"]
    rows = [f"| `{_plain(record[0])}` | {_cell(record[1])} |" for record in records if record]
    if rows:
        lines += ["| argument or option | |", "|---|---|", *rows, ""]
    if verb.epilog:
        examples = re.split(r"\s+\|\s{2,}", re.sub(r"^Examples?:\s*", "", inspect.cleandoc(verb.epilog)))
        lines += ["```console", *(f"$ {one.strip()}" for one in examples), "```", ""]
    return "\n".join(lines).rstrip()


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n")]


def _plain(names: str) -> str:
    return " ".join(names.split()).replace("|", "\\|")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
