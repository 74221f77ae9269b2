"""Whatever a suite file says: a list of cells, or one line about what is wrong. Never a traceback, never long."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qbench.cli import main
from qbench.errors import QBenchError
from qbench.suite.enumerate import enumerate_cells, filter_cells
from qbench.suite.load import list_suites, load_suite
from qbench.suite.source import read_value

CHECKOUT = Path(__file__).parents[2]
LONGEST = 500
# The claim is one second; a machine that does other work at the same time counts more.
CPU_SECONDS = 4.0

SHIPPED = [file.read_text(encoding="utf-8") for file in list_suites().values()]
SHIPPED += re.findall(r"```yaml\n(name: .*?)```", (CHECKOUT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
# Under one name: that a file is called otherwise would be said in place of all else.
SEEDS = [re.sub("^name: .*", "name: smoke", text, flags=re.MULTILINE) for text in SHIPPED]

# What has broken readers of YAML, of paths and of numbers before.
NASTY_TOKENS = [
    "&a", "*a", "<<: *a", "!!python/object/apply:os.system [id]", "!!int ''", "!!int x", "!!bool maybe",
    "!!float ''", "!!timestamp x", "!!binary x", "!!set {a}", "!!omap [a: 1]", "!!null ''", "!<x>", "!", "!!str",
    "%YAML 9.9", "---", "...", "\t", "? [a]", "? {a: b}", ": ", "- ", "[", "]", "{", "}", "|", ">", "'", '"',
    '"\\ud800"', '"\\0"', '"\\u202e"', "\u202e", "\ufeff", "\u2028", "\x85", "😀", "İ", ".inf", "-.inf", ".nan",
    "1e999", "1.0e+999", "0x" + "f" * 99, "0b1", "0o7", "08", "1_000", "1:59:59", "2020-13-45", "2020-01-01",
    "2020-01-01T00:00:00+99:99", "~", "null", "yes", "on", "=", "10" * 30, "9" * 5000, "1000000000", "-1", "4.0",
    "x" * 20_000, "../..", "/etc/passwd", "a\\b", "C:\\x", "name: 1", "[" * 60, "[]", "{}", "''", "[[]]", "#",
    "\r", "\n", " ", "fp", "rtn", "gptq", "llama-1m", "os", "subprocess.run",
]  # fmt: skip
NASTY_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 9, 10**9, 10**60, -(10**60), 0.5, float("inf"), float("-inf"), float("nan"),
    1e308, "", " ", "x" * 300, "x" * 9000, "a\nb", "\u200f", "é", "../x", "/etc/passwd", "..", ".", "a/../../b",
    "C:\\x", "\\\\h\\x", "a" * 999, "os", "os.path", "antigravity", "__main__", "x.py", "loop", "fp", "rtn",
    "gptq", "gptq[act_order=false]", "absmax", "nf", "llama-1m", "mlp-digits", "torchvision", "causal_lm", "loss",
    "accuracy", "short", [], {}, [[]], {"name": "rtn"}, {"name": 4}, {"preset": "short"},
    {"name": "gptq", "preset": "none"}, {"per_group": 64}, {"per_group": 0}, list(range(9)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def names() -> None:
    """Use the built-in names, not those of the other tests of this folder."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite's folder with things in it and around it that must not be reached or run."""
    root = tmp_path_factory.mktemp("fuzz")
    inside = root / "suites"
    (inside / "mine").mkdir(parents=True)
    trap = f"from pathlib import Path\nPath({str(root / 'trapped')!r}).write_text(__file__)\n"
    for place in (
        root / "outside.py",
        root / "x.py",
        inside / "short.py",
        inside / "gptq.py",
        inside / "mine" / "no.py",
    ):
        place.write_text(trap)
    (inside / "leads_out.py").symlink_to(root / "outside.py")
    (inside / "out").symlink_to(root)
    (inside / "loop").symlink_to(inside / "loop")
    return inside


@pytest.fixture(autouse=True)
def nothing_is_imported_unasked(folder: Path) -> Iterator[None]:
    yield
    trapped = folder.parent / "trapped"
    assert not trapped.exists(), trapped.read_text()


def tried(folder: Path, text: str | bytes, name: str = "smoke") -> str:
    """Read and enumerate a suite; return what is said of it, or nothing."""
    file = folder / f"{name}.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    started, said = time.process_time(), ""
    try:
        cells = enumerate_cells(load_suite(str(file)))
        assert cells and all(len(cell.label()) < 1000 for cell in cells[:100])
    except QBenchError as error:
        said = str(error)
    assert time.process_time() - started < CPU_SECONDS
    assert_is_a_line(said.replace(str(folder), ""))
    return said


def assert_is_a_line(said: str) -> None:
    assert len(said) <= LONGEST, said
    assert said.isprintable(), ascii(said)


@st.composite
def mutated(draw: Callable[..., Any]) -> str:
    """Draw a real suite with a few lines or pieces that are taken out, doubled, moved or replaced."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["token", "token", "line", "double", "swap", "cut", "value"]))
        if kind == "token":
            at = draw(st.integers(0, len(text)))
            text = text[:at] + draw(st.sampled_from(NASTY_TOKENS)) + text[at + draw(st.integers(0, 5)) :]
        elif kind == "value":  # a word or number becomes another thing
            found = list(re.finditer(r"[\w.-]+", text)) or [re.match("", text)]
            match = draw(st.sampled_from(found))
            text = text[: match.start()] + draw(st.sampled_from(NASTY_TOKENS)) + text[match.end() :]
        elif kind == "cut":
            text = text[: draw(st.integers(0, len(text)))]
        else:
            lines = text.split("\n")
            one, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
            if kind == "line":
                del lines[one]
            elif kind == "double":
                lines.insert(other, lines[one])
            else:
                lines[one], lines[other] = lines[other], lines[one]
            text = "\n".join(lines)
    return text


# What cannot be shown is refused before anything else is looked at; `test_any_bytes` and the tokens have it.
texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30)
leaves = st.sampled_from(NASTY_VALUES) | st.integers() | st.floats() | texts
KEYS = [
    "name",
    "about",
    "plugins",
    "presets",
    "matrix",
    "exclude",
    "metrics",
    "models",
    "quantizers",
    "bits",
    "methods",
    "seeds",
    "probes",
    "trajectory",
    "when",
    "reason",
    "preset",
    "short",
    "path",
    "folder",
    "text",
    "granularity",
    "points",
]
keys = st.sampled_from(KEYS) | texts
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)
scalars = st.none() | st.integers() | st.floats() | st.dictionaries(keys, st.integers(), max_size=2)
specs = leaves | st.dictionaries(keys, trees, max_size=4)
known = st.sampled_from(["gptq", "mse", "llama-1m", "causal_lm"])
named = st.builds(lambda name, rest: {**rest, "name": name}, known, st.dictionaries(keys, trees, max_size=3))
entries = st.lists(st.sampled_from(["rtn", "gptq", "absmax", "mse", "llama-1m", "ladder"]) | named | specs, max_size=4)


def mostly(sound: Any, other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw what is sound more often than not: one thing that is wrong hides all that would be said of the others."""
    return st.one_of(st.just(sound), st.just(sound), st.just(sound), other)


blocks = st.fixed_dictionaries(
    {
        "models": mostly(["llama-1m"], entries | trees),
        "quantizers": mostly(["absmax"], entries | trees),
        "bits": mostly([4, 2], st.lists(leaves, max_size=4) | trees),
        "methods": mostly(["rtn"], entries | trees),
    },
    optional={"seeds": trees, "probes": entries, "trajectory": leaves, "nonsense": leaves},
)
axes = st.sampled_from(["models", "quantizers", "bits", "methods", "seeds"])
whens = st.dictionaries(axes, st.lists(leaves, max_size=3) | leaves, max_size=3)
suites = st.fixed_dictionaries(
    {"name": mostly("smoke", leaves), "matrix": blocks | st.lists(blocks, max_size=3) | trees},
    optional={
        "about": leaves,
        # What importing an installed package costs is that package's own.
        "plugins": st.lists(leaves.filter(lambda leaf: leaf != "torchvision"), max_size=3) | scalars,
        "presets": mostly({"short": {"steps": 2}}, st.dictionaries(keys, trees, max_size=3)),
        "exclude": st.lists(st.fixed_dictionaries({"when": whens, "reason": leaves}) | trees, max_size=3),
        "metrics": mostly(["loss"], trees),
    },
)


@settings(max_examples=600, suppress_health_check=list(HealthCheck))
@given(text=mutated())
def test_real_suites_with_errors_in_them(folder: Path, text: str) -> None:
    tried(folder, text)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@settings(max_examples=20_000, derandomize=False, suppress_health_check=list(HealthCheck))
@given(text=mutated())
def test_other_ones_every_night(folder: Path, text: str) -> None:
    tried(folder, text)


class Dumper(yaml.SafeDumper):
    """Writes a value as often as it is there, in place of aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def written(data: dict[str, Any], flow: bool) -> str:
    try:
        return yaml.dump(data, Dumper=Dumper, default_flow_style=flow, allow_unicode=True, sort_keys=False)
    except (yaml.YAMLError, RecursionError):
        return ""


@settings(max_examples=600, suppress_health_check=list(HealthCheck))
@given(data=suites, flow=st.booleans())
def test_suites_made_up_of_anything(folder: Path, data: dict[str, Any], flow: bool) -> None:
    tried(folder, written(data, flow))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@settings(max_examples=20_000, derandomize=False, suppress_health_check=list(HealthCheck))
@given(data=suites, flow=st.booleans())
def test_other_made_up_ones_every_night(folder: Path, data: dict[str, Any], flow: bool) -> None:
    tried(folder, written(data, flow))


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(raw=st.binary(max_size=300) | st.lists(st.sampled_from(NASTY_TOKENS), max_size=30).map("".join))
def test_any_bytes(folder: Path, raw: bytes | str) -> None:
    assert tried(folder, raw)


PLUGINS = [
    "../outside.py", "../x.py", "out/outside.py", "leads_out.py", "mine/../../x.py", "./../x.py", "mine",
    "mine/no.txt", "loop", "loop/x.py", "loop.py", "short", "gptq", "os", "sys", "antigravity", "this",
    "__main__", "qbench.suite", "..", ".", "...", "a..b", ".a", "x.", "\\\\host\\x.py", "C:x.py", "/etc/passwd",
    "/dev/zero", "/dev/zero.py", "~/x.py", "x" * 400 + ".py", "x/" * 400, "mine.no.py.", "a" * 2000,
]  # fmt: skip


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(given_plugins=st.lists(st.sampled_from(PLUGINS) | st.text("./\\amin e~\0", max_size=12), min_size=1, max_size=2))
def test_no_plugin_entry_reaches_what_it_must_not(folder: Path, given_plugins: list[str]) -> None:
    before = set(sys.modules)
    text = yaml.safe_dump({"name": "smoke", "plugins": given_plugins, "matrix": {}}, sort_keys=False)
    assert tried(folder, text)
    assert not {
        name for name in set(sys.modules) - before if name.partition(".")[0] in ("antigravity", "this", "x", "short")
    }


def test_what_is_only_mentioned_is_never_imported(folder: Path) -> None:
    """`short.py` and `gptq.py` lie beside the suite: the fixture sees whether one of them was run."""
    text = """\
name: smoke
about: short.py
presets: {short: {steps: 2}, short.py: {steps: 3}}
matrix: {models: [llama-1m], quantizers: [absmax], bits: [4, 2], methods: [rtn, gptq, {name: ste_qat, preset: short}]}
exclude: [{when: {bits: 2}, reason: short.py}]
"""
    assert tried(folder, text) == ""
    assert tried(folder, text.replace("rtn,", "short,")).startswith(
        f"{folder}/smoke.yaml:4: `matrix.methods[0]`: unknown"
    )


SUITE = "name: smoke\nmatrix: {models: [llama-1m], quantizers: [absmax], bits: [4, 2], methods: [rtn], seeds: 2}\n"
PIECES = ["bits", "model", "method", "seed", "quantizer", "=", "|", ",", "4", "rtn", "fp", "x" * 99, "[", "]", "\ud800"]
only_texts = st.text("bits=|,4[]{}()\0\u202e ", max_size=40)
only_texts |= st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(only=only_texts)
def test_any_only(folder: Path, only: str) -> None:
    (folder / "only").mkdir(exist_ok=True)
    file = folder / "only" / "smoke.yaml"
    file.write_text(SUITE)
    cells = enumerate_cells(load_suite(str(file)))
    try:
        kept = filter_cells(cells, only)
    except QBenchError as error:
        assert_is_a_line(str(error))
    else:
        assert kept and set(map(id, kept)) <= set(map(id, cells))


@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(text=st.lists(st.sampled_from(NASTY_TOKENS), max_size=6).map("".join) | st.text(max_size=40))
def test_any_value_of_an_option(text: str) -> None:
    try:
        read_value(text)
    except QBenchError as error:
        assert_is_a_line(str(error))


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    text=mutated(), verb=st.sampled_from([("validate",), ("plan", "--suite")]), more=st.sampled_from([(), ("--json",)])
)
def test_through_the_command_line(
    folder: Path, monkeypatch: Any, capsys: Any, text: str, verb: tuple[str, ...], more: tuple[str, ...]
) -> None:
    file = folder / "smoke.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["qbench", *verb, "smoke.yaml", *more])
    capsys.readouterr()
    code = main()
    out, err = capsys.readouterr()
    assert code in (0, 2)
    if code == 2:
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("qbench: ")
        assert_is_a_line(line)
