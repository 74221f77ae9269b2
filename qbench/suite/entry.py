"""An entry of a suite's models, quantizers or methods: from a name with options to a `Spec`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qbench.errors import QBenchError, UnknownNameError
from qbench.registry import Registry
from qbench.spec import Spec
from qbench.suite import hub_model
from qbench.suite.limits import MAX_LABEL
from qbench.suite.paths import resolve_inside
from qbench.suite.problems import explain, problems, shown
from qbench.suite.source import Source, YamlPath

_PATH_KEYS = ("path", "folder", "parquet", "evaluation_parquet", "lm_eval_folder")


def resolve_entry(given: Any, registry: Registry, source: Source | None, *, has_paths: bool = False) -> Spec:
    """Construct what an entry names.

    Parameters
    ----------
    given : Any
        A name; or a mapping with ``name``, options, and ``preset`` for options written once; or a finished `Spec`.
    registry : Registry
        Where the name is looked up.
    source : Source, optional
        The suite file: its presets are known, and its folder bounds the paths.
    has_paths : bool
        Whether options called ``path``, ``folder``, ``parquet``, ``evaluation_parquet`` or ``lm_eval_folder`` are paths
        in the suite's folder.

    Raises
    ------
    ValidationError
        With texts of ours (see `qbench.suite.problems`) and places below the entry.
    """
    if isinstance(given, Spec):
        return given
    options = {"name": given} if isinstance(given, str) else given
    if not isinstance(options, dict):
        raise problems([(f"given {shown(given)} (allowed: a name, or a mapping with a name and options)", ())])
    options = _with_preset(options, source)
    if "name" not in options:
        raise problems([("'name' is missing", ())])
    at_name: YamlPath = ("name",) if isinstance(given, dict) else ()
    if not isinstance(options["name"], str):
        raise problems([(f"given {shown(options['name'])} (allowed: text)", at_name)])
    if has_paths:
        options = hub_model.written_out(options, source.file.parent if source else None, at_name)
    try:
        spec_class = registry.get(options["name"])
    except QBenchError as error:
        raise problems([(str(error), at_name)]) from None
    if has_paths and source is not None:
        options = _with_paths(options, source.file.parent, ())
    spec = _construct(spec_class, options)
    if not has_paths:
        _check_hashable(spec)
    return spec


def _with_preset(options: dict[str, Any], source: Source | None) -> dict[str, Any]:
    if "preset" not in options:
        return options
    presets = source.data.get("presets") if source else None
    presets = presets if isinstance(presets, dict) else {}
    name = options["preset"]
    if not isinstance(name, str) or name not in presets:
        raise problems([(str(UnknownNameError("preset", name, presets)), ("preset",))])
    preset = presets[name] if isinstance(presets[name], dict) else {}
    if "preset" in preset:
        raise problems([(f"the preset {shown(name)} names a preset (allowed: options)", ("preset",))])
    return {**preset, **{key: value for key, value in options.items() if key != "preset"}}


def _with_paths(value: Any, folder: Path, at: YamlPath) -> Any:
    if isinstance(value, dict):
        return {key: _with_paths(inner, folder, (*at, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_paths(inner, folder, (*at, index)) for index, inner in enumerate(value)]
    keys = [key for key in at if isinstance(key, str)]
    if isinstance(value, str) and keys and keys[-1] in _PATH_KEYS:
        try:
            return str(resolve_inside(folder, value))
        except QBenchError as error:
            raise problems([(str(error), at)]) from None
    return value


def _construct(spec_class: type[Spec], options: dict[str, Any]) -> Spec:
    try:
        spec = spec_class.model_validate(options)
    except ValidationError as error:
        raise problems(explain(error, spec_class, options["name"])) from None
    except QBenchError as error:
        raise problems([(str(error), ())]) from None
    except Exception as error:  # a plugin's own check of its options
        raise problems([(_broken(options["name"], error), ())]) from None
    # pydantic reads `steps: yes` as 1; no one who types that means it.
    switches = [key for key, value in options.items() if isinstance(value, bool)]
    wrong = [key for key in switches if type(getattr(spec, key)) in (int, float)]
    if wrong:
        raise problems([(f"given {shown(options[key])} (allowed: a number)", (key,)) for key in wrong])
    try:
        label, _ = spec.label(), spec.control()
    except Exception as error:  # everything that follows asks for it
        raise problems([(_broken(options["name"], error), ())]) from None
    if len(label) > MAX_LABEL:
        said = f"the name with its options is {len(label)} characters long (allowed: at most {MAX_LABEL})"
        raise problems([(said, ())])
    return spec


def _check_hashable(spec: Spec) -> None:
    for key, value in spec:
        try:
            hash(value)
        except TypeError:
            kind = type(value).__name__
            raise problems(
                [(f"the option {key!r} is a {kind}, and equal options must hash alike (allowed: a tuple)", ())]
            ) from None


def _broken(name: str, error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{name} cannot be made: {type(error).__name__}: {said if len(said) <= 200 else f'{said[:197]}...'}"
