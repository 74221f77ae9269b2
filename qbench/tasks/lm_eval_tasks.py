"""lm-eval's tasks as metrics: its own from the hub by name, and those of a suite's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any

from qbench.errors import AssetError, CellError, nearest
from qbench.tasks import assets
from qbench.tasks.evaluation import announce
from qbench.tasks.lm_eval_files import local_tasks, task_config, task_rows

PREFIX = "lm_eval:"

# What lm-eval itself takes when it is not told: few-shot examples are the same in every run.
_FEWSHOT_SEED = 1234


def task_names(metrics: Sequence[str]) -> list[str]:
    """Return the names of lm-eval's tasks among metrics."""
    return [metric.removeprefix(PREFIX) for metric in metrics if metric.startswith(PREFIX)]


def needs_hub(metric: str, folder: Path | None) -> bool:
    """Return whether a metric is a task of lm-eval that no file of the folder defines."""
    if not metric.startswith(PREFIX):
        return False
    return folder is None or metric.removeprefix(PREFIX) not in local_tasks(folder)


def scores(
    lm: Any, names: Sequence[str], folder: Path | None, limit: int | None
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Return lm-eval's scores of a model, and what was read for them; call it fenced (see `harness_fence`).

    Parameters
    ----------
    lm : HFLM
        The model as lm-eval wraps it.
    names : sequence of str
        Tasks, or groups that have a score of their own.
    folder : Path or None
        Where YAML files define local tasks; a task of the folder goes before lm-eval's own of that name.
    limit : int or None
        Questions a task, from its first; all when None.

    Returns
    -------
    tuple of dict
        Scores by ``<task>/<score>``; and by task its version, the number of questions, and the sha256 of these.

    Raises
    ------
    CellError
        A task is unknown, cannot be loaded or measured, or gives no number.
    """
    local = {} if folder is None else local_tasks(folder)
    from_folder = [name for name in names if name in local]
    found: dict[str, float] = {}
    read: dict[str, dict[str, Any]] = {}
    if from_folder:
        assert folder is not None
        configs = [_local(folder, local[name]) for name in from_folder]
        with _templates_without_code():
            _measure(lm, from_folder, configs, limit, found, read)
        for config in configs:
            _check_measured(config, found)
    from_hub = [name for name in names if name not in local]
    if from_hub:
        _measure(lm, from_hub, from_hub, limit, found, read, local)
    return {name: found[name] for name in sorted(found)}, read


def _measure(
    lm: Any,
    names: list[str],
    specs: Sequence[str | dict[str, Any]],
    limit: int | None,
    found: dict[str, float],
    read: dict[str, dict[str, Any]],
    of_folder: Iterable[str] = (),
) -> None:
    from lm_eval import evaluate
    from lm_eval.tasks import TaskManager

    for name in names:
        announce("evaluation", f"lm-eval's {name}")
    by_name = [spec for spec in specs if isinstance(spec, str)]
    manager = _every_task() if by_name else TaskManager(include_defaults=False)
    unknown = [name for name in by_name if name not in manager.task_index]
    if unknown:
        raise CellError(_unknown(unknown[0], sorted(of_folder), manager.all_tasks))
    # A metric that lm-eval does not know is code that it would download.
    os.environ["HF_EVALUATE_OFFLINE"] = "1"
    try:
        loaded = manager.load(list(specs))
        for task in loaded["tasks"].values():
            task.set_fewshot_seed(_FEWSHOT_SEED)
        results = evaluate(lm=lm, task_dict=loaded, limit=limit, bootstrap_iters=0, log_samples=False)["results"]
        read |= {name: _read(task, limit) for name, task in loaded["tasks"].items()}
    except AssetError:
        raise
    except Exception as error:  # lm-eval, datasets and a task's own templates each raise kinds of their own
        reason = " ".join(str(error).split())[:200]
        raise CellError(f"lm_eval: {', '.join(names)} cannot be measured: {type(error).__name__}: {reason}") from error
    for name in names:
        found |= _of_task(name, results)


def _read(task: Any, limit: int | None) -> dict[str, Any]:
    questions = list(islice(task.eval_docs, limit))
    text = "".join(json.dumps(question, sort_keys=True, default=repr) + "\n" for question in questions)
    version = None if task.VERSION == "Yaml" else task.VERSION  # what lm-eval says where a file says nothing
    return {"version": version, "questions": len(questions), "sha256": assets.sha256_text(text)}


@cache
def _every_task() -> Any:
    """Return lm-eval's index of its own tasks: thousands of files, which take ten seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _of_task(name: str, results: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in results.get(name, {}).items():
        metric, comma, chosen = key.partition(",")
        if comma and isinstance(value, Real) and not isinstance(value, bool) and not metric.endswith("_stderr"):
            found[f"{name}/{metric}" if chosen == "none" else f"{name}/{metric}/{chosen}"] = float(value)
    if not found:
        given = ", ".join(sorted(results))
        raise CellError(f"lm_eval:{name} gives no number of its own: name its tasks (allowed here: {given})")
    return found


def _check_measured(config: dict[str, Any], found: dict[str, float]) -> None:
    """Make sure that a local task gave each metric that it lists: lm-eval passes over those it does not know."""
    name, given = config["task"], [score.split("/")[1] for score in found if score.startswith(f"{config['task']}/")]
    for entry in config.get("metric_list") or ():
        if entry.get("metric") not in given:
            metric = str(entry.get("metric"))
            raise CellError(f"lm_eval:{name} gives no {metric!r} of its metric_list{nearest(metric, given)}")


def _unknown(name: str, of_folder: list[str], of_library: Collection[str]) -> str:
    # A name of the folder first: the library has thousands, and some are near to everything.
    close = get_close_matches(name, of_folder, n=1, cutoff=0.5) or get_close_matches(name, of_library, n=1)
    hint = f": did you mean {close[0]!r}?" if close else ""
    local = f"{', '.join(of_folder)} of lm_eval_folder, and " if of_folder else ""
    return f"unknown task of lm-eval {name!r}{hint} (allowed: {local}the {len(of_library)} tasks of lm-eval's own)"


def _local(folder: Path, file: Path) -> dict[str, Any]:
    rows = task_rows(folder, file)
    return {**task_config(folder, file), "custom_dataset": lambda **_: rows}


@contextmanager
def _templates_without_code() -> Iterator[None]:
    """Render lm-eval's templates so that they reach rows and nothing behind them."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    before = utils.env
    inside = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=before.keep_trailing_newline
    )
    inside.filters |= before.filters
    utils.env = inside
    try:
        yield
    finally:
        utils.env = before
