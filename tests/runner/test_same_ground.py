"""A node that has another version than the run is told of in words that say what to install."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from qbench.runner.same_ground import PACKAGES, differences, here

GROUNDS = st.dictionaries(st.sampled_from(["qbench", "python", "torch", "numpy"]), st.sampled_from(["1", "2"]))


@given(GROUNDS, GROUNDS)
def test_what_differs_is_named_and_nothing_else(wanted: dict[str, str], found: dict[str, str]) -> None:
    said = differences(wanted, found)
    unlike = [name for name, version in wanted.items() if found.get(name) != version]
    assert [part.split()[0] for part in said.split(", ") if part] == unlike
    assert all(f"{name} {found.get(name, 'missing')} (here {wanted[name]})" in said for name in unlike)


def test_a_machine_is_no_other_than_itself() -> None:
    assert differences(here(), here()) == ""


def test_other_code_under_the_same_version_is_seen() -> None:
    other = here() | {"source of qbench": "0123456789ab"}
    assert differences(here(), other).startswith("source of qbench 0123456789ab (here ")


def test_a_package_that_is_not_there_is_a_difference_only_where_the_run_has_it() -> None:
    assert differences({"lm-eval": "0.4"}, {"lm-eval": "missing"}) == "lm-eval missing (here 0.4)"
    assert differences({"lm-eval": "missing"}, {"lm-eval": "missing"}) == ""


def test_everything_is_told_without_an_import_of_it() -> None:
    program = (
        "import sys; from qbench.runner.same_ground import PACKAGES, here; found = here(); "
        "assert set(PACKAGES) | {'qbench', 'source of qbench', 'python'} == set(found), found; "
        "print([name for name in ('torch', 'transformers', 'ray', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
    assert "torch" in PACKAGES
