"""Paths that a suite file may name: those inside its own folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from qbench.errors import SuiteError


def resolve_inside(folder: Path, given: str) -> Path:
    """Return the absolute path of a file or folder that is named relative to a folder and lies inside it.

    Parameters
    ----------
    folder : Path
        The folder of the suite file.
    given : str
        The path as the suite gives it; it need not exist.

    Raises
    ------
    SuiteError
        The path is empty or absolute, or leads out of the folder by ``..`` or by a symbolic link.
    """
    if not given.strip():
        raise SuiteError("the path is empty (allowed: a path inside the suite's folder)")
    # A suite is shared between systems: what is absolute on one of them is refused on all.
    windows = PureWindowsPath(given)
    if PurePosixPath(given).is_absolute() or windows.drive or windows.root:
        raise SuiteError(f"the path {given!r} is absolute (allowed: a path inside the suite's folder)")
    try:
        root = folder.resolve()
        path = (root / given).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise SuiteError(f"the path {given!r} cannot be followed: {error}") from None
    if not path.is_relative_to(root):
        raise SuiteError(f"the path {given!r} leaves the suite's folder (allowed: a path inside it)")
    return path
