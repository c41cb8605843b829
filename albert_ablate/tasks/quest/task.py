"""Google QUEST: several numbers from 0 to 1 for the texts of a question (and an answer).

Source: arXiv 2002.10107 and its notebook. Letters: B examples of a batch, N of a set, K targets, H hidden.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.config.tasks import QuestConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.model.architecture import Architecture
from albert_ablate.tasks.heads import JoinedModel
from albert_ablate.tasks.quest import scores
from albert_ablate.tasks.quest.columns import FIRST_PLACE
from albert_ablate.tasks.quest.data import QuestExample
from albert_ablate.tasks.task import (  # fmt: skip
    Baselines,
    FeatureSet,
    HeadSettings,
    Meaning,
    Outputs,
    Sequences,
    SetScores,
    TaskBatch,
)
from albert_ablate.tasks.texts.sets import Example, ExampleSets
from albert_ablate.tasks.texts.task import SentenceTask

#: The metric that chooses the checkpoint.
METRIC = "mean_squared_error"
#: Both correlations, and the second minus the first.
_PLAIN, _MOVED, _GAIN = "spearman", "spearman_discretised", "discretising_gain"


class QuestTask(SentenceTask):
    """Dropout and a linear layer with sigmoids on the state of one pass, or on the states of two side by side."""

    def __init__(self, settings: QuestConfig, sets: ExampleSets, tokenizer: Tokenizer, max_length: int) -> None:
        self.settings = settings
        self._gold = np.array([example.target for example in sets.train])
        super().__init__(settings.name, sets, tokenizer, max_length)

    def features(self, examples: Sequence[Example]) -> FeatureSet:
        """Examples as model inputs with targets; two sequences each if there is a pass over the title."""
        made = super().features(examples)
        if not self.settings.title_pass:
            return made
        if not examples:
            return FeatureSet(made.sequences, made.targets, choices=2)
        titles = self._tokenizer.encode([_quest(example).title for example in examples])
        alone = Sequences.of([pieces[: self._max_length - 2] for pieces in titles])
        return FeatureSet(Sequences.in_turn([made.sequences, alone]), made.targets, choices=2)

    def unlabelled(self, texts: Sequence[tuple[str, str | None]]) -> FeatureSet:
        """(title, body) pairs as the model reads the task's questions. Raises DataError."""
        if self.settings.input == "question_answer":
            raise DataError(f"{self.name} reads title, body and answer; pairs of texts lack one of them.")
        if any(body is None for _, body in texts):
            raise DataError(f"{self.name} takes questions, each a tuple (title, body).")
        return self.from_columns([(title, str(body)) for title, body in texts])

    @property
    def columns(self) -> tuple[tuple[str, ...], ...]:
        """Title and body, and the answer if the model reads it."""
        names = ("question_title", "question_body", "answer")
        return tuple((name,) for name in names[: 3 if self.settings.input == "question_answer" else 2])

    def from_columns(self, rows: Sequence[tuple[str, ...]]) -> FeatureSet:
        """(title, body) or (title, body, answer) rows as the model reads the task's questions."""
        pair = self.settings.input == "pair"
        examples = []
        for title, body, *answer in rows:
            texts = (title, body) if pair else (f"{title} {body}", answer[0] if answer else None)
            examples.append(QuestExample("", *texts, None, title, body))
        return self.features(examples)

    @property
    def meaning(self) -> Meaning:
        """A number from 0 to 1 for each target, the sigmoid of an output, as the probability of a label is."""
        return Meaning("labels", self.sets.names)

    def _targets(self, examples: Sequence[Example]) -> np.ndarray:
        if not examples or examples[0].target is None:
            return np.zeros((len(examples), 0), np.float32)
        return np.array([example.target for example in examples], np.float32)

    def build(self, shape: Architecture, head: HeadSettings) -> nn.Module:
        """The encoder with a head that reads every pass."""
        own = replace(head, pool=self.settings.pool, kind=self.settings.head)
        return JoinedModel(shape, len(self.sets.names), own, self.train.choices)

    def loss(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """Sum over the batch of each example's loss, averaged over its targets.

        The least binary cross-entropy is the entropy of the targets, where every prediction equals its target.
        """
        logits = model(batch)  # (B, K)
        if self.settings.loss == "bce":
            return F.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none").mean(1).sum()
        return ((logits.sigmoid() - batch.targets) ** 2).mean(1).sum()

    def _predicted(self, logits: np.ndarray) -> np.ndarray:
        """(N, K) numbers from 0 to 1."""
        return torch.from_numpy(logits).double().sigmoid().numpy()

    def _chosen_by(self) -> tuple[str, ...]:
        return (METRIC,)

    def scores(self, name: str, outputs: Outputs) -> SetScores:
        """Errors, R² and rank correlation as means over the targets, and a table by target."""
        predicted, gold, questions = self._predicted(outputs["logits"]), self._answers(name), self._questions(name)
        record: dict[str, Any] = {"n": len(gold)}
        record[METRIC] = scores.error_over_questions(scores.squared_errors(predicted, gold), questions)
        record["mean_absolute_error"] = scores.error_over_questions(abs(predicted - gold), questions)
        record["r2"] = scores.r2_over_questions(predicted, gold, questions)
        sets = {_PLAIN: predicted}
        if self.settings.discretise != "none":
            sets[_MOVED] = self._moved(predicted)
        record |= scores.resampled_spearman(sets, gold, questions, self._means)
        record["targets_scored_by_spearman"] = self._columns_scored(gold)
        record["by_target"] = self._by_target(predicted, gold)
        error = record[METRIC]["value"]
        return SetScores(record, error, error)

    def _means(self, columns: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Means over targets of plain and moved predictions, and what moving adds for the targets that are moved."""
        rule = self.settings.constant
        means = {name: scores.mean_of(of_set, rule) for name, of_set in columns.items()}
        if _MOVED in columns:
            chosen = [place for place, target in enumerate(self.sets.names) if self._moves(target)]
            means[_GAIN] = scores.mean_of(columns[_MOVED][chosen], rule) - scores.mean_of(columns[_PLAIN][chosen], rule)
        return means

    def _moves(self, target: str) -> bool:
        chosen = self.settings.discretise
        return chosen == "ranks" or (chosen == "first_place" and target in FIRST_PLACE)

    def _moved(self, predicted: np.ndarray) -> np.ndarray:
        """(N, K) predictions, those of some targets moved to the grid of their training values."""
        columns = [
            scores.discretised(predicted[:, place], self._gold[:, place])
            if self._moves(target)
            else predicted[:, place]
            for place, target in enumerate(self.sets.names)
        ]
        return np.stack(columns, 1)

    def _columns_scored(self, gold: np.ndarray) -> int:
        """Targets that enter the mean correlation."""
        varied = int((gold.max(0) > gold.min(0)).sum())
        return len(self.sets.names) if self.settings.constant == "zero" else varied

    def _by_target(self, predicted: np.ndarray, gold: np.ndarray) -> dict[str, dict[str, float | None]]:
        """Target -> its scores, beside the error of the training mean; the correlation is None without variation."""
        errors, mean = scores.squared_errors(predicted, gold).mean(0), self._gold.mean(0)
        of_mean, apart = scores.squared_errors(mean, gold).mean(0), abs(predicted - gold).mean(0)
        r2, ranks = scores.r2_by_column(predicted, gold), scores.spearman_by_column(predicted, gold)
        return {
            target: {
                METRIC: float(errors[k]), f"{METRIC}_of_the_mean": float(of_mean[k]),
                "mean_absolute_error": float(apart[k]), "r2": float(r2[k]),
                _PLAIN: None if np.isnan(ranks[k]) else float(ranks[k]), "training_mean": float(mean[k]),
            }
            for k, target in enumerate(self.sets.names)
        }  # fmt: skip

    def _answers(self, name: str) -> np.ndarray:
        return np.array([example.target for example in self.sets.dev[name]])

    def _questions(self, name: str) -> np.ndarray:
        """(N,) number of each row's question."""
        texts = [_quest(example).question for example in self.sets.dev[name]]
        return np.unique(texts, return_inverse=True)[1]

    def files(self, name: str, outputs: Outputs) -> dict[str, str]:
        """The competition's form of a submission, qa_id and the targets in the order of the file; scores by target."""
        examples, predicted = (self.sets.dev | self.sets.test)[name], self._predicted(outputs["logits"])
        # Nine digits: with fewer, close predictions would tie, and the rank correlation of the file be another.
        rows = [[e.id, *(f"{x:.9g}" for x in row)] for e, row in zip(examples, predicted, strict=True)]
        files = {f"{name}.csv": _csv(["qa_id", *self.sets.names], rows)}
        if name in self.sets.dev:
            table = self._by_target(predicted, self._answers(name))
            heads = next(iter(table.values()))
            lines = [[t, *("" if x is None else f"{x:.6g}" for x in row.values())] for t, row in table.items()]
            files[f"{name}_by_target.csv"] = _csv(["target", *heads], lines)
        return files

    def baselines(self, bag_of_words: bool) -> Baselines:
        """Every metric of predicting the training mean, and of a bag of words, cut at 0 and 1."""
        from albert_ablate.tasks.texts.bag_of_words import bag_of_words_predictions  # loads scikit-learn

        by_words = bag_of_words_predictions(self.sets) if bag_of_words else {}
        made: Baselines = {}
        for name in self.sets.dev:
            gold = self._answers(name)
            guesses = {"majority": np.broadcast_to(self._gold.mean(0), gold.shape)}
            if name in by_words:
                guesses["bag_of_words"] = np.clip(by_words[name], 0, 1)
            bars = {bar: self._bars(guess, gold) for bar, guess in guesses.items()}
            every = dict.fromkeys(metric for values in bars.values() for metric in values)
            made[name] = {
                metric: {bar: values[metric] for bar, values in bars.items() if metric in values} for metric in every
            }
            made[name]["score"] = made[name][METRIC]
        return made

    def _bars(self, guess: np.ndarray, gold: np.ndarray) -> dict[str, float]:
        values = {
            METRIC: float(scores.squared_errors(guess, gold).mean()),
            "mean_absolute_error": float(abs(guess - gold).mean()),
            "r2": scores.mean_r2(guess, gold),
            _PLAIN: scores.mean_spearman(guess, gold, self.settings.constant),
        }  # fmt: skip
        return {name: value for name, value in values.items() if not np.isnan(value)}


def _quest(example: Example) -> QuestExample:
    assert isinstance(example, QuestExample)  # the reader makes no others
    return example


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue()
