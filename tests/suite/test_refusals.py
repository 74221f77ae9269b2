"""Every text that a wrong suite can be answered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qbench.errors import UnknownNameError
from qbench.suite.load import load_suite

from .conftest import SUITE

METHODS = "methods: [near, {name: train, steps: 10}]"

# (a line of SUITE, what stands there instead, the answer)
LINES = {
    "name of another file": (
        "name: s",
        "name: t",
        "s.yaml:1: `name`: given 't' (allowed: the file's own name, 's')",
    ),
    "name is no text": ("name: s", "name: 3", "s.yaml:1: `name`: given 3 (allowed: text)"),
    "name is empty": ("name: s", "name: ''", "s.yaml:1: `name`: given '' (allowed: text that is not empty)"),
    "no name": ("name: s\n", "", "s.yaml:1: 'name' is missing"),
    "unknown top key": (
        "name: s",
        "name: s\nexlude: []",
        "s.yaml:2: `exlude`: unknown key 'exlude': did you mean 'exclude'? "
        "(allowed: about, exclude, matrix, metrics, name, plugins, presets, xref)",
    ),
    "the file is no key": (
        "name: s",
        "name: s\nfile: s.yaml",
        "s.yaml:2: `file`: unknown key 'file' (allowed: about, exclude, matrix, metrics, name, plugins, presets, xref)",
    ),
    "no bits": ("  bits: [4, 2]\n", "", "s.yaml:2: `matrix`: 'bits' is missing"),
    "unknown axis": (
        "  seeds: 2",
        "  seeds: 2\n  method: [near]",
        "s.yaml:8: `matrix.method`: unknown key 'method': did you mean 'methods'? "
        "(allowed: bits, methods, models, probes, quantizers, seeds, trajectory)",
    ),
    "0 bits": ("[4, 2]", "[4, 0]", "s.yaml:5: `matrix.bits[1]`: given 0 (allowed: a whole number from 1 to 8)"),
    "9 bits": ("[4, 2]", "[9]", "s.yaml:5: `matrix.bits[0]`: given 9 (allowed: a whole number from 1 to 8)"),
    "bits is a bool": (
        "[4, 2]",
        "[yes]",
        "s.yaml:5: `matrix.bits[0]`: given true (allowed: a whole number from 1 to 8)",
    ),
    "bits is a float": (
        "[4, 2]",
        "[4.0]",
        "s.yaml:5: `matrix.bits[0]`: given 4.0 (allowed: a whole number from 1 to 8)",
    ),
    "bits is text": ("[4, 2]", "['4']", "s.yaml:5: `matrix.bits[0]`: given '4' (allowed: a whole number from 1 to 8)"),
    "bits is no list": ("[4, 2]", "4", "s.yaml:5: `matrix.bits`: given 4 (allowed: a list)"),
    "bits is empty": ("[4, 2]", "[]", "s.yaml:5: `matrix.bits`: given [] (allowed: at least one entry)"),
    "bits twice": ("[4, 2]", "[4, 2, 4]", "s.yaml:5: `matrix.bits[2]`: '4' is listed twice"),
    "no seeds": (
        "seeds: 2",
        "seeds: 0",
        "s.yaml:7: `matrix.seeds`: given 0 (allowed: a number of seeds from 1 to 1000, or a list of seeds)",
    ),
    "too many seeds": (
        "seeds: 2",
        "seeds: 1001",
        "s.yaml:7: `matrix.seeds`: given 1001 (allowed: a number of seeds from 1 to 1000, or a list of seeds)",
    ),
    "seeds is a bool": (
        "seeds: 2",
        "seeds: true",
        "s.yaml:7: `matrix.seeds`: given true (allowed: a number of seeds from 1 to 1000, or a list of seeds)",
    ),
    "negative seed": (
        "seeds: 2",
        "seeds: [0, -1]",
        "s.yaml:7: `matrix.seeds[1]`: given -1 (allowed: a whole number, 0 or more)",
    ),
    "seed is a bool": (
        "seeds: 2",
        "seeds: [no]",
        "s.yaml:7: `matrix.seeds[0]`: given false (allowed: a whole number, 0 or more)",
    ),
    "seed twice": ("seeds: 2", "seeds: [3, 3]", "s.yaml:7: `matrix.seeds[1]`: '3' is listed twice"),
    "empty seeds": ("seeds: 2", "seeds: []", "s.yaml:7: `matrix.seeds`: given [] (allowed: at least one entry)"),
    "unknown method": (
        "methods: [near, ",
        "methods: [naer, ",
        "s.yaml:6: `matrix.methods[0]`: unknown method 'naer': did you mean 'near'? "
        "(allowed: broken, near, train, warm)",
    ),
    "unknown model in a mapping": (
        "[zoo]",
        "[{name: zo0}]",
        "s.yaml:3: `matrix.models[0].name`: unknown model 'zo0': did you mean 'zoo'? "
        "(allowed: broken, disk, odd, seer, single, speaker, zoo)",
    ),
    "a name that cannot be loaded": (
        "[grid]",
        "[broken]",
        "s.yaml:4: `matrix.quantizers[0]`: quantizer 'broken' cannot be loaded from qbench.suite:Missing: "
        "AttributeError: module 'qbench.suite' has no attribute 'Missing'",
    ),
    "entry without a name": ("[grid]", "[{clip: 2}]", "s.yaml:4: `matrix.quantizers[0]`: 'name' is missing"),
    "entry with a name that is no text": (
        "[grid]",
        "[{name: 4}]",
        "s.yaml:4: `matrix.quantizers[0].name`: given 4 (allowed: text)",
    ),
    "entry that is nothing": (
        "[grid]",
        "[~]",
        "s.yaml:4: `matrix.quantizers[0]`: given nothing (allowed: a name, or a mapping with a name and options)",
    ),
    "entries that are no list": ("[grid]", "grid", "s.yaml:4: `matrix.quantizers`: given 'grid' (allowed: a list)"),
    "no entries": ("[grid]", "[]", "s.yaml:4: `matrix.quantizers`: given [] (allowed: at least one entry)"),
    "entry twice": (
        "[grid]",
        "[grid, other, {name: grid, clip: 1}]",
        "s.yaml:4: `matrix.quantizers[2]`: 'grid' is listed twice",
    ),
    "entry twice with options": (
        METHODS,
        "methods: [{name: train, steps: 10}, {name: train, steps: 10}]",
        "s.yaml:6: `matrix.methods[1]`: 'train[steps=10]' is listed twice",
    ),
    "unknown option": (
        METHODS,
        "methods:\n  - near\n  - name: train\n    stpes: 10",
        "s.yaml:9: `matrix.methods[1].stpes`: unknown option 'stpes' of train: did you mean 'steps'? "
        "(allowed: layers, rate, steps)",
    ),
    "option out of its range": (
        "steps: 10",
        "steps: 0",
        "s.yaml:6: `matrix.methods[1].steps`: given 0 (allowed: 1 or more)",
    ),
    "option of another type": (
        "steps: 10",
        "steps: many",
        "s.yaml:6: `matrix.methods[1].steps`: given 'many' (allowed: a whole number)",
    ),
    "option that is a fraction": (
        "steps: 10",
        "steps: 1.5",
        "s.yaml:6: `matrix.methods[1].steps`: given 1.5 (allowed: a whole number)",
    ),
    "number that is a bool": (
        "steps: 10",
        "steps: yes",
        "s.yaml:6: `matrix.methods[1].steps`: given true (allowed: a number)",
    ),
    "bool that is text": (
        "[near, ",
        "[{name: near, order: up}, ",
        "s.yaml:6: `matrix.methods[0].order`: given 'up' (allowed: true or false)",
    ),
    "option that is nothing": (
        "[grid]",
        "[{name: grid, clip: ~}]",
        "s.yaml:4: `matrix.quantizers[0].clip`: given nothing (allowed: a number)",
    ),
    "option at an open end": (
        "[grid]",
        "[{name: grid, clip: 0}]",
        "s.yaml:4: `matrix.quantizers[0].clip`: given 0 (allowed: more than 0.0)",
    ),
    "option that is infinite": (
        "[grid]",
        "[{name: grid, clip: .inf}]",
        "s.yaml:4: `matrix.quantizers[0].clip`: given inf (allowed: a finite number)",
    ),
    "option not in its list": (
        "[grid]",
        "[{name: grid, granularity: per_chanel}]",
        "s.yaml:4: `matrix.quantizers[0].granularity`: given 'per_chanel': did you mean 'per_channel'? "
        "(allowed: per_channel, per_tensor)",
    ),
    "one answer for a union": (
        "steps: 10",
        "rate: fast",
        "s.yaml:6: `matrix.methods[1].rate`: given 'fast' (allowed: a number)",
    ),
    "list in an option": (
        "steps: 10",
        "layers: head",
        "s.yaml:6: `matrix.methods[1].layers`: given 'head' (allowed: a list)",
    ),
    "refused by the class": ("steps: 10", "layers: [head]", "s.yaml:6: `matrix.methods[1]`: the head is never trained"),
    "long values are cut": (
        "[grid]",
        f"[{{name: grid, clip: {'x' * 99}}}]",
        f"s.yaml:4: `matrix.quantizers[0].clip`: given '{'x' * 56}... (allowed: a number)",
    ),
    "several": (
        "quantizers: [grid]\n  bits: [4, 2]",
        "quantizers: [grit]\n  bits: [4, 0, 9]",
        "s.yaml:4: `matrix.quantizers[0]`: unknown quantizer 'grit': did you mean 'grid'? "
        "(allowed: broken, grid, other) (and 2 more)",
    ),
    "several missing": (
        "  bits: [4, 2]\n  " + METHODS + "\n",
        "",
        "s.yaml:2: `matrix`: 'bits' is missing (and 1 more)",
    ),
}

# (what stands below SUITE, the answer)
TAILS = {
    "unknown metric": (
        "metrics: [loss, bits_per_bit]",
        "s.yaml:8: `metrics[1]`: given 'bits_per_bit': did you mean 'bits_per_byte'? "
        "(allowed: accuracy, bits_per_byte, byte_perplexity, lm_eval:TASK, loss, next_sentence, word_perplexity)",
    ),
    "metric twice": ("metrics: [loss, loss]", "s.yaml:8: `metrics[1]`: 'loss' is listed twice"),
    "no metrics": ("metrics: []", "s.yaml:8: `metrics`: given [] (allowed: at least one entry)"),
    "about is no text": ("about: 2020-01-02", "s.yaml:8: `about`: given 2020-01-02 (allowed: text)"),
    "exclude is nothing": ("exclude:", "s.yaml:8: `exclude`: given nothing (allowed: a list)"),
    "exclusion is text": ("exclude: [zoo]", "s.yaml:8: `exclude[0]`: given 'zoo' (allowed: a mapping)"),
    "exclusion without a reason": ("exclude:\n  - when: {bits: 2}", "s.yaml:9: `exclude[0]`: 'reason' is missing"),
    "reason of blanks": (
        "exclude:\n  - when: {bits: 2}\n    reason: ' '",
        "s.yaml:10: `exclude[0].reason`: given ' ' (allowed: text that is not empty)",
    ),
    "unknown axis of an exclusion": (
        "exclude:\n  - when: {method: near}\n    reason: slow",
        "s.yaml:9: `exclude[0].when.method`: unknown key 'method': did you mean 'methods'? "
        "(allowed: bits, methods, models, quantizers, seeds)",
    ),
    "exclusion without an axis": (
        "exclude:\n  - when: {}\n    reason: slow",
        "s.yaml:9: `exclude[0].when`: names no axis (allowed: bits, methods, models, quantizers, seeds)",
    ),
    "empty axis of an exclusion": (
        "exclude:\n  - when: {methods: []}\n    reason: slow",
        "s.yaml:9: `exclude[0].when.methods`: given [] (allowed: at least one entry)",
    ),
    "bits of an exclusion": (
        "exclude:\n  - when: {bits: [2, x]}\n    reason: slow",
        "s.yaml:9: `exclude[0].when.bits[1]`: given 'x' (allowed: a whole number from 1 to 8)",
    ),
    "name of an exclusion is no text": (
        "exclude:\n  - when: {models: 3}\n    reason: slow",
        "s.yaml:9: `exclude[0].when.models`: given 3 (allowed: text)",
    ),
    "presets are no mapping": ("presets: [fast]", "s.yaml:8: `presets`: given ['fast'] (allowed: a mapping)"),
    "preset is no mapping": ("presets: {fast: 3}", "s.yaml:8: `presets.fast`: given 3 (allowed: a mapping)"),
}

# (presets, a method, the answer)
PRESETS = {
    "unknown preset": (
        "{fast: {steps: 5}}",
        "{name: train, preset: fats}",
        "s.yaml:6: `matrix.methods[0].preset`: unknown preset 'fats': did you mean 'fast'? (allowed: fast)",
    ),
    "no presets at all": (
        "{}",
        "{name: train, preset: fast}",
        "s.yaml:6: `matrix.methods[0].preset`: unknown preset 'fast' (allowed: none)",
    ),
    "preset is a list": (
        "{fast: {steps: 5}}",
        "{name: train, preset: [fast]}",
        "s.yaml:6: `matrix.methods[0].preset`: unknown preset ['fast']: did you mean 'fast'? (allowed: fast)",
    ),
    "preset of a preset": (
        "{slow: {steps: 5}, fast: {preset: slow}}",
        "{name: train, preset: fast}",
        "s.yaml:6: `matrix.methods[0].preset`: the preset 'fast' names a preset (allowed: options)",
    ),
    "wrong option in a preset": (
        "{fast: {steps: 0}}",
        "{name: train, preset: fast}",
        "s.yaml:8: `presets.fast.steps`: given 0 (allowed: 1 or more)",
    ),
    "wrong option in a preset used twice": (
        "{fast: {steps: 0}}",
        "{name: train, preset: fast}, {name: train, preset: fast, rate: 2}",
        "s.yaml:8: `presets.fast.steps`: given 0 (allowed: 1 or more)",
    ),
    "wrong option beside a preset": (
        "{fast: {steps: 5}}",
        "{name: train, preset: fast, steps: 0}",
        "s.yaml:6: `matrix.methods[0].steps`: given 0 (allowed: 1 or more)",
    ),
    "neither has a name": ("{fast: {steps: 5}}", "{preset: fast}", "s.yaml:6: `matrix.methods[0]`: 'name' is missing"),
}


def test_the_suite_that_is_changed_here_is_right(load: Callable[..., object]) -> None:
    load(SUITE)


@pytest.mark.parametrize(("line", "instead", "message"), LINES.values(), ids=LINES)
def test_a_wrong_line(refusal: Callable[..., str], line: str, instead: str, message: str) -> None:
    assert SUITE.count(line) == 1
    assert refusal(SUITE.replace(line, instead)) == message


@pytest.mark.parametrize(("tail", "message"), TAILS.values(), ids=TAILS)
def test_a_wrong_tail(refusal: Callable[..., str], tail: str, message: str) -> None:
    assert refusal(f"{SUITE}{tail}\n") == message


@pytest.mark.parametrize(("presets", "methods", "message"), PRESETS.values(), ids=PRESETS)
def test_a_wrong_preset(refusal: Callable[..., str], presets: str, methods: str, message: str) -> None:
    assert refusal(SUITE.replace(METHODS, f"methods: [{methods}]") + f"presets: {presets}\n") == message


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ("[]", "s.yaml:2: `matrix`: given [] (allowed: at least one entry)"),
        ("~", "s.yaml:2: `matrix`: given nothing (allowed: a mapping)"),
        ("[1]", "s.yaml:2: `matrix[0]`: given 1 (allowed: a mapping)"),
    ],
)
def test_a_matrix_that_is_none(refusal: Callable[..., str], matrix: str, message: str) -> None:
    assert refusal(f"name: s\nmatrix: {matrix}\n") == message


@pytest.mark.parametrize(
    ("models", "metrics", "message"),
    [
        (
            "[speaker]",
            "[loss, accuracy]",
            "s.yaml:8: `metrics[1]`: 'accuracy' is measured by no model of the suite (allowed: bits_per_byte, loss)",
        ),
        (
            "[seer]",
            "[next_sentence, bits_per_byte, loss]",
            "s.yaml:8: `metrics[0]`: 'next_sentence' is measured by no model of the suite (allowed: accuracy, loss) "
            "(and 1 more)",
        ),
        (
            "[seer, speaker]",
            "[bits_per_byte]",
            "s.yaml:8: `metrics`: none of these is measured by seer (allowed: accuracy, loss)",
        ),
    ],
)
def test_what_no_model_measures(refusal: Callable[..., str], models: str, metrics: str, message: str) -> None:
    assert refusal(SUITE.replace("[zoo]", models) + f"metrics: {metrics}\n") == message


def test_the_path_of_a_list_of_blocks(refusal: Callable[..., str]) -> None:
    block = "{models: [zoo], quantizers: [grid], bits: [%s], methods: [near], seeds: 1}"
    text = f"name: s\nmatrix:\n  - {block % 4}\n  - {block % 0}\n"
    assert refusal(text) == "s.yaml:4: `matrix[1].bits[0]`: given 0 (allowed: a whole number from 1 to 8)"


def test_the_first_by_line_is_told(refusal: Callable[..., str]) -> None:
    text = "metrics: [lost]\n" + SUITE.replace("[4, 2]", "[0]")
    assert refusal(text) == (
        "s.yaml:1: `metrics[0]`: given 'lost': did you mean 'loss'? "
        "(allowed: accuracy, bits_per_byte, byte_perplexity, lm_eval:TASK, loss, next_sentence, word_perplexity) "
        "(and 1 more)"
    )


def test_unknown_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qbench.suite.load.list_suites", lambda: {"llm_lowbit": tmp_path, "cnn": tmp_path})
    with pytest.raises(UnknownNameError) as caught:
        load_suite("llm_lowbits")
    assert str(caught.value) == "unknown suite 'llm_lowbits': did you mean 'llm_lowbit'? (allowed: cnn, llm_lowbit)"
