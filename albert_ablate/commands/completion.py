"""Completion in bash: ``eval "$(albert-ablate completion bash)"`` in ``~/.bashrc``.

The shell function asks ``albert-ablate completion --of LINE`` for what may stand at the end of LINE.
"""

import argparse
from collections.abc import Iterator, Sequence

from albert_ablate.command_line import COMMANDS
from albert_ablate.console import command, program
from albert_ablate.door.completion import settings
from albert_ablate.sweeping.definition import sweep_names

#: Bash takes = and : for ends of words, so what stands before the last of them is cut off each answer.
_BASH = r"""_albert_ablate() {
    local line=${COMP_LINE:0:COMP_POINT} word rest answer
    word=${line##*[[:space:]]}
    rest=${word##*[=:]}
    COMPREPLY=()
    while IFS= read -r answer; do
        COMPREPLY+=("${answer#"${word%"$rest"}"}")
    done < <(albert-ablate completion --of "$line" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=./] ]]; then COMPREPLY[0]+=" "; fi
}
complete -o nospace -o bashdefault -o default -F _albert_ablate albert-ablate"""


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog=program("albert_ablate completion"), description=__doc__.split("\n\n")[0])
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("shell", nargs="?", choices=["bash"], help="print the shell function")
    asked.add_argument("--of", metavar="LINE", help="print what may stand at the end of a line, an answer a line")
    options = parser.parse_args(arguments)
    for line in [_BASH] if options.of is None else answers(options.of):
        print(line)
    return 0


def answers(line: str) -> list[str]:
    """What the last word of ``line`` may become; nothing where files may stand, which the shell completes."""
    *before, word = [*line.split(), ""] if line[-1:].isspace() else line.split()
    if len(before) == 1:
        return [name for name in COMMANDS if name.startswith(word)]
    chosen = COMMANDS.get(before[1]) if before else None
    if chosen is None or not chosen.settings:
        return []
    given = [one for one in before[2:] if "=" in one and "," not in one]  # of swept values Hydra composes nothing
    return sorted(_settings(given, word))


def _settings(given: Sequence[str], word: str) -> Iterator[str]:
    """Settings that begin as ``word`` does, its last value completed where it has several (``embed=e64,e1``)."""
    key, equals, value = word.partition("=")
    first, comma, last = value.rpartition(",")
    single = f"{key}{equals}{last}"
    found = [f"sweep={name}" for name in sweep_names()] if f"{key}{equals}" == "sweep=" else settings(given, single)
    for answer in found:
        if answer.startswith(single):
            yield f"{key}{equals}{first}{comma}{answer.removeprefix(f'{key}{equals}')}"
