"""Baselines of a run that is scored on a text it was not trained on."""

from typing import Any

import numpy as np

from albert_ablate.axes import CAUSAL_LM, HELD_OUT_SCORES, REPLACED_TOKENS
from albert_ablate.data.store import TokenStore
from albert_ablate.evaluation.baselines import NgramBaselines, OtherDocuments
from albert_ablate.evaluation.causal import HeldOutStream, separator_share
from albert_ablate.evaluation.heldout import PairSet
from albert_ablate.record.results import Bars


def of_this_text(scored: TokenStore, rest: TokenStore, vocab_size: int) -> OtherDocuments | None:
    """N-gram models of a text that the run was not trained on; None if it has fewer than two documents.

    Each document is scored with counts of all others, on both sides of the split. Unlike the run, these models know
    the text.
    """
    if scored.document_count + rest.document_count < 2:
        return None
    return OtherDocuments(scored, rest, vocab_size)


def bars_of(
    results: dict[str, Any],
    plain: PairSet,
    trained_on: TokenStore | None,
    reason: str,
    vocab_size: int,
    stream: HeldOutStream | None = None,
) -> None:
    """Describe in ``results`` the baselines of masked LM, or of causal LM, and remove every ``left_baseline``.

    ``left_baseline`` says how far training went, which only the run's training text can show.
    ``trained_on``: the run's training tokens. Their piece frequencies are the fair baseline: like the run, they were
    learned without this text. None if the tokens are not available, with the ``reason``. ``stream``: the scorer of a
    model that predicts the next piece.
    """
    for name in HELD_OUT_SCORES:
        if results[name] is not None:
            above = results[name].pop("left_baseline", None)
            if name != "masked_lm":
                results[name]["above_majority"] = above
    if results.get(REPLACED_TOKENS) is not None:
        results[REPLACED_TOKENS]["above_tokens"] = results[REPLACED_TOKENS].pop("left_baseline", None)
    scores = results["masked_lm"] if stream is None else results[CAUSAL_LM]
    if scores is None:
        return
    scores.pop("left_baseline", None)
    bars = Bars(of="this text", fitted_on="all of its documents but the one that is scored")
    if "unigram_loss" not in scores:
        bars = Bars(of=None, left_out="the text has no other document to count pieces in")
    if trained_on is None:
        bars.run_left_out = reason
    else:
        baselines = NgramBaselines(trained_on, vocab_size)
        if stream is not None:
            bars.run_unigram_loss = stream.unigram_loss(baselines, separator_share([trained_on]))
        else:
            losses = np.concatenate([baselines.unigram_loss(masked.targets) for masked in plain.masked()])
            bars.run_unigram_loss = float(losses.mean())
    scores["bars"] = bars.as_json()


def seen_in_training(plain: PairSet, trained_on: TokenStore | None) -> int | None:
    """Number of scored documents that the run was also trained on; None if that is not known."""
    if trained_on is None:
        return None
    known = set(trained_on.document_marks())
    marks = list(plain.store.document_marks())
    return sum(marks[document] in known for document in plain.documents())
