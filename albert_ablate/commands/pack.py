"""Pack a corpus: ``python -m albert_ablate.pack FILE data=text data.path=TEXT tokenizer.vocab_size=8000``.

The file holds tokens, tokenizer and counts, but no text. Runs with ``data=packed data.path=FILE`` have the same
identities as runs on the text itself.
"""

from collections.abc import Sequence
from pathlib import Path

from albert_ablate import console
from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, RunFolderError
from albert_ablate.files import require_writable


@console.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("pack"), description="A corpus as one file of tokens, without its text.")
    parser.add_argument("file", type=Path, help="the file to write")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="data, tokenizer and paths, as of a run")
    options = parser.parse_args(arguments)
    size = pack(options.file, compose(options.settings))
    console.say(f"{options.file}: {size / 1e6:.1f} MB. Runs read it with data=packed data.path={options.file}")
    return 0


def pack(file: Path, config: RunConfig) -> int:
    """Write the corpus of ``config`` to ``file``; returns the size of the file in bytes. Raises UserError."""
    if config.data.fraction != 1:
        raise ConfigError(f"data.fraction={config.data.fraction}: a file holds all documents. Give it to the run.")
    if config.data.source == "planted":
        raise ConfigError("data=planted: its text is drawn from its settings, which any machine has. Nothing to pack.")
    try:
        require_writable(file.parent)
    except OSError as error:
        raise RunFolderError(f"{file.parent} cannot be written ({error.strerror}). Name another folder.") from error
    from albert_ablate.data.packed import write_packed  # after the checks: torch loads slowly
    from albert_ablate.data.prepare import encode
    from albert_ablate.record.outcome import explaining_disk_errors

    with explaining_disk_errors(str(file.parent), config.paths.cache):
        encoded, _ = encode(config)
        with console.stage("compressing tokens"):
            write_packed(file, encoded)
    return file.stat().st_size
