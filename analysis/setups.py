"""One set-up: what has to be equal between runs that are compared.

That is every setting that changes the numbers, but for those that an arm's own terms set. A shape is told by the base
model it was made from: how wide a head is, and how much wider the feed-forward network than the model.
"""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import pandas as pd

from albert_ablate.config import CONF
from albert_ablate.identity import BEFORE as ADDED
from albert_ablate.identity import UNSAID, comparable
from albert_ablate.sweeping.relative import base_name

from .records import parse_yaml

#: Settings at the only value they had before they were recorded.
BEFORE = {**UNSAID, **ADDED}
#: The option of a group -> the group whose settings the option brings.
_GROUPS = {name: name.split(".")[0] for name in ("optimizer.name", "data.name", "tokenizer.name", "budget.unit")}
#: The model's shape, which ``shape_words`` says relative to the base model.
SHAPE = ("model.hidden", "model.layers", "model.heads", "model.intermediate")
TOKENS = "tokens"

Settings = dict[str, Any]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Settings:
    """Nested settings -> dotted ones."""
    found: Settings = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def under(name: str, paths: Sequence[str]) -> bool:
    """Whether a setting is one of ``paths`` or lies in a group among them."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def settings_of_run(run: Mapping[Any, Any]) -> Settings:
    """Every setting that changes a run's numbers, as its identity has them, flat; corpus and tokenizer too."""
    config = run["config"]
    told = comparable({group: own for group, own in config.items() if group != "seed"})
    kept = flatten(told | {group: config[group] for group in ("data", "tokenizer") if group in config})
    kept = {k: v for k, v in kept.items() if not (k in BEFORE and BEFORE[k] == v)}
    return kept | shape_words(run)


def shape_words(run: Mapping[Any, Any]) -> Settings:
    """The shape as what a size, a depth or a width leaves alone: the base model, its heads and its FFN.

    A size that the paper gives in full (xlarge has heads of 128) is as its file says.
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
        own = {"heads": f"{heads}, not {filed['heads']} as {name} has", "intermediate": f"{inner}, not that of {name}"}
        words = {
            key: as_filed[key] if model.get(key) in (filed[key], None) else own[key]
            for key in ("heads", "intermediate")
        }
    else:
        words = {"heads": _width(hidden, heads), "intermediate": _multiple(inner, hidden)}
    return {"model.base": base} | {f"model.{key}": value for key, value in words.items()}


def _width(hidden: Any, heads: Any) -> str:
    return f"{Fraction(int(hidden), int(heads))} wide" if hidden and heads else "not known"


def _multiple(inner: Any, hidden: Any) -> str:
    return f"{float(Fraction(int(inner), int(hidden))):g} × hidden" if inner and hidden else "4 × hidden"


@cache
def _filed(name: str) -> dict[str, Any] | None:
    """``conf/model/NAME.yaml``, where there is one."""
    file = next((file for file in (CONF / "model").glob("*.yaml") if file.stem == name), None)
    return None if file is None else parse_yaml(file.read_text(encoding="utf-8"))


def opened(own: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Settings in which arms may differ: those that an arm sets, and what an option in which they differ brings.

    ``own`` are the settings that each arm sets, with their values.
    """
    names = {name for settings in own for name in settings}
    apart = {name for name in names if len({json.dumps(settings.get(name)) for settings in own}) > 1}
    groups = {_GROUPS[name] for name in apart if name in _GROUPS}
    of_the_text = {name for name in apart if under(name, ("data", "tokenizer"))}
    divided = {"batch.micro_size"} if "model.hidden_dropout" in apart or "model.attention_dropout" in apart else set()
    return (*sorted(names | groups | divided), *((TOKENS,) if of_the_text else ()))


def keys(runs: pd.DataFrame, settings: Mapping[Any, Settings], free: Sequence[str]) -> dict[Any, str]:
    """Index -> set-up: equal for runs whose settings outside ``free`` are equal.

    Corpus and tokenizer are told by the tokens that they gave; where the tokens are free, by their settings. Number
    format and kind of device count as settings do. A run without a manifest yet is of the set-up of those whose
    settings it has.
    """
    found, by_settings = {}, {}
    columns = (runs[name] for name in ("tokens_fingerprint", "precision", "device"))
    for place, fingerprint, precision, device in zip(runs.index, *columns, strict=True):
        kept = {k: v for k, v in settings[place].items() if not under(k, free)}
        rest = kept if TOKENS in free else {k: v for k, v in kept.items() if not under(k, ("data", "tokenizer"))}
        own = _digest(kept)
        if isinstance(fingerprint, str):  # NaN where the run has none yet
            tokens = "" if TOKENS in free else fingerprint
            by_settings[own] = found[place] = _digest(rest, tokens, precision, device_kind(device))
        else:
            found[place] = own
    return {place: by_settings.get(key, key) for place, key in found.items()}


def device_kind(device: Any) -> str:
    """``cpu`` or ``cuda`` of a run's ``device``; a run that did not record it counts as one on a CPU."""
    return "cpu" if pd.isna(device) or device == "cpu" else "cuda"


def within_arm(
    run: Mapping[Any, Any], settings: Settings, free: Sequence[str], own: Sequence[str]
) -> tuple[str, str | None]:
    """What a run has of the settings that other arms set and its own does not, which all runs of an arm have alike.

    The second part are the tokens, where arms differ in them; None for a run that has none yet.
    """
    rest = {k: v for k, v in settings.items() if under(k, free) and not under(k, own)}
    tokens = run["tokens_fingerprint"]
    return _digest(rest), (tokens if isinstance(tokens, str) else None) if TOKENS in free else ""


def _digest(*values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def differences(one: Mapping[Any, Any], others: Sequence[Mapping[Any, Any]], free: Sequence[str]) -> dict[str, str]:
    """Setting -> "3500, elsewhere 1200": what tells the chosen set-up from the others."""
    ours, data = _told(one, free), _data_words(one)
    found: dict[str, tuple[str, dict[str, None]]] = {}
    for other in others:
        theirs = _told(other, free)
        if other["tokens_fingerprint"] != one["tokens_fingerprint"] and TOKENS not in free:
            found.setdefault("data", (data, {}))[1][_data_words(other)] = None
        if other["precision"] != one["precision"]:
            found.setdefault("precision", (str(one["precision"]), {}))[1][str(other["precision"])] = None
        if device_kind(other["device"]) != device_kind(one["device"]):
            found.setdefault("device", (device_kind(one["device"]), {}))[1][device_kind(other["device"])] = None
        for path in sorted(set(ours) | set(theirs)):
            a, b = ours.get(path, BEFORE.get(path)), theirs.get(path, BEFORE.get(path))
            if a != b:
                found.setdefault(path, (str(a), {}))[1][str(b)] = None
    return {path: f"{mine}, elsewhere {' and '.join(list(other)[:3])}" for path, (mine, other) in found.items()}


def _told(run: Mapping[Any, Any], free: Sequence[str]) -> Settings:
    """The settings that differences are told in: of corpus and tokenizer none, unless the arms' own tell them."""
    kept = {k: v for k, v in settings_of_run(run).items() if not under(k, free)}
    return kept if TOKENS in free else {k: v for k, v in kept.items() if not under(k, ("data", "tokenizer"))}


def _data_words(run: Mapping[Any, Any]) -> str:
    """``embedded (tokens feed)``: the corpus and the tokens that were made of it."""
    corpus = run["data"].get("corpus") if isinstance(run["data"], dict) else None
    name = corpus or run["config"].get("data", {}).get("name")
    return f"{name} (tokens {str(run['tokens_fingerprint'])[:8]})"
