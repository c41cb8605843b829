"""Precision, recall and F1 of entities with exact boundaries, as seqeval and conlleval count them.

Intervals are of 1,000 bootstrap resamples of the sentences. Letters: N sentences, L labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from albert_ablate import streams
from albert_ablate.evaluation.intervals import CONFIDENCE
from albert_ablate.tasks.ner.tags import entities

_RESAMPLES = 1000
#: Metrics, in the order of the record.
METRICS = ("f1", "precision", "recall")
Tags = Sequence[Sequence[str]]


def counts(predicted: Tags, gold: Tags, labels: Sequence[str], strict: bool) -> np.ndarray:
    """(N, L, 3): of each sentence and label the entities that are right, predicted and present."""
    place = {label: number for number, label in enumerate(labels)}
    table = np.zeros((len(gold), len(labels), 3), np.int64)
    for row, (guess, right) in enumerate(zip(predicted, gold, strict=True)):
        ours, theirs = set(entities(guess, strict)), set(entities(right, strict))
        for column, found in enumerate((ours & theirs, ours, theirs)):
            for label, _, _ in found:
                table[row, place[label], column] += 1
    return table


def measures(sums: np.ndarray) -> tuple[float, float, float]:
    """(F1, precision, recall) of (3,) sums of right, predicted and present entities; 0 where nothing is counted."""
    right, predicted, present = (float(x) for x in sums)
    precision, recall = (right / n if n else 0.0 for n in (predicted, present))
    return (2 * right / (predicted + present) if predicted + present else 0.0), precision, recall


def score(predicted: Tags, gold: Tags, strict: bool) -> float:
    """Micro-averaged F1 by seqeval."""
    from seqeval.metrics import f1_score  # loads scikit-learn
    from seqeval.scheme import IOB2

    gold, predicted = ([list(tags) for tags in side] for side in (gold, predicted))
    if not any(map(any, ((tag != "O" for tag in tags) for side in (gold, predicted) for tags in side))):
        return 0.0  # nothing to find and nothing found; seqeval cannot tell the labels then
    if strict:
        return float(f1_score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0))
    return float(f1_score(gold, predicted, zero_division=0))


def resampled(table: np.ndarray) -> dict[str, dict[str, Any]]:
    """Metric -> micro-averaged value and bootstrap interval, from (N, L, 3) counts."""
    of_sentence = table.sum(1)  # (N, 3)
    values = measures(of_sentence.sum(0))
    draw = streams.generator(0, "metric resamples")
    drawn = [
        measures(of_sentence[draw.integers(0, len(of_sentence), len(of_sentence))].sum(0)) for _ in range(_RESAMPLES)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.array(drawn), [tail, 1 - tail], axis=0)
    return {name: {"value": values[k], "interval": [float(low[k]), float(high[k])]} for k, name in enumerate(METRICS)}


def by_label(table: np.ndarray, labels: Sequence[str]) -> Mapping[str, dict[str, float | int]]:
    """Label -> its F1, precision and recall, and the entities that are present and predicted."""
    made = {}
    for label, sums in zip(labels, table.sum(0), strict=True):
        scores = dict(zip(METRICS, measures(sums), strict=True))
        made[label] = {**scores, "entities": int(sums[2]), "predicted": int(sums[1])}
    return made
