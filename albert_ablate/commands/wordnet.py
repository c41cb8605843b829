"""WordNet's nouns as a table of facts: ``python -m albert_ablate.wordnet /usr/share/wordnet FACTS.tsv``.

Fine-tunings read the table with ``knowledge=inject knowledge.file=FACTS.tsv`` (docs/knowledge.md).
"""

from collections.abc import Sequence
from pathlib import Path

from albert_ablate import console
from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.errors import RunFolderError
from albert_ablate.files import require_writable, write_text


@console.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("wordnet"), description="WordNet's nouns as a table of facts.")
    parser.add_argument(
        "folder", type=Path, help="WordNet's files, such as /usr/share/wordnet of Debian's wordnet-base"
    )
    parser.add_argument("file", type=Path, help="the table to write")
    options = parser.parse_args(arguments)
    try:
        require_writable(options.file.parent)
    except OSError as error:
        raise RunFolderError(
            f"{options.file.parent} cannot be written ({error.strerror}). Name another folder."
        ) from error
    from albert_ablate.tasks.knowledge.facts import table  # after the checks: torch loads slowly
    from albert_ablate.tasks.knowledge.wordnet import PREDICATES, wordnet_facts

    facts, licence = wordnet_facts(options.folder)
    write_text(options.file, table(facts))
    notice = options.file.with_suffix(".license.txt")
    write_text(notice, licence)
    counts = {name: sum(fact.predicate == name for fact in facts) for name in dict.fromkeys(PREDICATES.values())}
    told = ", ".join(f"{count:,} {name!r}" for name, count in counts.items())
    console.say(f"{options.file}: {len(facts):,} facts ({told}), of the first sense of each noun")
    console.say(
        f"WordNet is free for any use as long as its licence stays with it, which is in {notice}; the name Princeton "
        "must not be used in advertising."
    )
    return 0
