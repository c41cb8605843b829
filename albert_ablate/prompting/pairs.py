"""Minimal pairs as questions: two sentences, of which the good one should be the more probable."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from albert_ablate import streams
from albert_ablate.config.kshot import MinimalPairsConfig
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.text import prepare_text, sentences_of, side_of_text, text_info
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.files import digest, sha256_file
from albert_ablate.prompting.corruptions import Pair, corrupted
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.questions import Question, Questions
from albert_ablate.tasks.tables import json_rows
from albert_ablate.tasks.texts.examples import limited

#: Name of the task, of its template and of its results.
NAME = "minimal_pairs"
_FIELD = "kshot.minimal_pairs.file"
#: Raise when the same text and settings would give other pairs.
_FORMAT = 1
#: Keys that name the phenomenon of a pair, the most exact first (BLiMP; Warstadt et al., 2020).
_PHENOMENON = ("UID", "phenomenon", "linguistics_term", "field")


@dataclass(frozen=True)
class PairSource:
    """Where minimal pairs come from: located, not read."""

    settings: MinimalPairsConfig
    files: tuple[Path, ...]  # of a user
    text: Path | None  # held-out sentences
    fingerprint: str


def locate_pairs(settings: MinimalPairsConfig, config: RunConfig, run: RunFolder) -> PairSource:
    """Find the user's files, or the held-out text of the run. Raises DataError if they are missing."""
    if settings.file is not None:
        place = Path(settings.file).expanduser()
        files = tuple(sorted(place.glob("*.jsonl"))) if place.is_dir() else (place,)
        if not files or not place.exists():
            raise DataError(
                f"{_FIELD}={settings.file}: no {'.jsonl in this folder' if place.is_dir() else 'such file'}."
            )
        return PairSource(settings, files, None, digest([_FORMAT, [sha256_file(file) for file in files]]))
    if config.data.source == "packed":
        raise DataError(
            f"{_FIELD} is empty: a packed corpus has no text to make pairs of. Give pairs of your own in a "
            ".jsonl, or leave the task out: task=none kshot.ask=command."
        )
    cache = Path(config.paths.cache)
    folder = prepare_text(open_corpus(config.data), config.data.language, config.data.validation_fraction, cache)
    fingerprint = text_info(folder)["fingerprint"]
    trained = (run.path / "manifest.json").is_file()
    recorded = run.read("manifest.json").get("data", {}).get("text", {}).get("fingerprint") if trained else None
    if recorded not in (None, fingerprint):
        raise DataError(f"{run.path}: its corpus has changed since the pretraining, so its held-out text is not known.")
    return PairSource(settings, (), side_of_text(folder, "valid"), digest([_FORMAT, fingerprint]))


def read_pairs(source: PairSource, tokenizer: Tokenizer, room: int) -> tuple[Questions, dict[str, int]]:
    """The pairs as questions without demonstrations, and how many were left out, by reason.

    ``room``: most tokens of a sentence. Raises DataError naming the wrong row, or if no pair is left.
    """
    settings = source.settings
    if source.text is not None:
        sentences = list(sentences_of(source.text))
        pairs = list(corrupted(sentences, settings.rules, settings.pairs, tokenizer, room))
    else:
        pairs = list(_of_files(source.files))
    encoded = tokenizer.encode([text for pair in pairs for text in (pair.good, pair.bad)])
    left_out = {"too_long": 0, "equal_tokens": 0}
    found: dict[str, list[Pair]] = defaultdict(list)
    for pair, good, bad in zip(pairs, encoded[::2], encoded[1::2], strict=True):
        reason = "too_long" if max(len(good), len(bad)) > room else "equal_tokens" if good == bad else None
        if reason is None:
            found[pair.phenomenon].append(pair)
        else:
            left_out[reason] += 1
    kept = [_question(pair) for name, some in found.items() for pair in limited(some, settings.pairs, name)]
    if not kept:
        raise DataError(
            f"task={NAME}: no pair is left: {len(pairs)} were found, of which {left_out['too_long']} have more than "
            f"{room} tokens and {left_out['equal_tokens']} are the same to the tokenizer. "
            f"Give a file of your own with {_FIELD}, or other kshot.minimal_pairs.rules."
        )
    return Questions((), kept, ()), left_out


def _question(pair: Pair) -> Question:
    """The good sentence comes first or second by a hash, so that a tie favours neither."""
    answer = streams.key(0, "pair order", pair.id) % 2
    options = (pair.bad, pair.good) if answer else (pair.good, pair.bad)
    return Question(pair.id, {}, options, answer, pair.id, pair.phenomenon)


def _of_files(files: Sequence[Path]) -> Iterator[Pair]:
    """Pairs in BLiMP's form: a JSON object a line, with ``sentence_good`` and ``sentence_bad``. Raises DataError."""
    for file in files:
        found = 0
        for row in json_rows(file):
            for key in ("sentence_good", "sentence_bad"):
                if key not in row.values:
                    raise row.error(f"there is no key {key!r}. A pair has the keys sentence_good and sentence_bad.")
            named = next((key for key in _PHENOMENON if not row.is_empty(key)), None)
            phenomenon = row.identifier(named) if named else file.stem
            found += 1
            yield Pair(f"{file.stem}-{row.line}", row.text("sentence_good"), row.text("sentence_bad"), phenomenon)
        if not found:
            raise DataError(f"{_FIELD}: {file}: no pairs.")
