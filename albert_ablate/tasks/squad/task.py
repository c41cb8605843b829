"""SQuAD 1.1 and 2.0 as tasks: losses, decoding, scores (reference squad_utils).

Letters: W windows, T tokens, K candidate starts (and K candidate ends for each).
"""

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.config.tasks import SquadConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.model.architecture import Architecture
from albert_ablate.tasks import metrics
from albert_ablate.tasks.heads import AnswerableSpanModel, SpanModel
from albert_ablate.tasks.scripts import writes_no_spaces
from albert_ablate.tasks.squad import metrics as squad_metrics
from albert_ablate.tasks.squad.data import SquadSet, build_windows, misplaced
from albert_ablate.tasks.task import Baselines, FeatureSet, HeadSettings, Meaning, Outputs, SetScores, TaskBatch


class SquadTask:
    """Extractive question answering. Batches hold windows; the number of steps follows from that of questions."""

    metric = "f1"
    meaning = Meaning("spans")

    def __init__(
        self, task: SquadConfig, train: SquadSet, dev: SquadSet, tokenizer: Tokenizer, max_length: int
    ) -> None:
        self.name = task.name
        self.task = task
        self.answerable = task.version == "2.0"
        wrong = set(misplaced(train))
        train = SquadSet(train.paragraphs, [q for q in train.questions if q.id not in wrong])
        self.dev_questions = dev
        self._by_characters = by_characters(dev, task.f1_unit)
        self.windows = build_windows(dev, tokenizer, task, max_length)
        self.train = build_windows(train, tokenizer, task, max_length).features
        self.dev = {"dev": self.windows.features}
        self.test: dict[str, FeatureSet] = {}
        self.examples = len(train.questions)
        self.counts: dict[str, Any] = {
            "train": len(train.questions),
            "dev": {"dev": len(dev.questions)},
            "windows": {"train": len(self.train), "dev": len(self.windows.features)},
            "train_windows_without_the_answer": int(self.train.targets[:, 2].sum()),
            "dev_questions_scored_by_characters": len(self._by_characters),
            "questions_left_out_because_the_answer_is_not_where_the_file_says": len(wrong),
        }

    def build(self, shape: Architecture, head: HeadSettings) -> nn.Module:
        """For 1.1, two scores per token; for 2.0, a start, an end given the start, and answerability."""
        return AnswerableSpanModel(shape, head.dropout) if self.answerable else SpanModel(shape)

    def loss(self, model: nn.Module, batch: TaskBatch) -> Tensor:
        """(start + end) / 2, plus for 2.0 half the binary cross-entropy of answerability; summed over windows."""
        starts, ends, impossible = batch.targets.unbind(1)
        if not self.answerable:
            start, end = model(batch)
            return (F.cross_entropy(start, starts, reduction="sum") + F.cross_entropy(end, ends, reduction="sum")) / 2
        hidden, start, null = model(batch)
        assert isinstance(model, AnswerableSpanModel)
        end = model.ends(hidden, starts[:, None], batch)[:, 0]
        spans = F.nll_loss(start, starts, reduction="sum") + F.nll_loss(end, ends, reduction="sum")
        return (spans + F.binary_cross_entropy_with_logits(null, impossible.float(), reduction="sum")) / 2

    def outputs(self, model: nn.Module, batch: TaskBatch) -> dict[str, Tensor]:
        """``starts`` (W, K) positions, ``ends`` (W, K, K), their summed ``scores`` (W, K, K), and ``null`` (W,)."""
        if not self.answerable:
            start, end = model(batch)
            (s, i), (e, j) = _top(start, self.task.n_best), _top(end, self.task.n_best)
            return {
                "starts": i, "ends": j[:, None].expand(-1, i.shape[1], -1), "scores": s[:, :, None] + e[:, None],
                "null": torch.zeros(len(batch)),
            }  # fmt: skip
        assert isinstance(model, AnswerableSpanModel)
        hidden, start, null = model(batch)
        s, i = _top(start, self.task.beam)
        e, j = _top(model.ends(hidden, i.clamp(min=0), batch), self.task.beam)
        return {"starts": i, "ends": j, "scores": s[:, :, None] + e, "null": null}

    def scores(self, name: str, outputs: Outputs) -> SetScores:
        """Exact match and F1 by official rules, or by characters; the intervals treat paragraphs as independent."""
        questions = self.dev_questions.questions
        golds = self.dev_questions.golds
        best = {q.id: texts[0][0] for q, texts in zip(questions, self.candidates(outputs, 1), strict=True)}
        unit = "characters" if len(self._by_characters) == len(questions) else "words and characters"
        record: dict[str, Any] = {"n": len(questions), "f1_unit": unit if self._by_characters else "words"}
        if not self.answerable:
            raw = squad_metrics.scores_11(golds, best, self._by_characters)
            exact, f1 = raw.exact, raw.f1
        else:
            null = self._null(outputs)
            exact, f1, more = self._thresholded(golds, best, null)
            record |= more
        clusters = np.array([q.paragraph for q in questions])
        for metric, values in (("exact", exact), ("f1", f1)):
            record[metric] = metrics.clustered(np.array([values[q.id] for q in questions]), clusters)
        value = float(record["f1"]["value"])
        return SetScores(record, value, (value + float(record["exact"]["value"])) / 2)

    def _thresholded(
        self, golds: dict[str, tuple[str, ...]], best: dict[str, str], null: dict[str, float]
    ) -> tuple[dict[str, float], dict[str, float], dict[str, Any]]:
        """2.0: (exact match, F1) at the chosen threshold, and the other values of the official script."""
        raw = squad_metrics.scores_20(golds, best, self._by_characters)
        best_exact, exact_threshold = squad_metrics.best_threshold(raw.exact, golds, best, null)
        best_f1, f1_threshold = squad_metrics.best_threshold(raw.f1, golds, best, null)
        threshold = 0.0
        if self.task.threshold == "best_f1":
            # If answering nothing is best, the official search returns 0, which may still answer some questions.
            nothing = min(null.values()) - 1.0
            tried = {
                t: squad_metrics.mean(squad_metrics.with_threshold(raw.f1, golds, null, t))
                for t in (f1_threshold, nothing)
            }
            threshold = max(tried, key=lambda t: tried[t] or 0.0)
        exact, f1 = (squad_metrics.with_threshold(s, golds, null, threshold) for s in (raw.exact, raw.f1))
        zero = [squad_metrics.with_threshold(s, golds, null, 0.0) for s in (raw.exact, raw.f1)]
        sides = {"has_answer": [k for k in golds if golds[k]], "no_answer": [k for k in golds if not golds[k]]}
        record: dict[str, Any] = {
            side: {"n": len(keys), "exact": squad_metrics.mean(exact, keys), "f1": squad_metrics.mean(f1, keys)}
            for side, keys in sides.items()
        }
        record |= {
            "threshold": threshold,
            "threshold_was_searched_on_this_set": self.task.threshold == "best_f1",
            "best_exact": best_exact, "best_exact_threshold": exact_threshold,
            "best_f1": best_f1, "best_f1_threshold": f1_threshold,
            "at_threshold_0": {"exact": squad_metrics.mean(zero[0]), "f1": squad_metrics.mean(zero[1])},
        }  # fmt: skip
        return exact, f1, record

    def _null(self, outputs: Outputs) -> dict[str, float]:
        """Question id -> smallest no-answer logit over its windows."""
        lowest = np.full(len(self.dev_questions.questions), np.inf)
        np.minimum.at(lowest, self.windows.question, outputs["null"])
        return {q.id: float(v) for q, v in zip(self.dev_questions.questions, lowest, strict=True)}

    def candidates(self, outputs: Outputs, count: int) -> list[list[tuple[str, float]]]:
        """For each question up to ``count`` different texts with their scores, best first.

        A start must have maximal context in its window. An answer must lie in the paragraph and have at
        most ``max_answer`` pieces. The text is cut from the paragraph. Without candidates it is empty.
        """
        w = self.windows
        first = (w.offset - w.first)[:, None]
        start = outputs["starts"] + first  # (W, K) pieces of the paragraph
        end = outputs["ends"] + first[:, None]  # (W, K, K)
        usable = (start >= w.low[:, None]) & (start < w.high[:, None]) & (outputs["starts"] >= w.first[:, None])
        last = (w.offset + w.length)[:, None, None]
        span = end - start[:, :, None] + 1
        valid = usable[:, :, None] & (end < last) & (span >= 1) & (span <= self.task.max_answer)
        scores = np.where(valid, outputs["scores"], -np.inf)
        candidates: list[list[tuple[str, float]]] = []
        edges = np.searchsorted(w.question, np.arange(len(self.dev_questions.questions) + 1))
        for question, a, b in zip(self.dev_questions.questions, edges[:-1], edges[1:], strict=True):
            window_scores = scores[a:b].ravel()
            spans = np.broadcast_to(start[a:b, :, None], end[a:b].shape).ravel(), end[a:b].ravel()
            candidates.append(self._texts(question.paragraph, window_scores, spans, count))
        return candidates

    def _texts(
        self, paragraph: int, scores: np.ndarray, spans: tuple[np.ndarray, np.ndarray], count: int
    ) -> list[tuple[str, float]]:
        text, pieces = self.dev_questions.paragraphs[paragraph], self.windows.pieces[paragraph]
        order = [int(scores.argmax())] if count == 1 else np.argsort(-scores, kind="stable")
        texts: dict[str, float] = {}
        for i in order:
            if scores[i] == -np.inf or len(texts) == count:
                break
            answer = text[pieces.start[spans[0][i]] : pieces.end[spans[1][i]]].strip()
            texts.setdefault(answer, float(scores[i]))
        return list(texts.items()) or [("", -np.inf)]

    def files(self, name: str, outputs: Outputs) -> dict[str, str]:
        """``predictions.json`` for the official script, the n best texts, and for 2.0 the null scores."""
        questions = self.dev_questions.questions
        candidates = self.candidates(outputs, self.task.n_best)
        best = {q.id: texts[0][0] for q, texts in zip(questions, candidates, strict=True)}
        several = {
            q.id: [{"text": t, "score": s} for t, s in texts if s > -np.inf]
            for q, texts in zip(questions, candidates, strict=True)
        }
        files = {"nbest.json": _json(several)}
        if self.answerable:
            null = self._null(outputs)
            threshold = self._thresholded(self.dev_questions.golds, best, null)[2]["threshold"]
            best = {k: "" if null[k] > threshold else text for k, text in best.items()}
            files["null_scores.json"] = _json(null)
        return files | {"predictions.json": _json(best)}

    def baselines(self, bag_of_words: bool) -> Baselines:
        """2.0: scores of answering no question. 1.1 has no such baseline."""
        if not self.answerable:
            return {}
        golds = self.dev_questions.golds
        majority = {"majority": sum(not golds[k] for k in golds) / len(golds)}
        return {"dev": {"score": majority, "f1": majority, "exact": majority}}


def by_characters(squad: SquadSet, unit: str) -> frozenset[str]:
    """Ids of the questions scored by characters; with ``auto``, those of paragraphs in scripts without spaces."""
    if unit == "words":
        return frozenset()
    chosen = [unit == "characters" or writes_no_spaces(text) for text in squad.paragraphs]
    return frozenset(q.id for q in squad.questions if chosen[q.paragraph])


def _top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest scores and their indices on the last axis, padded with -inf and -1."""
    values, indices = scores.topk(min(count, scores.shape[-1]), dim=-1)
    missing = count - indices.shape[-1]
    return F.pad(values, (0, missing), value=-torch.inf), F.pad(indices, (0, missing), value=-1)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
