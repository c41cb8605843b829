"""Plain nested values, composed by Hydra or recorded by a run -> ``RunConfig``, or a ConfigError."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pydantic

from albert_ablate.config.contradictions import contradictions
from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import ConfigError

#: The largest integer that a setting may hold.
_LARGEST = 2**63 - 1


def parse(values: dict[str, Any]) -> RunConfig:
    """Nested plain values -> ``RunConfig``. Raises ConfigError naming every wrong field."""
    try:
        config = pydantic.TypeAdapter(RunConfig).validate_python(values)
    except pydantic.ValidationError as error:
        raise ConfigError([_explain(problem) for problem in error.errors()]) from None
    problems = [*_misread(values, config.as_dict()), *contradictions(config)]
    if problems:
        raise ConfigError(problems)
    return config


def _explain(problem: Any) -> str:
    parts = [str(part) for part in problem["loc"]]
    if parts[0] == "tasks" and len(parts) > 3:
        del parts[2]  # the task family, which is no part of the field
    field = ".".join(parts)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        group = field.rpartition(".")[0]
        known = _known_fields(group)
        return f"{field}: there is no such setting. {group or 'The top level'} has: {', '.join(known)}."
    if problem["type"] in ("missing", "missing_argument"):
        return f"{field}: missing. Every setting has a default in conf/; did an override remove it?"
    return f"{field}={problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}."


def _misread(raw: Any, typed: Any, field: str = "") -> Iterator[str]:
    """A message for each wrong value that pydantic accepts: yes for a number, integers beyond 64 bits.

    ``raw``: the plain values; ``typed``: the typed settings made from them, as plain values.
    """
    if isinstance(typed, dict) and isinstance(raw, dict):
        for key, value in typed.items():
            yield from _misread(raw.get(key), value, f"{field}.{key}".lstrip("."))
    elif isinstance(typed, list) and isinstance(raw, list | tuple):
        for index, (raw_item, typed_item) in enumerate(zip(raw, typed, strict=True)):
            yield from _misread(raw_item, typed_item, f"{field}.{index}")
    elif isinstance(raw, bool) and not isinstance(typed, bool):
        yield f"{field}={raw}: a number is expected, not {'yes' if raw else 'no'}."
    elif isinstance(typed, int) and abs(typed) > _LARGEST:
        yield f"{field}={typed}: too large (at most {_LARGEST})."


def _known_fields(group: str) -> list[str]:
    node: Any = RunConfig
    for part in filter(None, group.split(".")):
        node = next((f.type for f in fields(node) if f.name == part), None)
        if node is None or not hasattr(node, "__dataclass_fields__"):
            return []
    return [f.name for f in fields(node)]
