"""Classification and regression of one or two texts (reference classifier_utils)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.model.architecture import Architecture
from albert_ablate.tasks import metrics
from albert_ablate.tasks.heads import PooledModel
from albert_ablate.tasks.knowledge.reading import Knowledge
from albert_ablate.tasks.task import (  # fmt: skip
    Answer,
    Baselines,
    Distribution,
    FeatureSet,
    HeadSettings,
    Meaning,
    Outputs,
    Sequences,
    SetScores,
    TaskBatch,
)
from albert_ablate.tasks.texts.glue import GLUE
from albert_ablate.tasks.texts.sets import Example, ExampleSets

_METRICS: dict[str, metrics.Metric] = {
    "matthews": metrics.matthews, "f1": metrics.f1, "macro_f1": metrics.macro_f1, "micro_f1": metrics.micro_f1,
    "pearson": metrics.pearson, "spearman": metrics.spearman, "mean_squared_error": metrics.mean_squared_error,
}  # fmt: skip


class SentenceTask:
    """A linear head on the pooled output, with cross-entropy, binary cross-entropy per label, or squared error."""

    def __init__(
        self, name: str, sets: ExampleSets, tokenizer: Tokenizer, max_length: int, knowledge: Knowledge | None = None
    ) -> None:
        """``knowledge``: facts that are read beside the texts."""
        self.name = name
        self.sets = sets
        self.metric = " and ".join(self._chosen_by())
        self.counts = dict(sets.counts)
        self.examples = len(sets.train)
        #: A user's numbers are learned as standard scores; STS-B's 0 to 5 unscaled, as in the released code.
        self._scales = sets.kind == "values" and name not in GLUE
        self._mean, self._deviation = sets.scale or self._scale()
        self._tokenizer, self._max_length, self._knowledge = tokenizer, max_length, knowledge
        self.train = self.features(sets.train)
        self.dev = {name: self.features(examples) for name, examples in sets.dev.items()}
        self.test = {name: self.features(examples) for name, examples in sets.test.items()}

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the training numbers."""
        if not self._scales:
            return np.zeros(1), np.ones(1)
        targets = np.array([e.target for e in self.sets.train], dtype=np.float64)
        return targets.mean(0), np.where(targets.std(0) > 0, targets.std(0), 1.0)

    @property
    def distribution(self) -> Distribution | None:
        """Classes or labels; None for numbers."""
        return None if self.sets.kind == "values" else self.sets.kind

    def features(self, examples: Sequence[Example]) -> FeatureSet:
        """Examples of this task as model inputs with targets."""
        tokenizer, max_length = self._tokenizer, self._max_length
        first = tokenizer.encode([e.first for e in examples])
        second = None
        if examples and examples[0].second is not None:
            second = tokenizer.encode([str(e.second) for e in examples])
            for a, b in zip(first, second, strict=True):
                trim(a, b, max_length - 3)
        else:
            for a in first:
                del a[max_length - 2 :]
        if self._knowledge is None:
            sequences = Sequences.of(first, second)
        else:
            sequences = self._knowledge.sequences(first, second, max_length, tokenizer)
        return FeatureSet(sequences, self._targets(examples))

    def unlabelled(self, texts: Sequence[tuple[str, str | None]]) -> FeatureSet:
        """Texts, each with a second one or None, as the model reads the task's own. Raises DataError."""
        pairs = self.sets.paired
        if any((second is not None) != pairs for _, second in texts):
            wanted = "pairs of texts, each a tuple (first, second)" if pairs else "single texts, not pairs"
            raise DataError(f"{self.name} takes {wanted}.")
        return self.features([Example("", first, second, None) for first, second in texts])

    @property
    def columns(self) -> tuple[tuple[str, ...], ...]:
        """The names of the column of each text, as in the task's files."""
        return self.sets.columns[: 2 if self.sets.paired else 1]

    def from_columns(self, rows: Sequence[tuple[str, ...]]) -> FeatureSet:
        """Rows with one or two texts as the model reads the task's own."""
        return self.unlabelled([(row[0], row[1] if len(row) > 1 else None) for row in rows])

    @property
    def meaning(self) -> Meaning:
        """Classes, labels or numbers, with the scale of the numbers."""
        return Meaning(self.sets.kind, self.sets.names, self._mean, self._deviation)

    def cells(self, outputs: Outputs) -> dict[str, list[str] | list[float]]:
        """The class with the probability of each; each label as 0 or 1 with its probability; or the numbers."""
        logits, names, answers = torch.from_numpy(outputs["logits"]).double(), self.sets.names, self.answers(outputs)
        if self.sets.kind == "classes":
            chance = logits.softmax(1)
            best = {"prediction": list(map(str, answers)), "probability": chance.max(1).values.tolist()}
            return best | _chances(names, chance)
        if self.sets.kind == "labels":
            applies = (logits > 0).long().T.tolist()
            marked = {f"prediction({name})": column for name, column in zip(names, applies, strict=True)}
            return marked | _chances(names, logits.sigmoid())
        values = np.array(answers).reshape(len(answers), -1).T.tolist()
        heads = ["prediction"] if len(names) == 1 else [f"prediction({name})" for name in names]
        return dict(zip(heads, values, strict=True))

    def answers(self, outputs: Outputs) -> list[Answer]:
        """What ``outputs`` predict for each example: its class, the labels it has, or its number or numbers."""
        predicted, names = self._predicted(outputs["logits"]), self.sets.names
        if self.sets.kind == "classes":
            return [names[place] for place in predicted]
        if self.sets.kind == "labels":
            return [tuple(name for name, on in zip(names, row, strict=True) if on) for row in predicted]
        return [float(row[0]) if len(row) == 1 else tuple(map(float, row)) for row in predicted]

    def _targets(self, examples: Sequence[Example]) -> np.ndarray:
        if not examples or examples[0].target is None:
            return np.zeros((len(examples), 0), np.float32)
        values = np.array([e.target for e in examples])
        if self.sets.kind == "classes":
            return values.astype(np.int64)
        return ((values - self._mean) / self._deviation).astype(np.float32)

    def build(self, shape: Architecture, head: HeadSettings) -> nn.Module:
        """One output for each class, label or number."""
        return PooledModel(shape, len(self.sets.names), head)

    def loss(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """Sum over the batch of each example's loss, averaged over its labels or numbers.

        The caller divides by the number of examples, not by the sum of class weights.
        """
        logits = model(batch)
        if self.sets.kind == "classes":
            weights = None if self.sets.weights is None else logits.new_tensor(self.sets.weights)
            return F.cross_entropy(logits, batch.targets, weight=weights, reduction="sum")
        if self.sets.kind == "labels":
            return F.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none").mean(1).sum()
        return ((logits - batch.targets) ** 2).mean(1).sum()

    def outputs(self, model: nn.Module, batch: TaskBatch) -> dict[str, Tensor]:
        """``logits`` (B, outputs)."""
        return {"logits": model(batch)}

    def _predicted(self, logits: np.ndarray) -> np.ndarray:
        """(N,) classes, (N, k) labels of 0 and 1, or (N, k) numbers."""
        if self.sets.kind == "classes":
            return logits.argmax(1)
        if self.sets.kind == "labels":
            return (logits > 0).astype(np.int64)
        return logits * self._deviation + self._mean

    def scores(self, name: str, outputs: Outputs) -> SetScores:
        """GLUE's official metrics; for a user's task accuracy, F1 scores, or error and correlations, by its kind."""
        examples = self.sets.dev[name]
        predicted, gold = self._predicted(outputs["logits"]), np.array([e.target for e in examples])
        record: dict[str, Any] = {"n": len(examples)}
        if self.sets.kind == "classes":
            record["accuracy"] = metrics.accuracy(predicted, gold)
        if self.sets.kind == "labels":
            record["accuracy"] = metrics.accuracy((predicted == gold).all(1), np.ones(len(gold), bool))
        names = self._metric_names()
        record |= {
            metric: metrics.resampled(_METRICS[metric], predicted, gold) for metric in names if metric in _METRICS
        }
        if "macro_f1" in record and self.sets.kind == "classes":
            record["macro_f1"] |= {"classes": len(np.union1d(predicted, gold)), "of": len(self.sets.names)}
        score = self._score(predicted, gold)
        return SetScores(record, score, score)

    def _metric_names(self) -> tuple[str, ...]:
        if self.name in GLUE:
            return GLUE[self.name].metrics
        return {
            "classes": ("accuracy", "macro_f1"), "labels": ("micro_f1", "macro_f1"),
            "values": ("spearman", "mean_squared_error", "pearson"),
        }[self.sets.kind]  # fmt: skip

    def _chosen_by(self) -> tuple[str, ...]:
        """GLUE's official metrics, whose mean is the score; for a user's task one metric that selects checkpoints."""
        if self.name in GLUE:
            return self._metric_names()
        return (self.sets.chosen_by,) if self.sets.chosen_by else self._metric_names()[:1]

    def _score(self, predicted: np.ndarray, gold: np.ndarray) -> float:
        return float(np.mean([_value(name, predicted, gold) for name in self._chosen_by()]))

    def files(self, name: str, outputs: Outputs) -> dict[str, str]:
        """GLUE's submission file (index, prediction); for a user's task ids, predictions and class probabilities."""
        examples, logits = (self.sets.dev | self.sets.test)[name], outputs["logits"]
        predicted = self._predicted(logits)
        if self.name in GLUE:
            spec = GLUE[self.name]
            names = spec.labels if spec.words else None
            if self.sets.kind == "values":
                cells = [f"{v[0]:.3f}" for v in predicted]
            else:
                cells = [names[v] if names else str(v) for v in predicted]
            numbered = enumerate(cells)  # the official files are numbered from 0
            return {f"{spec.submission[name]}.tsv": _tsv("index\tprediction", ((str(i), c) for i, c in numbered))}
        ids = [e.id for e in examples]
        if self.sets.kind == "classes":
            chance = torch.softmax(torch.from_numpy(logits), 1).numpy()
            header = "\t".join(["id", "prediction", *(f"p({n})" for n in self.sets.names)])
            rows = [
                (i, self.sets.names[v], *(f"{x:.4f}" for x in p))
                for i, v, p in zip(ids, predicted, chance, strict=True)
            ]
        else:
            header = "\t".join(["id", *self.sets.names])
            rows = [(i, *(f"{x:.6g}" for x in v)) for i, v in zip(ids, predicted, strict=True)]
        return {f"{name}.tsv": _tsv(header, rows)}

    def baselines(self, bag_of_words: bool) -> Baselines:
        """Score and metrics of predicting the training set's majority or mean, and of a bag of words."""
        train = np.array([e.target for e in self.sets.train])
        from albert_ablate.tasks.texts.bag_of_words import bag_of_words_predictions  # loads scikit-learn

        by_words = bag_of_words_predictions(self.sets) if bag_of_words else {}
        baselines = {}
        for name, examples in self.sets.dev.items():
            gold = np.array([e.target for e in examples])
            guesses = {"majority": constant(train, self.sets.kind, gold.shape)}
            if name in by_words:
                guesses["bag_of_words"] = by_words[name]
            parts = dict.fromkeys((*self._chosen_by(), *self._metric_names()))
            baselines[name] = {"score": {bar: self._score(guess, gold) for bar, guess in guesses.items()}} | {
                part: {bar: _value(part, guess, gold) for bar, guess in guesses.items()} for part in parts
            }
        return baselines


def _chances(names: Sequence[str], chances: Tensor) -> dict[str, list[float]]:
    """(N, C) probabilities as columns."""
    return {f"p({name})": column for name, column in zip(names, chances.T.tolist(), strict=True)}


def _value(metric: str, predicted: np.ndarray, gold: np.ndarray) -> float:
    return float((predicted == gold).mean()) if metric == "accuracy" else _METRICS[metric](predicted, gold)


def constant(train: np.ndarray, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """A constant prediction: the most frequent class, each label's majority value, or each number's mean."""
    if kind == "classes":
        return np.full(shape, np.bincount(train).argmax())
    value = (train.mean(0) > 0.5).astype(np.int64) if kind == "labels" else train.mean(0)
    return np.broadcast_to(value, shape)


def trim(first: list[int], second: list[int], room: int) -> None:
    """Drop pieces from the end of the longer text, or of the second if they are equally long (reference)."""
    over = len(first) + len(second) - room
    if over <= 0:
        return
    difference = len(first) - len(second)
    alone = min(over, abs(difference))  # until both are equally long
    rest = over - alone
    from_first = (alone if difference > 0 else 0) + rest // 2
    from_second = (alone if difference < 0 else 0) + rest - rest // 2
    del first[len(first) - from_first :]
    del second[len(second) - from_second :]


def _tsv(header: str, rows: Any) -> str:
    return "\n".join([header, *("\t".join(row) for row in rows)]) + "\n"
