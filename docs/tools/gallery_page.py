"""The pictures of docs/gallery.md: all that are in results/figures, kind by kind."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "results" / "figures"

# In the order of the page: how the names of files of a kind begin, what the kind is called, and how it is read.
LEADERBOARD = {
    "ladder": (
        "What is lost as bits fall",
        "Each line is a method, each panel a grid. Below τ a method is inside the basin, above τ_f it "
        "has failed. Hollow marks are methods that train on the train split. Follow one line to the right: where it "
        "crosses τ, its bits are too few.",
    ),
    "grids": (
        "What a smaller grid loses",
        "A point is a grid at a bitwidth, placed by the bits that a weight takes with its scales, zero points and "
        "codebooks. The line is the front: a grid above it is beaten by one that is both smaller and better.",
    ),
    "basin": (
        "How far rounding moves the weights",
        "Left the distance by bits: above the line of the radius, rounding has left the basin. Right the loss by "
        "distance, on straight lines and where each method ends: a method below the lines loses less than its distance "
        "would have it, because it does not go straight.",
    ),
    "recovery": (
        "What is won back",
        "G is the share of rounding's excess loss that a method does away with on the same grid: 0 is no better than "
        "rounding to nearest, 1 is full precision. Whiskers are 95 % intervals; bars whose whiskers overlap are not "
        "told apart by this suite.",
    ),
    "pareto": (
        "What it costs",
        "Further left is faster, further down is better. The line is the front: a method that lies above it is beaten "
        "by one that is both faster and better. Seconds are those of one machine.",
    ),
}
CLAIMS = {
    "C01": (
        "C1: rounding fails sharply",
        "Excess loss of rounding to nearest by bits. The claim holds where the line crosses both thresholds within few "
        "bits.",
    ),
    "C02": (
        "C2: noise predicts where rounding fails",
        "Rounding and uniform noise on the same steps, ever coarser. The verticals are where each curve leaves the "
        "basin; the claim is that they lie together.",
    ),
    "C03": (
        "C3: the second-order expansion",
        "Measured excess loss against what the expansion at full precision predicts. Points above the diagonal cost "
        "more than predicted.",
    ),
    "C04": (
        "C4: second-order rounding fails later",
        "Left the loss, right the error of the layers' outputs, which second-order rounding minimises. The claim holds "
        "where its layers are nearer and the loss fails all the same.",
    ),
    "C06": (
        "C5, C6: the way there",
        "Loss on the straight way from full precision to the rounded weights, to those of QAT, and between the two. A "
        "wall is a rise on the way.",
    ),
    "C07": (
        "C7: gradients that point back",
        "Cosine of the direction of descent with the way back to full precision. In the grey band it is no better than "
        "chance; above it the gradient points inward.",
    ),
    "C08": (
        "C8: the deployed loss falls first",
        "Loss of the deployed (quantized) and of the latent weights while QAT trains. The claim is that the first "
        "falls while the second does not.",
    ),
    "C09": (
        "C9: where the gradient is taken",
        "What the same training wins back by learning rate, with its gradient taken at the quantized weights, at the "
        "latent ones, beside them, or in a random direction.",
    ),
    "C10": (
        "C10: first entry",
        "The first step at which plain gradient descent is inside the basin, by learning rate. A slope of -1 (grey) "
        "says that steps times rate is what counts.",
    ),
    "C11": (
        "C11: how coarse a lattice may be",
        "The same training on coarser and coarser lattices. The claim is that it enters later and ends higher the "
        "coarser the lattice is.",
    ),
    "C12": (
        "C12: the gap vanishes on fine grids",
        "What QAT, and what fine-tuning in full precision with rounding afterwards, win over rounding. The claim is "
        "about the distance of the two lines: none at 8 bits, growing as bits fall.",
    ),
    "C13": (
        "C13: the price of second order",
        "How far the methods move the weights, in steps, and how much of that lies in the steepest directions. "
        "Second-order rounding goes further, in flatter directions.",
    ),
    "C14": (
        "C14: wider basins fail later",
        "One point a checkpoint: the step at which rounding leaves the basin, against the one at which noise does.",
    ),
    "T1": (
        "T1: first entry and the theorem's bound",
        "Measured first entries against the bound, on landscapes whose truth is known. The theorem holds where points "
        "are on or below the diagonal.",
    ),
}


def render() -> dict[str, str]:
    """Return the generated parts of the page: the pictures of leaderboards, and those of claims."""
    found = sorted(FIGURES.glob("*/*.svg"), key=lambda path: (path.parent.name, _natural(path.stem)))
    unknown = [path for path in found if _kind(path) not in {**LEADERBOARD, **CLAIMS}]
    if unknown:
        raise ValueError(f"say in {Path(__file__).name} how {', '.join(path.stem for path in unknown)} is read")
    return {
        name: "\n\n".join(_section(kind, *words, found) for kind, words in kinds.items() if _of_kind(kind, found))
        for name, kinds in (("leaderboards", LEADERBOARD), ("claims", CLAIMS))
    }


def _section(kind: str, title: str, words: str, found: list[Path]) -> str:
    pictures = [
        f"**{path.parent.name}**, `{path.stem}`\n\n![{title}: {path.parent.name}, {path.stem}]"
        f"(../{path.relative_to(ROOT).as_posix()})"
        for path in _of_kind(kind, found)
    ]
    return "\n\n".join([f"### {title}", words, *pictures])


def _of_kind(kind: str, found: list[Path]) -> list[Path]:
    return [path for path in found if _kind(path) == kind]


def _kind(path: Path) -> str:
    return path.stem.partition("_")[0]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name) if part]
