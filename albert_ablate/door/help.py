"""The help of ``run`` and ``sweep``, for the terminal and as ``docs/settings.md`` (part of the door)."""

import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

from albert_ablate.command_line import command_name
from albert_ablate.config.reference import Setting, explained_settings, groups, sections, settings
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, did_you_mean

_WIDTH = 100
#: Commands, their arguments, and what they do.
_EXAMPLES = (
    ("run", "embed=e128 share=all objective=sop", "one cell, minutes on a laptop"),
    ("sweep", "embed=e64,e128 share=all,none", "every combination"),
    ("sweep", "sweep=table4 scale=cpu seed=0,1,2", "an experiment of the paper"),
    ("plan", "sweep=table4 scale=cpu", "what that would run and cost"),
    ("run", "scale=cpu seed=1", "past the plateau, tens of minutes"),
    ("run", "data=text data.path=my_corpus.txt", "your own text"),
    ("run", "task=demo", "fine-tuning on two small tasks after it"),
    ("finetune", "runs/NAME task=sst2 task.data_dir=DATA", "or later"),
    ("run", "--cfg job", "show the settings, run nothing"),
)


def text(topics: Sequence[str]) -> str:
    """The help on ``topics``: groups, settings or ``settings`` (all); without topics, the overview.

    Raises ConfigError for a topic that is neither.
    """
    return "\n".join(map(_topic, topics)) if topics else _overview()


def page() -> str:
    """``docs/settings.md``."""
    lines = [
        "# Settings",
        "",
        f"Every group and setting, as `{command_name('run')} --help settings` shows them. `make settings` writes this",
        "page from the comments in `conf/`. Defaults are those of `scale=demo`; other presets change many of them.",
        "`*` stands for the name of a task, or for the number of an entry in a list.",
    ]
    options = {group.name: group.options for group in groups()}
    for name, comment in sections().items():
        lines += ["", f"## {name}", "", _sentence(comment)] if comment else ["", f"## {name}"]
        if name in options:
            lines += ["", "| option | content |", "|---|---|"]
            lines += [f"| `{name}={option}` | {_cell(content)} |" for option, content in options[name].items()]
        lines += ["", "| setting | default | values | explanation |", "|---|---|---|---|"]
        for setting in explained_settings(name):
            default = f"`{_default(setting)}`" if _default(setting) else ""
            lines.append(f"| `{setting.name}` | {default} | {_cell(setting.values)} | {_cell(setting.comment)} |")
    return "\n".join(lines) + "\n"


def _overview() -> str:
    run = command_name("run")
    calls = [(f"{command_name(command)} {arguments}", does) for command, arguments, does in _EXAMPLES]
    width = max(len(call) for call, _ in calls) + 2
    lines = ["One cell of an ALBERT ablation: tokenizer, segment pairs, pretraining, held-out evaluation.", ""]
    lines += [f"  {call:<{width}}{does}" for call, does in calls]
    lines += ["", "Groups (choose with group=option):", ""]
    for group in groups():
        lines += [f"  {group.name:<12}{group.comment}", *_wrapped(", ".join(group.options), 14)]
    others = [name for name in sections() if name not in {group.name for group in groups()}]
    lines += ["", "Other settings:", ""]
    lines += [f"  {name:<12}{sections()[name] or _alone(name).comment}" for name in others]
    lines += [
        "",
        "Any setting can be overridden by its name, such as optimizer.learning_rate=0.001.",
        f"  {run} --help GROUP       explains a group, or a setting such as batch.size",
        f"  {run} --help settings    explains all settings",
    ]
    return "\n".join(lines) + "\n"


def _alone(name: str) -> Setting:
    return next(setting for setting in settings() if setting.name == name)


def _topic(topic: str) -> str:
    name = topic.partition("=")[0]
    if name == "settings":
        return "\n".join(map(_topic, sections()))
    chosen = next((group for group in groups() if group.name == name), None)
    explained = explained_settings(name)
    if not explained:
        hint = did_you_mean(name, [*sections(), *(setting.name for setting in settings())])
        listed = ", ".join(["settings", *sections()])
        raise ConfigError(f"--help {name}: there is no such group or setting. {hint}There is help on {listed}.")
    lines = [f"{name}: {sections()[name]}" if sections().get(name) else name, ""]
    if chosen:
        width = max(map(len, chosen.options)) + len(name) + 3
        for option, content in chosen.options.items():
            first, *rest = _wrapped(content, width + 2)
            lines += [f"  {f'{name}={option}':<{width}}{first.strip()}", *rest]
        lines.append("")
    for setting in explained:
        default = _default(setting)
        lines.append(f"  {setting.name}{f'={default}' if default else ''}  ({setting.values})")
        lines += _wrapped(setting.comment, 6)
    return "\n".join(lines) + "\n"


def _wrapped(content: str, indent: int) -> list[str]:
    return textwrap.wrap(content, _WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent) or [""]


def _sentence(comment: str) -> str:
    return f"{comment[:1].upper()}{comment[1:].removesuffix('.')}."


def _cell(content: str) -> str:
    """A text for a cell of a Markdown table."""
    return content.replace("|", "\\|").replace("*", "\\*")


@cache
def _defaults() -> dict[str, Any]:
    """Name -> value without overrides; the structure of planted text is that of data=planted."""
    planted = compose(["data=planted"]).as_dict()["data"]["planted"]
    return _flat(planted, "data.planted.") | _flat(compose().as_dict(), "")


def _flat(values: dict[str, Any], above: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def _default(setting: Setting) -> str:
    """The default as it is written on the command line; empty for a setting of a task or of a list's entry."""
    defaults = _defaults()
    return _written(defaults[setting.name]) if setting.name in defaults else ""


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
