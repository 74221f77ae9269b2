"""Short names, and those of files."""

from __future__ import annotations

import pytest

from qbench.report.figures.naming import file_names, plainest, short


def test_options_that_all_have_are_left_out() -> None:
    found = short(["m[a=1,b=2]", "m[a=1,b=3]", "n[a=1]", "o"])
    assert list(found.values()) == ["m[b=2]", "m[b=3]", "n", "o"]


def test_options_with_commas_of_their_own_stay_whole() -> None:
    assert short(["s[points=('a', 'b'),x=1]", "s[points=('a', 'c'),x=1]"]) == {
        "s[points=('a', 'b'),x=1]": "s[points=('a', 'b')]",
        "s[points=('a', 'c'),x=1]": "s[points=('a', 'c')]",
    }


def test_short_names_differ_where_labels_do() -> None:
    labels = ["gptq", "gptq[bn=fold]", "gptq[bn=fold,x=1]", "lsq[x=1]"]
    assert len(set(short(labels).values())) == len(labels)


def test_the_plainest_of_every_name_come_before_variants() -> None:
    labels = ["q[a=1]", "r", "r[x=1]", "r[x=1,y=2]", "s", "q[a=1,b=2]"]
    assert plainest(labels, 3) == ["q[a=1]", "r", "s"]
    assert plainest(labels, 8) == ["q[a=1]", "r", "r[x=1]", "s", "q[a=1,b=2]"]


@pytest.mark.parametrize("label", ["llama-1m", "a/b\\c:d", "..", "m[x='é']", "con trol\n"])
def test_names_of_files_are_safe(label: str) -> None:
    (name,) = file_names([label]).values()
    assert name
    assert name.isascii()
    assert not set(name) & set("/\\:*?\"<>| []'\n")
    assert not name.startswith((".", "-"))


def test_names_of_files_differ_where_letters_alone_are_large() -> None:
    names = file_names(["m", "M", "m[a=1]", "m[a=1,]", "m/"]).values()
    assert len({name.lower() for name in names}) == 5
