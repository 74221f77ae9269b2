"""Tasks of lm-eval in a suite's own folder: YAML that says how rows of local files become requests, and no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from qbench import atomic
from qbench.errors import AssetError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

_MOST_BYTES = 2**20
_FORMATS = ("csv", "json", "parquet")

# What else lm-eval knows leads to code, to a hub, or to media.
_KEYS = frozenset(
    {
        "dataset_kwargs",
        "dataset_path",
        "description",
        "doc_to_choice",
        "doc_to_target",
        "doc_to_text",
        "fewshot_config",
        "fewshot_delimiter",
        "fewshot_split",
        "filter_list",
        "gen_prefix",
        "generation_kwargs",
        "include",
        "metadata",
        "metric_list",
        "num_fewshot",
        "output_type",
        "repeats",
        "tag",
        "target_delimiter",
        "task",
        "test_split",
        "training_split",
        "validation_split",
    }
)


class _Loader(yaml.SafeLoader):
    """Plain YAML; a tag such as lm-eval's ``!function`` is refused."""


def _refuse_tag(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    line = node.start_mark.line + 1
    raise AssetError(f"{loader.name}:{line}: {node.tag} runs code (allowed: tasks of plain YAML)")


_Loader.add_constructor(None, _refuse_tag)


def local_tasks(folder: Path) -> dict[str, Path]:
    """Return the tasks that the YAML files of a folder define, by name, with their files.

    Raises
    ------
    AssetError
        There is no such folder, a file is no YAML mapping or has a tag that runs code, or two define one task.
    """
    found: dict[str, Path] = {}
    for file in files_in(folder):
        if file.suffix != ".yaml":
            continue
        name = _read(file).get("task")
        if not isinstance(name, str):
            continue  # a file that others include, or a group
        if name in found:
            raise AssetError(f"{file}: the task {name!r} is defined by {found[name].name} too")
        found[name] = file
    return found


def task_config(folder: Path, file: Path) -> dict[str, Any]:
    """Return what a task's file says, with what it includes, less where its rows come from; see `task_rows`.

    Raises
    ------
    AssetError
        It says what leads to code or out of the folder.
    """
    config = _with_included(folder, file, ())
    for key in config:
        if key not in _KEYS:
            raise AssetError(f"{file}: {key!r} is no key of a local task{nearest(str(key), _KEYS)}")
    for entry in config.get("metric_list") or ():
        if not isinstance(entry, dict) or entry.get("hf_evaluate"):
            raise AssetError(f"{file}: metric_list holds {entry!r} (allowed: mappings with a metric of lm-eval's own)")
    return {key: value for key, value in config.items() if key not in ("include", "dataset_path", "dataset_kwargs")}


def task_rows(folder: Path, file: Path) -> dict[str, Dataset]:
    """Return the rows of a task's data files by split, read without a hub and without a cache.

    Raises
    ------
    AssetError
        A file is missing, outside of the folder, or not of its format.
    """
    from datasets import concatenate_datasets

    config = _with_included(folder, file, ())
    kind, given = config.get("dataset_path"), (config.get("dataset_kwargs") or {}).get("data_files")
    if kind not in _FORMATS:
        raise AssetError(f"{file}: dataset_path {kind!r}{nearest(str(kind), _FORMATS)}")
    if not given:
        raise AssetError(f"{file}: dataset_kwargs names no data_files (allowed: {{data_files: {{test: FILE}}}})")
    by_split = given if isinstance(given, Mapping) else {"train": given}
    found = {}
    for split, names in by_split.items():
        listed = names if isinstance(names, list) else [names]
        found[str(split)] = concatenate_datasets([_table(_inside(folder, file, name), kind) for name in listed])
    return found


def folder_sha256(folder: Path) -> dict[str, str]:
    """Return the hash of each file in the folder."""
    return {f"lm_eval/{file.relative_to(folder).as_posix()}": atomic.sha256_file(file) for file in files_in(folder)}


def files_in(folder: Path) -> list[Path]:
    """Return all files in the folder, however deep.

    Raises
    ------
    AssetError
        There is no such folder.
    """
    if not folder.is_dir():
        raise AssetError(f"lm_eval_folder {folder} does not exist")
    return sorted(file for file in folder.rglob("*") if file.is_file())


@cache
def _parsed(file: Path, modified: int) -> dict[str, Any]:
    if file.stat().st_size > _MOST_BYTES:
        raise AssetError(f"{file}: more than {_MOST_BYTES} bytes of YAML")
    loader = _Loader(file.read_bytes())
    loader.name = str(file)
    try:
        found = loader.get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise AssetError(f"{file}: no YAML: {' '.join(str(error).split())[:200]}") from error
    finally:
        loader.dispose()
    if not isinstance(found, dict):
        raise AssetError(f"{file}: given {type(found).__name__} (allowed: a mapping)")
    return found


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise AssetError(f"{file} does not exist")
    return _parsed(file, file.stat().st_mtime_ns)


def _with_included(folder: Path, file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if file in seen:
        raise AssetError(f"{file} includes itself")
    own = _read(file)
    if "include" not in own:
        return own
    return _with_included(folder, _inside(folder, file, own["include"]), (*seen, file)) | own


def _inside(folder: Path, file: Path, name: object) -> Path:
    """Return the path that a file names beside itself; it must lie in the folder."""
    path = (file.parent / str(name)).resolve()
    if not isinstance(name, str) or not path.is_relative_to(folder.resolve()):
        raise AssetError(f"{file}: {name!r} leads out of {folder.name} (allowed: a path inside it)")
    return path


def _table(file: Path, kind: str) -> Dataset:
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq
    from datasets import Dataset

    if not file.is_file():
        raise AssetError(f"data file {file} does not exist")
    try:
        if kind == "parquet":
            return Dataset(pq.read_table(file))
        if kind == "csv":
            return Dataset(pc.read_csv(file))
        text = file.read_text(encoding="utf-8")
        is_array = text.lstrip().startswith("[")
        rows = json.loads(text) if is_array else [json.loads(line) for line in text.split("\n") if line.strip()]
        return Dataset.from_list(rows)
    except (pa.ArrowException, ValueError, TypeError, AttributeError) as error:
        raise AssetError(f"data file {file} is no {kind} of rows: {' '.join(str(error).split())[:200]}") from error
