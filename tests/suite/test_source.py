from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qbench.errors import SuiteError
from qbench.suite.source import read_source, show_path

REFUSED = {
    "empty": ("", "s.yaml: the file is empty (allowed: a mapping)"),
    "only a comment": ("# nothing\n", "s.yaml: the file is empty (allowed: a mapping)"),
    "list": ("\n- a\n- b\n", "s.yaml:2: the top is ['a', 'b'] (allowed: a mapping)"),
    "scalar": ("just text\n", "s.yaml:1: the top is 'just text' (allowed: a mapping)"),
    "null": ("---\n~\n", "s.yaml:2: the top is None (allowed: a mapping)"),
    "unclosed": (
        "name: s\nbits: [4, 2\nmetrics: [loss]\n",
        "s.yaml:3: not valid YAML: while parsing a flow sequence that starts on line 2: "
        "expected ',' or ']', but got ':'",
    ),
    "tab": (
        "name: s\nmatrix:\n\tbits: 2\n",
        "s.yaml:3: not valid YAML: while scanning for the next token: "
        "found character '\\t' that cannot start any token",
    ),
    "two documents": (
        "name: s\n---\nname: t\n",
        "s.yaml:2: not valid YAML: expected a single document in the stream that starts on line 1: "
        "but found another document",
    ),
    "control character": (b"name: s\nabout: a\x07b\n", "s.yaml:2: not valid YAML: character #x0007 is not allowed"),
    "python object": (
        "name: !!python/object/apply:os.getcwd []\n",
        "s.yaml:1: the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd' is not read (allowed: none)",
    ),
    "own scalar tag": (
        "a: 1\nname: !mine s\n",
        "s.yaml:2: the tag '!mine' is not read (allowed: none)",
    ),
    "set": ("name: !!set {a, b}\n", "s.yaml:1: the tag 'tag:yaml.org,2002:set' is not read (allowed: none)"),
    "not UTF-8": ("name: s\nabout: é\n".encode("latin-1"), "s.yaml:2: not UTF-8: byte 0xe9 at offset 15"),
    "UTF-16": ("name: s\n".encode("utf-16"), "s.yaml:1: not UTF-8: byte 0xff at offset 0"),
    "duplicate": ("name: s\nbits: 2\n\nname: t\n", "s.yaml:4: the key 'name' is given twice, first on line 1"),
    "nested duplicate": ("a:\n  - {b: 1,\n     b: 1}\n", "s.yaml:3: the key 'b' is given twice, first on line 2"),
    "same key in other spelling": ("name: s\n'name': t\n", "s.yaml:2: the key 'name' is given twice, first on line 1"),
    "boolean key": ("on: 1\n", "s.yaml:1: the key on is not text (allowed: text; put it in quotes)"),
    "list as key": ("name: s\n? [a]\n: 1\n", "s.yaml:2: a key is a list or a mapping (allowed: text)"),
    "alias": ("a: &x [1]\nb: *x\n", "s.yaml:2: the alias *x is not read (allowed: `presets`)"),
    "alias of itself": ("a: &x [*x]\n", "s.yaml:1: the alias *x is not read (allowed: `presets`)"),
    "merge key": ("a:\n  <<: {b: 1}\n", "s.yaml:2: the merge key << is not read (allowed: `presets`)"),
    "no such day": ("about: 2020-13-45\n", "s.yaml:1: '2020-13-45' cannot be read: month must be in 1..12"),
    "deep": ("[" * 2000, "s.yaml:1: values are nested more than 50 deep (allowed: at most 50)"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_suite_is_refused_in_one_line(refusal: Callable[..., str], text: str | bytes, message: str) -> None:
    assert refusal(text) == message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        read_source(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: no such file"


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        read_source(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a directory (allowed: a YAML file)"


def test_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: s\n")
    with pytest.raises(SuiteError) as caught:
        read_source(tmp_path / "s.yaml" / "t.yaml")
    assert str(caught.value) == f"{tmp_path}/s.yaml/t.yaml: cannot be read: Not a directory"


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_bytes(b"\xef\xbb\xbfname: s\n")
    assert read_source(tmp_path / "s.yaml").data == {"name": "s"}


def test_lines_are_those_of_keys_and_items(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "# a comment\nname: s\nmatrix:\n\n  methods:\n    - rtn\n    - {name: gptq,\n       order: 1}\n"
    )
    source = read_source(tmp_path / "s.yaml")
    assert source.lines == {
        (): 2,
        ("name",): 2,
        ("matrix",): 3,
        ("matrix", "methods"): 5,
        ("matrix", "methods", 0): 6,
        ("matrix", "methods", 1): 7,
        ("matrix", "methods", 1, "name"): 7,
        ("matrix", "methods", 1, "order"): 8,
    }
    assert source.line(("matrix", "methods", 1, "percdamp", "deeper")) == 7
    assert str(source.error(("matrix", "bits"), "text")).endswith("s.yaml:3: `matrix`: text")
    assert str(source.error((), "text")).endswith("s.yaml:2: text")


def test_path_as_text() -> None:
    assert show_path(("matrix", 0, "methods", 2, "steps")) == "matrix[0].methods[2].steps"


# What cannot be shown is refused; see test_limits.py.
shown = st.characters(
    exclude_categories=("Cs", "Cc"), exclude_characters=map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
)
texts = st.text(shown | st.sampled_from("\n\t"), max_size=50)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(data=st.dictionaries(texts, values, min_size=1, max_size=4), flow=st.booleans())
def test_data_is_what_safe_load_gives_and_every_value_has_a_line(
    data: dict[str, object], flow: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("source") / "s.yaml"
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=True)
    file.write_text(text, encoding="utf-8", newline="")
    source = read_source(file)
    assert source.data == yaml.safe_load(text)

    def check(value: object, path: tuple[str | int, ...]) -> None:
        assert 1 <= source.lines[path] <= text.count("\n") + 1
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            check(inner, (*path, key))

    check(source.data, ())
