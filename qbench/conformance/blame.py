"""Where in a stranger's file an error came from."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path


def told(error: BaseException, code: type) -> str:
    """Return an error in one line, with the line of the judged class's own file that it passed through last.

    Parameters
    ----------
    error : BaseException
        What was raised.
    code : type
        The judged class. Where none of its file's lines was passed, the line that raised is named.

    Examples
    --------
    ``ValueError: no such range (my_quantizers.py:12)``
    """
    first = str(error).strip().split("\n")[0]
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename in _files(code)]
    on_the_way = own or list(frames)
    return f"{text} ({Path(on_the_way[-1].filename).name}:{on_the_way[-1].lineno})" if on_the_way else text


def _files(code: type) -> set[str]:
    """Return the files of a class and of those it is derived from, but for qbench's own bases."""
    files = set()
    for one in code.__mro__:
        if one.__module__.partition(".")[0] in {"qbench", "pydantic", "builtins"} and one is not code:
            continue
        try:
            files.add(str(inspect.getsourcefile(one)))
        except TypeError:  # a class that was made without a file
            continue
    return files
