"""Augments a task's training examples: finds the model and the file that propose words, and keeps what they propose."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_ablate import console
from albert_ablate.config.schema import RunConfig
from albert_ablate.config.tasks import AugmentConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import ConfigError
from albert_ablate.files import digest, read_json, sha256_file, write_json
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.augment import Candidates, Word, augmented, replaceable
from albert_ablate.tasks.masked_words import MaskedLMRun, MaskedWord, masked_lm_settings, predicts_masked_words
from albert_ablate.tasks.teachers import PRETRAINING, Corpus, teacher_of_pretraining
from albert_ablate.tasks.texts.sets import Example
from albert_ablate.tasks.word_vectors import WordVectors, require_file
from albert_ablate.training.machine import Machine

#: Masked words whose sequences are in memory at a time.
_TOGETHER = 20_000
#: Raise when the same settings would give other candidates.
_FORMAT = 1

_FIELD = "task.augment.masked_lm"


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of a run's fine-tunings, with everything it reads located."""

    settings: AugmentConfig
    run: RunFolder  # predicts words of one piece
    config: RunConfig  # of ``run``
    sources: dict[str, Any]  # identifies the model, the vectors and the stop words
    english: bool
    vectors: Path | None
    cache: Path

    def require_readable(self) -> None:
        """Raise DataError if the word vectors cannot be read."""
        if self.vectors is not None:
            with console.stage("reading word vectors"):
                WordVectors(self.vectors)

    def examples(
        self, name: str, data: str, examples: Sequence[Example], tokenizer: Tokenizer, machine: Machine
    ) -> list[Example]:
        """The examples of the task ``name`` and their copies.

        ``data`` identifies the examples. ``tokenizer`` is that of an older ``run`` without a copy of its own.
        """
        texts = list(dict.fromkeys(text for e in examples for text in (e.first, e.second) if text is not None))
        candidates = self._candidates(name, data, texts, tokenizer, machine)
        made = augmented(examples, candidates.__getitem__, self.settings)
        console.say(
            f"{name}: {len(made):,} training examples from {len(examples):,}, with words replaced in at most "
            f"{self.settings.copies} copies of each{' text' if examples[0].second is not None else ''}"
        )
        return made

    def _candidates(
        self, name: str, data: str, texts: Sequence[str], tokenizer: Tokenizer, machine: Machine
    ) -> dict[str, Candidates]:
        """Text -> candidates of its words, computed once for all copies, runs and seeds."""
        source = self.sources | {"masked_lm": self.sources["masked_lm"] or self.run.identity}
        key = digest([_FORMAT, data, source, self.settings.candidates])
        path = self.cache / "tasks" / f"{name}-words-{key}.json"
        if not path.is_file():
            write_json(path, self._proposed(name, texts, tokenizer, machine))
        kept: dict[str, dict[str, list[str]]] = read_json(path)
        return {text: {int(place): words for place, words in kept.get(text, {}).items()} for text in texts}

    def _proposed(
        self, name: str, texts: Sequence[str], tokenizer: Tokenizer, machine: Machine
    ) -> dict[str, dict[int, list[str]]]:
        model = MaskedLMRun(self.run, self.config, machine, tokenizer)
        stop_words = _stop_words(self.english)
        places = [(text, place, word) for text in texts for place, word in replaceable(text, stop_words).items()]
        distinct = list(dict.fromkeys(word.text for _, _, word in places))
        single = dict(zip(distinct, model.one_piece(distinct), strict=True)) if distinct else {}
        masked = [(text, place, word) for text, place, word in places if single[word.text]]
        pieces = sum(map(len, tokenizer.encode(list(texts)))) / max(len(texts), 1)
        tokens = min(2 * pieces + 3, model.room)
        console.say(
            f"{name}: the words of {len(texts):,} texts are predicted by {self.run.name}: {len(masked):,} forward "
            f"passes, each of one sequence, about {tokens:,.0f} tokens long"
        )
        found: dict[str, dict[int, list[str]]] = {}
        with console.stage(f"predicting words of {name}"):
            for (text, place, _), words in zip(masked, self._predicted(model, masked), strict=True):
                if words:
                    found.setdefault(text, {})[place] = words
        others = [(text, place, word) for text, place, word in places if not single[word.text]]
        if self.vectors is not None and others:
            with console.stage(f"finding neighbours of words of {name}"):
                for text, place, words in _neighbours(WordVectors(self.vectors), others, self.settings.candidates):
                    found.setdefault(text, {})[place] = words
        elif others:
            share = len(others) / len(places)
            console.say(f"  ! {name}: {share:.0%} of the words have several pieces and stay: task.augment.word_vectors "
                        "names a file with vectors for them.")  # fmt: skip
        return found

    def _predicted(self, model: MaskedLMRun, masked: Sequence[tuple[str, int, Word]]) -> Iterator[list[str]]:
        for start in range(0, len(masked), _TOGETHER):
            part = [MaskedWord(text, word) for text, _, word in masked[start : start + _TOGETHER]]
            yield from model.candidates(part, self.settings.candidates)


def locate_augmentation(
    config: RunConfig, run: RunFolder, precision: str, corpus: Corpus | None = None
) -> Augmentation | None:
    """What the fine-tunings of ``run`` are augmented with; None if they are not.

    ``precision`` and ``corpus`` are those of the pretraining of a run that is not trained yet.
    Raises ConfigError if the run that predicts words cannot do that, DataError if the file of vectors is not there.
    """
    settings = config.task.augment
    if not settings.copies:
        return None
    if settings.masked_lm == PRETRAINING:
        field = f"{_FIELD}={PRETRAINING}"
        of_source, source = teacher_of_pretraining(config, run, precision, corpus, field)
        identity: str | None = source.identity
        if not predicts_masked_words(of_source, source):
            raise ConfigError(f"{field}: that teacher has no trained masked-LM head. Name a run of method=mlm.")
    elif settings.masked_lm is not None:
        source = RunFolder.at(Path(settings.masked_lm))
        of_source = masked_lm_settings(source, config, f"{_FIELD}={settings.masked_lm}")
        identity = source.read("manifest.json").get("identity") or source.identity
    else:
        source, of_source, identity = run, config, None  # the run's own identity is part of its fine-tunings'
        if not predicts_masked_words(config, run):
            raise ConfigError(
                f"task.augment.copies={settings.copies}: {run.name} has no trained masked-LM head that predicts words. "
                f"Name a run that has one: {_FIELD}=RUN."
            )
    vectors = None if settings.word_vectors is None else Path(settings.word_vectors).expanduser()
    if vectors is not None:
        require_file(vectors)
    english = config.data.language == "en"
    sources = {
        "masked_lm": identity,
        "word_vectors": None if vectors is None else sha256_file(vectors),
        "stop_words": "en" if english else None,
    }
    return Augmentation(settings, source, of_source, sources, english, vectors, Path(config.paths.cache))


def _stop_words(english: bool) -> frozenset[str]:
    """Words that stay; none for other languages than English."""
    if not english:
        return frozenset()
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # loads scikit-learn

    return frozenset(ENGLISH_STOP_WORDS)


def _neighbours(
    vectors: WordVectors, places: Sequence[tuple[str, int, Word]], most: int
) -> Iterator[tuple[str, int, list[str]]]:
    known: dict[str, list[str]] = {}
    for text, place, word in places:
        if word.text not in known:
            known[word.text] = vectors.nearest(word.text, most)
        if known[word.text]:
            yield text, place, known[word.text]
