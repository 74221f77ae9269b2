"""Models from a folder, end to end; what is refused before anything is loaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError

from qbench.errors import AssetError, CellError
from qbench.methods.gptq import GPTQ
from qbench.methods.rtn import RoundToNearest
from qbench.quantizers.absmax import AbsMax
from qbench.quantizers.mse import MeanSquaredError
from qbench.runner.execute import execute
from qbench.runner.identity import identify
from qbench.runner.session import Session
from qbench.suite.cell import Cell
from qbench.tasks.causal_lm import CausalLM, ZooLM

if TYPE_CHECKING:
    from qbench.tasks.language import LanguageTask

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL: dict[str, Any] = {"evaluation_windows": 8, "calibration_windows": 8, "passages": 2, "choices": 4}


@pytest.fixture(scope="module")
def folder(small_task: LanguageTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded model as a folder that transformers has written."""
    place = tmp_path_factory.mktemp("model")
    small_task.model.save_pretrained(place)
    small_task.tokenizer.save_pretrained(place)
    return place


def spec_of(folder: Path, **options: Any) -> CausalLM:
    return CausalLM.model_validate({"name": "causal_lm", "title": "mine", "path": folder, **SMALL, **options})


def test_a_saved_model_gives_the_numbers_it_had_before(folder: Path, small_spec: ZooLM, tmp_path: Path) -> None:
    session = Session("cpu")
    loss = "loss/blocks128"
    records = {}
    for model in (spec_of(folder), small_spec):
        for method, quantizer, bits in ((None, None, None), (RoundToNearest(name="rtn"), AbsMax(name="absmax"), 4)):
            planned = identify(Cell(model, quantizer, bits, method, 0, ("loss", "bits_per_byte")))
            record = execute(planned, "test", session, tmp_path / f"{planned.cell_id}.safetensors")
            assert record.clean, record.reason
            records[model.name, bits] = record
    for bits in (None, 4):
        ours, theirs = records["causal_lm", bits], records["llama-1m", bits]
        assert ours.metrics[loss] == pytest.approx(theirs.metrics[loss], abs=1e-6)
        assert ours.metrics["bits_per_byte/rolling128"] == pytest.approx(theirs.metrics["bits_per_byte/rolling128"])
        assert ours.axes["model"] == "mine"
    assert records["causal_lm", 4].facts["quantized_layers"] == 28
    assert records["causal_lm", 4].metrics[loss] > records["causal_lm", None].metrics[loss]


def test_a_text_folder_of_ones_own(folder: Path, tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index}.txt").write_text(f"The story of number {index} begins here and goes on. " * 30)
    cell = Cell(spec_of(folder, text={"folder": str(tmp_path)}), None, None, None, 0, ("loss",))
    record = execute(identify(cell), "test", Session("cpu"), tmp_path / "weights")
    assert record.clean, record.reason
    assert 0 < record.metrics["loss/blocks128"] < math.log(1024)
    assert all(row.document.startswith(f"{tmp_path.name}/") for row in record.documents)


def test_a_folder_is_known_by_its_files_and_not_by_where_it_lies(folder: Path, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, moved)
    cells = [Cell(spec_of(place), None, None, None, 0, ("loss",)) for place in (folder, moved)]
    first, second = (identify(cell).cell_id for cell in cells)
    assert first == second
    before = spec_of(moved).fingerprint(0)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        content = (moved / name).read_bytes()
        (moved / name).write_bytes(content + b" ")
        assert spec_of(moved).fingerprint(0) != before, name
        (moved / name).write_bytes(content)
    assert spec_of(moved).fingerprint(0) == before
    (moved / "merges.txt").write_text("a b")
    assert spec_of(moved).fingerprint(0) != before


def test_a_folder_with_pickled_weights_only_is_refused(small_task: LanguageTask, tmp_path: Path) -> None:
    small_task.model.config.save_pretrained(tmp_path)
    small_task.tokenizer.save_pretrained(tmp_path)
    torch.save(small_task.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(AssetError) as caught:
        spec_of(tmp_path).fingerprint(0)
    said = f"model folder {tmp_path} holds no .safetensors file (weights: pytorch reads its .bin)"
    assert str(caught.value) == said
    with pytest.raises(AssetError, match=rf"^mine: no model can be loaded from {tmp_path}: ") as caught:
        spec_of(tmp_path).load(0, "cpu")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AssetError) as caught:
        spec_of(tmp_path / "nowhere").fingerprint(0)
    assert str(caught.value) == f"model folder {tmp_path / 'nowhere'} does not exist"


def test_a_repository_that_cannot_be_reached_is_one_line() -> None:
    spec = CausalLM(name="causal_lm", title="mine", repo="nobody/no-such-model", revision=COMMIT)
    assert spec.needs_hub()
    assert spec.fingerprint(0)["weights"] == f"nobody/no-such-model@{COMMIT}"
    with pytest.raises(AssetError, match=r"^mine: no model can be loaded from nobody/no-such-model: ") as caught:
        spec.load(0, "cpu")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either path or repo"),
        ({"path": "m", "repo": "a/b", "revision": COMMIT}, "give either path or repo"),
        ({"repo": "a/b"}, "repo needs revision, the full commit hash"),
        ({"path": "m", "revision": COMMIT}, "repo needs revision"),
        ({"repo": "a/b", "revision": "main"}, "'main' is not a full commit hash"),
        ({"repo": "a/b", "revision": COMMIT[:12]}, "is not a full commit hash"),
        ({"path": "m", "weights": "pytorch", "device_map": "streamed"}, "from safetensors files only"),
        ({"path": "m", "weights": "pickle"}, "Input should be 'safetensors' or 'pytorch'"),
        ({"path": "m", "text": "wikitext"}, "'wikitext' is not a text source"),
        ({"path": "m", "window": 4}, "greater than or equal to 8"),
        ({"path": "m", "evaluation_windows": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CausalLM.model_validate({"name": "causal_lm", "title": "mine", **options})


def test_what_comes_from_a_hub() -> None:
    assert not CausalLM(name="causal_lm", title="mine", path=Path("m")).needs_hub()
    text = {"repo": "a/b", "revision": COMMIT}
    assert CausalLM.model_validate({"name": "causal_lm", "title": "mine", "path": "m", "text": text}).needs_hub()
    assert not ZooLM(name="llama-1m").needs_hub()


def test_the_fingerprint_of_an_embedded_model_names_all_it_reads() -> None:
    found = ZooLM(name="llama-1m").fingerprint(0)
    assert set(found) == {"weights", "design", "tokenizer", "text/train", "text/calibration", "text/evaluation"}
    assert found != ZooLM(name="llama-1m").fingerprint(1)


def copied(folder: Path, place: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, place))


@pytest.mark.parametrize("setting", ["padding", "truncation"])
def test_what_a_tokenizer_file_says_of_padding_and_cutting_does_not_change_documents(
    folder: Path, tmp_path: Path, setting: str
) -> None:
    import json

    plain, other = copied(folder, tmp_path / "plain"), copied(folder, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer[setting] = {
        "padding": {
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
        "truncation": {"direction": "Right", "max_length": 100, "strategy": "LongestFirst", "stride": 0},
    }[setting]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    for index in range(40):
        (tmp_path / f"{index}.txt").write_text(f"The story of number {index} begins here and goes on. " * (20 + index))
    first, second = (
        spec_of(place, text={"folder": str(tmp_path)}).load(0, "cpu").evaluation.tokens for place in (plain, other)
    )
    assert torch.equal(first, second)


def test_a_tokenizer_without_a_beginning_measures_the_loss_and_says_what_to_leave_out(
    folder: Path, tmp_path: Path
) -> None:
    import json

    bare = copied(folder, tmp_path / "bare")
    config = json.loads((bare / "tokenizer_config.json").read_text())
    config = {key: value for key, value in config.items() if not key.endswith("_token")}
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    (bare / "special_tokens_map.json").unlink(missing_ok=True)
    task = spec_of(bare).load(0, "cpu")
    assert task.tokenizer.eos_token_id is None and task.tokenizer.bos_token_id is None
    assert task.evaluate(task.model, ("loss",)).metrics["loss/blocks128"] > 0
    with pytest.raises(
        CellError, match=r"neither a bos nor an eos token.*: leave out bits_per_byte and next_sentence$"
    ):
        task.evaluate(task.model, ("loss", "bits_per_byte", "next_sentence"))


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    import json

    other = copied(folder, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        {
            "id": 1024,
            "content": "<extra>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    )
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(AssetError, match=r"has 1025 tokens, the embedding 1024: they do not belong together$"):
        spec_of(other).load(0, "cpu")


def test_weights_that_are_cut_short_are_named_in_one_line(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(AssetError, match=r"^mine: no model can be loaded from .*broken: .+$"):
        spec_of(broken).load(0, "cpu")


@pytest.mark.parametrize("title", ["", " ", "a|b", "a,b", "a\n# b", "a/b", "a=b"])
def test_a_title_is_a_name_for_one_line(folder: Path, title: str) -> None:
    with pytest.raises(ValidationError, match="is not a title"):
        spec_of(folder, title=title)


def test_a_number_that_is_not_finite_is_no_option() -> None:
    for value in (math.inf, math.nan):
        with pytest.raises(ValidationError, match="finite number"):
            MeanSquaredError(name="mse", p=value)


@pytest.mark.parametrize("bn", ["recalibrate", "fold"])
def test_a_language_model_has_no_batch_norm_to_see_to(bn: str) -> None:
    method = RoundToNearest(name="rtn", bn=bn)  # type: ignore[arg-type]
    assert ZooLM(name="llama-1m").refuses_method(method) == f"llama-1m has no batch norm: there is nothing to {bn}"
    assert ZooLM(name="llama-1m").refuses_method(RoundToNearest(name="rtn")) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_in_half_precision_computes_in_it_and_says_so(folder: Path, tmp_path: Path, dtype: str) -> None:
    session, spec, whole = Session("cpu"), spec_of(folder, dtype=dtype), spec_of(folder)
    assert {parameter.dtype for parameter in spec.load(0, "cpu").model.parameters()} == {getattr(torch, dtype)}
    losses = []
    for method in (None, RoundToNearest(name="rtn"), GPTQ(name="gptq")):
        quantized = (None, None, None) if method is None else (AbsMax(name="absmax"), 4, method)
        half, full = (
            execute(identify(Cell(model, *quantized, 0, ("loss",))), "s", session, tmp_path / "w")
            for model in (spec, whole)
        )
        assert half.clean, (half.reason, half.facts.get("traceback"))
        assert half.facts["dtype"] == dtype and "dtype" not in full.facts
        losses.append((half.metrics["loss/blocks128"], full.metrics["loss/blocks128"]))
    assert all(half == pytest.approx(full, abs=0.02) and half != full for half, full in losses)
    assert losses[0][0] < losses[2][0] < losses[1][0]


def test_a_model_without_a_title_is_called_what_its_folder_or_repository_is_called() -> None:
    def named(**options: Any) -> str:
        return CausalLM.model_validate({"name": "causal_lm", **options}).label()

    assert named(path="models/tiny") == "tiny"
    assert named(repo="HuggingFaceTB/SmolLM2-135M", revision=COMMIT) == "SmolLM2-135M"
    assert named(path="models/tiny", title="Tiny") == "Tiny"
    with pytest.raises(ValidationError, match=r"'a,b' is not a title \(allowed: .*\): give one as title"):
        named(path="models/a,b")


def test_weights_of_pytorch_are_read_where_they_are_asked_for_and_are_part_of_the_cell(
    folder: Path, tmp_path: Path
) -> None:
    plain = spec_of(folder).load(0, "cpu").model
    other = copied(folder, tmp_path / "other")
    (other / "model.safetensors").unlink()
    with pytest.raises(AssetError, match=r"holds no \.safetensors file$"):
        spec_of(other).fingerprint(0)
    with pytest.raises(AssetError, match="no model can be loaded"):
        spec_of(other).load(0, "cpu")
    torch.save(plain.state_dict(), other / "pytorch_model.bin")
    spec = spec_of(other, weights="pytorch")
    found = spec.load(0, "cpu").model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in plain.state_dict().items())
    assert "model/pytorch_model.bin" in spec.fingerprint(0)
    with pytest.raises(AssetError, match=r"holds no \.bin file$"):
        spec_of(folder, weights="pytorch").fingerprint(0)


def test_code_in_weights_of_pytorch_is_not_run(folder: Path, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    other = copied(folder, tmp_path / "other")
    (other / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Runs()}, other / "pytorch_model.bin")
    with pytest.raises(AssetError, match="no model can be loaded"):
        spec_of(other, weights="pytorch").load(0, "cpu")
    assert not (tmp_path / "ran").exists()


def test_windows_longer_than_the_positions_are_refused_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"mine: window 1024 is longer than the model's 512 positions \(allowed"):
        spec_of(folder, window=1024).fingerprint(0)
    cell = Cell(spec_of(folder, window=1024), None, None, None, 0, ("loss",))
    with pytest.raises(AssetError, match="longer than the model's 512 positions"):
        cell.model.load(0, "cpu")  # type: ignore[attr-defined]


def test_a_folder_without_a_tokenizer_is_refused_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    with pytest.raises(AssetError, match=r"holds no tokenizer \(a fast one: tokenizer.json\)"):
        spec_of(bare).fingerprint(0)
    (bare / "config.json").unlink()
    with pytest.raises(AssetError, match=r"holds no config\.json"):
        spec_of(bare).fingerprint(0)


def test_what_records_will_call_the_metrics(folder: Path) -> None:
    names = spec_of(folder, window=64).metric_names(("loss", "bits_per_byte", "lm_eval:arc_easy"))
    assert names == ("loss/blocks64", "perplexity/blocks64", "bits_per_byte/rolling64", "arc_easy/")
    assert "perplexity/gptq64" in spec_of(folder, window=64, convention="gptq").metric_names(("loss",))
