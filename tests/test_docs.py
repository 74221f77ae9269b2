"""The pages on methods and quantizers name them all with every option; the measured table was made by the command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qbench.methods.base import Method
from qbench.methods.fine_tune import FineTuning
from qbench.methods.ste_qat import StraightThroughQAT
from qbench.quantizers.base import IntegerQuantizer, Quantizer
from qbench.registry import METHODS, MODELS, QUANTIZERS, Registry
from qbench.tasks.image_classifier import ImageModelSpec, ZooClassifier
from qbench.tasks.torchvision_classifier import TorchvisionClassifier

DOCS = Path(__file__).parents[1] / "docs"


def sections_of(page: str) -> dict[str, str]:
    return {part.split("\n")[0]: part for part in re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]}


def built_in(registry: Registry) -> list[str]:
    return [name for name in registry.names() if registry.get(name).__module__.startswith("qbench.")]


def options_in(section: str) -> set[str]:
    """Return what stands in the first column of a section's tables."""
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`(\w+)`", " ".join(rows)))


PAGE = (DOCS / "methods.md").read_text(encoding="utf-8")
SECTIONS = sections_of(PAGE)
BUILT_IN = built_in(METHODS)
OF_QUANTIZERS = sections_of((DOCS / "quantizers.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_option_of_a_method_is_explained(name: str) -> None:
    fields = set(METHODS.get(name).model_fields) - {"name"}
    assert options_in(SECTIONS["Batch norm"]) == set(Method.model_fields) - {"name"}
    fields -= set(Method.model_fields)
    if "\n| those of ste_qat" in SECTIONS[name]:
        fields -= set(StraightThroughQAT.model_fields)
    missing = {field for field in fields if f"`{field}`" not in SECTIONS[name]}
    assert not missing


def test_options_that_there_are_not_are_not_explained() -> None:
    for name in BUILT_IN:
        assert options_in(SECTIONS[name]) <= set(METHODS.get(name).model_fields), name


@pytest.mark.parametrize("name", built_in(QUANTIZERS))
def test_every_option_of_a_quantizer_is_explained(name: str) -> None:
    kind = QUANTIZERS.get(name)
    shared = options_in(OF_QUANTIZERS["What all share"])
    assert shared == set(Quantizer.model_fields) - {"name"}
    if issubclass(kind, IntegerQuantizer):
        of_integers = options_in(OF_QUANTIZERS["Integers"])
        assert of_integers == set(IntegerQuantizer.model_fields) - set(Quantizer.model_fields)
        shared |= of_integers
    own, named = set(kind.model_fields) - {"name"}, options_in(OF_QUANTIZERS[name])
    assert own - shared <= named <= own


def test_the_table_of_quantizers_has_a_row_for_each() -> None:
    page = (DOCS / "quantizers.md").read_text(encoding="utf-8")
    rows = options_in(page.partition("\n## ")[0])
    assert rows == set(built_in(QUANTIZERS))


def test_the_control_copies_every_option_of_the_budget() -> None:
    budget = set(FineTuning.model_fields) - {"name"}
    assert {f"`{field}`" for field in budget} <= set(re.findall(r"`\w+`", SECTIONS["ste_qat"]))


def test_the_measured_table_is_there() -> None:
    table = PAGE.partition("<!-- perf: begin -->\n")[2].partition("<!-- perf: end -->")[0]
    assert "matmul" in table and table.count("\n|") > 20


OF_IMAGES = sections_of((DOCS / "vision.md").read_text(encoding="utf-8"))


def test_every_option_of_an_image_model_is_explained() -> None:
    embedded = options_in(OF_IMAGES["Embedded models"])
    models = {name for name in MODELS.names() if MODELS.get(name) is ZooClassifier}
    rows = re.findall(r"^\| `([\w-]+)` \|", OF_IMAGES["Embedded models"], flags=re.MULTILINE)
    assert models <= set(rows)
    assert embedded & set(ZooClassifier.model_fields) == set(ZooClassifier.model_fields) - {"name"}
    own = options_in(OF_IMAGES["torchvision's models"])
    assert own == set(TorchvisionClassifier.model_fields) - set(ImageModelSpec.model_fields)
