"""The command that trains a recorded run again."""

import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import PurePath
from typing import Any

from albert_ablate.command_line import command_name
from albert_ablate.config.identity import INCIDENTAL
from albert_ablate.config.labels import flatten
from albert_ablate.config.schema import CONF
from albert_ablate.door.compose import compose
from albert_ablate.errors import UserError

#: Groups that do not change a pretraining run. Corpus and tokenizer do: an identity holds their tokens.
_UNNAMED = set(INCIDENTAL) - {"data", "tokenizer"}
#: Files without which the settings of a corpus are refused.
_FILES = ("path", "validation_path")


def commands(runs: Iterable[Mapping[Any, Any]]) -> dict[str, str]:
    """Run -> ``python run.py scale=cpu seed=1 ...``: its scale, and every setting in which it differs from the scale.

    A run without a command: its scale is unknown, or it has a setting that no longer exists.
    """
    found = {str(run["run"]): command(run["config"]) for run in runs}
    return {run: text for run, text in found.items() if text is not None}


def command(config: Mapping[str, Any]) -> str | None:
    """The command for recorded settings; None where the present settings cannot express them."""
    groups = [f"{group}={name}" for group in ("scale", "data") if (name := _option(config, group)) is not None]
    groups += [f"data.{key}={_text(data[key])}" for key in _FILES if (data := config.get("data") or {}).get(key)]
    defaults = _settings(tuple(groups))
    recorded = _flat(config)
    if defaults is None or not recorded.keys() <= defaults.keys():
        return None
    changed = [f"{key}={_text(value)}" for key, value in recorded.items() if _text(value) != _text(defaults[key])]
    return " ".join([command_name("run"), *map(shlex.quote, [*groups, *changed])])


def _option(config: Mapping[str, Any], group: str) -> str | None:
    """The option of a group that a run was composed with, where it still exists."""
    name = (config.get(group) or {}).get("name")
    return str(name) if (CONF / group / f"{name}.yaml").is_file() else None


@cache
def _settings(groups: tuple[str, ...]) -> dict[str, Any] | None:
    """All settings of these options; None where they cannot be composed."""
    try:
        return _flat(compose(groups).as_dict())
    except UserError:
        return None


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return flatten({group: values for group, values in config.items() if group not in _UNNAMED})


def named(word: str) -> str:
    """An override whose value, if it is a path of this machine, is the name of the file alone."""
    key, equals, value = word.partition("=")
    return f"{key}{equals}{_text(value)}"


def _text(value: Any) -> str:
    """A value as Hydra reads it; of a file its name, as folders of this machine do not exist elsewhere."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else str(value)
