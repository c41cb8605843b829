"""Every group and setting of ``conf/``: the comments that explain them, and the values that their types allow."""

import re
from dataclasses import dataclass, fields, is_dataclass
from enum import EnumMeta
from functools import cache
from itertools import takewhile
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from albert_ablate.config.schema import CONF, RunConfig
from albert_ablate.config.tasks import TaskConfig

#: Indentation, key, value and comment of a line.
_LINE = re.compile(r"(\s*(?:- )?)(\w+): *([^#]*?)(?:\s+# (.*))?")
_GLOBAL = "# @package _global_"
_KINDS = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "null"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Setting:
    """A setting. In ``name``, ``*`` is the name of any task, or the number of an entry in a list."""

    name: str  # with dots
    values: str  # that it may have
    comment: str


@dataclass(frozen=True)
class Group:
    """A group of ``conf/``, with its comment in the list of defaults."""

    name: str
    comment: str
    options: dict[str, str]  # option -> its comment


@cache
def groups() -> tuple[Group, ...]:
    """The groups in the order of the defaults; Hydra's own and those inside other groups are left out."""
    listed = {key: comment for key, comment in _comments(CONF / "config.yaml").items() if key.startswith("defaults.")}
    names = {key.rpartition(".")[2]: comment for key, comment in listed.items()}
    return tuple(Group(name, comment, _options(CONF / name)) for name, comment in names.items())


@cache
def sections() -> dict[str, str]:
    """First part of the settings' names -> its comment: the line above it in ``config.yaml``, or that of its group."""
    above = re.findall(r"^# (.*)\n(\w+):", (CONF / "config.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    comments = {group.name: group.comment for group in groups()} | {name: comment for comment, name in above}
    return {field.name: comments.get(field.name, "") for field in fields(RunConfig)}


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting in the order of the schema."""
    # A setting that several files have is explained in the first of them: config.yaml, task/kind/, the others.
    files = sorted(CONF.rglob("*.yaml"), key=lambda file: (file.parent != CONF, file.parent.name != "kind", file))
    comments: dict[str, str] = {}
    for file in files:
        comments = {key: comment for key, comment in _comments(file).items() if comment} | comments
    return tuple(Setting(name, values, comments.get(name, "")) for name, values in _fields(RunConfig, "").items())


def _options(folder: Path) -> dict[str, str]:
    """Option -> the comment at the head of its file, or its settings where it has none."""
    options = {}
    for file in sorted(folder.glob("*.yaml"), key=_by_number):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line != _GLOBAL]
        comment = " ".join(line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("# "), lines))
        options[file.stem] = comment or ", ".join(re.sub(r"\s+# .*", "", line) for line in lines)
    return options


def _by_number(file: Path) -> list[str]:
    """A key that sorts e16 before e128."""
    return [part.zfill(9) if part.isdecimal() else part for part in re.split(r"(\d+)", file.stem)]


def _comments(file: Path) -> dict[str, str]:
    """Name of each setting in a file of ``conf/`` -> the comment in its line, or an empty text."""
    text = file.read_text(encoding="utf-8")
    folder = file.relative_to(CONF).parent.as_posix()
    prefix = "tasks.*." if folder == "task/kind" else "" if folder == "." or _GLOBAL in text else f"{folder}."
    comments: dict[str, str] = {}
    above: list[tuple[int, str]] = []  # indentation and key of the mappings that a line is in
    for line in filter(None, map(_LINE.fullmatch, text.splitlines())):
        indent, key = len(line[1]), line[2]
        if line[1].endswith("- "):
            above = [*(pair for pair in above if pair[0] < indent - 1), (indent - 1, "*")]
        above = [*(pair for pair in above if pair[0] < indent), (indent, key)]
        name = prefix + ".".join(part for _, part in above)
        comments.setdefault(re.sub(r"^tasks\.\w+", "tasks.*", name), line[4] or "")
    return comments


def _fields(kind: Any, above: str) -> dict[str, str]:
    """Name -> possible values, for each setting of a dataclass of the schema whose own name is ``above``."""
    found: dict[str, str] = {}
    for field in fields(kind):
        name = f"{above}{field.name}"
        if field.name == "tasks":
            families = [_fields(family, f"{name}.*.") for family in get_args(get_args(TaskConfig)[0])]
            for inner in dict.fromkeys(inner for family in families for inner in family):
                found[inner] = ", ".join(dict.fromkeys(family[inner] for family in families if inner in family))
        elif is_dataclass(field.type):
            found |= _fields(field.type, f"{name}.")
        else:
            found[name] = _values(field.type)
            parts = [part for part in get_args(field.type) if isinstance(part, type) and is_dataclass(part)]
            for part in parts:
                found |= _fields(part, f"{name}.*." if get_origin(field.type) is tuple else f"{name}.")
    return found


def _values(kind: Any) -> str:
    """The values of a type in words, such as ``integer ≥ 1 or null``."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limits = [limit for mark in parts[1:] for limit in getattr(mark, "metadata", ())]
        bounds = [f"{sign} {getattr(m, key):,}" for m in limits for key, sign in _BOUNDS.items() if hasattr(m, key)]
        return " ".join([_values(parts[0]), " and ".join(bounds)]).strip()
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin is tuple:
        return f"list of {_values(parts[0])}"
    if isinstance(kind, EnumMeta):
        return ", ".join(str(member.value) for member in kind)  # type: ignore[var-annotated]
    if is_dataclass(kind):
        return "settings"
    return _KINDS[kind] if kind in _KINDS else " or ".join(map(_values, parts))


def explained_settings(topic: str) -> list[Setting]:
    """The settings called ``topic``, below it, or whose last part it is; in ``topic`` a task's name counts as ``*``."""
    name = re.sub(r"^tasks\.\w+", "tasks.*", topic)
    below = [s for s in settings() if s.name == name or s.name.startswith(f"{name}.")]
    return below or [s for s in settings() if s.name.rpartition(".")[2] == name]
