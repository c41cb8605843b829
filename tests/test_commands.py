"""All commands, found by their ``__main__`` part, end a mistake in the same way: words on stderr and an exit code."""

import argparse
import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runhelpers import ROOT, one_thread

from albert_ablate import console
from albert_ablate.errors import ConfigError, LockedError


def is_command(file: Path) -> bool:
    """Whether a file has a part for ``python -m``."""
    tests = (ast.unparse(node.test) for node in ast.parse(file.read_text()).body if isinstance(node, ast.If))
    return "__name__ == '__main__'" in tests


FILES = [ROOT / "run.py", *sorted((ROOT / "albert_ablate").rglob("*.py")), *sorted((ROOT / "analysis").rglob("*.py"))]
COMMANDS = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES if is_command(file)]


def exit_code(name: str) -> int:
    """What the process of a command ends with."""
    return int(importlib.import_module(name).main())


def at_the_parser(patch: pytest.MonkeyPatch, act: Callable[..., Any]) -> None:
    """Have ``act`` called with the parser of a command where that would read its words."""
    for name in ("parse_args", "parse_intermixed_args"):
        patch.setattr(argparse.ArgumentParser, name, act)


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*_: Any) -> None:
        raise error

    return act


def missing_runs(name: str, place: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """The least words that a command takes, each of them naming a folder that is not there."""
    parsers: list[argparse.ArgumentParser] = []

    def keep(parser: argparse.ArgumentParser, *_: Any) -> None:
        parsers.append(parser)
        raise LockedError("the parser is known")

    with patch.context() as patched:
        at_the_parser(patched, keep)
        assert exit_code(name) == LockedError.exit_code
    words, missing = [], str(place / "nowhere" / "run")
    for action in parsers[0]._actions:
        if action.required and action.option_strings:
            words += [action.option_strings[0], missing]
        elif not action.option_strings:
            words += [missing] * (action.nargs if isinstance(action.nargs, int) else 1)
    return words


def test_every_command_is_here() -> None:
    assert len(COMMANDS) >= 14
    assert {"run", "albert_ablate.plan", "albert_ablate.status", "analysis.report"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_is_said_once_and_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_the_parser(monkeypatch, raising(ConfigError(["seed=x: no number.", "embed=y: unknown."])))
    assert exit_code(name) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = ["", "Nothing was run; the settings need a change:", "  - seed=x: no number.", "  - embed=y: unknown.", ""]
    assert said.err.splitlines() == lines


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_is_no_traceback(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    at_the_parser(monkeypatch, raising(KeyboardInterrupt()))
    assert exit_code(name) == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"


@pytest.mark.usefixtures("capsys")  # whose streams ``main`` may make its own
@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_that_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = missing_runs(name, tmp_path, monkeypatch)
    environment = one_thread() | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", name, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (1, 2), done.stderr
    assert done.stdout == ""
    assert "nowhere" in done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "usage:", "Errno"))
    sentences = [line for line in done.stderr.splitlines() if line]
    assert len(sentences) == len({*sentences}), "said twice"


def test_python_keeps_its_streams_and_its_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is called with words is a part of the caller's program."""
    monkeypatch.setattr(console, "prepare", raising(AssertionError("the streams are the caller's")))

    @console.command
    def main(arguments: Any = None) -> int:
        if arguments == ["stop"]:
            raise KeyboardInterrupt
        return len(arguments)

    assert main(["a", "b", "c"]) == 3
    with pytest.raises(KeyboardInterrupt):
        main(["stop"])
