"""Figure 1 of any run on any text: ``python -m analysis.similarity runs/NAME ... --text FILE``.

L2 distance and angle between the input and output of every layer, as in the paper's section 3.1,
averaged over the real tokens of the first sequences of the text: the same ones, of one length, for all models.
"""

import argparse
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

from albert_ablate.config import DataConfig, PairsConfig, RunConfig
from albert_ablate.console import command, program
from albert_ablate.data.segments import Pairs
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file
from albert_ablate.errors import DataError, UserError
from albert_ablate.evaluation.heldout import PairSet
from albert_ablate.evaluation.similarity import layer_similarity
from albert_ablate.files import read_json
from albert_ablate.hydra_compose import compose_for_run
from albert_ablate.import_hf import import_checkpoint
from albert_ablate.model.pretraining import build_model
from albert_ablate.runs import RunFolder
from albert_ablate.training.checkpoint import WEIGHTS, load_weights, newest

from . import style
from .paper_figures import draw_layers, layers_of
from .places import inside, require_ours, require_writable
from .same_text import read_text, same_pairs, stores_of

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
        """The longest sequence that it takes."""
        return self.config.model.max_positions


def measure(place: Path, text: Path, sequences: int = _SEQUENCES, length: int | None = None) -> dict[str, Any]:
    """``measure_all`` of one place."""
    return measure_all([place], text, sequences, length)[0]


def measure_all(
    places: Sequence[Path], text: Path, sequences: int = _SEQUENCES, length: int | None = None
) -> list[dict[str, Any]]:
    """``layer_similarity`` of several models on the same sequences of ``text``, of at most ``length`` pieces.

    A place is a run folder (its newest checkpoint is measured), a checkpoint folder in it, or an ALBERT or BERT: a
    folder of transformers or a name on the hub. ``length`` is, unless given, that of the models' own sequences, the
    shortest of several. Raises DataError where the text gives no sequence or a model takes none of that length,
    CheckpointError or DataError where a folder is none of those.
    """
    with ExitStack() as opened:
        subjects = [_opened(place, opened) for place in places]
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
    model = build_model(config.architecture(), config.seed)
    load_weights(subject.checkpoint, model)
    found = layer_similarity(model.encoder, PairSet(store, pairs, subject.tokenizer.word_starts, config).batches())
    status = RunFolder(subject.run.parent, subject.run.name).status() or {}
    return found | {
        "run": subject.run.name, "checkpoint": subject.checkpoint.name,
        style.COLOURED.name: style.COLOURED.value(config),
        "seed": config.seed, "finished": status.get("state") == "finished", "length": settings.max_length,
        "own_length": subject.config.pairs.max_length,
    }  # fmt: skip


def _is_foreign(place: Path) -> bool:
    """Whether a place is to be imported first: a folder of transformers, or a name on the hub."""
    return (place / "config.json").is_file() or not place.exists()


def _opened(place: Path, scratch: ExitStack) -> _Subject:
    if _is_foreign(place):
        run = Path(scratch.enter_context(tempfile.TemporaryDirectory())) / place.name
        import_checkpoint(str(place), run)
        place = run
    run, checkpoint = _found(place)
    config = compose_for_run(run / "config.yaml", [])
    return _Subject(run, checkpoint, config, open_tokenizer(tokenizer_file(run), config.tokenizer))


def _common_length(subjects: Sequence[_Subject], length: int | None) -> int:
    """As given, or the shortest of the models' own. Raises DataError where a model takes no such sequence."""
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
    """How the text is read: as for the first run, its form told by the content unless all agree on it."""
    agreed = len({data.format for data in settings}) == 1
    return settings[0] if agreed else replace(settings[0], format="auto")


def _common_pairs(settings: Sequence[PairsConfig]) -> PairsConfig:
    """How sentences without a second one are treated: as all agree to, else they are left out (``extend``)."""
    agreed = len({pairs.single_sentence for pairs in settings}) == 1
    return settings[0] if agreed else replace(settings[0], single_sentence="extend")


def _found(place: Path) -> tuple[Path, Path]:
    """(run folder, checkpoint folder) of either: what is measured is the place itself or nothing."""
    of_run = place.parent.name == "checkpoints"
    run = place.parent.parent if of_run else place
    if not (run / "config.yaml").is_file():
        runs = inside(place)
        more = f" It is a folder of {len(runs)} runs: name them, such as {runs[0]}." if runs else ""
        raise DataError(
            f"{place}: neither a run folder (with config.yaml), nor one of its checkpoints/step_..., nor a model of "
            f"transformers (with config.json).{more}"
        )
    if of_run and not (place / WEIGHTS).is_file():
        raise DataError(f"{place}: no complete checkpoint (it has no {WEIGHTS}).")
    if not tokenizer_file(run).is_file():
        raise DataError(
            f"{run}: it keeps no {tokenizer_file(run).name}, so its tokenizer is not known; an older version made it."
        )
    return run, place if of_run else newest(run / "checkpoints")


def _once(places: Sequence[Path]) -> list[Path]:
    """The places without those that are the same checkpoint of the same run: a copy is no second run."""
    known: dict[tuple[str, ...], Path] = {}
    for place in places:
        run = place.parent.parent if place.parent.name == "checkpoints" else place
        key: tuple[str, ...] = (str(place.resolve()),)
        if (run / "config.yaml").is_file() and (run / "manifest.json").is_file():
            checkpoint = _found(place)[1]
            key = (str(read_json(run / "manifest.json").get("identity")), checkpoint.name)
        if key in known:
            print(f"{place}: the same checkpoint of the same run as {known[key]}; shown once", file=sys.stderr)
        known.setdefault(key, place)
    return list(known.values())


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the layers of every run; with ``--out`` draw them. Exit code 2 for a place or text that will not do."""
    parser = argparse.ArgumentParser(
        prog=program("analysis.similarity"), description="What each layer does to its input, on your text."
    )
    parser.add_argument("places", type=Path, nargs="+", metavar="RUN_OR_CHECKPOINT", help="or a name on the hub")
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
    found = measure_all(_once(options.places), options.text, options.sequences, options.length)
    console = Console(highlight=False)
    console.print(_table(found))
    for one in found:
        if not one.get("finished", True):
            console.print(f"{one['run']}: the run is not finished; measured at {one['checkpoint']}", soft_wrap=True)
    words = _basis(found)
    console.print(words, style="dim", soft_wrap=True)
    if options.out:
        names = [one["run"] for one in found]
        labels = [
            name if names.count(name) == 1 else f"{name}, {one['checkpoint']}"
            for name, one in zip(names, found, strict=True)
        ]
        data = layers_of({label: pd.DataFrame([one]) for label, one in zip(labels, found, strict=True)})
        data["length"] = found[0]["length"]
        drawing = style.Drawing("figure1", "What each layer does to its input", words, draw_layers(data), data)
        try:
            style.write(drawing, options.out)
        except OSError as error:
            raise UserError(f"--out {options.out}: cannot be written ({error.strerror}).") from error
        console.print(f"{options.out / 'figure1'}.png, .svg, .pdf and .csv", soft_wrap=True)
    return 0


def _table(found: Sequence[dict[str, Any]]) -> Table:
    """A row a layer; the tokens of each model where they are not those of all."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    counts = len({one["tokens"] for one in found}) > 1
    for name in ("run", *(["tokens"] if counts else []), "layer", "L2", "degrees"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for one in found:
        for layer, (distance, angle) in enumerate(zip(one["l2"], one["degrees"], strict=True), 1):
            first = [Text(one["run"]), *([f"{one['tokens']:,}"] if counts else [])]
            row = first if layer == 1 else [""] * len(first)
            table.add_row(*row, str(layer), f"{distance:.2f}", f"{angle:.1f}")
    return table


def _basis(found: Sequence[dict[str, Any]]) -> str:
    """On what all rows were measured."""
    length, sequences = found[0]["length"], found[0]["sequences"]
    own = sorted({one["own_length"] for one in found})
    if length in own:
        of = "the models' own length" if len(own) == 1 else f"the shortest of the models' own, {own[0]} to {own[-1]}"
    else:
        of = f"the models' own length is {' and '.join(map(str, own))}"
    one_text = f"{sequences:,} sequences of up to {length} tokens ({of})"
    if len({one["tokens"] for one in found}) == 1:
        return f"{found[0]['tokens']:,} tokens of {one_text}"
    return f"{one_text}, the same text for all; their tokenizers divide it into unlike numbers of tokens"


if __name__ == "__main__":
    sys.exit(main())
