"""The set-up of a run: what has to be equal between runs that are compared.

It holds every setting that changes the numbers, except those that the terms of an arm set. A shape is described
relative to its base model: the width of a head, and the width of the feed-forward network as a multiple of H.
"""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import pandas as pd

from albert_ablate.config.identity import BEFORE as ADDED
from albert_ablate.config.identity import UNSAID, comparable
from albert_ablate.config.labels import flatten
from albert_ablate.config.schema import CONF
from albert_ablate.sweeping.relative import base_name

from .records import parse_yaml

#: Settings that older runs did not record -> the value that they had.
BEFORE = {**UNSAID, **ADDED}
#: Setting that chooses an option of a group -> the group, whose other settings follow from it.
_GROUPS = {name: name.split(".")[0] for name in ("optimizer.name", "data.name", "tokenizer.name", "budget.unit")}
#: The model's shape, which ``relative_shape`` describes relative to the base model.
SHAPE = ("model.hidden", "model.layers", "model.heads", "model.intermediate")
TOKENS = "tokens"

Settings = dict[str, Any]


def under(name: str, paths: Sequence[str]) -> bool:
    """Whether a setting is one of ``paths``, or belongs to a group among them."""
    return _under(name, tuple(paths))


@cache  # a large report asks the same few questions of every run
def _under(name: str, paths: tuple[str, ...]) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def settings_of_run(run: Mapping[Any, Any]) -> Settings:
    """Every setting that changes a run's numbers, flat: those in its identity, and those of corpus and tokenizer."""
    config = run["config"]
    compared = comparable({group: values for group, values in config.items() if group != "seed"})
    kept = flatten(compared | {group: config[group] for group in ("data", "tokenizer") if group in config})
    kept = {k: v for k, v in kept.items() if not (k in BEFORE and BEFORE[k] == v)}
    return kept | relative_shape(run)


def relative_shape(run: Mapping[Any, Any]) -> Settings:
    """The parts of the shape that size, depth and width leave alone: base model, width of a head, FFN over hidden.

    A size that has a file of its own in ``conf/model`` (xlarge has heads 128 wide) is compared with that file.
    """
    model = run["config"].get("model", {})
    hidden, heads, inner = (model.get(name) for name in ("hidden", "heads", "intermediate"))
    name = str(model.get("name"))
    base = f"{run['base_hidden']}×{run['base_layers']}"
    filed = _filed(name)
    if filed and (hidden, model.get("layers")) == (filed["hidden"], filed["layers"]):
        base_model = _filed(base_name(name)) or filed
        as_filed = {
            "heads": f"{base_model['hidden'] // base_model['heads']} wide",
            "intermediate": _multiple(base_model["intermediate"], base_model["hidden"]),
        }
        changed = {
            "heads": f"{heads}, not {filed['heads']} as {name} has",
            "intermediate": f"{inner}, not that of {name}",
        }
        labels = {
            key: as_filed[key] if model.get(key) in (filed[key], None) else changed[key]
            for key in ("heads", "intermediate")
        }
    else:
        labels = {"heads": _width(hidden, heads), "intermediate": _multiple(inner, hidden)}
    return {"model.base": base} | {f"model.{key}": value for key, value in labels.items()}


def _width(hidden: Any, heads: Any) -> str:
    return f"{Fraction(int(hidden), int(heads))} wide" if hidden and heads else "not known"


def _multiple(inner: Any, hidden: Any) -> str:
    return f"{float(Fraction(int(inner), int(hidden))):g} × hidden" if inner and hidden else "4 × hidden"


@cache
def _filed(name: str) -> dict[str, Any] | None:
    """``conf/model/NAME.yaml``; None where it does not exist."""
    file = next((file for file in (CONF / "model").glob("*.yaml") if file.stem == name), None)
    return None if file is None else parse_yaml(file.read_text(encoding="utf-8"))


def opened(arm_settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Settings in which arms may differ: those that an arm sets, and those that follow from an option they differ in.

    ``arm_settings``: for each arm, the settings that it sets, with their values.
    """
    names = {name for settings in arm_settings for name in settings}
    apart = {name for name in names if len({json.dumps(settings.get(name)) for settings in arm_settings}) > 1}
    groups = {_GROUPS[name] for name in apart if name in _GROUPS}
    of_the_text = {name for name in apart if under(name, ("data", "tokenizer"))}
    divided = {"batch.micro_size"} if "model.hidden_dropout" in apart or "model.attention_dropout" in apart else set()
    return (*sorted(names | groups | divided), *((TOKENS,) if of_the_text else ()))


def keys(runs: pd.DataFrame, settings: Mapping[Any, Settings], free: Sequence[str]) -> dict[Any, str]:
    """Index -> key of the set-up: equal for runs whose settings outside ``free`` are equal.

    Corpus and tokenizer count by the fingerprint of their tokens; where tokens are free, by their settings. Number
    format and kind of device count, too. A run without a manifest yet gets the set-up of the runs with its settings.
    """
    by_run, by_settings = {}, {}
    columns = (runs[name] for name in ("tokens_fingerprint", "precision", "device"))
    for index, fingerprint, precision, device in zip(runs.index, *columns, strict=True):
        kept = {k: v for k, v in settings[index].items() if not under(k, free)}
        rest = kept if TOKENS in free else {k: v for k, v in kept.items() if not under(k, ("data", "tokenizer"))}
        key = _digest(kept)
        if isinstance(fingerprint, str):  # NaN where the run has none yet
            tokens = "" if TOKENS in free else fingerprint
            by_settings[key] = by_run[index] = _digest(rest, tokens, precision, device_kind(device))
        else:
            by_run[index] = key
    return {index: by_settings.get(key, key) for index, key in by_run.items()}


def device_kind(device: Any) -> str:
    """``cpu`` or ``cuda``, from a run's ``device``; a run that did not record its device counts as ``cpu``."""
    return "cpu" if pd.isna(device) or device == "cpu" else "cuda"


def within_arm(
    run: Mapping[Any, Any], settings: Settings, free: Sequence[str], arm_settings: Sequence[str]
) -> tuple[str, str | None]:
    """A run's values of the settings that other arms set and its own arm does not: equal for all runs of an arm.

    The second part is the fingerprint of its tokens, where arms differ in them; None for a run without tokens yet.
    """
    rest = {k: v for k, v in settings.items() if under(k, free) and not under(k, arm_settings)}
    tokens = run["tokens_fingerprint"]
    return _digest(rest), (tokens if isinstance(tokens, str) else None) if TOKENS in free else ""


def _digest(*values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def differences(chosen: Mapping[Any, Any], others: Sequence[Mapping[Any, Any]], free: Sequence[str]) -> dict[str, str]:
    """Setting -> "3500, elsewhere 1200": in what the chosen set-up and the others differ."""
    settings = _compared(chosen, free)
    values: dict[str, tuple[str, dict[str, None]]] = {}  # setting -> chosen value, other values in order

    def note(path: str, value: Any, elsewhere: Any) -> None:
        if value != elsewhere:
            values.setdefault(path, (str(value), {}))[1][str(elsewhere)] = None

    for run in others:
        if run["tokens_fingerprint"] != chosen["tokens_fingerprint"] and TOKENS not in free:
            values.setdefault("data", (_data_label(chosen), {}))[1][_data_label(run)] = None
        note("precision", chosen["precision"], run["precision"])
        note("device", device_kind(chosen["device"]), device_kind(run["device"]))
        run_settings = _compared(run, free)
        for path in sorted(set(settings) | set(run_settings)):
            note(path, settings.get(path, BEFORE.get(path)), run_settings.get(path, BEFORE.get(path)))
    return {path: f"{value}, elsewhere {' and '.join(list(rest)[:3])}" for path, (value, rest) in values.items()}


def _compared(run: Mapping[Any, Any], free: Sequence[str]) -> Settings:
    """The settings that are compared: without corpus and tokenizer, unless arms differ in their tokens."""
    kept = {k: v for k, v in settings_of_run(run).items() if not under(k, free)}
    return kept if TOKENS in free else {k: v for k, v in kept.items() if not under(k, ("data", "tokenizer"))}


def _data_label(run: Mapping[Any, Any]) -> str:
    """``embedded (tokens feed)``: the corpus, and the fingerprint of its tokens."""
    corpus = run["data"].get("corpus") if isinstance(run["data"], dict) else None
    name = corpus or run["config"].get("data", {}).get("name")
    return f"{name} (tokens {str(run['tokens_fingerprint'])[:8]})"
