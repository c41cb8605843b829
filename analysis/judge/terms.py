"""Checks the terms and settings with which an arm of a claims file names its cell."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import Any, get_args, get_type_hints

import pydantic

from albert_ablate.axes import AXES
from albert_ablate.config.schema import CONF, RunConfig
from albert_ablate.errors import ConfigError
from albert_ablate.sweeping.relative import EMBEDDING, TERMS, embedding_of, shape_of

from ..read.records import parse_yaml

#: Settings that never distinguish arms.
_ELSEWHERE = {
    "task": "arms cannot differ in fine-tuning; name the task under scores, as task:NAME",
    "tasks": "arms cannot differ in fine-tuning; name the task under scores, as task:NAME",
    "length": "a run's length is part of its set-up; to compare lengths say budget.steps",
    **dict.fromkeys(
        ("tracker", "paths", "runtime", "rerun", "sweep"), "it changes no numbers, so arms cannot differ in it"
    ),
}
#: Settings of ``conf/model`` that make a shape.
_SHAPE = ("hidden", "layers", "heads", "intermediate")
#: Axes with numbers as values, which may be given as a number instead of an option.
_NUMBERS = {axis.group: axis.path for axis in AXES if not axis.labels}
#: Group -> the setting in it that identifies an option; ``name`` for all other groups.
_NAMED = {**{axis.group: axis.setting for axis in AXES}, "budget": "unit"}


def settings_of(terms: Mapping[str, Any]) -> dict[str, Any]:
    """``terms`` as settings: an option of a group becomes the setting it stands for, values are as runs record them.

    Raises ConfigError that lists every term with an unknown name or an invalid value.
    """
    settings: dict[str, Any] = {}
    given_by: dict[str, str] = {}  # setting -> the term that gave it
    problems = []
    for key, value in terms.items():
        try:
            parts = _checked(str(key), value)
        except ConfigError as error:
            problems += error.problems
            continue
        for name, setting_value in parts.items():
            setting = EMBEDDING if name == "embedding" else name
            if setting in given_by:
                problems.append(f"{key} and {given_by[setting]} both set {setting}. Give one of them.")
            given_by[setting] = str(key)
            settings[name] = setting_value
    if problems:
        raise ConfigError(problems)
    return settings


def _checked(key: str, value: Any) -> dict[str, Any]:
    root = key.split(".")[0]
    if root in _ELSEWHERE:
        raise ConfigError(f"{key}: {_ELSEWHERE[root]}.")
    if isinstance(value, list) and key != "warm_start.layers":
        raise ConfigError(f"{key}={value}: an arm is one cell. Give one value, or an arm for each.")
    if key in TERMS:
        return {key: _term(key, value)}
    kind = _type_of(key)
    if kind is None:
        raise ConfigError(f"{key}: there is no such setting. {_near(key)}")
    if is_dataclass(_group(kind)):
        return _option(key, value)
    return {key: _value(key, value, kind)}


def _term(key: str, value: Any) -> Any:
    if value is None or isinstance(value, dict | bool):
        raise ConfigError(f"{key}={value}: not a value of {key}.")
    try:
        if key == "dropout":
            return _value("dropout", value, _type_of("model.hidden_dropout"))
        if key == "corpus":
            _choice(key, value, ("base", "more"))
        elif key == "embedding":
            embedding_of(str(value), 768, 768)
        else:
            shape_of({key: value}, 768, 12, 64)
    except ConfigError as error:
        raise ConfigError([problem.replace(" in a sweep file", "") for problem in error.problems]) from None
    return value


def _option(group: str, value: Any) -> dict[str, Any]:
    """The setting that an option stands for: ``embed: e128`` and ``embed: 128`` are ``embed.size: 128``."""
    options = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    names = [name for name in _names() if name.startswith(f"{group}.")]
    if isinstance(value, dict) or not options:
        raise ConfigError(f"{group}: a group of settings. Name them one by one: {', '.join(names[:8])}.")
    if group in _NUMBERS and isinstance(value, int) and not isinstance(value, bool):
        path = _NUMBERS[group]
        return {path: _value(path, value, _type_of(path))}
    _choice(group, value, options)
    content = parse_yaml((CONF / group / f"{value}.yaml").read_text(encoding="utf-8"))
    if group == "model":
        return {f"model.{name}": content[name] for name in _SHAPE}
    if _NUMBERS.get(group) == EMBEDDING and not isinstance(content[_NAMED[group]], int):
        return {"embedding": "H"}  # ${model.hidden}
    name = _NAMED.get(group, "name")
    return {
        f"{group}.{name}": content.get(name, content.get(group, {}).get(name, value) if group in content else value)
    }


def _choice(key: str, value: Any, known: Any) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{key}={value}: must be one of {', '.join(known)}.{hint}")


def _value(key: str, value: Any, kind: Any) -> Any:
    """``value`` as a run records it. Raises ConfigError for a value that the setting cannot have."""
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(kind)
    try:
        recorded = adapter.dump_python(adapter.validate_python(value), mode="json")
    except pydantic.ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{key}={value}: {message[0].lower()}{message[1:]}.") from None
    if isinstance(value, bool) and not isinstance(recorded, bool):
        raise ConfigError(f"{key}={value}: a number is expected, not {'yes' if value else 'no'}.")
    return recorded


def _type_of(path: str) -> Any:
    """The declared type of a setting or group; None for an unknown name."""
    node: Any = RunConfig
    for part in path.split("."):
        node = _fields(node).get(part) if is_dataclass(node := _group(node)) else None
    return node


def _group(kind: Any) -> Any:
    """The group in an optional group (``Group | None``); else ``kind`` itself."""
    groups = [part for part in get_args(kind) if is_dataclass(part)] if isinstance(kind, UnionType) else []
    return groups[0] if len(groups) == 1 else kind


def _fields(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@cache
def _names() -> tuple[str, ...]:
    """The full names of all settings."""
    return tuple(_walk(RunConfig, ""))


def _walk(kind: Any, prefix: str) -> Iterator[str]:
    for name, inner in _fields(kind).items():
        if is_dataclass(inner := _group(inner)):
            yield from _walk(inner, f"{prefix}{name}.")
        elif name != "tasks":
            yield f"{prefix}{name}"


def _near(key: str) -> str:
    """A hint with similar names: the same name in another group, else the most similar names."""
    last = key.rpartition(".")[2]
    same = [name for name in _names() if name.rpartition(".")[2] == last and name.split(".")[0] not in _ELSEWHERE]
    known = [name for name in _names() if name.split(".")[0] not in _ELSEWHERE]
    known += [term for term in TERMS if term not in _ELSEWHERE] + [*(axis.group for axis in AXES), "model"]
    short = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = same or [
        *difflib.get_close_matches(key, known, n=2, cutoff=0.6),
        *(short[name] for name in difflib.get_close_matches(last, short, n=2, cutoff=0.7)),
    ]
    near = list(dict.fromkeys(near))[:3]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return (
        f"An arm may have {', '.join(term for term in TERMS if term != 'length')}, or any setting of conf/ by its name."
    )
