"""What the files of a run folder must look like to be read.

A file is checked before a number of it is used: it may be half written, changed by hand, made by another
program, or hostile. What it lacks is fine (older folders lack things); what is there has its type.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from albert_ablate.axes import AXES
from albert_ablate.runs import STATES

#: Bytes of the largest file that is read, and values in it once every alias is written out.
_MOST_BYTES, _MOST_VALUES = 50_000_000, 200_000
_DEEPEST = 100
#: What no report can hold: control characters, and halves of surrogate pairs.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_Whole = Annotated[int, Field(ge=0, le=2**63 - 1)]
_Size = Annotated[int, Field(ge=1, le=2**31)]
_Rate = Annotated[float, Field(ge=1e-9, le=1e15)]
_Number = Annotated[float, Field(ge=-1e30, le=1e30)]
_Interval = Annotated[list[_Number], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")


class _Named(_Part):
    name: str | None = None


class _Status(_Part):
    state: Literal[STATES]  # type: ignore[valid-type]
    reason: str | None = None


class _Embed(_Part):
    size: _Size


class _Model(_Part):
    name: str
    hidden: _Size
    layers: _Size
    heads: _Size


class _Planted(_Part):
    topic: _Number
    order: _Number
    local: _Number


class _Corpus(_Named):
    planted: _Planted | None = None


class _Config(_Part):
    seed: _Whole
    embed: _Embed
    model: _Model
    scale: _Named = _Named()
    data: _Corpus = _Corpus()

    @model_validator(mode="before")
    @classmethod
    def _known_arm(cls, values: Any) -> Any:
        """Every axis has one of its values; an axis that came later may be missing."""
        for axis in AXES if isinstance(values, dict) else ():
            value = axis.of(values)
            if axis.labels and str(value) not in axis.labels:
                raise ValueError(f"{axis.path} is {value}")
        return values


class _Parameters(_Part):
    encoder: _Whole | None = None
    with_pooler: _Whole | None = None
    with_heads: _Whole | None = None


class _Source(_Part):
    commit: str | None = None
    dirty: bool | None = None
    unknown: str | None = None


class _Fingerprint(_Part):
    fingerprint: str | None = None


class _Data(_Part):
    corpus: str | None = None
    text: _Fingerprint = _Fingerprint()
    tokens: _Fingerprint = _Fingerprint()


class _Deviation(_Part):
    field: str
    ours: Any
    paper: Any


class _Hardware(_Part):
    device: str | None = None


class _Packages(_Part):
    torch: str | None = None


class _Manifest(_Part):
    identity: str | None = None
    source: _Source | None = None
    data: _Data = _Data()
    parameters: _Parameters = _Parameters()
    hardware: _Hardware = _Hardware()
    packages: _Packages = _Packages()
    precision: str | None = None
    flops_per_step: _Number | None = None
    deviations_from_paper: list[_Deviation] = []


class _Masked(_Part):
    loss: _Number | None = None
    loss_interval: _Interval | None = None
    accuracy: _Number | None = None
    interval: _Interval | None = None
    binomial_interval: _Interval | None = None
    unigram_loss: _Number | None = None
    bigram_loss: _Number | None = None
    left_baseline: bool | None = None


class _OwnHead(_Part):
    accuracy: _Number | None = None
    interval: _Interval | None = None


class _BestMasked(_Part):
    loss: _Number
    accuracy: _Number
    chance_loss: _Number | None = None


class _BestSentence(_Part):
    accuracy: _Number


class _Achievable(_Part):
    masked_lm: _BestMasked
    nsp: _BestSentence | None = None
    sop: _BestSentence | None = None


class _Sentence(_Part):
    accuracy: _Number | None = None
    interval: _Interval | None = None
    head: str | None = None
    left_baseline: bool | None = None
    majority_class: _Number | None = None
    own_head: _OwnHead | None = None


class _Training(_Part):
    steps: _Whole | None = None
    tokens: _Whole | None = None
    flops: _Number | None = None
    seconds: _Number | None = None
    tokens_per_second: _Number | None = None


class _Evaluation(_Part):
    seconds: _Number | None = None


class _Metric(_Part):
    value: _Number
    interval: _Interval


def _scores(found: dict[str, Any]) -> dict[str, Any]:
    """The metrics of one set: a number, or a value with its interval; counts and notes beside them."""
    for name, value in found.items():
        if isinstance(value, dict) and ("value" in value or "interval" in value):
            _Metric.model_validate(value)
        elif name in ("f1", "exact", "accuracy") and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} is no number")
    return found


class _Task(_Part):
    task: str
    start: str
    metric: str
    seeds: list[_Whole]
    score: _Number
    spread: _Interval
    last_score: _Number
    average: _Number | None
    sets: dict[str, Annotated[dict[str, Any], AfterValidator(_scores)]]
    to_beat: dict[str, dict[str, _Number]] = {}
    recipe: dict[str, _Number | str | bool | None] | None = None


class _Results(_Part):
    masked_lm: _Masked | None = None
    nsp: _Sentence | None = None
    sop: _Sentence | None = None
    achievable: _Achievable | None = None
    training: _Training | None = None
    evaluation: _Evaluation | None = None
    tasks: list[_Task] = []


class _Similarity(_Part):
    l2: list[Annotated[_Number, Field(ge=0)]] | None = None
    degrees: list[Annotated[_Number, Field(ge=0)]] | None = None


class _Line(_Part):
    step: _Whole
    tokens: _Whole | None = None
    tokens_per_second: _Rate | None = None
    held_out_mlm_loss: _Number | None = None
    held_out_mlm_accuracy: _Number | None = None
    held_out_sentence_accuracy: _Number | None = None


_FORMS: dict[str, type[_Part]] = {
    "status.json": _Status, "config.yaml": _Config, "manifest.json": _Manifest, "results.json": _Results,
    "similarity.json": _Similarity,
}  # fmt: skip


def read_record(file: Path) -> dict[str, Any]:
    """The content of a file of a run folder. Raises ValueError that says in a few words what is wrong."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        text = file.read_text(encoding="utf-8")
        parsed = parse_yaml(text) if file.suffix == ".yaml" else json.loads(text, parse_constant=_refuse)
        found = _printable(parsed)
    except (OSError, UnicodeError, json.JSONDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ValueError("") from error
    _FORMS[file.name].model_validate(found)
    assert isinstance(found, dict)  # the form is one
    return found


def words_of(error: ValueError) -> str:
    """``: masked_lm.loss is 'x'`` of the first thing that is wrong, or nothing where the file does not parse."""
    if not isinstance(error, ValidationError):
        return f": {error}" if str(error) else ""
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    if not place:  # of the whole file: in our words, or not a dictionary at all
        return f": {problem['ctx']['error']}" if problem["type"] == "value_error" else ""
    return f": {place}: {problem['msg']}"


def read_line(text: str) -> dict[str, Any] | None:
    """A line of ``metrics.jsonl``; None where it is broken."""
    try:
        found = json.loads(text, parse_constant=_refuse)
        _Line.model_validate(found)
    except (ValueError, RecursionError):
        return None
    return dict(found)


def printable(text: str) -> str:
    """``text`` with a replacement mark for every character that a report cannot hold."""
    return _UNPRINTABLE.sub("\ufffd", text)


def parse_yaml(text: str) -> Any:
    """Plain values of YAML: its tags never make an object. Raises YAMLError."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, loader):  # the fast loader itself would run out of its stack and crash
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError("nested too deeply")
    return yaml.load(text, loader)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _printable(found: Any) -> Any:
    """A copy without aliases and unprintable characters. Raises ValueError for more values than a record has."""
    left = _MOST_VALUES

    def copy(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("more values than a record has")
        if isinstance(value, dict):
            return {printable(str(key)): copy(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [copy(inner) for inner in value]
        return printable(value) if isinstance(value, str) else value

    return copy(found)
