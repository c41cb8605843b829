"""Parses overrides with Hydra's grammar and explains the wrong ones (part of the door).

A value that Hydra's grammar cannot read (``data.path=корпус.txt``, ``labels=[positiv,négatif]``) is put
in quotes if it has only one meaning. The error for a refused override names the setting, the possible
values and the nearest name.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from albert_ablate.command_line import command_name
from albert_ablate.config.schema import CONF
from albert_ablate.errors import ConfigError, did_you_mean, nearest
from albert_ablate.sweeping.definition import LISTS

#: What Hydra and OmegaConf raise for wrong overrides; ValueError where a group's option is not a name.
REFUSALS = (HydraException, OmegaConfBaseException, ValueError)
_FUNCTIONS = ("choice", "range", "glob", "sort", "shuffle", "interval", "tag", "int", "float", "str", "bool")
#: More values of one key than this are a typing error, such as 1e6 for 6.
_MOST_VALUES = 10_000
_FUNCTION = re.compile(r"(\w+)\s*\((.*)\)", re.DOTALL)
_KEY = re.compile(r"(?:\+\+?|~)?[A-Za-z_$][\w$./@:-]*", re.ASCII)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
#: Start of the advice in Hydra's messages, which does not apply here.
_ADVICE = re.compile(r"To append to your|Config search path|Either remove|See https?://|Set the environment|full_key:")


@contextmanager
def initialised() -> Iterator[None]:
    """Initialise Hydra on ``conf/`` during the body, unless ``run.py`` has done so already."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def readable(overrides: Sequence[str]) -> list[str]:
    """Overrides that Hydra can read, with quotes added where needed. Raises ConfigError.

    ``task=mnli,sst2`` becomes ``task=[mnli,sst2]``: a run has several tasks and trackers at once. ``init=RUN`` becomes
    ``init.run=RUN``.
    """
    return [_readable(override) for override in overrides]


@lru_cache(4096)
def _readable(override: str) -> str:
    several = re.fullmatch(rf"({'|'.join(LISTS)})=(\w+(?:,\w+)+)", override)
    override = f"{several[1]}=[{several[2]}]" if several else override
    override = f"init.run={override[5:]}" if override.startswith("init=") else override
    key, equals, value = override.partition("=")
    if not key or (not equals and not key.startswith("~")):
        raise ConfigError(f"{override}: not a setting. Settings are given as name=value, such as seed=1.")
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{key}: there is no such setting. `{command_name('run')} --help settings` lists all.")
    if value.startswith("[") and key not in LISTS and (CONF / key).is_dir():
        raise ConfigError(
            f"{override}: {key} takes one option. For a run of each: {command_name('sweep')} {key}={value[1:-1]}"
        )
    refusal = _refusal(override)
    if refusal is None:
        return override
    function = _FUNCTION.fullmatch(value)
    if function and function[1] in _FUNCTIONS and value.isascii():
        raise ConfigError(f"{override}: {short_message(refusal)}")
    try:
        quoted = f"{key}={','.join(_quoted(key, part) for part in _parts(value))}"
    except ValueError:
        quoted = ""
    if _refusal(quoted) is not None:
        raise ConfigError(
            f"{override}: the value cannot be read; brackets, quotes and commas must fit together. "
            f"If it is meant as it stands, put the value in quotes: {_in_quotes(key, value)}"
        )
    return quoted


def _refusal(override: str) -> HydraException | None:
    """The error of Hydra's grammar for ``override``, or None if it accepts it."""
    try:
        _parser().parse_override(override)
    except HydraException as error:
        return error
    return None


def _parts(value: str) -> list[str]:
    """Split ``value`` at its commas, except those inside brackets or quotes."""
    parts, open_, quote = [""], "", ""
    for index, letter in enumerate(value):
        if quote:
            quote = "" if letter == quote and value[index - 1] != "\\" else quote
        elif letter in "'\"" and not parts[-1].strip(" [{(:="):
            quote = letter
        elif letter in _CLOSING:
            open_ += _CLOSING[letter]
        elif open_ and letter == open_[-1]:
            open_ = open_[:-1]
        if letter == "," and not open_ and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _quoted(key: str, part: str) -> str:
    """One value, quoted if Hydra cannot read it otherwise.

    Raises ConfigError for an unknown function, and ValueError for a value with several possible meanings.
    """
    text = part.strip()
    if text and _refusal(f"k={text}") is None:
        return part
    if text.startswith("[") and text.endswith("]"):
        return f"[{','.join(_quoted(key, inner) for inner in _parts(text[1:-1]))}]"
    if function := _FUNCTION.fullmatch(text):
        name, inside = function.groups()
        if name not in _FUNCTIONS:
            raise ConfigError(
                f"{key}={text}: there is no function {name}; there are {', '.join(_FUNCTIONS)}. "
                f"If it is meant as it stands, put the value in quotes: {_in_quotes(key, text)}"
            )
        arguments = [re.fullmatch(r"\s*(\w+=)?(.*)", inner, re.DOTALL) for inner in _parts(inside)]
        return f"{name}({','.join((a[1] or '') + _quoted(key, a[2]) for a in arguments if a)})"
    if not text or text[0] in "'\"[{(" or text[-1] in "]}":
        raise ValueError(part)
    if text.startswith("~/"):
        text = os.path.expanduser(text)
    return QuotedString(text, Quote.single).with_quotes()


def _in_quotes(key: str, value: str) -> str:
    """The override as it is typed in a shell, with ``value`` as one quoted text."""
    if "'" in value or '"' in value:
        return shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
    return f"{key}='\"{value}\"'"


def parsed(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides with Hydra. Raises ConfigError."""
    return [_parser().parse_override(override) for override in readable(overrides)]


def single_values(overrides: Sequence[str]) -> list[str]:
    """The overrides that have a single value."""
    return [str(override.input_line) for override in parsed(overrides) if not override.is_sweep_override()]


def values_of(override: Override) -> list[str]:
    """The value or the swept values of an override. Raises ConfigError if they cannot be listed."""
    if not override.is_sweep_override():
        return [str(override.get_value_element_as_str())]
    line = override.input_line
    if not override.is_discrete_sweep():
        raise ConfigError(f"{line}: an interval is no list of cells. List the values: key=a,b,c.")
    override.config_loader = GlobalHydra.instance().config_loader()
    try:
        values = [str(value) for value in islice(override.sweep_string_iterator(), _MOST_VALUES + 1)]
    except (HydraException, ValueError, TypeError) as error:
        raise ConfigError(f"{line}: {short_message(error)}") from None
    if len(values) > _MOST_VALUES:
        raise ConfigError(f"{line}: more than {_MOST_VALUES:,} values.")
    if not values:
        options = override.config_loader.get_group_options(override.key_or_group)
        hint = f" There are: {', '.join(options)}." if options else " A glob chooses among the options of a group."
        raise ConfigError(f"{line}: no value fits.{hint if 'glob' in str(line) else ''}")
    return values


def texts_of(override: Override) -> list[str]:
    """``values_of`` as plain text, without quotes and escapes."""
    values = override.sweep_iterator() if values_of(override) and override.is_sweep_override() else [override.value()]
    return [v.text if isinstance(v, QuotedString) else "null" if v is None else str(v) for v in values]


def as_override(key: str, value: Any) -> str:
    """The override that sets ``key`` to a value of a sweep file. Raises ConfigError if it holds several values."""
    (override,) = parsed([f"{key}={value}"])
    if override.is_sweep_override():
        raise ConfigError(
            f"{key}: {value}, in a sweep file: several values are a list, as {key}: [a, b]; functions such as range "
            "belong on the command line. If it is one value, put it in quotes twice: "
            f"{key}: {QuotedString(str(value), Quote.single).with_quotes()!r}"
        )
    return str(override.input_line)


def explained(overrides: Sequence[str], error: Exception, path: Sequence[str] = ()) -> ConfigError:
    """The error to show for ``overrides`` that Hydra refused with ``error``; ``path`` comes from ``searchpath``."""
    read = parsed(overrides)
    problems = [_needs_multirun(o) for o in read if o.is_sweep_override()]
    with initialised():
        try:
            problems = problems or _misnamed(read, path)
        except REFUSALS:
            problems = []
    if not problems and type(error) is ValueError:
        raise error  # of something else than the overrides
    return ConfigError(problems or short_message(error))


def options_of(group: str, path: Sequence[str] = ()) -> list[str]:
    """The options of a group; empty for an unknown group."""
    with initialised():
        loader = GlobalHydra.instance().config_loader()
        return loader.get_group_options(group, config_name="config", overrides=list(path))


def _misnamed(overrides: Sequence[Override], path: Sequence[str]) -> list[str]:
    """Problems with options and settings that do not exist."""
    groups = [o for o in overrides if "." not in o.key_or_group and options_of(o.key_or_group, path)]
    choices = compose("config", list(path), return_hydra_config=True).hydra.runtime.choices
    problems = [p for o in groups for p in _option_problems(o, options_of(o.key_or_group, path), choices)]
    if problems:
        return problems
    chosen = [str(o.input_line) for o in groups]
    settings = OmegaConf.to_container(compose("config", [*path, *chosen], return_hydra_config=True), resolve=False)
    assert isinstance(settings, dict)
    return [p for o in overrides if o not in groups for p in _key_problems(o, settings)]


def _needs_multirun(override: Override) -> str:
    line, key, value = str(override.input_line), override.get_key_element(), override.get_value_string()
    as_list = shlex.quote(f"{key}=[{value}]")
    for_list = f"For one list: {as_list}. " if override.value_type is ValueType.SIMPLE_CHOICE_SWEEP else ""
    return (
        f"{line}: several values. For a run of each: {command_name('sweep')} {shlex.quote(line)}. {for_list}"
        f"For one text, in quotes: {_in_quotes(key, value)}"
    )


def _option_problems(override: Override, options: Sequence[str], choices: DictConfig) -> Iterator[str]:
    """Problems with the choice among a group's ``options``; ``choices`` are the defaults."""
    group, line, value = override.key_or_group, str(override.input_line), override.value()
    listed, default = f"There are: {', '.join(options)}.", group in choices or group in LISTS
    if override.is_delete():
        yield f"{line}: {group} cannot be left out. {listed}"
        return
    if override.is_force_add():
        yield f"{line}: ++ is for single settings. Leave it out: {line[2:]}"
    elif override.package is not None:
        yield f"{line}: packages (@) are not used here. Say {group}=... alone."
    elif override.is_add() and default:
        yield f"{line}: {group} has an option already. Leave out the +: {line[1:]}"
    elif not override.is_add() and not default:
        yield f"{line}: {group} is a group of your own, which is added with a +: +{line}"
    if isinstance(value, dict) or (isinstance(value, list) and group not in LISTS):
        yield f"{line}: {group} takes the name of one option. {listed}"
        return
    for option in value if isinstance(value, list) else [value]:
        named = "null" if option is None else str(option)
        if "${" not in named and named not in options and not _nested(group, named):
            hint = _as_file(named) if group == "data" else ""
            hint = hint or did_you_mean(named, options, f"{group}=")
            yield f"{group}={named}: there is no such option. {hint}{listed}"


def _as_file(name: str) -> str:
    """How a file or folder is given as the corpus; empty if ``name`` looks like neither."""
    if not (Path(name).suffix or os.sep in name or Path(name).exists()):
        return ""
    return f"A file or folder is given as data=text data.path={shlex.quote(name)}. "


def _nested(group: str, option: str) -> bool:
    folder, _, name = option.rpartition("/")
    return bool(folder) and name in options_of(f"{group}/{folder}")


def _key_problems(override: Override, settings: dict[Any, Any]) -> Iterator[str]:
    """Problems with the name of a single setting; ``settings`` are the composed ones."""
    key, line = override.key_or_group, str(override.input_line)
    if override.package is not None:
        yield f"{line}: packages (@) are not used here. Say {key}=... alone."
        return
    node, above = settings, ""
    for part in key.split("."):
        if not isinstance(node, dict):
            yield f"{key}: {above} is one value and has no settings below it. Give it whole: {above}=..."
            return
        if part not in node:
            if not (override.is_add() or override.is_force_add()):
                yield _unknown(key, above, part, node, settings)
            return
        node, above = node[part], f"{above}.{part}".lstrip(".")
    if override.is_add():
        yield f"{line}: {key} exists already. Leave out the +: {line[1:]}"


def _unknown(key: str, group: str, part: str, node: dict[Any, Any], settings: dict[Any, Any]) -> str:
    """The message for a setting that ``group`` does not have."""
    if group == "tasks" and part in options_of("task"):
        return f"{key}: the run has no task {part}. Add task={part}."
    names = [str(name) for name in node if group or name != "hydra"]
    if near := nearest(part, names):
        rest = key.removeprefix(f"{group}.".lstrip(".")).removeprefix(part)
        hint = f"Did you mean {f'{group}.{near}'.lstrip('.')}{rest}? "
    elif part in options_of(group):
        hint = f"Did you mean {group}={part}? "
    else:
        paths = [name for name in _paths(settings) if not name.startswith("hydra.")]
        last = (
            part if group else nearest(key.rpartition(".")[2], dict.fromkeys(name.rpartition(".")[2] for name in paths))
        )
        same = [name for name in paths if name.rpartition(".")[2] == last]
        if len(same) > 3:  # those of groups come before those of groups in groups
            same = [name for name in same if name.count(".") == min(other.count(".") for other in same)]
        hint = f"Did you mean {' or '.join(same)}? " if 0 < len(same) < 4 else ""
    return f"{key}: there is no such setting. {hint}{group or 'The top level'} has: {', '.join(names) or 'nothing'}."


def _paths(node: dict[Any, Any], above: str = "") -> Iterator[str]:
    """Dotted names of all settings and groups."""
    for key, value in node.items():
        name = f"{above}.{key}".lstrip(".")
        yield name
        if isinstance(value, dict):
            yield from _paths(value, name)


def short_message(error: Exception) -> str:
    """Hydra's message and its cause, without the search path and the advice."""
    causes = [error, error.__cause__] if isinstance(error.__cause__, OmegaConfBaseException) else [error]
    lines = [line.strip() for cause in causes for line in _ADVICE.split(str(cause))[0].splitlines()]
    return " ".join(filter(None, lines))


def searchpath(folder: str | None) -> list[str]:
    """The override that adds the configurations in ``folder``. Raises ConfigError if it does not exist."""
    if folder is None:
        return []
    if not Path(folder).is_dir():
        raise ConfigError(f"--config-dir {folder}: there is no such folder.")
    return [f"hydra.searchpath=[{QuotedString(f'file://{Path(folder).resolve()}', Quote.single).with_quotes()}]"]
