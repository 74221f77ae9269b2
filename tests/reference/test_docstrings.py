"""What is said of an option is what the nearest class says of it, in words for who writes a suite."""

from __future__ import annotations

from pydantic import BaseModel

from qbench.reference.docstrings import about, about_fields, sections


class Base(BaseModel):
    """What all have.

    Attributes
    ----------
    kind : str
        ``plain`` or ``odd``;
        over two lines.
    size : int or None
        None for all of them (see `qbench.somewhere`). See `Base.kind`.
    """

    kind: str = "plain"
    size: int | None = None


class Child(Base):
    """A child of it:
    in two lines.

    And a second paragraph.

    Attributes
    ----------
    low, high : float
        Both ends; see `Base`.
    kind : str
        Of a child: another word.
    unknown : int
        No field.

    Notes
    -----
    kind : none
        Is a word here too.
    """

    low: float = 0
    high: float = 1
    silent: int = 0


def test_the_first_paragraph_tells_of_the_class() -> None:
    assert about(Child) == "A child of it: in two lines."
    assert about(type("Bare", (), {})) == ""


def test_sections_go_by_their_titles() -> None:
    assert list(sections(Child)) == ["Attributes", "Notes"]
    assert sections(Child)["Notes"].startswith("kind : none\n")
    assert sections(type("Bare", (), {})) == {}


def test_the_nearest_class_explains_a_field() -> None:
    assert about_fields(Base) == {"kind": "`plain` or `odd`; over two lines.", "size": "null for all of them."}
    assert about_fields(Child) == {
        "kind": "Of a child: another word.",
        "size": "null for all of them.",
        "low": "`low`, `high`: Both ends.",
        "high": "`low`, `high`: Both ends.",
    }
