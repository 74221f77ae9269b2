"""The JavaScript that draws specifications in a browser, as one script without any network."""

from __future__ import annotations

from functools import cache

from qbench.errors import QBenchError

# Expressions are interpreted, so that a page may forbid scripts to make code of text.
_SNIPPET = "window.vegaEmbed = (where, spec, options) => vegaEmbed(where, spec, {ast: true, ...options});"


@cache
def javascript() -> str:
    """Return a script that defines ``vegaEmbed(where, spec, options)``, with Vega and Vega-Lite in it.

    The same as Vega-Embed's function, but for its option ``ast``, which is on: expressions of a specification are
    interpreted, and pages can do without ``unsafe-eval``. It fetches nothing, and holds no ``</script``.

    Raises
    ------
    QBenchError
        The library is missing, or is one of another bundle.
    """
    try:
        import vl_convert
    except ImportError as missing:
        raise QBenchError("charts of a page need vl-convert-python: pip install qbench[report]") from missing
    made = str(vl_convert.javascript_bundle(_SNIPPET, vl_version=vl_convert.get_vegalite_versions()[-1]))
    if "</script" in made.lower():
        raise QBenchError("vl-convert-python's bundle cannot stand inside a page: it ends its own script element")
    return made
