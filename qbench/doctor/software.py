"""Python, torch and the other packages: whether they are there, load, and are those that qbench is checked with."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

import qbench
from qbench import registry
from qbench.doctor.finding import Finding, some
from qbench.errors import QBenchError

_TORCH_SECONDS = 60

_TORCH = """\
import json, torch
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda or getattr(torch.version, "hip", None),
    "capability": torch.backends.cpu.get_cpu_capability(),
    "devices": [
        [torch.cuda.get_device_name(index), torch.cuda.get_device_properties(index).total_memory]
        for index in range(torch.cuda.device_count())
    ] if torch.cuda.is_available() else [],
    "sum": float(torch.ones(64, 64).matmul(torch.ones(64, 64)).sum()),
}))
"""


def python() -> Iterator[Finding]:
    """Say which Python this is, and whether it is one of those that qbench is for."""
    asked = metadata("qbench")["Requires-Python"] or ""
    said = f"{platform.python_version()} ({sys.executable}), qbench {qbench.__version__}"
    if all(_satisfies(bound) for bound in asked.split(",") if bound):
        yield Finding("ok", "python", said)
    else:
        yield Finding("broken", "python", f"{said}: allowed are {asked}", "install qbench in a Python of those")


def _satisfies(bound: str) -> bool:
    sign, number = re.fullmatch(r"\s*([<>=!~]+)\s*([\d.]+).*", bound).groups()  # type: ignore[union-attr]
    wanted = tuple(int(part) for part in number.strip(".").split("."))
    given = sys.version_info[: len(wanted)]
    return {">=": given >= wanted, "<": given < wanted, "<=": given <= wanted, ">": given > wanted}.get(sign, True)


def torch() -> Iterator[Finding]:
    """Load torch in a process of its own, since a broken one can end the process, and say what it was built for."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH], capture_output=True, text=True, check=False, timeout=_TORCH_SECONDS
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        last = (done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        found, last = {}, f"not done after {_TORCH_SECONDS} seconds"
    except (ValueError, IndexError):
        found, last = {}, "it says nothing that can be read"
    if found.get("sum") != 64.0**3:
        last = f"it computes {found['sum']} where {64**3} is right" if found else last
        yield Finding("broken", "torch", f"does not work: {last:.300}", "pip install --force-reinstall torch")
        return
    build = f"built for CUDA {found['cuda']}" if found["cuda"] else "built for CPUs"
    yield Finding("ok", "torch", f"{found['version']} ({build}), {found['capability']} instructions")
    yield _gpu(found)


def _gpu(found: dict[str, Any]) -> Finding:
    if found["devices"]:
        return Finding("ok", "GPU", some(f"{name}, {memory / (1 << 30):.0f} GB" for name, memory in found["devices"]))
    if Path("/proc/driver/nvidia/gpus").exists():
        why = "has no CUDA" if not found["cuda"] else "finds no CUDA device"
        return Finding("warning", "GPU", f"there is one, and torch {why}", "install torch's build for CUDA")
    return Finding("ok", "GPU", "none: everything runs on the CPU")


def packages(constraints: Path | None = None) -> Iterator[Finding]:
    """Compare what is installed with what qbench needs, and in a checkout with what it is checked with.

    Parameters
    ----------
    constraints : Path, optional
        The file of exact versions; the checkout's.
    """
    always = [one for one in requires("qbench") or () if "extra ==" not in one]
    needed = {re.split(r"[\s\[<>=!~;(]", one, maxsplit=1)[0] for one in always}
    missing = sorted(name for name in needed if _version(name) is None)
    if missing:
        yield Finding("broken", "packages", f"{some(missing)}: not installed", f"pip install {' '.join(missing)}")
    constraints = constraints or Path(qbench.__file__).parents[1] / "constraints.txt"
    if not constraints.is_file():
        yield Finding("ok", "packages", "no checkout: versions are not compared with constraints.txt")
        return
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE))
    installed = {name: _version(name) for name in pinned}
    other = [
        f"{name} {installed[name]} (not {wanted})"
        for name, wanted in pinned.items()
        if installed[name] is not None and str(installed[name]).partition("+")[0] != wanted.partition("+")[0]
    ]
    if other:
        said = f"{len(other)} differ from constraints.txt: {some(other, 6)}"
        yield Finding("warning", "packages", said, "pip install -c constraints.txt -e .")
    elif not missing:
        there = sum(one is not None for one in installed.values())
        yield Finding("ok", "packages", f"{there} are those of constraints.txt")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def plugins() -> Iterator[Finding]:
    """Load every name that installed packages bring by entry points."""
    sound = []
    for known in (registry.MODELS, registry.QUANTIZERS, registry.METHODS, registry.PROBES):
        for name in known.names():
            origin = known.origin(name)
            try:
                known.get(name)
            except QBenchError as error:
                said = " ".join(str(error).split())
                mend = f"mend it, or pip uninstall {origin.partition(' ')[0]}"
                cure = "pip install --force-reinstall qbench" if origin == "built in" else mend
                yield Finding("broken", "plugins", f"{said:.300}", cure)
            else:
                sound += [f"{known.kind} {name} ({origin})"] if origin != "built in" else []
    yield Finding("ok", "plugins", some(sound) or "no installed package brings names")
