"""How qbench is checked and run: `nox --list` shows the sessions, `nox -s bench -- --suite smoke` runs a suite.

All sessions but `lint` work in one environment under .nox, installed by the lists in pyproject.toml at the versions in
constraints.txt, and installed again only when these change. Where pip finds packages is pip's own configuration.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
STAMP = "installed.sha256"
# What processes of runs and tests import, and those that a cluster of Ray starts for itself.
IMPORTED = (
    "qbench.cli",
    "qbench.runner.execute",
    "qbench.tasks.causal_lm",
    "qbench.tasks.llama",
    "qbench.tasks.lm_eval_tasks",
    "datasets",
    "ray.dashboard.agent",
    "ray.dashboard.dashboard",
    "ray._private.runtime_env.agent.main",
    "ray._private.log_monitor",
    "ray.autoscaler._private.monitor",
    "ray.cluster_utils",
)


# A torch environment takes over a gigabyte and a minute, so the sessions share one instead of having one each.
shared = nox.session(venv_backend="none")


@shared
def tests(session: nox.Session) -> None:
    """Run the tests; posargs go to pytest."""
    qbench(session, "fetch")
    session.run(program(session, "python"), "-m", "pytest", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
def nightly(session: nox.Session) -> None:
    """Run the tests that take minutes, such as fifty kills and ten reruns; posargs go to pytest."""
    qbench(session, "fetch")
    python = program(session, "python")
    session.run(python, "-m", "pytest", "-m", "nightly", "--timeout=7200", *session.posargs, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check code and format with ruff."""
    install(session, Path(session.virtualenv.location), *(line for line in EXTRAS["dev"] if line.startswith("ruff")))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@shared
def typecheck(session: nox.Session) -> None:
    """Check types with mypy."""
    session.run(program(session, "python"), "-m", "mypy", *session.posargs, external=True)


@shared
def bench(session: nox.Session) -> None:
    """Run a suite: `nox -s bench -- --suite NAME`; posargs go to `qbench run`."""
    qbench(session, "fetch")
    command = [program(session, "qbench"), "run", *session.posargs]
    session.log(" ".join(["qbench", *command[1:]]))
    code = subprocess.run(command, check=False).returncode
    if code:
        # nox would turn every failure into 1; what `qbench run` says by its exit code goes on to the caller.
        sys.exit(code)


@nox.session(venv_backend="none", default=False)
def browser(session: nox.Session) -> None:
    """Open the HTML page in a headless Chromium; posargs go to pytest.

    The browser is the machine's: QBENCH_CHROMIUM says where, otherwise it is looked for. None is downloaded.
    """
    session.run(program(session, "python"), "-m", "pytest", "tests/browser", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
def perf(session: nox.Session) -> None:
    """Time the inner loops and print ratios; posargs go to pytest, and --write renews the table in docs/methods.md.

    Every run is saved under results/perf (--benchmark-compare compares with the last one).
    """
    qbench(session, "fetch")
    python, pages = program(session, "python"), ["docs/methods.md"] if "--write" in session.posargs else []
    asked = [argument for argument in session.posargs if argument != "--write"]
    saved = ["--benchmark-storage=file://results/perf", "--benchmark-autosave"]
    # glibc gives large temporaries back at each call, and page faults then cost more than the arithmetic.
    pinned = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
    command = ["-m", "pytest", "tests/perf", "--benchmark-only", "--timeout=3600", *saved, *asked]
    session.run(python, *command, external=True, env=pinned)
    session.run(python, "tests/perf/summary.py", "results/perf", *pages, external=True)


@nox.session(venv_backend="none", default=False)
def tables(session: nox.Session) -> None:
    """Write results/tables and results/figures again from results/records; nothing is run."""
    records = sorted(path.relative_to(ROOT) for path in (ROOT / "results" / "records").glob("*.jsonl.xz"))
    # The suite diagnose has no leaderboard: its records are judged by those of all others.
    boards = [str(path) for path in records if path.name != "diagnose.jsonl.xz"]
    qbench(session, "report", *boards, "--write", "--figures", "results/figures")
    judged = [f"results/records/{suite}.jsonl.xz" for suite in ("theory_llm", "theory_vision", "river_valley")]
    qbench(session, "claims", *judged, "--write", "--figures", "results/figures")
    qbench(session, "diagnose", "--judge", "--write")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the site of docs/ into build/site; with --write the generated parts of the pages are renewed first.

    It has a small environment of its own: building needs neither qbench nor torch. A link that leads nowhere is an
    error, and so is anything that a page would load from another host.
    """
    if "--write" in session.posargs:
        session.run(program(session, "python"), "docs/tools/pages.py", external=True)
    install(session, Path(session.virtualenv.location), *EXTRAS["docs"])
    session.run("python", "docs/tools/gathering.py", "build/docs")
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", "build", "--strict", "--config-file", "build/docs/mkdocs.yml", env=quiet)
    session.run("python", "docs/tools/offline.py", "build/site")


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write constraints.txt again; posargs name the packages whose version may change, `all` frees every one.

    Without posargs the pins stay as they are: what pyproject.toml newly needs is added, what nothing needs is dropped.
    """
    kept = Path(session.create_tmp()) / "kept.txt"
    pins = CONSTRAINTS.read_text().splitlines()
    freed = {normalized(name) for name in session.posargs}
    kept.write_text("\n".join(pin for pin in pins if not {normalized(pin.partition("==")[0]), "all"} & freed))
    report = kept.with_name("report.json")
    resolve = ["--dry-run", "--ignore-installed", "--quiet", "--constraint", str(kept), "--report", str(report)]
    session.run("python", "-m", "pip", "install", *resolve, f".[{','.join(EXTRAS)}]")
    found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    # A local version such as +cpu names a build of the same release; which build, the machine decides.
    versions = {normalized(one["name"]): one["version"].partition("+")[0] for one in found if one["name"] != "qbench"}
    header = [line for line in pins if line.startswith("#")]
    CONSTRAINTS.write_text("\n".join([*header, *(f"{name}=={versions[name]}" for name in sorted(versions))]) + "\n")


def qbench(session: nox.Session, *arguments: str) -> None:
    session.run(program(session, "qbench"), *arguments, external=True)


def program(session: nox.Session, name: str) -> str:
    """Return the path of a program in the shared environment, which is made or brought up to date first."""
    environment = ROOT / ".nox" / "py{}.{}".format(*sys.version_info)
    if not (environment / STAMP).exists():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(environment), external=True)
    if install(session, environment, "--editable", ".[dev]"):
        # Compiled once, also where Python is told to write no bytecode: without it every process takes seconds more,
        # and on a busy machine Ray's own come too late for one another.
        python = str(environment / ("Scripts" if sys.platform == "win32" else "bin") / "python")
        imports = "; ".join(f"import {name}" for name in IMPORTED)
        session.run(python, "-c", imports, external=True, env={"PYTHONDONTWRITEBYTECODE": ""})
    return str(environment / ("Scripts" if sys.platform == "win32" else "bin") / name)


def install(session: nox.Session, environment: Path, *requirements: str) -> bool:
    """Bring an environment up to date, and return whether anything had to be done."""
    # The settings of ruff, mypy and pytest are read where they stand; only these parts change what is installed.
    parts = [PYPROJECT["project"], PYPROJECT["build-system"], PYPROJECT["tool"]["hatch"]]
    inputs = json.dumps([parts, CONSTRAINTS.read_text(), requirements, str(ROOT)])
    wanted = hashlib.sha256(inputs.encode()).hexdigest()
    stamp = environment / STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return False
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    # Few of the thousands of modules are ever imported: Python compiles those when they are.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--constraint", str(CONSTRAINTS)]
    session.run(*pip, *requirements, external=True)
    stamp.write_text(wanted)
    return True


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
