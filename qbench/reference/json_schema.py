"""The JSON schema of a suite file, for editors: made from the classes that validate it.

It is of draft 7, the newest that the YAML servers of all common editors know. It says all that a schema can say of one
place in a file. What hangs on another place (a preset's options, methods that a probe reads, options that exclude each
other, the file's own name) is `qbench validate`'s to say: a suite that loads is never refused here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

import qbench
from qbench import registry
from qbench.errors import QBenchError
from qbench.reference.docstrings import about, about_fields
from qbench.reference.notation import DEFINITIONS, WRITTEN, Json, written_default
from qbench.spec import Spec
from qbench.suite import hub_model
from qbench.suite.bounds import MAX_BITS, MAX_SEEDS, MIN_BITS
from qbench.suite.limits import MAX_ENTRIES, MAX_EXCLUSIONS, MAX_NAME
from qbench.suite.schema import Block, Exclusion, Suite, When
from qbench.suite.xref import Xref
from qbench.tasks.image_folder import ImageFolder
from qbench.tasks.image_repository import ImageRepository
from qbench.tasks.image_source import ImageSource

SHIPPED = Path(qbench.__file__).parent / "suite" / "suite.schema.json"
"""The schema of what qbench itself brings; suites of the checkout name it in their first line."""

AXES = {"models": "model", "quantizers": "quantizer", "methods": "method", "probes": "probe"}
"""Keys of a block that list entries, and what an entry is called."""

# pydantic follows every reference while it writes, and those to definitions of ours lead it nowhere.
_DEFINED = "qbench.definition"
_BITS: Json = {"type": "integer", "minimum": MIN_BITS, "maximum": MAX_BITS}
_SEED: Json = {"type": "integer", "minimum": 0}
_HUB_MODEL: Json = {"$ref": "#/definitions/hub_model"}
_HUB_NAME: Json = {"type": "string", "pattern": f"^{hub_model.PREFIX}."}
_NUMBER_OF_SEEDS: Json = {"type": "integer", "minimum": 1, "maximum": MAX_SEEDS}


def suite_schema(*, built_in: bool = False) -> Json:
    """Return the schema of a suite file.

    Parameters
    ----------
    built_in : bool
        Leave out what other packages bring to the names that are known.
    """
    known = {kind: _known(_registry(kind), built_in) for kind in AXES.values()}
    definitions: Json = dict(DEFINITIONS)
    for kind, names in known.items():
        definitions |= _entries(kind, names)
    for part in (Block, When, Exclusion, Xref, Suite):
        definitions |= _schema_of(part)
    top = definitions.pop("Suite")
    _write_when(definitions["When"])
    _write_block(definitions["Block"])
    _write_top(top)
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "A suite of qbench", **top} | {
        "definitions": dict(sorted(definitions.items()))
    }


def render(schema: Json) -> str:
    """Return a schema as the text that is printed and shipped."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _registry(kind: str) -> registry.Registry:
    return {one.kind: one for one in (registry.MODELS, registry.QUANTIZERS, registry.METHODS, registry.PROBES)}[kind]


def _known(names: registry.Registry, built_in: bool) -> dict[str, type[Spec]]:
    found = {}
    for name in names.names():
        if not built_in or names.origin(name) == "built in":
            try:
                found[name] = names.get(name)
            except QBenchError:  # no suite that names it can be read either
                continue
    return found


def _entries(kind: str, known: Mapping[str, type[Spec]]) -> Json:
    """Return the definitions of an entry of a kind, of its forms, and of the options behind each name."""
    classes: dict[type[Spec], list[str]] = {}
    for name, spec in known.items():
        classes.setdefault(spec, []).append(name)
    definitions: Json = {}
    choices, alone = [], dict(known)
    for spec, names in classes.items():
        title = f"{kind}.{names[0]}"
        definitions |= _schema_of(spec, title)
        options = definitions[title]
        needed = [option for option in options.pop("required") if option != "name"]
        if needed:
            options["anyOf"] = [{"required": ["preset"]}, {"required": needed}]
            alone = {name: one for name, one in alone.items() if one is not spec}
        options["properties"]["name"] = {"enum": names}
        options["properties"]["preset"] = {"type": "string", "description": "A name under `presets`."}
        condition = {"required": ["name"], "properties": {"name": {"enum": names}}}
        choices.append({"if": condition, "then": {"$ref": f"#/definitions/{title}"}})
    closed = {"if": {"type": "object"}, "then": {"properties": {"name": _names(known)}}, "else": _names(alone)}
    needy = sorted(known.keys() - alone.keys())
    unknown: Json = {"type": "string", **({"not": {"enum": needy}} if needy else {})}
    definitions[f"{kind}_with_options"] = {
        "type": "object",
        "anyOf": [{"required": ["name"]}, {"required": ["preset"]}],
        "properties": {"name": {"anyOf": [_names(known), {"type": "string"}]}, "preset": {"type": "string"}},
        "allOf": choices,
    }
    definitions[kind] = {
        "description": f"A name, or a mapping with the name and options of the {kind}.",
        "if": {"type": "object"},
        "then": {"$ref": f"#/definitions/{kind}_with_options"},
        "else": {"anyOf": [_names(alone), unknown]},
    }
    definitions[f"known_{kind}"] = closed
    if (full := definitions.get(f"model.{hub_model.FULL_NAME}")) is not None:
        definitions["hub_model"] = _hub_model(full)
        choices.append({"if": {"properties": {"name": _HUB_NAME}, "required": ["name"]}, "then": _HUB_MODEL})
        closed["else"] = {"anyOf": [closed["else"], _HUB_NAME]}
        closed["then"] = {"properties": {"name": {"anyOf": [_names(known), _HUB_NAME]}}}
    return definitions


def _hub_model(full: Json) -> Json:
    """Return the options of a model that is named by its short name, from those of the model it stands for."""
    options = {key: value for key, value in full["properties"].items() if key not in hub_model.SAID_BY_NAME}
    return {**full, "properties": {**options, "name": _HUB_NAME}}


def _names(known: Mapping[str, type[Spec]]) -> Json:
    return {"enum": list(known), "enumDescriptions": [about(spec) for spec in known.values()]}


def _schema_of(model: type[BaseModel], title: str | None = None) -> Json:
    """Return the definitions of a class and of those that its fields hold; its own under its name or a title."""
    made = model.model_json_schema(ref_template="#/definitions/{model}", schema_generator=_Writer)
    inner = made.pop("$defs", {})
    own = inner.pop(model.__name__, made)
    return {name: _plain(one) for name, one in {**inner, title or model.__name__: own}.items() if name != "Spec"}


def _plain(value: Any) -> Any:
    """Return a schema without what pydantic adds for other readers, and with nothing that draft 7 would not read."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _plain(one) for key, one in value.items() if (key, one) != ("format", "path")}
    if "default" in value:
        found["default"] = written_default(value["default"])
    if _DEFINED in found:
        found = {"$ref": f"#/definitions/{found.pop(_DEFINED)}", **found}
    if "$ref" in found and len(found) > 1:  # draft 7 reads nothing beside a reference
        found["allOf"] = [{"$ref": found.pop("$ref")}]
    return found


class _Writer(GenerateJsonSchema):
    """Writes what a suite may say, where that is more, or other, than the fields of a class."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def int_schema(self, schema: core_schema.IntSchema) -> Json:
        return _lax("whole_number", schema, super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> Json:
        return _lax("number", schema, super().float_schema(schema))

    def bool_schema(self, schema: core_schema.BoolSchema) -> Json:
        return _lax("switch", schema, super().bool_schema(schema))

    def model_schema(self, schema: core_schema.ModelSchema) -> Json:
        kind = schema["cls"]
        found = super().model_schema(schema)
        found.pop("title", None)
        if kind.__name__ in WRITTEN:
            sources = (ImageFolder, ImageRepository) if kind is ImageSource else ()
            inner = [self.generate_inner(one.__pydantic_core_schema__) for one in sources]
            found = {"anyOf": [*WRITTEN[kind.__name__], *inner]}
        said = about_fields(kind)
        for name, field in found.get("properties", {}).items():
            if name in said:
                found["properties"][name] = {"description": said[name], **field}
        return {**found, "description": about(kind)}


def _lax(name: str, schema: Any, strict: Json) -> Json:
    if schema.get("strict"):
        return strict
    bounds = {key: value for key, value in strict.items() if key != "type"}
    return {_DEFINED: name, **bounds}


def _write_block(block: Json) -> None:
    axes = block["properties"]
    for axis in AXES.keys() & axes.keys():
        axes[axis] |= {"items": {"$ref": f"#/definitions/{AXES[axis]}"}, "uniqueItems": True, "maxItems": MAX_ENTRIES}
    axes["bits"] |= {"items": _BITS, "uniqueItems": True, "maxItems": MAX_ENTRIES}
    seeds = {"type": "array", "items": _SEED, "minItems": 1, "maxItems": MAX_ENTRIES, "uniqueItems": True}
    axes["seeds"] = _either(_but(axes["seeds"], "type", "items", "minItems"), _NUMBER_OF_SEEDS, seeds)
    del axes["methods"]["default"], axes["probes"]["default"]
    with_methods = {"required": ["methods"], "properties": {"methods": {"minItems": 1}}}
    block["anyOf"] = [with_methods, {"required": ["probes"]}]


def _write_when(when: Json) -> None:
    when["minProperties"] = 1
    for axis, value in when["properties"].items():
        item = {"bits": _BITS, "seeds": _SEED}.get(axis, {"type": "string"})
        several = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_ENTRIES}
        when["properties"][axis] = _either(_but(value, "type", "items", "minItems", "default"), item, several)


def _write_top(top: Json) -> None:
    keys = top["properties"]
    keys["name"]["maxLength"] = MAX_NAME
    keys["plugins"] |= {"uniqueItems": True, "maxItems": MAX_ENTRIES}
    keys["exclude"]["maxItems"] = MAX_EXCLUSIONS
    keys["xref"]["maxItems"] = MAX_ENTRIES
    keys["metrics"]["uniqueItems"] = True
    block = {"$ref": "#/definitions/Block"}
    blocks = {"type": "array", "items": block, "minItems": 1, "maxItems": MAX_ENTRIES}
    keys["matrix"] = _but(keys["matrix"], "type", "items", "minItems")
    keys["matrix"] |= {"if": {"type": "array"}, "then": blocks, "else": block}
    # A plugin brings names that nothing here knows; without one the known names are all there are.
    axes = {axis: {"items": {"$ref": f"#/definitions/known_{kind}"}} for axis, kind in AXES.items()}
    known = {"properties": axes}
    matrix = {"if": {"type": "array"}, "then": {"items": known}, "else": known}
    top["if"] = {"required": ["plugins"], "properties": {"plugins": {"minItems": 1}}}
    top["else"] = {"properties": {"matrix": matrix}}


def _either(words: Json, one: Json, several: Json) -> Json:
    return {**words, "if": {"type": "array"}, "then": several, "else": one}


def _but(schema: Json, *keys: str) -> Json:
    return {key: value for key, value in schema.items() if key not in keys}
