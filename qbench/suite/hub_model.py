"""The short way to name a language model: ``hf:ORG/REPO@COMMIT``, or ``hf:FOLDER`` inside the suite's folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from qbench.errors import QBenchError
from qbench.suite.paths import resolve_inside
from qbench.suite.problems import problems, shown
from qbench.suite.source import YamlPath

PREFIX = "hf:"
FULL_NAME = "causal_lm"
"""The model that a short name stands for."""

SAID_BY_NAME = ("path", "repo", "revision")
"""Its options that a short name gives."""

_PINNED = re.compile(r"([\w.-]+(?:/[\w.-]+)?)@([0-9a-f]{40})", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_FORMS = "hf:ORG/REPO@COMMIT with the full commit hash, or hf:FOLDER for a folder inside the suite's folder"


def written_out(options: dict[str, Any], folder: Path | None, at_name: YamlPath) -> dict[str, Any]:
    """Return the options of an entry with a short name as those of ``causal_lm``; any others as they are.

    Parameters
    ----------
    options : dict
        An entry with its name.
    folder : Path or None
        That of the suite's file, which bounds the paths; None for a suite made in Python.
    at_name : tuple
        Where the name stands below the entry.

    Raises
    ------
    ValidationError
        The name has no such form, or options say again where the model lies.
    """
    name = options["name"]
    if not name.startswith(PREFIX):
        return options
    twice = [key for key in SAID_BY_NAME if key in options]
    if twice:
        raise problems([(f"{shown(name)} says already where the model lies: leave it out", (key,)) for key in twice])
    rest = {key: value for key, value in options.items() if key != "name"}
    return {"name": FULL_NAME, **_place(name, folder, at_name), **rest}


def _place(name: str, folder: Path | None, at_name: YamlPath) -> dict[str, str]:
    given = name.removeprefix(PREFIX)
    if (pinned := _PINNED.fullmatch(given)) is not None:
        return {"repo": pinned[1], "revision": pinned[2]}
    try:
        path = Path(given) if folder is None else resolve_inside(folder, given)
    except QBenchError as error:
        raise problems([(f"{shown(name)}: {error}", at_name)]) from None
    if path.is_dir():
        return {"path": given}
    repo, at, revision = given.rpartition("@")
    if _COMMIT.fullmatch(revision) and at:
        said = f"{shown(repo)} is not the name of a repository, ORG/REPO"
    elif at and repo:
        said = f"the revision {shown(revision)} is not a full commit hash (40 hexadecimal digits): a branch can move"
    else:
        where = "" if folder is None else " in the suite's folder"
        said = f"there is no such folder{where}, and a repository needs its commit"
    raise problems([(f"{shown(name)}: {said} (allowed: {_FORMS})", at_name)])
