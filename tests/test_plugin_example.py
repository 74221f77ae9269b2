"""An installable package with a quantizer and a method, found by its entry points; and packages that are broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "plugin_example"
QBENCH = Path(sys.executable).with_name("qbench")

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which pip has installed the example, from its sources, without a network."""
    sources = tmp_path_factory.mktemp("sources") / "plugin_example"
    shutil.copytree(EXAMPLE, sources)  # building leaves files beside the sources
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    done = subprocess.run(
        [*pip, "--quiet", "--disable-pip-version-check", "--target", target, sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def call(installed: Path, tmp_path: Path) -> Call:
    """Return a function that runs `qbench` where the example is installed, and packages in `more` as well."""

    def call(*arguments: str, more: Path | None = None) -> subprocess.CompletedProcess[str]:
        path = [str(one) for one in (more, installed, os.environ.get("PYTHONPATH")) if one]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_WAIT_POLICY": "passive"}
        return subprocess.run(
            [QBENCH, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return call


def test_its_names_are_listed_with_where_they_come_from(call: Call) -> None:
    for kind, name in (("quantizers", "sigma_clip"), ("methods", "stochastic")):
        done = call("list", kind, "--json")
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)[kind][name]
        assert row["origin"] == "qbench-example 1.0.0"
        assert row["about"] and "cannot be used" not in row["about"]
    assert "qbench-example 1.0.0" in call("list").stdout


def test_it_runs_in_a_suite_beside_ours(call: Call, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "example.yaml", tmp_path)
    done = call("run", "--suite", "example.yaml", "--device", "cpu", "--jobs", "1", "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["leaderboard"]["counts"]
    assert counts == {"expected": 5, "ok": 5}
    shown = call("report", "--suite", "example.yaml").stdout
    assert "sigma_clip[per_channel]" in shown and "stochastic[draws=4]" in shown and "grid: sigma_clip: -1," in shown
    stored = [json.loads(path.read_text()) for path in (tmp_path / "results/runs/example/records").glob("*.json")]
    own = next(
        one
        for one in stored
        if one["axes"]["method"] == "stochastic[draws=4]" and one["axes"]["quantizer"].startswith("sigma_clip")
    )
    assert {"qbench_example.sigma_clip"} <= set(own["key"]["quantizer"]["sources"])
    assert {"qbench_example.stochastic"} <= set(own["key"]["method"]["sources"])
    # Rounding to nearest is one of the draws.
    assert all(row["objective"] <= row["rtn_objective"] for row in own["layers"])
    assert any(row["objective"] < row["rtn_objective"] for row in own["layers"])


@pytest.fixture
def broken_packages(tmp_path: Path) -> Path:
    """Return a folder with distributions that name what is not there, what is taken, and what is no quantizer."""
    points = {
        "gone": {"gone": "no_such_module:Thing", "unmade": "json:NoSuchClass"},
        "greedy": {"absmax": "greedy:Mine", "sigma_clip": "greedy:Mine"},
        "confused": {"no_spec": "json:JSONDecoder", "no_quantizer": "qbench.methods.rtn:RoundToNearest"},
        "bare": {"bare": "qbench.plugin:IntegerQuantizer"},
        "rude": {"rude": "rude:Rude"},
    }
    folder = tmp_path / "broken_packages"
    for distribution, names in points.items():
        info = folder / f"{distribution}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n")
        listed = "\n".join(f"{name} = {reference}" for name, reference in names.items())
        (info / "entry_points.txt").write_text(f"[qbench.quantizers]\n{listed}\n")
    (folder / "rude.py").write_text("import sys\n\nprint('hello')\nsys.exit(5)\n")
    return folder


def test_broken_packages_hide_nothing(call: Call, broken_packages: Path, tmp_path: Path) -> None:
    done = call("list", "quantizers", "--json", more=broken_packages)
    assert done.returncode == 0, done.stderr
    found = {name: row["about"] for name, row in json.loads(done.stdout)["quantizers"].items()}
    assert {name: about for name, about in found.items() if "cannot be used" in about} == {
        f"{name}": f"cannot be used: quantizer '{name}'{reason}"
        for name, reason in {
            "gone": " cannot be loaded from no_such_module:Thing: "
            "ModuleNotFoundError: No module named 'no_such_module'",
            "unmade": " cannot be loaded from json:NoSuchClass: "
            "AttributeError: module 'json' has no attribute 'NoSuchClass'",
            "absmax": " is registered twice: qbench.quantizers.absmax:AbsMax and greedy:Mine of greedy 0.1",
            "sigma_clip": " is registered twice: greedy:Mine of greedy 0.1 and "
            "qbench_example.sigma_clip:SigmaClip of qbench-example 1.0.0",
            "no_spec": ": json.decoder:JSONDecoder is not a subclass of qbench.plugin.Quantizer",
            "no_quantizer": ": qbench.methods.rtn:RoundToNearest is not a subclass of qbench.plugin.Quantizer",
            "bare": ": qbench.quantizers.base:IntegerQuantizer does not write choose_qparams or choose_table",
            "rude": " cannot be loaded from rude:Rude: SystemExit: 5",
        }.items()
    }
    assert "cannot be used" not in found["mse"]
    assert "rtn" in call("list", "methods", more=broken_packages).stdout


def test_a_name_that_two_packages_want_is_told_of_where_a_suite_asks_for_it(
    call: Call, broken_packages: Path, tmp_path: Path
) -> None:
    text = (EXAMPLE / "example.yaml").read_text()
    (tmp_path / "example.yaml").write_text(text.replace("[absmax, sigma_clip]", "[mse]"))
    assert call("validate", "example.yaml", more=broken_packages).returncode == 0
    (tmp_path / "example.yaml").write_text(text)
    done = call("validate", "example.yaml", more=broken_packages)
    assert done.returncode == 2
    assert done.stderr == (
        "qbench: example.yaml:5: `matrix.quantizers[0]`: quantizer 'absmax' is registered twice: "
        "qbench.quantizers.absmax:AbsMax and greedy:Mine of greedy 0.1 (and 1 more)\n"
    )
