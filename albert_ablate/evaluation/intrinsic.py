"""Held-out masked LM, NSP and SOP for every arm (paper, section 4.2.1 and Table 5).

The arm's own sentence task is scored with the head it was trained with. A task it was not trained
on is scored with a head fitted on the frozen encoder (logistic regression on the final hidden state
of [CLS], fitted on training documents): what the representation holds, not what the arm was taught.
For arms with a trained head, ``own_head`` also gives that head's accuracy on the other task, which
is how the paper's Table 5 scores it.
"""

from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from albert_ablate.axes import SENTENCE_TASKS, Objective
from albert_ablate.distributed import ALONE, World
from albert_ablate.evaluation.baselines import PLATEAU_MARGIN, NgramBaselines
from albert_ablate.evaluation.heldout import HeldOut, PairSet, masked_positions
from albert_ablate.evaluation.intervals import SHARE, clustered_mean, proportion
from albert_ablate.model.pretraining import PretrainingModel
from albert_ablate.record.results import MaskedLM, Proportion, SentenceTask
from albert_ablate.training.precision import autocast

_T = TypeVar("_T")


class Evaluator:
    """Scores one model on the held-out sets; leaves the model in evaluation mode."""

    def __init__(
        self,
        model: PretrainingModel,
        held_out: HeldOut,
        objective: Objective,
        baselines: NgramBaselines | None,
        precision: str,
        world: World = ALONE,
    ) -> None:
        self.world = world
        self.model = model
        self.held_out = held_out
        self.objective = objective
        self.baselines = baselines
        self.precision = precision

    def curve_point(self, pairs: int) -> dict[str, float]:
        """Masked-LM and own sentence numbers on the first ``pairs`` held-out pairs."""
        mlm = self._masked_lm(self.held_out.plain, pairs)
        count = max(mlm["count"].sum(), 1)  # a few pairs may have no masked position
        point = {"mlm_loss": float(mlm["loss"].sum() / count), "mlm_accuracy": float(mlm["hits"].sum() / count)}
        task = self.held_out.tasks.get(self.objective)
        if task is not None:
            _, logits, labels = self._sentences(task, pairs)
            point["sentence_accuracy"] = float((logits.argmax(1) == labels).mean())
        return point

    def results(self) -> dict[str, Any]:
        """The final record: ``masked_lm``, ``nsp`` and ``sop``, each beside its baseline.

        A sentence task that the text cannot give is None, and ``left_out`` says why. Without baselines masked LM has
        none beside it.
        """
        found: dict[str, Any] = {"masked_lm": self._masked_lm_record()}
        for task in SENTENCE_TASKS:
            found[task.value] = self._task_record(task)
        if self.held_out.left_out:
            found["left_out"] = {task.value: reason for task, reason in self.held_out.left_out.items()}
        return found

    def _masked_lm_record(self) -> dict[str, Any]:
        s = self._masked_lm(self.held_out.plain)
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
        own = logits.argmax(1) == labels
        if task is self.objective:
            hits, head = own, "trained"
        else:
            hits, head = self._fitted_head(task, features) == labels, "fitted on the frozen encoder"
        majority = float(max(labels.mean(), 1 - labels.mean()))
        share = proportion(int(hits.sum()), len(labels))
        above = share["interval"][0] > majority
        record = SentenceTask(**share, head=head, majority_class=majority, left_baseline=above)
        if task is not self.objective and self.objective is not Objective.NONE:
            record.own_head = Proportion(**proportion(int(own.sum()), len(labels)))
        return record.as_json()

    def _fitted_head(self, task: Objective, features: np.ndarray) -> np.ndarray:
        """Predictions on ``features`` of a head fitted on training-side pairs of ``task``."""
        x, _, y = self._sentences(self.held_out.probe_training[task])
        # Here, not above: scikit-learn takes a second to load, and training does not need it.
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        predictions: np.ndarray = head.fit(x, y).predict(features)
        return predictions

    @torch.inference_mode()
    def _masked_lm(self, pairs: PairSet, limit: int | None = None) -> dict[str, np.ndarray]:
        """Sums over each sequence's masked positions: (sequences,) arrays."""
        self.model.eval()
        device = next(self.model.parameters()).device
        bars = ("unigram", "bigram", "frequent") if self.baselines is not None else ()
        rows: dict[str, list[np.ndarray]] = {name: [] for name in ("loss", "hits", "count", *bars)}
        for batch, part in zip(self._own(pairs.batches(limit)), self._own(pairs.parts(limit)), strict=True):
            b = batch.to(device)
            with autocast(self.precision, device):
                hidden = self.model.encoder(b.input_ids, b.type_ids, b.mask)
                masked = hidden.flatten(0, 1)[b.positions]
                logits = self.model.mlm_head(masked, self.model.encoder.embedding.word.weight).float()
            m = masked_positions(batch, part)
            values = {
                "loss": F.cross_entropy(logits, b.targets, reduction="none").double().cpu().numpy(),
                "hits": (logits.argmax(-1) == b.targets).cpu().numpy(),
                "count": np.ones(len(m.targets)),
            }
            if self.baselines is not None:
                values |= self.baselines.scores(m.left, m.targets, m.document)
            for name, value in values.items():
                rows[name].append(np.bincount(m.row, weights=value, minlength=len(batch)))
        return {name: self._joined(parts) for name, parts in rows.items()}

    @torch.inference_mode()
    def _sentences(self, pairs: PairSet, limit: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """([CLS] states (n, H), logits of the model's own head (n, 2), labels (n,))."""
        self.model.eval()
        device = next(self.model.parameters()).device
        states, logits, labels = [], [], []
        for batch in self._own(pairs.batches(limit)):
            b = batch.to(device)
            with autocast(self.precision, device):
                hidden = self.model.encoder(b.input_ids, b.type_ids, b.mask)
                logits.append(self.model.sentence_head(self.model.pooler(hidden)).float().cpu().numpy())
            states.append(hidden[:, 0].float().cpu().numpy())
            labels.append(batch.labels.numpy())
        return self._joined(states), self._joined(logits), self._joined(labels)

    def _own(self, batches: Iterator[_T]) -> Iterator[_T]:
        """Those that this process scores: the processes take turns."""
        return islice(batches, self.world.rank, None, self.world.size)

    def _joined(self, parts: list[np.ndarray]) -> np.ndarray:
        """The rows of all batches in order, whichever process scored them."""
        turns = zip_longest(*self.world.gather(parts))
        return np.concatenate([part for turn in turns for part in turn if part is not None])
