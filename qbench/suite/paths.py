"""Paths that a suite file may name: those inside its own folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from qbench.errors import SuiteError
from qbench.suite.limits import MAX_PATH


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
    if len(given) > MAX_PATH:
        raise SuiteError(f"a path of {len(given)} characters (allowed: at most {MAX_PATH})")
    shown = repr(given) if len(given) <= 60 else f"{given[:57]!r}..."
    # A suite is shared between systems: what is absolute on one of them is refused on all.
    windows = PureWindowsPath(given)
    if PurePosixPath(given).is_absolute() or windows.drive or windows.root:
        raise SuiteError(f"the path {shown} is absolute (allowed: a path inside the suite's folder)")
    try:
        root = folder.resolve()
        path = (root / given).resolve()
        path.exists()  # a name may be too long for any file
    except OSError as error:
        raise SuiteError(f"the path {shown} cannot be followed: {error.strerror}") from None
    except (RuntimeError, ValueError) as error:
        raise SuiteError(f"the path {shown} cannot be followed: {' '.join(str(error).split()):.200}") from None
    if not path.is_relative_to(root):
        raise SuiteError(f"the path {shown} leaves the suite's folder (allowed: a path inside it)")
    return path
