"""What is in results/ is what its command makes, of published records of the cells that suites still have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qbench.cli import main
from qbench.diagnosis import shipped
from qbench.store.archive import SUFFIX, read_archive
from qbench.suite.cell import cell_label
from qbench.suite.enumerate import enumerate_cells
from qbench.suite.load import list_suites, load_suite

RESULTS = Path(__file__).parents[1] / "results"
ARCHIVES = sorted((RESULTS / "records").glob(f"*{SUFFIX}"))
BOARDS = [path for path in ARCHIVES if path.name != f"diagnose{SUFFIX}"]
# The commands of `nox -s tables`.
JUDGED = [f"results/records/{suite}{SUFFIX}" for suite in ("theory_llm", "theory_vision", "river_valley")]
MADE = ("--write", "--figures", "results/figures")

each_archive = pytest.mark.parametrize("path", ARCHIVES, ids=lambda path: path.name.removesuffix(SUFFIX))


def qbench(*arguments: str) -> int:
    before, sys.argv = sys.argv, ["qbench", *arguments]
    try:
        return main()
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder in which everything was made again."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "results").mkdir()
    (folder / "results" / "records").symlink_to(RESULTS / "records")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # What is fitted goes into the package, where it is already if nothing is stale.
        patch.setattr(shipped, "path", lambda: folder / "corrections.json")
        assert qbench("report", *(f"results/records/{path.name}" for path in BOARDS), *MADE) == 0
        assert qbench("claims", *JUDGED, *MADE) == 0
        assert qbench("diagnose", "--judge", "--write") == 0
    return folder / "results"


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tables", "figures"])
def test_nothing_is_stale(made: Path, kind: str) -> None:
    kept, again = files_in(RESULTS / kind), files_in(made / kind)
    assert kept.keys() == again.keys(), "`nox -s tables` makes other files: commit those, and delete what is left over"
    stale = [name for name in kept if kept[name] != again[name]]
    assert not stale, f"`nox -s tables` makes {', '.join(stale[:3])} anew: commit what it writes"


@pytest.mark.slow
def test_shipped_corrections_are_those_of_the_records(made: Path) -> None:
    assert (made.parent / "corrections.json").read_bytes() == shipped.path().read_bytes()


def test_every_table_has_its_records() -> None:
    tables = {path.stem for path in (RESULTS / "tables").glob("*.md")} - {"claims"}
    assert tables == {path.name.removesuffix(SUFFIX) for path in ARCHIVES}


@each_archive
def test_published_records_are_of_the_cells_the_suite_has(path: Path) -> None:
    archive = read_archive(path)
    assert path.name == archive.suite + SUFFIX and archive.suite in list_suites()
    cells = enumerate_cells(load_suite(archive.suite))
    wanted = {(cell.label(), cell.skip) for cell in cells}
    had = {(cell_label(dict(axes)), axes["skip"]) for axes in (*archive.places, *archive.probes)}
    assert had == wanted, f"`qbench run --suite {archive.suite}`, `qbench archive {archive.suite}`, `nox -s tables`"
    assert {record.label for record in archive.records} == {label for label, skip in wanted if skip is None}
    assert {record.suite for record in archive.records} == {archive.suite}
