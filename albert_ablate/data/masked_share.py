"""What masking gives on a text: the share of tokens, and whether words that do not fit are divided."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate import streams
from albert_ablate.axes import IN_ORDER, SENTENCE_TASKS
from albert_ablate.config.schema import MaskingConfig, PairsConfig
from albert_ablate.data.batches import grid
from albert_ablate.data.masking import find_words, mask_batch, masking_budget
from albert_ablate.data.segments import Pairs, build_pairs
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.files import digest, read_json, write_json

#: Raise when the measurement or the decision changes for the same text.
_SHARE_FORMAT = 1
#: Whole words are kept where they reach this share of the budget, and every row has a target.
ENOUGH = 0.95
#: Not a run's seed: every arm and seed of a comparison masks by the same rule.
_SEED = 0
_ROWS, _TOKENS, _EPOCHS = 8192, 1_000_000, 4


@dataclass(frozen=True)
class MaskedShare:
    """Sums over a sample of training pairs."""

    rows: int
    tokens: int  # real ones, specials included
    words: int
    budget: int  # positions that masking.probability asks for
    masked: int
    rows_without_target: int

    def enough(self) -> bool:
        """Whether the budget is reached, nearly, and no row has nothing to predict."""
        return self.masked >= ENOUGH * self.budget and not self.rows_without_target

    def line(self, rule: str) -> str:
        """For the user."""
        text = (
            f"masking: {self.masked / self.tokens:.1%} of tokens, {self.words / self.rows:.1f} words per row of "
            f"{self.tokens / self.rows:.1f} tokens"
        )
        if rule == "pieces":
            return f"{text}; words that do not fit are masked by piece (masking.long_words)"
        if not self.enough():
            text += f"; the budget is {self.budget / self.tokens:.1%}, {self.rows_without_target:,} rows have no target"
        return text

    def record(self, rule: str) -> dict[str, Any]:
        """For the manifest."""
        return {
            "share": self.masked / self.tokens,
            "budget_share": self.budget / self.tokens,
            "words_per_row": self.words / self.rows,
            "tokens_per_row": self.tokens / self.rows,
            "rows_without_target": self.rows_without_target,
            "rows": self.rows,
            "long_words": rule,
        }


def settle(
    masking: MaskingConfig, pairs: PairsConfig, store: TokenStore, tokenizer: Tokenizer, cache: Path
) -> tuple[MaskingConfig, MaskedShare | None]:
    """``masking`` with what ``long_words=auto`` means for this text, and what it gives; measured once.

    ``auto`` is ``whole``, as in the reference, where whole words reach ENOUGH of the budget and every row of the sample
    has a target; else ``pieces``. Nothing is measured where the text gives no pair.
    """
    key = digest([_SHARE_FORMAT, store.fingerprint, tokenizer.fingerprint, asdict(pairs), asdict(masking)])
    file = cache / "masking" / f"{key}.json"
    if file.is_file():
        found = read_json(file)
        share = None if found["share"] is None else MaskedShare(**found["share"])
        return replace(masking, long_words=found["long_words"]), share
    sample = _sample(store, pairs)
    rule = "whole" if masking.long_words == "auto" else masking.long_words
    share = _measured(sample, pairs, tokenizer.word_starts, replace(masking, long_words=rule))
    if masking.long_words == "auto" and share is not None and not share.enough():
        rule = "pieces"
        share = _measured(sample, pairs, tokenizer.word_starts, replace(masking, long_words=rule))
    write_json(file, {"long_words": rule, "share": None if share is None else asdict(share)})
    return replace(masking, long_words=rule), share


def _sample(store: TokenStore, settings: PairsConfig) -> tuple[TokenStore, list[Pairs]]:
    """Pairs in order and pairs of two documents, from some of the documents where there are many."""
    rows = min(_ROWS, max(_TOKENS // settings.max_length, 1))
    part = store.part(min(1.0, 2 * rows * settings.max_length / max(len(store.tokens), 1)))
    several = part.document_count > 1
    if not several and settings.single_sentence == "released":  # refused before training
        return part, []
    found = []
    for objective in (IN_ORDER, *(task for task in SENTENCE_TASKS if several and task.needs_second_document)):
        count = 0
        for epoch in range(_EPOCHS):  # of a small text several: each cuts it anew
            pairs = build_pairs(part, objective, settings, _SEED, epoch).take(slice(0, rows - count))
            count += len(pairs)
            if len(pairs):
                found.append(pairs)
    return part, found


def _measured(
    sample: tuple[TokenStore, list[Pairs]],
    settings: PairsConfig,
    word_starts: np.ndarray,
    masking: MaskingConfig,
) -> MaskedShare | None:
    store, found = sample
    sums = np.zeros(6, dtype=np.int64)
    for number, pairs in enumerate(found):
        ids, segment_starts, lengths = grid(store, pairs, settings.max_length)
        keys = streams.hashed(streams.key(_SEED, "masked share", number), pairs.document, pairs.ordinal)
        masked = mask_batch(ids, lengths, segment_starts, word_starts, keys, masking)
        words = (find_words(ids, segment_starts, word_starts).pieces > 0).sum()
        targets = np.bincount(masked.positions // settings.max_length, minlength=len(pairs))
        budget = masking_budget(lengths, masking)
        sums += [len(pairs), lengths.sum(), words, budget.sum(), targets.sum(), (targets == 0).sum()]
    return MaskedShare(*sums.tolist()) if found else None
