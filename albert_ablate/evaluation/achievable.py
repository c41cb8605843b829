"""The best achievable scores on the held-out pairs, for a corpus whose text was drawn from a known structure."""

from typing import Any

import numpy as np

from albert_ablate.axes import IN_ORDER, Objective
from albert_ablate.data.batches import Batch
from albert_ablate.data.reference import Cuts, Reference, Seen
from albert_ablate.data.segments import Pairs
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import FIRST_PIECE, MASK
from albert_ablate.evaluation.baselines import NgramBaselines
from albert_ablate.evaluation.heldout import HeldOut, PairSet, pair_set
from albert_ablate.evaluation.intervals import SHARE, clustered_mean, proportion
from albert_ablate.record.results import Achievable, BestMaskedLM, BestSentenceTask, Proportion

#: How pairs are cut is counted on this many training-side pairs, taken from at most so many epochs.
_CUTS, _EPOCHS = 100_000, 50


def achievable(reference: Reference, held_out: HeldOut, train: TokenStore, baselines: NgramBaselines) -> dict[str, Any]:
    """Scores of ``reference`` on the pairs that runs are scored on, in the form of ``Evaluator.results``.

    ``chance_loss`` of masked LM is the loss of a model that knows the frequencies of pieces and the piece shown at
    the position, but no context: one in ten of the shown pieces is the target itself.

    ``accuracy`` of a sentence task is the share of these pairs that the reference expects to label correctly.
    ``realised`` is the share that it did label correctly; it includes luck on pairs that give no evidence.
    """
    masked = _masked_lm(reference, held_out.plain, train, baselines)
    tasks = {task.value: _sentence_task(reference, pairs, train, task) for task, pairs in held_out.tasks.items()}
    return Achievable.model_validate({"masked_lm": masked, **tasks}).as_json()


def _sentence_task(reference: Reference, pairs: PairSet, train: TokenStore, task: Objective) -> BestSentenceTask:
    predictor = reference.predictor(_cuts(pairs, train, task))
    right, sure = [], []
    for start, batch in _batches(pairs):
        chance = predictor.labels(_seen(pairs, start, batch))
        right.append((chance > 0.5) == (batch.labels.numpy() == 1))
        sure.append(np.maximum(chance, 1 - chance))
    hits = np.concatenate(right)
    return BestSentenceTask(
        accuracy=float(np.concatenate(sure).mean()), realised=Proportion(**proportion(int(hits.sum()), len(hits)))
    )


def _masked_lm(reference: Reference, pairs: PairSet, train: TokenStore, baselines: NgramBaselines) -> BestMaskedLM:
    predictor = reference.predictor(_cuts(pairs, train, IN_ORDER))
    rows: dict[str, list[np.ndarray]] = {"loss": [], "hits": [], "count": [], "chance": []}
    for start, batch in _batches(pairs):
        chances = predictor.masked(_seen(pairs, start, batch))
        targets = batch.targets.numpy()
        row = (batch.positions // batch.input_ids.shape[1]).numpy()
        loss = -np.log(chances[np.arange(len(targets)), targets])
        shown = batch.input_ids.reshape(-1)[batch.positions].numpy()
        columns = {
            "loss": loss, "hits": chances.argmax(1) == targets, "count": np.ones(len(targets)),
            "chance": _without_context(baselines.probabilities, shown, targets),
        }  # fmt: skip
        for name, values in columns.items():
            rows[name].append(np.bincount(row, weights=values, minlength=len(batch)))
    sums = {name: np.concatenate(parts) for name, parts in rows.items()}
    count = sums["count"]
    loss, loss_interval = clustered_mean(sums["loss"], count)
    accuracy, interval = clustered_mean(sums["hits"], count, SHARE)
    return BestMaskedLM(
        loss=loss,
        loss_interval=loss_interval,
        accuracy=accuracy,
        interval=interval,
        chance_loss=float(sums["chance"].sum() / count.sum()),
    )


def _without_context(probabilities: np.ndarray, shown: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(M,) nats of each target given the piece shown: [MASK], or with equal chances the target or a random piece."""
    random = 1 / (len(probabilities) - FIRST_PIECE)
    right = probabilities[targets] * ((shown == targets) + random) / (probabilities[shown] + random)
    return np.asarray(-np.log(np.where(shown == MASK, probabilities[targets], right)))


def _batches(pairs: PairSet) -> list[tuple[int, Batch]]:
    """Each batch with the index of its first pair."""
    size = pairs.config.batch.micro_size
    return [(index * size, batch) for index, batch in enumerate(pairs.batches())]


def _cuts(pairs: PairSet, train: TokenStore, task: Objective) -> Cuts:
    """How pairs of ``task`` are cut, counted on many epochs of the training side."""
    parts: list[Pairs] = []
    while len(parts) < _EPOCHS and sum(map(len, parts)) < _CUTS:
        parts.append(pair_set(pairs.config, train, pairs.word_starts, task, _CUTS, epoch=len(parts)).pairs)
    return _cut(Pairs.join(parts), train)


def _cut(pairs: Pairs, store: TokenStore) -> Cuts:
    starts, lengths = (
        np.stack([pairs.a_start, pairs.b_start], axis=1), np.stack([pairs.a_length, pairs.b_length], axis=1)
    )  # fmt: skip
    first = _sentence_of(store, starts)
    last = _sentence_of(store, starts + np.maximum(lengths, 1) - 1)
    documents = np.stack([pairs.document, pairs.b_document], axis=1)
    return Cuts(
        label=pairs.label,
        same=pairs.document == pairs.b_document,
        first=first - store.documents[documents],
        count=np.where(lengths > 0, last - first + 1, 0),
    )


def _seen(pairs: PairSet, start: int, batch: Batch) -> Seen:
    """``batch``, whose first pair has index ``start`` in ``pairs``, as the reference sees it."""
    part, store = pairs.pairs.take(slice(start, start + len(batch))), pairs.store
    ids = batch.input_ids.numpy()
    chosen = np.zeros(ids.shape, dtype=bool)
    chosen.reshape(-1)[batch.positions.numpy()] = True
    column = np.arange(ids.shape[1])
    segment = np.full(ids.shape, -1)
    token = np.zeros(ids.shape, dtype=np.int64)
    begins = (np.ones_like(part.a_length), part.a_length + 2)
    for number, (begin, first, length) in enumerate(
        zip(begins, (part.a_start, part.b_start), (part.a_length, part.b_length), strict=True)
    ):
        inside = (column >= begin[:, None]) & (column < (begin + length)[:, None])
        segment[inside] = number
        token[inside] = (first[:, None] + column - begin[:, None])[inside]
    sentence = _sentence_of(store, token)
    firsts = _sentence_of(store, np.stack([part.a_start, part.b_start], axis=1))
    first_sentence = np.take_along_axis(firsts, np.maximum(segment, 0), axis=1)
    inside = segment >= 0
    return Seen(
        ids=ids,
        chosen=chosen,
        segment=segment,
        sentence=np.where(inside, sentence - first_sentence, 0),
        position=np.where(inside, token - store.sentences[sentence], 0),
    )


def _sentence_of(store: TokenStore, tokens: np.ndarray) -> np.ndarray:
    """The sentence that each token is in."""
    last = len(store.sentences) - 2
    return np.minimum(np.searchsorted(store.sentences, tokens, side="right") - 1, last)
