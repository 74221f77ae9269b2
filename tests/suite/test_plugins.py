"""Plugins of a suite: names that it alone knows, and every text that a plugin can be refused with."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qbench import registry
from qbench.errors import QBenchError
from qbench.suite.load import load_suite
from qbench.suite.plugins import find_file, loaded_for, public_name
from qbench.suite.schema import Suite

from .conftest import SUITE, Grid

Write = Callable[..., Path]

CLIP = """\
from qbench.plugin import IntegerQuantizer, QParams, register_quantizer


@register_quantizer("clip")
class Clip(IntegerQuantizer):
    share: float = 0.5

    def choose_qparams(self, blocks, grid):
        raise NotImplementedError
"""
WITH_CLIP = SUITE.replace("matrix:", "plugins: [clip.py]\nmatrix:").replace("[grid]", "[grid, clip]")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(files: dict[str, str], folder: str = ".") -> Path:
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / folder

    return write


def kind_of(suite: Suite, name: str = "clip") -> type:
    return next(type(one) for one in suite.matrix[0].quantizers if one.name == name)


def test_a_file_beside_the_suite_brings_its_names(load: Callable[..., Suite], write: Write) -> None:
    folder = write({"clip.py": CLIP})
    suite = load(WITH_CLIP)
    clip = suite.matrix[0].quantizers[1]
    assert (clip.name, clip.label(), clip.share) == ("clip", "clip[per_channel]", 0.5)
    assert suite.plugins == ("clip.py",)
    assert [(one.kind, one.name, one.target) for one in suite.plugin_names] == [("quantizer", "clip", type(clip))]
    assert str(folder) not in str(suite.model_dump(mode="json"))
    assert sorted(path.name for path in folder.iterdir()) == ["clip.py", "s.yaml"]


def test_its_names_are_known_to_that_suite_only(
    load: Callable[..., Suite], write: Write, refusal: Callable[..., str]
) -> None:
    write({"clip.py": CLIP})
    before = registry.QUANTIZERS.names()
    suite = load(WITH_CLIP)
    assert registry.QUANTIZERS.names() == before
    assert refusal(SUITE.replace("[grid]", "[clip]")).startswith("s.yaml:4: `matrix.quantizers[0]`: unknown quantizer")
    with registry.scope(suite.plugin_names):
        assert registry.QUANTIZERS.get("clip") is kind_of(suite)
        assert registry.QUANTIZERS.origin("clip") == "clip.py"


def test_files_of_one_name_do_not_meet(write: Write) -> None:
    texts = {"one": CLIP, "two": CLIP.replace("0.5", "0.25"), "three": CLIP}
    folders = [write({"clip.py": text, "s.yaml": WITH_CLIP}, name) for name, text in texts.items()]
    kinds = [kind_of(load_suite(str(folder / "s.yaml"))) for folder in folders]
    assert len(set(kinds)) == len({kind.__module__ for kind in kinds}) == 3
    assert [kind(name="clip").share for kind in kinds] == [0.5, 0.25, 0.5]
    for kind, folder in zip(kinds, folders, strict=True):
        spec = importlib.util.find_spec(kind.__module__)
        assert spec is not None and spec.origin == str(folder / "clip.py")
        assert pickle.loads(pickle.dumps(kind(name="clip"))) == kind(name="clip")
        (plugin,) = loaded_for([kind.__module__, "qbench.spec"])
        assert plugin.path == folder / "clip.py" and plugin.module == kind.__module__
        assert public_name(kind.__module__) == "plugins/clip"


def test_a_file_is_imported_once_and_again_when_it_has_changed(load: Callable[..., Suite], write: Write) -> None:
    folder = write({"clip.py": CLIP})
    first = kind_of(load(WITH_CLIP))
    assert kind_of(load(WITH_CLIP)) is first
    (plugin,) = loaded_for([first.__module__])
    write({"clip.py": CLIP.replace("0.5", "0.7")})  # as long, and within the same second
    second = kind_of(load(WITH_CLIP))
    assert (first(name="clip").share, second(name="clip").share) == (0.5, 0.7)
    assert find_file(folder / "clip.py").module == second.__module__ != plugin.module
    with pytest.raises(QBenchError, match=r"^clip\.py has changed since it was read: run again$"):
        plugin._import()


def test_files_beside_a_plugin_are_found_by_relative_import(load: Callable[..., Suite], write: Write) -> None:
    write({"shares.py": "SHARE = 0.125\n", "clip.py": "from .shares import SHARE\n" + CLIP.replace("0.5", "SHARE")})
    kind = kind_of(load(WITH_CLIP))
    assert kind(name="clip").share == 0.125
    assert "shares" not in sys.modules


def test_a_class_in_a_file_beside_a_plugin_comes_with_the_plugin(load: Callable[..., Suite], write: Write) -> None:
    folder = write({"grids.py": CLIP, "clip.py": "from . import grids\n"})
    kind = kind_of(load(WITH_CLIP))
    assert public_name(kind.__module__) == "plugins/grids"
    (plugin,) = loaded_for([kind.__module__])
    assert plugin.path == folder / "clip.py"


@pytest.mark.parametrize("given", ["mine", "mine/", "./mine", "sub/mine"])
def test_a_package_folder(load: Callable[..., Suite], write: Write, given: str) -> None:
    files = {
        "__init__.py": "from . import clip\n",
        "clip.py": "from .shares import SHARE\n" + CLIP,
        "shares.py": "SHARE = 1",
    }
    write({f"{given.strip('./')}/{name}": text for name, text in files.items()})
    kind = kind_of(load(WITH_CLIP.replace("clip.py", given)))
    assert public_name(kind.__module__) == "plugins/mine.clip"
    (plugin,) = loaded_for([kind.__module__])
    assert plugin.path is not None and plugin.path.name == "mine"
    write({f"{given.strip('./')}/shares.py": "SHARE = 2"})
    assert kind_of(load(WITH_CLIP.replace("clip.py", given))).__module__ != kind.__module__


def test_an_installed_package(load: Callable[..., Suite], write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write({"installed_clip/__init__.py": "", "installed_clip/deep.py": CLIP}, "elsewhere"))
    text = WITH_CLIP.replace("clip.py", "installed_clip.deep")
    kind = kind_of(load(text))
    assert kind.__module__ == "installed_clip.deep"
    assert kind_of(load(text)) is kind
    assert loaded_for([kind.__module__]) == ()


def test_a_plugin_brings_methods_and_models_of_several_files(load: Callable[..., Suite], write: Write) -> None:
    method = """\
from qbench.plugin import Method, register_method

@register_method("mine")
class Mine(Method):
    def solve(self, problem):
        raise NotImplementedError
"""
    write({"clip.py": CLIP, "mine.py": method})
    text = WITH_CLIP.replace("[clip.py]", "[clip.py, mine.py]").replace("[near,", "[near, mine,")
    suite = load(text)
    assert [one.name for one in suite.plugin_names] == ["clip", "mine"]
    assert suite.matrix[0].methods[1].name == "mine"


def test_what_a_plugin_prints_is_kept_out_of_tables(
    load: Callable[..., Suite], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write({"clip.py": CLIP + "\nprint('hello')\n"})
    load(WITH_CLIP)
    assert capsys.readouterr() == ("", "hello\n")


def test_a_plugin_needs_no_torch(write: Write) -> None:
    folder = write(
        {
            "clip.py": CLIP,
            "s.yaml": WITH_CLIP.replace("[zoo]", "[llama-1m]")
            .replace("[grid, clip]", "[clip]")
            .replace("[near, {name: train, steps: 10}]", "[rtn]"),
        }
    )
    program = (
        "import sys\nfrom qbench.suite.load import load_suite\n"
        f"load_suite({str(folder / 's.yaml')!r})\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


WRONG_CLASS = CLIP.replace("(IntegerQuantizer)", "").replace("share: float = 0.5", "pass")
UNFINISHED = CLIP.replace("choose_qparams", "choose_params")
ALLOWED = "(allowed: a .py file or a package folder in the suite's folder, or the dotted name of an installed package)"
HOW = "(allowed: @register_quantizer or @register_method of qbench.plugin, on a class)"

# (what `plugins` says, the files beside the suite, the answer after "s.yaml:2: ")
REFUSED: dict[str, tuple[str, dict[str, str], str]] = {
    "missing": ("[clip.py]", {}, f"`plugins[0]`: clip.py is not there {ALLOWED}"),
    "missing folder": ("[a/clip]", {}, f"`plugins[0]`: a/clip is not there {ALLOWED}"),
    "leaves the folder": (
        "[../clip.py]",
        {},
        "`plugins[0]`: the path '../clip.py' leaves the suite's folder (allowed: a path inside it)",
    ),
    "absolute": (
        "[/clip.py]",
        {},
        "`plugins[0]`: the path '/clip.py' is absolute (allowed: a path inside the suite's folder)",
    ),
    "no package": (
        "[mine]",
        {"mine/clip.py": CLIP},
        f"`plugins[0]`: mine is a folder without an __init__.py {ALLOWED}",
    ),
    "no Python": ("[./clip.txt]", {"clip.txt": CLIP}, f"`plugins[0]`: ./clip.txt is no .py file {ALLOWED}"),
    "no module's name": (
        "[my-clip.py]",
        {"my-clip.py": CLIP},
        "`plugins[0]`: my-clip.py cannot be imported by its name (allowed: letters, digits and _)",
    ),
    "not installed": (
        "[no_such_package.clip]",
        {},
        f"`plugins[0]`: no_such_package.clip is neither in the suite's folder nor installed {ALLOWED}",
    ),
    "no name at all": ("['my clip']", {}, f"`plugins[0]`: 'my clip' is no plugin {ALLOWED}"),
    "raises": (
        "[clip.py]",
        {"clip.py": CLIP + "\n\ndef half():\n    return 1 / 0\n\n\nhalf()\n"},
        "`plugins[0]`: clip.py, line 13: ZeroDivisionError: division by zero",
    ),
    "raises in many lines": (
        "[clip.py]",
        {"clip.py": "raise RuntimeError('no\\n  luck')\n"},
        "`plugins[0]`: clip.py, line 1: RuntimeError: no luck",
    ),
    "raises beside": (
        "[clip.py]",
        {"clip.py": "from .shares import SHARE\n", "shares.py": "\nSHARE = {}['x']\n"},
        "`plugins[0]`: clip.py, shares.py line 2: KeyError: 'x'",
    ),
    "syntax": (
        "[clip.py]",
        {"clip.py": CLIP + "\nclass Clip:\n"},
        "`plugins[0]`: clip.py, line 11: IndentationError: "
        "expected an indented block after class definition on line 11",
    ),
    "needs what is not there": (
        "[clip.py]",
        {"clip.py": "import no_such_package\n"},
        "`plugins[0]`: clip.py, line 1: ModuleNotFoundError: No module named 'no_such_package'",
    ),
    "imports its neighbour": (
        "[clip.py]",
        {"clip.py": "import shares_beside\n", "shares_beside.py": ""},
        "`plugins[0]`: clip.py, line 1: ModuleNotFoundError: No module named 'shares_beside' "
        "(a file beside a plugin is imported as `from .shares_beside import ...`)",
    ),
    "ends the process": (
        "[clip.py]",
        {"clip.py": "import sys\n\nsys.exit('bye')\n"},
        "`plugins[0]`: clip.py, line 3: SystemExit: bye",
    ),
    "interrupts itself": (
        "[clip.py]",
        {"clip.py": "\nraise KeyboardInterrupt\n"},
        "`plugins[0]`: clip.py, line 2: KeyboardInterrupt",
    ),
    "never ends": (
        "[clip.py]",
        {"clip.py": "def again():\n    again()\n\n\nagain()\n"},
        "`plugins[0]`: clip.py, line 2: RecursionError: maximum recursion depth exceeded",
    ),
    "registers nothing": (
        "[clip.py]",
        {"clip.py": CLIP.replace('@register_quantizer("clip")\n', "")},
        f"`plugins[0]`: clip.py registers nothing {HOW}",
    ),
    "a taken name": (
        "[clip.py]",
        {"clip.py": CLIP.replace('"clip"', '"grid"')},
        f"`plugins[0]`: clip.py, line 4: quantizer 'grid' is registered twice: {Grid.__module__}:Grid and clip.py:Clip",
    ),
    "a name that an earlier plugin took": (
        "[clip.py, other.py]",
        {"clip.py": CLIP, "other.py": CLIP},
        "`plugins[1]`: other.py, line 4: quantizer 'clip' is registered twice: clip.py:Clip and other.py:Clip",
    ),
    "no name that suites can say": (
        "[clip.py]",
        {"clip.py": CLIP.replace('"clip"', '"my clip"')},
        "`plugins[0]`: clip.py, line 4: quantizer 'my clip': clip.py:Clip: the name is none "
        "(allowed: letters, digits and the signs _ . + -)",
    ),
    "no list": ("clip.py", {}, "`plugins`: given 'clip.py' (allowed: a list)"),
    "no texts": ("[3]", {}, "`plugins[0]`: given 3 (allowed: text)"),
    "twice": ("[clip.py, clip.py]", {"clip.py": CLIP}, "`plugins[1]`: 'clip.py' is listed twice"),
}


REAL = {attribute: getattr(registry, attribute) for attribute in ("MODELS", "QUANTIZERS", "METHODS")}


@pytest.fixture
def real_names(names: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask of classes what the real registries ask, which those of these tests do not."""
    for attribute, known in REAL.items():
        monkeypatch.setattr(registry, attribute, known)


@pytest.mark.parametrize(("given", "files", "message"), REFUSED.values(), ids=REFUSED)
def test_a_plugin_that_cannot_be_used(
    refusal: Callable[..., str], write: Write, given: str, files: dict[str, str], message: str
) -> None:
    write(files)
    text = SUITE.replace("matrix:", f"plugins: {given}\nmatrix:")
    for _ in range(2):  # what failed once is not half there
        assert refusal(text) == f"s.yaml:2: {message}"


def test_an_interrupt_by_the_user_is_no_failure_of_a_plugin(load: Callable[..., Suite], write: Write) -> None:
    write({"clip.py": "import signal\nsignal.raise_signal(signal.SIGINT)\n" + CLIP})
    for _ in range(2):  # nor is it half there afterwards
        with pytest.raises(KeyboardInterrupt):
            load(WITH_CLIP)


@pytest.mark.usefixtures("real_names")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WRONG_CLASS, "is not a subclass of qbench.plugin.Quantizer"),
        (UNFINISHED, "does not write choose_qparams or choose_table"),
    ],
)
def test_a_class_that_is_no_quantizer(refusal: Callable[..., str], write: Write, text: str, message: str) -> None:
    write({"clip.py": text})
    assert refusal(WITH_CLIP) == f"s.yaml:2: `plugins[0]`: clip.py, line 4: quantizer 'clip': clip.py:Clip {message}"


def test_a_name_may_be_taken_later(refusal: Callable[..., str], load: Callable[..., Suite], write: Write) -> None:
    write({"clip.py": CLIP, "other.py": CLIP.replace("clip", "other_clip")})
    load(WITH_CLIP)
    write({"first.py": CLIP})
    said = refusal(WITH_CLIP.replace("[clip.py]", "[first.py, clip.py]"))
    assert said == "s.yaml:2: `plugins[1]`: quantizer 'clip' is registered twice: first.py:Clip and clip.py:Clip"


BAD_CLASSES = {
    "label": (
        "    def label(self):\n        return 1 / 0\n",
        "clip cannot be made: ZeroDivisionError: division by zero",
    ),
    "control": (
        "    def control(self):\n        raise RuntimeError('a\\nb')\n",
        "clip cannot be made: RuntimeError: a b",
    ),
    "post init": (
        "    def model_post_init(self, context):\n        raise KeyError('x')\n",
        "clip cannot be made: KeyError: 'x'",
    ),
    "an option that has no hash": (
        "    ends: list[float] = [0.0, 1.0]\n",
        "the option 'ends' is a list, and equal options must hash alike (allowed: a tuple)",
    ),
}


@pytest.mark.parametrize(("body", "message"), BAD_CLASSES.values(), ids=BAD_CLASSES)
def test_a_class_that_cannot_be_used(refusal: Callable[..., str], write: Write, body: str, message: str) -> None:
    write({"clip.py": f"{CLIP}\n{body}"})
    assert refusal(WITH_CLIP) == f"s.yaml:5: `matrix.quantizers[1]`: {message}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "def make():\n    class Inner(AbsMax):\n        pass\n    return Inner\n\n"
            "register_quantizer('inner')(make())\n",
            "inner",
        ),
        (
            "for name in ('one', 'two'):\n    @register_quantizer(name)\n    class Twice(AbsMax):\n        pass\n",
            "one",
        ),
    ],
    ids=["made in a function", "two of one name"],
)
def test_a_class_that_a_worker_could_not_find_is_refused(tmp_path: Path, text: str, name: str) -> None:
    file = tmp_path / "lost.py"
    file.write_text(
        f"from qbench.plugin import register_quantizer\nfrom qbench.quantizers.absmax import AbsMax\n{text}"
    )
    with pytest.raises(QBenchError) as caught:
        find_file(file).load()
    assert f"lost.py: quantizer {name!r} is the class" in str(caught.value)
    assert "a class at the top of the file, with a name of its own" in str(caught.value)
