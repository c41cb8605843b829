"""The form of a task's prompts: one YAML file for each task, shipped in ``templates/`` or a user's own.

    # SST-2: is a film review positive?
    prompt: "{first} It was"  # of a question; the option follows
    options: {"0": terrible, "1": great}  # class -> its words; left out: the class names, or the question's own options
    separator: ". "  # after the option of a demonstration
    neutral: "It was"  # the prompt of the rule ``null``; left out: the rule is not used

Tokenizers make one space of all white space, so a line break separates nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Annotated

import pydantic
import yaml
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from albert_ablate.config.tasks import Word
from albert_ablate.errors import ConfigError, did_you_mean

_SHIPPED = Path(__file__).parent / "templates"
_KEYS = ("prompt", "options", "separator", "neutral", "joint")


def _named_by_words(options: object) -> object:
    """Classes that YAML reads as numbers, as in ``{0: bad, 1: good}``, by their digits."""
    if not isinstance(options, dict):
        return options
    return {str(name) if type(name) is int else name: words for name, words in options.items()}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Template:
    """The form of a prompt. Fields in braces are those of a question."""

    prompt: str
    options: Annotated[dict[str, Word], BeforeValidator(_named_by_words), Field(min_length=2)] | None = None
    separator: str = " "
    neutral: Annotated[str, Field(min_length=1)] | None = None
    joint: str = " "  # between prompt and option; empty in scripts without spaces

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a question that the prompt shows."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.prompt) if name is not None)

    def asked(self, fields: Mapping[str, str]) -> str:
        """The prompt of a question with these ``fields``, up to its option."""
        return self.prompt.format_map(fields).strip()

    def answered(self, fields: Mapping[str, str], option: str) -> str:
        """The same question with its answer, as a demonstration."""
        return f"{self.asked(fields)}{self.joint}{option}{self.separator}"

    def words(self, options: Sequence[str]) -> tuple[str, ...]:
        """The words of a question's options. Raises KeyError for a class that the template does not name."""
        return tuple(options) if self.options is None else tuple(self.options[name] for name in options)


def load_template(task: str, file: str | None) -> Template:
    """The template in the user's ``file`` or, without one, the shipped one of ``task``.

    Raises ConfigError naming the file, the key and the remedy.
    """
    path = _SHIPPED / f"{task}.yaml" if file is None else Path(file).expanduser()
    where = f"kshot.template={path}"
    if not path.is_file():
        if file is not None:
            raise ConfigError(f"{where}: no such file. Give a YAML file with the keys prompt, options and separator.")
        shipped = ", ".join(sorted(found.stem for found in _SHIPPED.glob("*.yaml")))
        raise ConfigError(
            f"kshot.template is empty: no template is shipped for task={task}. Give a file of your own, "
            f"kshot.template=FILE.yaml. There are templates for: {shipped}."
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: no YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: keys with values are expected, such as prompt: '{{first}} It was'.")
    unknown = next((str(key) for key in content if key not in _KEYS), None)
    if unknown is not None:
        hint = did_you_mean(unknown, _KEYS)
        raise ConfigError(f"{where}: there is no key {unknown}. {hint}The keys are: {', '.join(_KEYS)}.")
    try:
        template = pydantic.TypeAdapter(Template).validate_python(content)
        _require_plain(template.prompt)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"] if part not in ("Template", "[key]"))
        raise ConfigError(f"{where}: {key}: {problem['msg'].removeprefix('Value error, ')}.") from None
    except ValueError as error:
        raise ConfigError(f"{where}: prompt: {error}.") from None
    return template


def require_fitting(template: Template, fields: Sequence[str], options: Sequence[str], where: str) -> None:
    """Raise ConfigError unless questions have the template's fields and, with ``options``, its classes.

    ``options``: the classes of the task; empty where each question has options of its own. ``where``: the
    setting or the task that messages name.
    """
    for name in template.fields:
        if name not in fields:
            hint = did_you_mean(name, fields)
            raise ConfigError(
                f"{where}: prompt: its questions have no field {{{name}}}. {hint}There are: {', '.join(fields)}."
            )
    if template.options is None:
        return
    if not options:
        raise ConfigError(f"{where}: options: each question has its own. Leave the key out.")
    missing = [name for name in options if name not in template.options]
    if missing:
        raise ConfigError(
            f"{where}: options: the class {missing[0]!r} is missing. Give words for each: {list(options)}."
        )
    further = [name for name in template.options if name not in options]
    if further:
        raise ConfigError(f"{where}: options: there is no class {further[0]!r}. The classes are: {list(options)}.")


def _require_plain(prompt: str) -> None:
    """Raise ValueError unless every field in braces is a plain name."""
    for _, name, form, conversion in Formatter().parse(prompt):
        if name is not None and (not name.isidentifier() or form or conversion):
            raise ValueError(f"{{{name}}} is no field; give a name in braces, such as {{first}}, or double the braces")
