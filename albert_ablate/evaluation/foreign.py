"""Scores of a run on another text than its own: against what, and what they say."""

from typing import Any

import numpy as np

from albert_ablate.axes import HELD_OUT_SCORES
from albert_ablate.data.store import TokenStore
from albert_ablate.evaluation.baselines import NgramBaselines, OtherDocuments
from albert_ablate.evaluation.heldout import PairSet
from albert_ablate.record.results import Bars


def of_this_text(scored: TokenStore, rest: TokenStore, vocab_size: int) -> OtherDocuments | None:
    """N-gram models of a text that the run was not trained on; None where it has a single document.

    A document is scored against all others, whichever side they are on: the models know the text, as the run does not.
    """
    if scored.document_count + rest.document_count < 2:
        return None
    return OtherDocuments(scored, rest, vocab_size)


def bars_of(
    results: dict[str, Any], plain: PairSet, trained_on: TokenStore | None, reason: str, vocab_size: int
) -> None:
    """Say in ``results`` what the bars of masked LM are, and take out what is true of a run's own text alone.

    That is ``left_baseline``, which says how far the run's training went.
    ``trained_on``: the run's training tokens, whose piece frequencies are the fair bar: neither they nor the run know
    this text. None where they are not at hand, with the ``reason``.
    """
    for name in HELD_OUT_SCORES:
        if results[name] is not None:
            above = results[name].pop("left_baseline", None)
            if name != "masked_lm":
                results[name]["above_majority"] = above
    if results["masked_lm"] is None:
        return
    bars = Bars(of="this text", fitted_on="all of its documents but the one that is scored")
    if "unigram_loss" not in results["masked_lm"]:
        bars = Bars(of=None, left_out="the text has no other document to count pieces in")
    if trained_on is None:
        bars.run_left_out = reason
    else:
        own = NgramBaselines(trained_on, vocab_size)
        losses = np.concatenate([own.unigram_loss(found.targets) for found in plain.masked()])
        bars.run_unigram_loss = float(losses.mean())
    results["masked_lm"]["bars"] = bars.as_json()


def seen_in_training(plain: PairSet, trained_on: TokenStore | None) -> int | None:
    """How many of the scored documents are among those that the run was trained on; None where that is not known."""
    if trained_on is None:
        return None
    known = set(trained_on.document_marks())
    marks = list(plain.store.document_marks())
    return sum(marks[document] in known for document in np.unique(plain.pairs.document))
