"""The tables of docs/suites.md, from the JSON schema of suite files alone."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

# Definitions that a value is described by in place of all their forms.
_WORDS = {
    "number": "number",
    "whole_number": "whole number",
    "switch": "`true` or `false`",
    "Granularity": "`per_tensor`, `per_channel`, `{per_group: N}` or `{per_block: [R, C]}`",
    "LayerBits": "`{LAYER: BITS, ...}`, see [mixed precision](quantizers.md#mixed-precision)",
    "Activations": "mapping, see [inputs](#inputs-of-the-layers)",
    "ThreeTexts": "`three_texts` or `wikipedia`",
    "NamedText": "`wikitext2`, `c4` or `{set: NAME, folder: PATH}`",
    "TextParquet": "`{parquet: PATH, ...}`",
    "TextPair": "`{calibration: TEXT, evaluation: TEXT}`",
    "TextFolder": "`{folder: PATH}`",
    "TextRepository": "`{repo: NAME, revision: COMMIT, ...}`, see [texts](#texts)",
    "ImageSource": "a name, `{folder: PATH, ...}` or `{repo: NAME, revision: COMMIT, ...}`, see [images](#images)",
    "When": "mapping, see [`when`](#exclude)",
    "Exclusion": "mapping, see [exclude](#exclude)",
    "Xref": "mapping, see [xref](#xref)",
    "Block": "mapping, see [matrix](#matrix)",
    **{kind: kind for kind in ("model", "quantizer", "method", "probe")},
}
_BOUNDS = {
    "minimum": "{} or more",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
}


def render(schema: Json) -> dict[str, str]:
    """Return each generated part of the page by its name."""
    definitions: Json = schema["definitions"]
    parts = {"top": _table(schema)}
    for part in ("Block", "Exclusion", "When", "Xref", "Activations"):
        parts[part.lower()] = _table(definitions[part])
    parts["texts"] = _variants(definitions, "TextFolder", "TextRepository", "TextParquet", "TextPair")
    parts["images"] = _variants(definitions, "ImageFolder", "ImageRepository")
    parts["named_images"] = ", ".join(f"`{name}`" for name in definitions["ImageSource"]["anyOf"][0]["enum"])
    for kind in ("quantizer", "method", "probe", "model"):
        parts[f"{kind}s"] = _entries(definitions, kind)
    return parts


def _entries(definitions: Json, kind: str) -> str:
    entries = {title: one for title, one in definitions.items() if title.startswith(f"{kind}.")}
    options = [entry["properties"] for entry in entries.values()]
    shared = _shared(options)
    lines = []
    if shared:
        lines += [f"Every {kind} has", "", _table({"properties": shared}), ""]
    for entry in entries.values():
        names = entry["properties"]["name"]["enum"]
        lines += [f"### {', '.join(f'`{name}`' for name in names)}", "", entry["description"], ""]
        own = {name for name, option in entry["properties"].items() if option != shared.get(name)} - {"name", "preset"}
        lines += [_table(entry, only=own) if own else "No options of its own.", ""]
    return "\n".join(lines).rstrip()


def _shared(entries: list[Json]) -> Json:
    """Return the options that all entries have, as most of them have them; an entry that has another is told apart."""
    found = {}
    for name in entries[0].keys() - {"name", "preset"}:
        forms = [entry[name] for entry in entries if name in entry]
        most = max(forms, key=forms.count)
        if len(forms) == len(entries) and 2 * forms.count(most) > len(entries) > 1:
            found[name] = most
    return {name: found[name] for name in entries[0] if name in found}


def _variants(definitions: Json, *names: str) -> str:
    parts = [f"{definitions[name]['description']}\n\n{_table(definitions[name])}" for name in names]
    return "\n\n".join(parts)


def _table(owner: Json, only: set[str] | None = None) -> str:
    needed, forms = owner.get("required", []), [form["required"] for form in owner.get("anyOf", [])]
    needed = {*needed, *(name for form in forms if ["preset"] in forms for name in form)}
    rows = ["| key | values | default | |", "|---|---|---|---|"]
    for name, value in owner["properties"].items():
        if only is None or name in only:
            default = _default(value, name in needed)
            rows.append(f"| `{name}` | {_values(value)} | {default} | {_cell(value.get('description', ''))} |")
    return "\n".join(rows)


def _default(value: Json, is_needed: bool) -> str:
    if "default" in value:
        found = value["default"]
        return f"`{_written(found)}`" if found != "" else "empty"
    return "must be given" if is_needed else ""


def _values(value: Json) -> str:
    """Return what a key may hold, in words."""
    if "allOf" in value:
        return _bounded(_values(value["allOf"][0]), value)
    if "$ref" in value:
        return _bounded(_WORDS[value["$ref"].rpartition("/")[2]], value)
    if "enum" in value or "const" in value:
        return ", ".join(f"`{_written(one)}`" for one in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        forms = [one for one in value["anyOf"] if one.get("type") != "null"]
        return " or ".join(map(_values, forms)) + (", or `null`" if len(forms) < len(value["anyOf"]) else "")
    if "if" in value:
        return f"{_values(value['else'])}; or a {_values(value['then'])}"
    if value["type"] == "array":
        return f"list of {_plural(_values(value['items']))}"
    word = {"integer": "whole number", "string": "text", "object": "mapping", "boolean": "`true` or `false`"}
    return _bounded(word.get(value["type"], value["type"]), value)


def _plural(words: str) -> str:
    head, comma, bounds = words.partition(",")
    ours = {"number": "numbers", "whole number": "whole numbers", "text": "texts", **{k: f"{k}s" for k in _PLAIN}}
    return f"{ours.get(head, head)}{comma}{bounds}"


_PLAIN = ("model", "quantizer", "method", "probe", "mapping")


def _bounded(words: str, value: Json) -> str:
    if {"minimum", "maximum"} <= value.keys():
        return f"{words}, {value['minimum']:g} to {value['maximum']:g}"
    found = [text.format(f"{value[key]:g}") for key, text in _BOUNDS.items() if key in value]
    return ", ".join([words, *found])


def _written(value: Any) -> str:
    """Return a value as YAML has it, in a line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
