"""Named entities as a task: a tag for each word, from the state of its first piece (Devlin et al., 2018, section 5.3).

Letters: N sentences, B of a batch, T tokens, C tags, W the tokens of the longest sequence that is allowed.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.config.tasks import LabelPieces, NerConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.model.architecture import Architecture
from albert_ablate.tasks.heads import TokenModel
from albert_ablate.tasks.ner import scores as entity_scores
from albert_ablate.tasks.ner.alignment import WordPieces, word_pieces
from albert_ablate.tasks.ner.data import TaggedSets
from albert_ablate.tasks.ner.sentences import Sentence, of_text, of_words
from albert_ablate.tasks.ner.tags import OUTSIDE, continued, entities, tag_names
from albert_ablate.tasks.task import (  # fmt: skip
    Baselines,
    Entity,
    FeatureSet,
    HeadSettings,
    Meaning,
    Outputs,
    Sequences,
    SetScores,
    TaskBatch,
)

#: The target of a position that enters no loss.
_IGNORED = -100


@dataclass(frozen=True)
class WordSet(FeatureSet):
    """Sentences as model inputs; ``targets`` (N, T) int16 are tags, negative where no piece carries one."""

    positions: tuple[np.ndarray, ...] = ()  # of each sentence: the position that is read for each word; 0: none
    shared: tuple[np.ndarray, ...] = ()  # of each sentence: whether that position began in an earlier word
    sentences: tuple[Sentence, ...] = ()
    cut: int = 0  # words whose first piece is beyond the last position
    without_piece: int = 0  # words of which the tokenizer leaves nothing


class NerTask:
    """Dropout and a linear layer on every position, with cross-entropy over the pieces that carry a label."""

    metric = "f1"

    def __init__(
        self, settings: NerConfig, sets: TaggedSets, tokenizer: Tokenizer, max_length: int, pieces: LabelPieces
    ) -> None:
        self.name, self.settings, self.sets = settings.name, settings, sets
        self.tags = tag_names(sets.labels)
        self._numbers = {tag: number for number, tag in enumerate(self.tags)}
        self._tokenizer, self._max_length, self._pieces = tokenizer, max_length, pieces
        self.examples = len(sets.train)
        words = self.features(sets.train)
        by_set = {name: self.features(sentences) for name, sentences in sets.dev.items()}
        #: The mean number of pieces with a label in a training sentence.
        self._labelled = max(1.0, float((words.targets >= 0).sum()) / max(1, len(words)))
        self.train: FeatureSet = words
        self.dev: dict[str, FeatureSet] = dict(by_set)
        self.test: dict[str, FeatureSet] = {}
        self.counts = dict(sets.counts)
        if sets.train:
            self._count({"train": words, **by_set})

    def _count(self, sets: dict[str, WordSet]) -> None:
        """Words that are cut off or have no piece, for the record."""
        total = {name: sum(map(len, of_set.positions)) for name, of_set in sets.items()}
        self.counts["words_cut"] = {name: of_set.cut for name, of_set in sets.items()}
        self.counts["share_of_words_cut"] = {
            name: of_set.cut / total[name] if total[name] else 0.0 for name, of_set in sets.items()
        }
        self.counts["words_without_a_piece"] = {name: of_set.without_piece for name, of_set in sets.items()}
        notes = [
            f"{of_set.cut:,} of {total[name]:,} words of {name} ({of_set.cut / total[name]:.1%}) stand after the last "
            f"of {self._max_length} tokens: they are not learned, and predicted as O"
            for name, of_set in sets.items()
            if of_set.cut
        ]
        self.counts["notes"] = [*self.counts.get("notes", []), *notes]

    @property
    def meaning(self) -> Meaning:
        """A tag for each position."""
        return Meaning("tags", self.tags)

    def features(self, sentences: Sequence[Sentence]) -> WordSet:
        """Sentences as model inputs, with targets where they have tags."""
        room = self._max_length - 2
        made = word_pieces(sentences, self._tokenizer)
        positions = tuple(np.where((m.first >= 0) & (m.first < room), m.first + 1, 0) for m in made)
        rows = [m.ids[:room].tolist() for m in made]
        targets = np.full((len(made), max((len(row) for row in rows), default=0) + 2), _IGNORED, np.int16)
        for number, (sentence, pieces) in enumerate(zip(sentences, made, strict=True)):
            if sentence.tags is not None:
                self._label(targets[number], sentence.tags, pieces, positions[number])
        return WordSet(
            Sequences.of(rows), targets, positions=positions, shared=tuple(m.shared for m in made),
            sentences=tuple(sentences),
            cut=sum(int((m.first >= room).sum()) for m in made),
            without_piece=sum(int((m.first < 0).sum()) for m in made),
        )  # fmt: skip

    def _label(self, row: np.ndarray, tags: Sequence[str], pieces: WordPieces, positions: np.ndarray) -> None:
        """Fill the targets of one sentence."""
        numbers = np.array([self._numbers[tag] for tag in tags], np.int16)
        if self._pieces == "all":
            later = np.array([self._numbers[continued(tag)] for tag in tags], np.int16)
            inside = np.flatnonzero(pieces.word[: self._max_length - 2] >= 0)
            row[inside + 1] = later[pieces.word[inside]]
        own = (positions > 0) & ~pieces.shared
        row[positions[own]] = numbers[own]

    def build(self, shape: Architecture, head: HeadSettings) -> nn.Module:
        """One output for each tag, at every position."""
        return TokenModel(shape, len(self.tags), head.dropout)

    def loss(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """Sum over the pieces with a label, divided by their mean number in a training sentence.

        So every piece of the training set has the same weight, and the mean over examples is that over pieces.
        """
        logits = model(batch)  # (B, T, C)
        width = min(logits.shape[1], batch.targets.shape[1])  # beyond it nothing is labelled
        targets = batch.targets[:, :width].long()
        summed = F.cross_entropy(
            logits[:, :width].flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=_IGNORED
        )
        return summed / self._labelled

    def outputs(self, model: nn.Module, batch: TaskBatch) -> dict[str, Tensor]:
        """At each position the most probable tag, ``tags`` (B, W), and its ``probability`` (B, W)."""
        chance, tags = model(batch).softmax(-1).max(-1)
        missing = max(0, self._max_length - tags.shape[1])
        return {"tags": F.pad(tags, (0, missing)), "probability": F.pad(chance, (0, missing))}

    def of_texts(self, texts: Sequence[str]) -> WordSet:
        """Texts as model inputs, divided into words as those of the task's files."""
        return self.features([of_text(text, "") for text in texts])

    def of_words(self, sentences: Sequence[Sequence[str]]) -> WordSet:
        """Sentences of words as model inputs."""
        return self.features([of_words(words, None, "") for words in sentences])

    def entities(self, features: FeatureSet, outputs: Outputs) -> list[tuple[Entity, ...]]:
        """The entities of each sentence."""
        assert isinstance(features, WordSet)
        made = []
        for sentence, row in zip(features.sentences, self.word_tags(features, outputs), strict=True):
            found = entities([tag for tag, _ in row], self.settings.strict)
            made.append(
                tuple(
                    Entity(sentence.words[a][0], sentence.words[b - 1][1], label, min(p for _, p in row[a:b]))
                    for label, a, b in found
                )
            )
        return made

    def word_tags(self, features: FeatureSet, outputs: Outputs) -> list[list[tuple[str, float]]]:
        """(tag, its probability) of each word of each sentence; O and 1 for words that are not read."""
        assert isinstance(features, WordSet)
        made = []
        for number, (positions, shared) in enumerate(zip(features.positions, features.shared, strict=True)):
            row: list[tuple[str, float]] = []
            for position, is_shared in zip(positions.tolist(), shared.tolist(), strict=True):
                if not position:
                    row.append((OUTSIDE, 1.0))
                    continue
                tag = self.tags[int(outputs["tags"][number, position])]
                row.append((continued(tag) if is_shared else tag, float(outputs["probability"][number, position])))
            made.append(row)
        return made

    def _predicted(self, name: str, outputs: Outputs) -> list[list[str]]:
        return [[tag for tag, _ in row] for row in self.word_tags(self.dev[name], outputs)]

    def scores(self, name: str, outputs: Outputs) -> SetScores:
        """F1, precision and recall of entities, micro-averaged and by label."""
        return self._scored(name, self._predicted(name, outputs))

    def _gold(self, name: str) -> list[Sequence[str]]:
        return [sentence.tags or () for sentence in self.sets.dev[name]]

    def _scored(self, name: str, predicted: entity_scores.Tags) -> SetScores:
        gold, labels, strict = self._gold(name), self.sets.labels, self.settings.strict
        table = entity_scores.counts(predicted, gold, labels, strict)
        record: dict[str, Any] = {"n": len(gold), **entity_scores.resampled(table)}
        record["f1"]["value"] = entity_scores.score(predicted, gold, strict)
        record["by_label"] = entity_scores.by_label(table, labels)
        value = float(record["f1"]["value"])
        return SetScores(record, value, value)

    def files(self, name: str, outputs: Outputs) -> dict[str, str]:
        """Columns of word, tag and predicted tag, as conlleval reads them; or texts with their predicted spans."""
        sentences, predicted = self.sets.dev[name], self._predicted(name, outputs)
        if sentences and not sentences[0].of_columns:
            rows = zip(sentences, predicted, strict=True)
            return {f"{name}.jsonl": "".join(_line(s, s.spans(tags, self.settings.strict)) for s, tags in rows)}
        blocks = [
            "".join(f"{word}\t{gold}\t{tag}\n" for word, gold, tag in zip(s.written, s.tags or (), tags, strict=True))
            for s, tags in zip(sentences, predicted, strict=True)
        ]
        return {f"{name}.tsv": "\n".join(blocks)}

    def baselines(self, bag_of_words: bool) -> Baselines:
        """F1 of tagging every word O, and with the tag that it has most often in training (O for unknown words)."""
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for sentence in self.sets.train if bag_of_words else ():
            for word, tag in zip(sentence.written, sentence.tags or (), strict=True):
                seen[word][tag] += 1
        usual = {word: tags.most_common(1)[0][0] for word, tags in seen.items()}
        made: Baselines = {}
        for name, sentences in self.sets.dev.items():
            bars = {"majority": 0.0}
            if bag_of_words:
                guess = [[usual.get(word, OUTSIDE) for word in sentence.written] for sentence in sentences]
                bars["bag_of_words"] = entity_scores.score(guess, self._gold(name), self.settings.strict)
            made[name] = {"score": bars, "f1": bars}
        return made


def _line(sentence: Sentence, spans: Sequence[tuple[int, int, str]]) -> str:
    found = [{"start": start, "end": end, "label": label} for start, end, label in spans]
    return json.dumps({"text": sentence.text, "entities": found}, ensure_ascii=False) + "\n"
