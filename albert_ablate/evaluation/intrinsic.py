"""Held-out masked LM, NSP and SOP for every arm (paper, section 4.2.1 and Table 5).

The sentence task that an arm was trained on is scored with its trained head. The other task is scored with a head
fitted on the frozen encoder (logistic regression on the final hidden state of [CLS], fitted on training documents),
which measures the representation. Where [CLS] sees only itself, the head reads the last real token, a [SEP]. For arms
with a trained head, ``own_head`` also gives the accuracy of that head on the other task, as in the paper's Table 5.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from albert_ablate.axes import REPLACED_TOKENS, SENTENCE_TASKS, Objective
from albert_ablate.data.batches import Batch
from albert_ablate.data.segments import Pairs
from albert_ablate.evaluation import fitted
from albert_ablate.evaluation.baselines import PLATEAU_MARGIN, NgramBaselines
from albert_ablate.evaluation.heldout import HeldOut, PairSet
from albert_ablate.evaluation.intervals import SHARE, clustered_mean, proportion
from albert_ablate.evaluation.passes import joined, moved, read, shared
from albert_ablate.evaluation.replaced import replaced_tokens
from albert_ablate.methods import Measure
from albert_ablate.model.attention import PATTERNS
from albert_ablate.model.rows import first_rows, last_rows
from albert_ablate.record.results import LossByPosition, MaskedLM, Proportion, SentenceTask
from albert_ablate.training.machine import Machine

#: The position in a sequence from which on masked LM is scored apart: the length of most encoders' sequences.
LATE = 512


def _by_position(sums: Mapping[str, np.ndarray]) -> LossByPosition:
    """Means before position ``LATE`` and from it on, with intervals over sequences."""
    late_loss, late_count = sums["late_loss"], sums["late_count"]
    early, early_interval = clustered_mean(sums["loss"] - late_loss, sums["count"] - late_count)
    late, late_interval = clustered_mean(late_loss, late_count)
    return LossByPosition(
        split=LATE, early=early, early_interval=early_interval, late=late, late_interval=late_interval
    )  # fmt: skip


class Evaluator:
    """Scores one model on the held-out sets; leaves the model in evaluation mode."""

    def __init__(
        self,
        model: Any,
        held_out: HeldOut,
        objective: Objective,
        baselines: NgramBaselines | None,
        machine: Machine,
        measures: frozenset[Measure] = frozenset(Measure),
    ) -> None:
        self.model = model
        self.held_out = held_out
        #: The sentence task that the model has a trained head for.
        self.objective = objective if Measure.SENTENCE_HEAD in measures else Objective.NONE
        self.baselines = baselines
        self.machine = machine
        self.measures = measures
        self._first_sees_all = PATTERNS[model.encoder.shape.pattern].first_sees_all

    def curve_point(self, pairs: int) -> dict[str, float]:
        """Scores of masked LM and of the trained sentence task on the first ``pairs`` held-out pairs."""
        point = {}
        if Measure.MASKED_LM in self.measures:
            mlm = self._masked_lm(self.held_out.plain, None, pairs)
            count = max(mlm["count"].sum(), 1)  # a few pairs may have no masked position
            point = {"mlm_loss": float(mlm["loss"].sum() / count), "mlm_accuracy": float(mlm["hits"].sum() / count)}
        task = self.held_out.tasks.get(self.objective)
        if task is not None:
            _, logits, labels = self._sentences(task, pairs)
            assert logits is not None  # a task of the objective has a trained head
            point["sentence_accuracy"] = float((logits.argmax(1) == labels).mean())
        return point

    def results(self) -> dict[str, Any]:
        """The final record: ``masked_lm``, ``nsp``, ``sop`` and ``replaced_tokens``, each with its baselines.

        A measure that the text does not allow is None, and so is masked LM of a model without that head;
        ``left_out`` gives the reason. An evaluator without baselines leaves those of masked LM out.
        """
        left_out = {task.value: reason for task, reason in self.held_out.left_out.items()}
        scores: dict[str, Any] = {"masked_lm": None}
        if Measure.MASKED_LM in self.measures:
            scores["masked_lm"] = self._masked_lm_record()
        else:
            left_out["masked_lm"] = "not trained by this method"
        for task in SENTENCE_TASKS:
            scores[task.value] = self._task_record(task)
        replaced = replaced_tokens(self.model.encoder, self.held_out, self.machine)
        if isinstance(replaced, str):
            left_out[REPLACED_TOKENS], scores[REPLACED_TOKENS] = replaced, None
        else:
            scores[REPLACED_TOKENS] = replaced.as_json()
        return scores | ({"left_out": left_out} if left_out else {})

    def _masked_lm_record(self) -> dict[str, Any]:
        s = self._masked_lm(self.held_out.plain, self.baselines)
        count = int(s["count"].sum())
        loss, interval = clustered_mean(s["loss"], s["count"])
        accuracy, accuracy_interval = clustered_mean(s["hits"], s["count"], SHARE)
        record = MaskedLM(
            loss=loss,
            loss_interval=interval,
            accuracy=accuracy,
            interval=accuracy_interval,
            binomial_interval=proportion(int(s["hits"].sum()), count)["interval"],
            examples=count,
            sequences=len(s["count"]),
        )
        if s["late_count"].any():
            record.by_position = _by_position(s)
        if self.baselines is None:
            return record.as_json()
        gain, gain_interval = clustered_mean(s["unigram"] - s["loss"], s["count"])
        record.unigram_loss, _ = clustered_mean(s["unigram"], s["count"])
        record.bigram_loss, _ = clustered_mean(s["bigram"], s["count"])
        record.unigram_accuracy = float(s["frequent"].sum() / count)
        record.gain_over_unigram, record.gain_interval = gain, gain_interval
        record.left_baseline = bool(gain_interval[0] > PLATEAU_MARGIN)
        return record.as_json()

    def _task_record(self, task: Objective) -> dict[str, Any] | None:
        pairs = self.held_out.tasks.get(task)
        if pairs is None:
            return None
        features, logits, labels = self._sentences(pairs)
        trained_hits = None if logits is None else logits.argmax(1) == labels
        if trained_hits is not None and task is self.objective:
            hits, head = trained_hits, "trained"
        else:
            hits, head = self._fitted_head(task, features) == labels, "fitted on the frozen encoder"
            head += "" if self._first_sees_all else ", last token"
        majority = float(max(labels.mean(), 1 - labels.mean()))
        share = proportion(int(hits.sum()), len(labels))
        above = share["interval"][0] > majority
        record = SentenceTask(**share, head=head, majority_class=majority, left_baseline=above)
        if trained_hits is not None and task is not self.objective:
            record.own_head = Proportion(**proportion(int(trained_hits.sum()), len(labels)))
        return record.as_json()

    def _fitted_head(self, task: Objective, features: np.ndarray) -> np.ndarray:
        """Predictions on ``features`` of a head fitted on training-side pairs of ``task``."""
        x, _, y = self._sentences(self.held_out.probe_training[task])
        return fitted.predicted(x, y, features, self.machine.device)

    @torch.inference_mode()
    def _masked_lm(
        self, pairs: PairSet, baselines: NgramBaselines | None, limit: int | None = None
    ) -> dict[str, np.ndarray]:
        """Sums over the masked positions of each sequence, for the model and ``baselines``: arrays (sequences,).

        ``late_loss`` and ``late_count`` are those of positions from ``LATE`` on.
        """
        bars = ("unigram", "bigram", "frequent") if baselines is not None else ()
        rows: dict[str, list[np.ndarray]] = {
            name: [] for name in ("loss", "hits", "count", "late_loss", "late_count", *bars)
        }
        for (batch, part), (loss, hits) in read(self._predictions(pairs, limit)):
            m = pairs.located(batch, part)
            late = (batch.positions.numpy() % batch.input_ids.shape[1] >= LATE).astype(np.float64)
            values = {"loss": loss, "hits": hits, "count": np.ones(len(m.targets))}
            values |= {"late_loss": loss * late, "late_count": late}
            if baselines is not None:
                values |= baselines.scores(m.left, m.targets, m.document)
            for name, value in values.items():
                rows[name].append(np.bincount(m.row, weights=value, minlength=len(batch)))
        return {name: joined(parts, self.machine.world) for name, parts in rows.items()}

    def _predictions(self, pairs: PairSet, limit: int | None) -> Iterator[tuple[tuple[Batch, Pairs], Sequence[Tensor]]]:
        """Each batch with its pairs; the fp64 loss of each masked position (M,), and whether it was a hit (M,)."""
        self.model.eval()
        both = zip(pairs.batches(limit), pairs.parts(limit), strict=True)
        for batch, part in shared(both, self.machine.world):
            b = moved(batch, self.machine.device, pairs.filled)
            with self.machine.autocast():
                masked = self.model.encoder(b.input_ids, b.type_ids, b.mask, rows=b.positions)  # (M, H)
                logits = self.model.token_logits(masked).float()
            loss = F.cross_entropy(logits, b.targets, reduction="none").double()
            real = len(batch.targets)
            yield (batch, part), (loss[:real], (logits.argmax(-1) == b.targets)[:real])

    @torch.inference_mode()
    def _sentences(self, pairs: PairSet, limit: int | None = None) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """States (n, H), logits (n, 2) of the trained head or None if there is none, and labels (n,).

        The states are those of [CLS] or, where it sees only itself, of the last real token.
        """
        states, logits, labels = [], [], []
        for batch, (state, *trained) in read(self._sentence_states(pairs, limit)):
            states.append(state)
            logits.extend(trained)
            labels.append(batch.labels.numpy())
        world = self.machine.world
        trained_logits = joined(logits, world) if self.objective.trains_sentences else None
        return joined(states, world), trained_logits, joined(labels, world)

    def _sentence_states(self, pairs: PairSet, limit: int | None) -> Iterator[tuple[Batch, Sequence[Tensor]]]:
        """Each batch; the states (B, H) that ``_sentences`` returns, then the logits (B, 2) of a trained head."""
        self.model.eval()
        for batch in shared(pairs.batches(limit), self.machine.world):
            b = moved(batch, self.machine.device, pairs.filled)
            with self.machine.autocast():
                rows = first_rows(b.input_ids) if self._first_sees_all else last_rows(b.mask)
                states = self.model.encoder(b.input_ids, b.type_ids, b.mask, rows=rows)  # (B, H)
                heads = [self.model.sentence_logits(states[:, None])] if self.objective.trains_sentences else []
            yield batch, [tensor.float()[: len(batch)] for tensor in (states, *heads)]
