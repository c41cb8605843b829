"""Plain nested values, as Hydra composes them or a run records them -> ``RunConfig``, or words for what is wrong."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pydantic

from albert_ablate.config.contradictions import contradictions
from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import ConfigError

#: The largest whole number of a setting.
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
        del parts[2]  # which of the task families it was read as
    field = ".".join(parts)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        group = field.rpartition(".")[0]
        known = _known_fields(group)
        return f"{field}: there is no such setting. {group or 'The top level'} has: {', '.join(known)}."
    if problem["type"] in ("missing", "missing_argument"):
        return f"{field}: missing. Every setting stands in conf/; did an override remove it?"
    return f"{field}={problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}."


def _misread(given: Any, made: Any, field: str = "") -> Iterator[str]:
    """A sentence for each value that pydantic accepts and that is wrong here: yes for a number, numbers beyond 64 bits.

    ``given`` are plain values, ``made`` the plain values of the typed settings made of them.
    """
    if isinstance(made, dict) and isinstance(given, dict):
        for key, value in made.items():
            yield from _misread(given.get(key), value, f"{field}.{key}".lstrip("."))
    elif isinstance(made, list) and isinstance(given, list | tuple):
        for index, (item, typed) in enumerate(zip(given, made, strict=True)):
            yield from _misread(item, typed, f"{field}.{index}")
    elif isinstance(given, bool) and not isinstance(made, bool):
        yield f"{field}={given}: a number is expected, not {'yes' if given else 'no'}."
    elif isinstance(made, int) and abs(made) > _LARGEST:
        yield f"{field}={made}: larger than {_LARGEST}, the largest whole number there is a use for."


def _known_fields(group: str) -> list[str]:
    node: Any = RunConfig
    for part in filter(None, group.split(".")):
        node = next((f.type for f in fields(node) if f.name == part), None)
        if node is None or not hasattr(node, "__dataclass_fields__"):
            return []
    return [f.name for f in fields(node)]
