"""The largest suites that are read, the smallest that are not, and what the worst files cost in a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from qbench.errors import QBenchError
from qbench.suite import limits
from qbench.suite.enumerate import enumerate_cells, filter_cells
from qbench.suite.limits import count_cells
from qbench.suite.load import list_suites, load_suite

MATRIX = "matrix: {models: [llama-1m], quantizers: [absmax], bits: [4], methods: [rtn]}\n"
SOUND = f"name: s\n{MATRIX}"


@pytest.fixture(autouse=True)
def names() -> None:
    """Use the built-in names, not those of the other tests of this folder."""


def listed(values: object) -> str:
    return f"[{', '.join(map(str, values))}]"  # type: ignore[call-overload]


def with_axis(axis: str, values: str) -> str:
    lines = {"models": "[llama-1m]", "quantizers": "[absmax]", "bits": "[4]", "methods": "[rtn]", axis: values}
    return "name: s\nmatrix:\n" + "".join(f"  {key}: {value}\n" for key, value in lines.items())


def gptqs(count: int) -> str:
    return listed(f"{{name: gptq, percdamp: {(index + 101) / 10_000}}}" for index in range(count))


def labels(count: int) -> list[str]:
    return [f"'gptq[percdamp={(index + 101) / 10_000:g}]'" for index in range(count)]


def excluding(whens: Iterable[dict[str, object]]) -> str:
    parts = (", ".join(f"{axis}: {value}" for axis, value in when.items()) for when in whens)
    return f"exclude: {listed(f'{{when: {{{part}}}, reason: r}}' for part in parts)}\n"


def disk(title: str, path: str) -> str:
    return with_axis("models", f"[{{name: causal_lm, title: {title}, path: {path}}}]")


def text_of(length: int) -> str:
    return f"{SOUND}about: {'x' * length}\n"


# What is asked for with a number at its limit, that limit, and what is said one above.
LIMITS: dict[str, tuple[Callable[[int], str], int, str]] = {
    "bytes": (
        lambda count: f"{SOUND}#{'x' * (count - len(SOUND) - 2)}\n",
        limits.MAX_BYTES,
        "s.yaml: is larger than 250000 bytes (allowed: at most so many)",
    ),
    "values": (
        # The top, `name`, the matrix, and the way to the list: 23 of them.
        lambda count: f"{SOUND}presets: {{p: {{a: {listed(['1'] * (count - 23))}}}}}\n",
        limits.MAX_VALUES,
        "s.yaml:3: more than 10000 keys and values (allowed: at most 10000)",
    ),
    "depth": (
        lambda count: f"{SOUND}presets: {{p: {{a: {'[' * (count - 4)}1{']' * (count - 4)}}}}}\n",
        limits.MAX_DEPTH,
        "s.yaml:3: values are nested more than 50 deep (allowed: at most 50)",
    ),
    "text": (text_of, limits.MAX_TEXT, "s.yaml:3: a text of 10001 characters (allowed: at most 10000)"),
    "key": (
        lambda count: f"{SOUND}presets: {{{'k' * count}: {{a: 1}}}}\n",
        limits.MAX_KEY,
        "s.yaml:3: a key of 101 characters (allowed: at most 100)",
    ),
    "number": (
        lambda count: f"{SOUND}presets: {{p: {{a: {'9' * count}}}}}\n",
        limits.MAX_NUMBER,
        "s.yaml:3: a number of 101 characters (allowed: at most 100)",
    ),
    "entries": (
        lambda count: with_axis("methods", gptqs(count)),
        limits.MAX_ENTRIES,
        "s.yaml:6: `matrix.methods`: 1001 entries (allowed: at most 1000)",
    ),
    "seeds": (
        lambda count: with_axis("seeds", listed(range(count))),
        limits.MAX_ENTRIES,
        "s.yaml:7: `matrix.seeds`: 1001 entries (allowed: at most 1000)",
    ),
    "exclusions": (
        lambda count: with_axis("methods", gptqs(count + 1)) + excluding({"methods": one} for one in labels(count)),
        limits.MAX_EXCLUSIONS,
        "s.yaml:7: `exclude`: 251 entries (allowed: at most 250)",
    ),
    "cells": (
        # 80 seeds x (full precision + 4 bits x 624 methods), and full precision with 239 methods, or one more.
        lambda count: (
            with_axis("methods", gptqs(624)).replace("[4]", "[8, 7, 6, 4]").replace(":\n", ":\n- seeds: 80\n", 1)
            + f"- {{models: [llama-1m], quantizers: [mse], bits: [4], methods: {gptqs(count - 199_761)}}}\n"
        ),
        limits.MAX_CELLS,
        "s.yaml:2: `matrix`: up to 200001 cells (allowed: at most 200000; split the suite)",
    ),
    "label": (
        lambda count: disk("t" * count, "m"),
        limits.MAX_LABEL,
        "s.yaml:3: `matrix.models[0]`: the name with its options is 301 characters long (allowed: at most 300)",
    ),
    "path": (
        lambda count: disk("t", "p/" * (count // 2) + "p" * (count % 2)),
        limits.MAX_PATH,
        "s.yaml:3: `matrix.models[0].path`: a path of 1001 characters (allowed: at most 1000)",
    ),
}  # fmt: skip


def said_of(folder: Path, text: str | bytes, name: str = "s") -> str:
    file = folder / f"{name}.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        enumerate_cells(load_suite(str(file)))
    except QBenchError as error:
        return str(error).replace(f"{folder}/", "")
    return ""


@pytest.mark.parametrize(("make", "limit", "message"), LIMITS.values(), ids=LIMITS)
def test_a_limit_is_where_it_says(tmp_path: Path, make: Callable[[int], str], limit: int, message: str) -> None:
    assert said_of(tmp_path, make(limit)) == ""
    assert said_of(tmp_path, make(limit + 1)) == message


def test_a_name_that_is_too_long_or_cannot_be_printed(tmp_path: Path) -> None:
    name = "n" * 100
    assert said_of(tmp_path, SOUND.replace("name: s", f"name: {name}"), name) == ""
    said = said_of(tmp_path, SOUND.replace("name: s", f"name: {name}n"), f"{name}n")
    assert said.endswith("(allowed: at most 100 characters that can be printed)")
    said = said_of(tmp_path, SOUND.replace("name: s", 'name: "a\\tb"'), "a\tb")
    assert said.endswith("given 'a\\tb' (allowed: at most 100 characters that can be printed)")


@pytest.mark.parametrize(
    ("text", "code"), [('"\\ud800"', "D800"), ('"a\\0"', "0000"), ('"\\e[2J"', "001B"), ("a\u202eb", "202E")]
)
def test_what_cannot_be_shown_is_refused(tmp_path: Path, text: str, code: str) -> None:
    said = said_of(tmp_path, f"{SOUND}about: {text}\n")
    assert said == f"s.yaml:3: a text holds the character U+{code}, which cannot be shown"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "s.yaml")
    with pytest.raises(QBenchError, match="is no regular file"):
        load_suite(str(tmp_path / "s.yaml"))
    (tmp_path / "t.yaml").symlink_to("/dev/zero")
    with pytest.raises(QBenchError, match="is no regular file"):
        load_suite(str(tmp_path / "t.yaml"))


def test_seeds_of_the_call_count_too(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(with_axis("methods", gptqs(249)))
    suite = load_suite(str(tmp_path / "s.yaml"))
    assert len(enumerate_cells(suite, 800)) == 200_000
    with pytest.raises(QBenchError, match=r"up to 200250 cells \(allowed: at most 200000; split the suite\)"):
        enumerate_cells(suite, 801)
    with pytest.raises(QBenchError, match=r"^seeds: given 1000000000 \(allowed: a number of seeds from 1 to 1000"):
        enumerate_cells(suite, 10**9)


def test_only_may_not_be_endless(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SOUND)
    cells = enumerate_cells(load_suite(str(tmp_path / "s.yaml")))
    with pytest.raises(QBenchError, match=r"^--only has 10001 characters \(allowed: at most 10000\)$"):
        filter_cells(cells, "x" * 10_001)


@pytest.mark.parametrize("name", list_suites())
def test_the_count_is_never_below_the_cells(name: str) -> None:
    suite = load_suite(name)
    assert len(enumerate_cells(suite)) <= count_cells(suite) <= limits.MAX_CELLS / 5


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} {listed([f'*a{level - 1}'] * 9)}" for level in range(1, levels)]
    return "\n".join(lines)


def with_seeds(text: str, count: int) -> str:
    """Have a model that takes every seed."""
    model = "{name: causal_lm, title: t, path: m}"
    return text.replace("matrix:\n", f"matrix:\n  seeds: {count}\n").replace("[llama-1m]", f"[{model}]")


HALF = limits.MAX_VALUES // 2
MANY = with_axis("methods", gptqs(900)).replace("[4]", "[8, 7, 6, 5, 4, 3, 2]")
NAMES = listed(f"naem{index}" for index in range(960))
UNKNOWN = f"  - {{models: [l], quantizers: [m], bits: [4], methods: {NAMES}}}\n"
WORST = {
    **{f"{name}, allowed": make(limit) for name, (make, limit, _) in LIMITS.items()},
    **{f"{name}, refused": make(limit + 1) for name, (make, limit, _) in LIMITS.items()},
    "billion laughs": bomb(12),
    "quadratic blow-up": f"a: &a {'x' * 100_000}\nb: {listed(['*a'] * 10_000)}",
    "ten megabytes": f"{SOUND}about: {'x' * 10_000_000}\n",
    "open brackets": "[" * limits.MAX_BYTES,
    "open braces": "{" * limits.MAX_BYTES,
    "dashes": "- " * (limits.MAX_BYTES // 2),
    "questions": "? " * (limits.MAX_BYTES // 2),
    "colons": ":\n" * (limits.MAX_BYTES // 2),
    "empty lines": "\n" * (limits.MAX_BYTES - len(SOUND)) + SOUND,
    "comments": "#\n" * ((limits.MAX_BYTES - len(SOUND)) // 2) + SOUND,
    "directives": "%A\n" * (limits.MAX_BYTES // 4) + "---\n" + SOUND,
    "anchors": "a: [" + "&a x," * (limits.MAX_BYTES // 5 - 2) + "]",
    "a base-60 number": f"{SOUND}about: 1{':1' * 100_000}\n",
    "a number in hex": f"{SOUND}about: 0x{'f' * 200_000}\n",
    "escapes": SOUND + 'about: "' + "\\x41" * 60_000 + '"\n',
    "folds": SOUND + 'about: "' + "a\n  " * 60_000 + '"\n',
    "keys": "".join(f"k{index}: 1\n" for index in range(HALF - 5)),
    "unknown names": f"name: s\nmatrix:\n{UNKNOWN * 10}",
    "unknown options": with_axis("methods", f"[{{name: gptq, {', '.join(f'o{index}: 1' for index in range(4900))}}}]"),
    "empty blocks": "name: s\nmatrix:\n" + "  - {models: [], quantizers: [], bits: []}\n" * 999,
    "the same name": with_axis("methods", listed(["rtn"] * 1000)),
    "a billion seeds": with_axis("seeds", "1000000000"),
    "all axes": with_axis("seeds", "1000").replace("[4]", "[1, 2, 3, 4, 5, 6, 7, 8]").replace("[rtn]", gptqs(900)),
    "exclusions of all": MANY + excluding({"methods": "gptq", "bits": 2 + index % 7} for index in range(250)),
    "exclusions of all, of many cells": with_seeds(MANY, 31)
    + excluding({"methods": "gptq", "models": "causal_lm", "bits": 2 + index % 7} for index in range(250)),
    "exclusions of a seed each": with_seeds(with_axis("methods", gptqs(198)), 1000)
    + excluding({"methods": "gptq", "seeds": index} for index in range(250)),
    "probes that read all, of many cells": with_seeds(MANY.replace("8, 7, 6, 5, ", ""), 70)
    + "  probes: [{name: segments, points: [gptq]}, radius]\n",
    "probes that read all": MANY.replace("8, 7, 6, 5, ", "") + "  probes: [{name: segments, points: [gptq]}, radius]\n",
    "plugins": f"name: s\nplugins: {listed(f'x{index}.py' for index in range(1000))}\n{MATRIX}",
}  # fmt: skip

CHILD = """\
import json, resource, sys, time
from qbench.errors import QBenchError
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import load_suite
from qbench import registry
for known in (registry.MODELS, registry.QUANTIZERS, registry.METHODS, registry.PROBES):
    for name in known.names():
        known.get(name)  # what is imported once is no matter of the file
def held(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what))
resource.setrlimit(resource.RLIMIT_AS, (held("VmSize") + 500_000_000,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
found = {}
for path in sys.argv[1:]:
    started, before = time.process_time(), held("VmRSS")
    try:
        said = len(enumerate_cells(load_suite(path)))
    except QBenchError as error:
        said = str(error)
    found[path] = (said, time.process_time() - started, held("VmHWM") - before)
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are read and set as Linux does")
def test_the_worst_files_are_neither_slow_nor_large(tmp_path: Path) -> None:
    """In a process with no more than 500 MB to take; a few honest seconds, and a margin for a machine that is busy."""
    files = {}
    for index, (name, text) in enumerate(WORST.items()):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "s.yaml").write_text(text)
        files[str(folder / "s.yaml")] = name
    done = subprocess.run([sys.executable, "-c", CHILD, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {files[path]: cost for path, cost in json.loads(done.stdout).items()}
    for name, (said, seconds, grown) in found.items():
        assert seconds < 10, (name, seconds)
        assert grown < 500_000_000, (name, grown)
        if isinstance(said, str):
            assert len(said) < 500 + len(str(tmp_path)) and said.isprintable(), (name, said)
    assert sum(isinstance(said, int) for said, _, _ in found.values()) >= len(LIMITS)
