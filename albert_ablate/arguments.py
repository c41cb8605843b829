"""The options and arguments of commands; a wrong one is refused in words, with the nearest name."""

import argparse
import re
from typing import NoReturn

from albert_ablate.errors import ArgumentsError, did_you_mean
from albert_ablate.shipped import shipped

_UNKNOWN = "unrecognized arguments: "
_CHOICE = re.compile(r"argument ([^:]+): invalid choice: (.+?) \(choose from .*\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose errors are an ArgumentsError with the nearest option or value, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises ArgumentsError, for the ``message`` of argparse."""
        if message.startswith(_UNKNOWN):
            raise ArgumentsError("\n".join(map(self._unknown, message.removeprefix(_UNKNOWN).split())))
        choice = _CHOICE.fullmatch(message)
        if choice:
            raise ArgumentsError(self._no_choice(*choice.groups()))
        raise ArgumentsError(f"{message.removeprefix('argument ')}. `{self.prog} --help` shows what it takes.")

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word}: one argument too many. `{self.prog} --help` shows what it takes."
        option, equals, value = word.partition("=")
        shown = (action for action in self._actions if action.help != argparse.SUPPRESS)
        options = [name for action in shown for name in action.option_strings if name.startswith("--")]
        setting = option.lstrip("-")
        hint = did_you_mean(option, options)
        if equals or "." in setting or (shipped("conf") / setting).is_dir():
            hint = f"A setting has no dashes: {setting}={value or 'VALUE'}. "
        return f"{option}: there is no such option. {hint}Options are {', '.join(options)}."

    def _no_choice(self, name: str, value: str) -> str:
        """The message for a ``value``, as Python writes it, of the argument that argparse calls ``name``."""
        action = next(a for a in self._actions if name in ("/".join(a.option_strings), a.metavar, a.dest))
        choices = [str(choice) for choice in action.choices or ()]
        plain = value.strip("'\"")
        hint = did_you_mean(plain, choices)
        return f"{name} {plain}: there is no such choice. {hint}There are: {', '.join(choices)}."
