"""What a suite file may say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from qbench import registry
from qbench.errors import SuiteError
from qbench.spec import Spec
from qbench.suite.bounds import parse_bits, parse_seed, parse_seeds
from qbench.suite.entry import resolve_entry
from qbench.suite.limits import MAX_ENTRIES, MAX_EXCLUSIONS, MAX_NAME
from qbench.suite.metrics import Metric, check_measured, measured_by_default
from qbench.suite.problems import problems, shown
from qbench.suite.source import Source, YamlPath, show_path
from qbench.suite.xref import Xref


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _at_most(most: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, list) and len(value) > most:
            raise problems([(f"{len(value)} entries (allowed: at most {most})", ())])
        return value

    return BeforeValidator(check)


def _check_distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    labels = [value.label() if isinstance(value, Spec) else str(value) for value in values]
    first: dict[str, int] = {}
    for index, label in enumerate(labels):
        first.setdefault(label, index)
    twice = [
        (f"{shown(label)} is listed twice", (index,)) for index, label in enumerate(labels) if first[label] < index
    ]
    if twice:
        raise problems(twice)
    return values


def _entry(find: Callable[[], registry.Registry], *, has_paths: bool = False) -> BeforeValidator:
    def resolve(value: Any, info: ValidationInfo) -> Spec:
        return resolve_entry(value, find(), info.context, has_paths=has_paths)

    return BeforeValidator(resolve)


_Model = Annotated[SerializeAsAny[Spec], _entry(lambda: registry.MODELS, has_paths=True)]
_Quantizer = Annotated[SerializeAsAny[Spec], _entry(lambda: registry.QUANTIZERS)]
_Method = Annotated[SerializeAsAny[Spec], _entry(lambda: registry.METHODS)]
_Probe = Annotated[SerializeAsAny[Spec], _entry(lambda: registry.PROBES)]
_Bits = Annotated[int, BeforeValidator(parse_bits)]
_Seed = Annotated[int, BeforeValidator(parse_seed)]

_NOT_EMPTY = Field(min_length=1)
_DISTINCT = AfterValidator(_check_distinct)
_ONE_OR_MORE = BeforeValidator(_as_list)
_FEW = _at_most(MAX_ENTRIES)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Block(_Part):
    """Axes whose every combination is a cell.

    Attributes
    ----------
    models : tuple of Spec
        What is quantized, with its data.
    quantizers : tuple of Spec
        The grids that are laid over the weights.
    methods : tuple of Spec
        What picks the quantized weights on these grids.
    bits : tuple of int
        Bits a weight code, 1 to 8.
    seeds : tuple of int
        The seeds themselves; a file may give their number instead. Seed 0 alone when left out.
    probes : tuple of Spec
        What is measured around the weights, on the same grids. A block that has some needs no methods: the cells whose
        weights they read may be another block's.
    trajectory : int
        At most how often the weights are measured while a method trains the whole model; 0 for never. The moments lie
        geometrically, and evenly in the last fifth of the steps.
    """

    models: Annotated[tuple[_Model, ...], _NOT_EMPTY, _DISTINCT, _FEW]
    quantizers: Annotated[tuple[_Quantizer, ...], _NOT_EMPTY, _DISTINCT, _FEW]
    bits: Annotated[tuple[_Bits, ...], _NOT_EMPTY, _DISTINCT, _FEW]
    probes: Annotated[tuple[_Probe, ...], _NOT_EMPTY, _DISTINCT, _FEW] = ()
    methods: Annotated[tuple[_Method, ...], _DISTINCT, _FEW] = Field(default=(), validate_default=True)
    seeds: Annotated[tuple[_Seed, ...], _NOT_EMPTY, _DISTINCT, BeforeValidator(parse_seeds), _FEW] = (0,)
    trajectory: Annotated[int, Field(ge=0, le=100_000)] = 0

    @field_validator("methods")
    @classmethod
    def _does_something(cls, methods: tuple[Spec, ...], info: ValidationInfo) -> tuple[Spec, ...]:
        if not methods and info.data.get("probes") == ():
            raise problems([("'methods' is missing", ())])
        return methods


class When(_Part):
    """Which cells an exclusion means: those that match on every axis named; an empty axis is not named.

    Attributes
    ----------
    models, quantizers, methods : tuple of str
        Registry names, or full labels such as ``gptq[act_order=false]``.
    bits, seeds : tuple of int
        Values of these axes.
    """

    models: Annotated[tuple[str, ...], _NOT_EMPTY, _ONE_OR_MORE, _FEW] = ()
    quantizers: Annotated[tuple[str, ...], _NOT_EMPTY, _ONE_OR_MORE, _FEW] = ()
    bits: Annotated[tuple[_Bits, ...], _NOT_EMPTY, _ONE_OR_MORE, _FEW] = ()
    methods: Annotated[tuple[str, ...], _NOT_EMPTY, _ONE_OR_MORE, _FEW] = ()
    seeds: Annotated[tuple[_Seed, ...], _NOT_EMPTY, _ONE_OR_MORE, _FEW] = ()

    @model_validator(mode="after")
    def _names_an_axis(self) -> When:
        if not self.model_fields_set:
            raise ValueError(f"names no axis (allowed: {', '.join(sorted(type(self).model_fields))})")
        return self


class Exclusion(_Part):
    """Cells that are left out, and why.

    Attributes
    ----------
    when : When
        Which cells.
    reason : str
        Shown wherever the cells are missed.
    """

    when: When
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def _models_of(data: dict[str, Any]) -> list[Spec]:
    """Return the models of a suite's validated fields, each once; none where its matrix is wrong."""
    return list({model.label(): model for block in data.get("matrix", ()) for model in block.models}.values())


class Suite(_Part):
    """A suite file, all entries resolved.

    Attributes
    ----------
    name : str
        What the suite is called; the file's name without its ending.
    about : str
        One line for lists of suites.
    plugins : tuple of str
        Files and package folders beside the suite, and installed packages, whose names it uses.
    presets : dict of str to dict
        Options written once, by the name that entries give as ``preset``.
    matrix : tuple of Block
        What is combined with what; a file may give a single block.
    exclude : tuple of Exclusion
        Cells that are left out, and why.
    metrics : tuple of str
        What is measured: ``loss``; of language models ``bits_per_byte``, ``next_sentence``, ``word_perplexity``,
        ``byte_perplexity`` and any task of lm-eval as ``lm_eval:TASK``; of image classifiers ``accuracy``. A cell
        measures those that its model can. When left out: of ``loss``, ``bits_per_byte``, ``next_sentence`` and
        ``accuracy`` all that the suite's models can.
    xref : tuple of Xref
        Numbers that others have published of its cells, which a run is shown beside.
    """

    name: Annotated[str, Field(min_length=1)]
    about: str = ""
    plugins: Annotated[tuple[str, ...], _DISTINCT, _FEW] = ()
    presets: dict[str, dict[str, Any]] = {}
    matrix: Annotated[tuple[Block, ...], _NOT_EMPTY, _ONE_OR_MORE, _FEW]
    exclude: Annotated[tuple[Exclusion, ...], _at_most(MAX_EXCLUSIONS)] = ()
    metrics: Annotated[tuple[Metric, ...], _NOT_EMPTY, _DISTINCT, _FEW] = Field(
        default_factory=lambda data: measured_by_default(_models_of(data))
    )
    xref: Annotated[tuple[Xref, ...], _FEW] = ()

    _source: Source | None = PrivateAttr(default=None)
    _plugin_names: tuple[registry.Registered, ...] = PrivateAttr(default=())

    @property
    def plugin_names(self) -> tuple[registry.Registered, ...]:
        """What its plugins register: names that are known inside ``registry.scope(suite.plugin_names)``."""
        return self._plugin_names

    def add_plugin_names(self, names: Sequence[registry.Registered]) -> None:
        """Remember what the suite's plugins registered."""
        self._plugin_names = (*self._plugin_names, *names)

    @property
    def file(self) -> Path | None:
        """The file the suite was read from; None for one made in Python."""
        return self._source.file if self._source else None

    def error(self, path: YamlPath, message: str) -> SuiteError:
        """Return an error about a place in the suite, with file and line where it has them."""
        if self._source is None:
            return SuiteError(f"`{show_path(path)}`: {message}")
        return self._source.error(path, message)

    def model_post_init(self, context: Any) -> None:
        """Keep the source, which `load_suite` gives as the validation context."""
        self._source = context if isinstance(context, Source) else None

    @field_validator("name")
    @classmethod
    def _is_the_file_name(cls, name: str, info: ValidationInfo) -> str:
        if isinstance(info.context, Source) and name != info.context.file.stem:
            raise ValueError(f"given {shown(name)} (allowed: the file's own name, {shown(info.context.file.stem)})")
        if len(name) > MAX_NAME or not name.isprintable():
            raise ValueError(f"given {shown(name)} (allowed: at most {MAX_NAME} characters that can be printed)")
        return name

    @field_validator("metrics")
    @classmethod
    def _are_measured(cls, metrics: tuple[Metric, ...], info: ValidationInfo) -> tuple[Metric, ...]:
        if models := _models_of(info.data):
            check_measured(metrics, models)
        return metrics
