"""Completion in bash and zsh: ``eval "$(albert-ablate completion bash)"`` in ``~/.bashrc``.

In ``~/.zshrc`` the line with ``zsh`` stands after ``compinit``. Both shell functions call
``albert-ablate completion --of LINE``, which prints how the last word of LINE may go on.
"""

from collections.abc import Iterator, Sequence

from albert_ablate.arguments import Parser
from albert_ablate.command_line import COMMANDS, program
from albert_ablate.console import command
from albert_ablate.door.completion import settings
from albert_ablate.sweeping.definition import sweep_names

#: Bash splits words at = and :, so each answer is cut after the last of them.
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

#: Zsh adds a space to an answer, except where it may go on.
_ZSH = r"""_albert_ablate() {
    local -a answers
    answers=(${(f)"$(albert-ablate completion --of "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
    compadd -Q -S '' -- ${(M)answers:#*[=./]}
    compadd -Q -- ${answers:#*[=./]}
    (( $#answers )) || _files
}
compdef _albert_ablate albert-ablate"""
_FUNCTIONS = {"bash": _BASH, "zsh": _ZSH}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("completion"), description="Completion in the shell.")
    request = parser.add_mutually_exclusive_group(required=True)
    request.add_argument("shell", nargs="?", choices=_FUNCTIONS, help="print the shell function")
    request.add_argument("--of", metavar="LINE", help="print the completions of the last word of LINE, one a line")
    options = parser.parse_args(arguments)
    for line in [_FUNCTIONS[options.shell]] if options.of is None else answers(options.of):
        print(line)
    return 0


def answers(line: str) -> list[str]:
    """Completions of the last word of ``line``; empty if it may be a file, which the shell completes."""
    *before, word = [*line.split(), ""] if line[-1:].isspace() else line.split()
    if len(before) == 1:
        return [name for name in COMMANDS if name.startswith(word)]
    chosen = COMMANDS.get(before[1]) if before else None
    if chosen is None or not chosen.settings:
        return []
    # Swept settings are left out, because Hydra cannot compose them.
    given = [setting for setting in before[2:] if "=" in setting and "," not in setting]
    return sorted(_settings(given, word))


def _settings(given: Sequence[str], word: str) -> Iterator[str]:
    """Settings that begin with ``word``; of several values (``embed=e64,e1``) the last one is completed."""
    key, equals, value = word.partition("=")
    first, comma, last = value.rpartition(",")
    single = f"{key}{equals}{last}"
    of_sweeps = f"{key}{equals}" == "sweep="
    candidates = [f"sweep={name}" for name in sweep_names()] if of_sweeps else settings(given, single)
    for answer in candidates:
        if answer.startswith(single):
            yield f"{key}{equals}{first}{comma}{answer.removeprefix(f'{key}{equals}')}"
