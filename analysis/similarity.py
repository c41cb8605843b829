"""Figure 1 for any run and any text: ``python -m analysis.similarity runs/NAME ... --text FILE``.

L2 distance and angle between the input and output of every layer (paper, section 3.1), averaged over the real
tokens of the first sequences of the text. All models get the same sequences, of one length.
"""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.config.schema import DataConfig, PairsConfig, RunConfig
from albert_ablate.console import command
from albert_ablate.data.segments import Pairs
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file
from albert_ablate.door.compose import IMPORTED, compose, compose_for_run
from albert_ablate.door.importing import import_checkpoint
from albert_ablate.errors import DataError, UserError
from albert_ablate.evaluation.heldout import PairSet
from albert_ablate.evaluation.similarity import layer_similarity
from albert_ablate.files import read_json
from albert_ablate.methods import method_of
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.checkpoint import WEIGHTS, load_weights, newest

from .draw import style
from .draw.paper import draw_layers, layers_of
from .read.places import inside, require_ours, require_writable
from .read.same_text import read_text, same_pairs, stores_of

#: Tokens of the shortest sequence (``pairs.max_length``).
_SHORTEST = 8
_SEQUENCES = 256


@dataclass(frozen=True)
class _Subject:
    """A model that is measured."""

    run: Path
    checkpoint: Path
    config: RunConfig
    tokenizer: Tokenizer

    @property
    def most(self) -> int:
        """Length of the longest sequence that the model accepts, tokens."""
        return self.config.model.max_positions


def measure(source: Path, text: Path, sequences: int = _SEQUENCES, length: int | None = None) -> dict[str, Any]:
    """``measure_all`` for one model."""
    return measure_all([source], text, sequences, length)[0]


def measure_all(
    sources: Sequence[Path], text: Path, sequences: int = _SEQUENCES, length: int | None = None
) -> list[dict[str, Any]]:
    """``layer_similarity`` of several models on the same sequences of ``text``, of at most ``length`` pieces.

    A source is a run folder (its newest checkpoint is measured), a checkpoint folder in it, a folder of transformers
    with an ALBERT, BERT, DistilBERT or ELECTRA, or the name of one on the hub. ``length`` defaults to the shortest
    sequence length that the models were trained with. Raises DataError where the text gives no sequence or a model does
    not accept that length, and CheckpointError or DataError for any other folder.
    """
    with ExitStack() as opened:
        subjects = [_opened(source, opened) for source in sources]
        if not text.is_file():
            raise DataError(f"--text {text}: no such file.")
        length = _common_length(subjects, length)
        data = _common_data([subject.config.data for subject in subjects])
        settings = replace(_common_pairs([subject.config.pairs for subject in subjects]), max_length=length)
        stores = stores_of(read_text(text, data), {s.tokenizer.fingerprint: s.tokenizer for s in subjects})
        pairs = same_pairs(stores, settings, sequences)
        if not all(map(len, pairs.values())) or not pairs:
            raise DataError(f"--text {text}: no two sentences in one document; nothing to measure on.")
        return [
            _measured(subject, stores[subject.tokenizer.fingerprint], pairs[subject.tokenizer.fingerprint], settings)
            for subject in subjects
        ]


def _measured(subject: _Subject, store: TokenStore, pairs: Pairs, settings: PairsConfig) -> dict[str, Any]:
    config = replace(subject.config, pairs=settings)
    model = method_of(config).build({})
    load_weights(subject.checkpoint, model)
    similarity = layer_similarity(model.encoder, PairSet(store, pairs, subject.tokenizer.word_starts, config).batches())
    status = RunFolder(subject.run.parent, subject.run.name).status() or {}
    return similarity | {
        "run": subject.run.name, "checkpoint": subject.checkpoint.name,
        style.COLOURED.name: style.COLOURED.value(config),
        "seed": config.seed, "finished": status.get("state") == "finished", "length": settings.max_length,
        "own_length": subject.config.pairs.max_length,
    }  # fmt: skip


def _is_foreign(source: Path) -> bool:
    """Whether the model has to be imported first: a folder of transformers, or a name on the hub."""
    return (source / "config.json").is_file() or not source.exists()


def _opened(source: Path, scratch: ExitStack) -> _Subject:
    if _is_foreign(source):
        run = Path(scratch.enter_context(tempfile.TemporaryDirectory())) / source.name
        import_checkpoint(str(source), run, lambda: compose(IMPORTED))
        source = run
    run, checkpoint = _locate(source)
    config = compose_for_run(run / "config.yaml", [])
    return _Subject(run, checkpoint, config, open_tokenizer(tokenizer_file(run), config.tokenizer))


def _common_length(subjects: Sequence[_Subject], length: int | None) -> int:
    """``length``, or the shortest of the models' lengths. Raises DataError where a model does not accept it."""
    if length is None:
        return min(subject.config.pairs.max_length for subject in subjects)
    least = min(subjects, key=lambda subject: subject.most)
    if not _SHORTEST <= length <= least.most:
        raise DataError(
            f"--length {length}: {least.run.name} takes sequences of {_SHORTEST} to {least.most} tokens, and all rows "
            f"of a table have one length. Give --length {min(max(length, _SHORTEST), least.most)}, or leave it out."
        )
    return length


def _common_data(settings: Sequence[DataConfig]) -> DataConfig:
    """Settings for reading the text: those of the first run; the format is detected unless all runs agree on it."""
    agreed = len({data.format for data in settings}) == 1
    return settings[0] if agreed else replace(settings[0], format="auto")


def _common_pairs(settings: Sequence[PairsConfig]) -> PairsConfig:
    """Settings for pairs: those of the first run; ``single_sentence`` is ``extend`` unless all runs agree on it."""
    agreed = len({pairs.single_sentence for pairs in settings}) == 1
    return settings[0] if agreed else replace(settings[0], single_sentence="extend")


def _locate(source: Path) -> tuple[Path, Path]:
    """(run folder, checkpoint folder) of a run folder or a checkpoint. Raises DataError for any other folder."""
    of_run = source.parent.name == "checkpoints"
    run = source.parent.parent if of_run else source
    if not (run / "config.yaml").is_file():
        runs = inside(source)
        more = f" It is a folder of {len(runs)} runs: name them, such as {runs[0]}." if runs else ""
        raise DataError(
            f"{source}: neither a run folder (with config.yaml), nor one of its checkpoints/step_..., nor a model of "
            f"transformers (with config.json).{more}"
        )
    if of_run and not (source / WEIGHTS).is_file():
        raise DataError(f"{source}: no complete checkpoint (it has no {WEIGHTS}).")
    if not tokenizer_file(run).is_file():
        raise DataError(
            f"{run}: it keeps no {tokenizer_file(run).name}, so its tokenizer is not known; an older version made it."
        )
    return run, source if of_run else newest(run / "checkpoints")


def _once(sources: Sequence[Path]) -> list[Path]:
    """``sources`` without repetitions of the same checkpoint of the same run, as in a copy of the run folder."""
    known: dict[tuple[str, ...], Path] = {}
    for source in sources:
        run = source.parent.parent if source.parent.name == "checkpoints" else source
        key: tuple[str, ...] = (str(source.resolve()),)
        if (run / "config.yaml").is_file() and (run / "manifest.json").is_file():
            checkpoint = _locate(source)[1]
            key = (str(read_json(run / "manifest.json").get("identity")), checkpoint.name)
        if key in known:
            print(f"{source}: the same checkpoint of the same run as {known[key]}; shown once", file=sys.stderr)
        known.setdefault(key, source)
    return list(known.values())


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the layers of every model; with ``--out`` draws them. Exit code 2 for an unusable model or text."""
    parser = Parser(prog=program("similarity"), description="What each layer does to its input, on your text.")
    parser.add_argument("sources", type=Path, nargs="+", metavar="RUN_OR_CHECKPOINT", help="or a name on the hub")
    parser.add_argument("--text", type=Path, required=True, help="prose, sentences, .jsonl or .parquet; may be packed")
    parser.add_argument("--sequences", type=int, default=_SEQUENCES, help=f"how many (default: {_SEQUENCES})")
    parser.add_argument("--length", type=int, help="of the sequences, in tokens (default: the shortest of the models')")
    parser.add_argument("--out", type=Path, help="folder for figure1.png, .svg, .pdf, .csv")
    options = parser.parse_args(arguments)
    if options.out:
        require_writable("--out", options.out)
        require_ours("--out", options.out, style.files("figure1"), "figure1.csv", "")
    if options.sequences < 1:
        raise DataError(f"--sequences {options.sequences}: give 1 or more.")
    runs = measure_all(_once(options.sources), options.text, options.sequences, options.length)
    console = Console(highlight=False)
    console.print(_table(runs))
    for run in runs:
        if not run.get("finished", True):
            console.print(f"{run['run']}: the run is not finished; measured at {run['checkpoint']}", soft_wrap=True)
    basis = _basis(runs)
    console.print(basis, style="dim", soft_wrap=True)
    if options.out:
        names = [run["run"] for run in runs]
        labels = [
            name if names.count(name) == 1 else f"{name}, {run['checkpoint']}"
            for name, run in zip(names, runs, strict=True)
        ]
        data = layers_of({label: pd.DataFrame([run]) for label, run in zip(labels, runs, strict=True)})
        data["length"] = runs[0]["length"]
        drawing = style.Drawing("figure1", "What each layer does to its input", basis, draw_layers(data), data)
        try:
            style.write(drawing, options.out)
        except OSError as error:
            raise UserError(f"--out {options.out}: cannot be written ({error.strerror}).") from error
        console.print(f"{options.out / 'figure1'}.png, .svg, .pdf and .csv", soft_wrap=True)
    return 0


def _table(runs: Sequence[dict[str, Any]]) -> Table:
    """A row for each layer; a column of token counts where the models differ in them."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    counts = len({run["tokens"] for run in runs}) > 1
    for name in ("run", *(["tokens"] if counts else []), "layer", "L2", "degrees"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for run in runs:
        for layer, (distance, angle) in enumerate(zip(run["l2"], run["degrees"], strict=True), 1):
            first = [Text(run["run"]), *([f"{run['tokens']:,}"] if counts else [])]
            row = first if layer == 1 else [""] * len(first)
            table.add_row(*row, str(layer), f"{distance:.2f}", f"{angle:.1f}")
    return table


def _basis(runs: Sequence[dict[str, Any]]) -> str:
    """The tokens and sequences that all rows were measured on, as a sentence."""
    length, sequences = runs[0]["length"], runs[0]["sequences"]
    model_lengths = sorted({run["own_length"] for run in runs})
    if length in model_lengths:
        origin = (
            "the models' own length"
            if len(model_lengths) == 1
            else f"the shortest of the models' own, {model_lengths[0]} to {model_lengths[-1]}"
        )
    else:
        origin = f"the models' own length is {' and '.join(map(str, model_lengths))}"
    same_text = f"{sequences:,} sequences of up to {length} tokens ({origin})"
    if len({run["tokens"] for run in runs}) == 1:
        return f"{runs[0]['tokens']:,} tokens of {same_text}"
    return f"{same_text}, the same text for all; their tokenizers divide it into different numbers of tokens"


if __name__ == "__main__":
    sys.exit(main())
