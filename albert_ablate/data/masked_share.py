"""The share of tokens that masking covers on a text, and whether words that do not fit are masked by piece."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate import streams
from albert_ablate.axes import IN_ORDER, SENTENCE_TASKS
from albert_ablate.config.schema import MaskingConfig, PairsConfig
from albert_ablate.data.batches import grid
from albert_ablate.data.joined import shuffled_rows
from albert_ablate.data.masking import find_words, held_out_masking, mask_batch, masking_budget
from albert_ablate.data.segments import Pairs, build_pairs
from albert_ablate.data.store import TokenStore
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.files import digest, read_json, write_json

#: Raise when the measurement or the decision changes for the same text.
_SHARE_FORMAT = 1
#: Whole-word masking is kept if it reaches this share of the budget and every row has a target.
ENOUGH = 0.95
#: Fixed, not the run's seed: every arm and seed of a comparison masks by the same rule.
_SEED = 0
_ROWS, _TOKENS, _EPOCHS = 8192, 1_000_000, 4


@dataclass(frozen=True)
class MaskedShare:
    """Sums over a sample of training pairs."""

    rows: int
    tokens: int  # without padding, special tokens included
    words: int
    budget: int  # positions that masking.probability asks for
    masked: int
    rows_without_target: int

    def enough(self) -> bool:
        """Whether masking reaches the share ENOUGH of the budget and every row has a target."""
        return self.masked >= ENOUGH * self.budget and not self.rows_without_target

    def line(self, rule: str) -> str:
        """A line for the user; ``rule`` is the resolved ``masking.long_words``."""
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
        """The entry of the manifest; ``rule`` is the resolved ``masking.long_words``."""
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
    """``masking`` with ``long_words=auto`` resolved for this text, and the measured share; measured once and cached.

    ``auto`` means ``whole``, as in the reference, if whole words reach ENOUGH of the budget and every row of the
    sample has a target; else ``pieces``. The share is None if the text yields no pairs.
    """
    key = digest([_SHARE_FORMAT, store.fingerprint, tokenizer.fingerprint, asdict(pairs), asdict(masking)])
    file = cache / "masking" / f"{key}.json"
    if file.is_file():
        cached = read_json(file)
        share = None if cached["share"] is None else MaskedShare(**cached["share"])
        return replace(masking, long_words=cached["long_words"]), share
    sample = _sample(store, pairs)
    rule = "whole" if masking.long_words == "auto" else masking.long_words
    share = _measured(sample, pairs, tokenizer.word_starts, replace(masking, long_words=rule))
    if masking.long_words == "auto" and share is not None and not share.enough():
        rule = "pieces"
        share = _measured(sample, pairs, tokenizer.word_starts, replace(masking, long_words=rule))
    write_json(file, {"long_words": rule, "share": None if share is None else asdict(share)})
    return replace(masking, long_words=rule), share


#: Pairs, and their ids, segments and lengths as ``batches.grid`` gives them.
_Drawn = tuple[Pairs, tuple[np.ndarray, np.ndarray, np.ndarray]]


def _sample(store: TokenStore, settings: PairsConfig) -> list[_Drawn]:
    """Pairs in order and pairs of two documents, or joined documents, from a part of a large corpus."""
    rows = min(_ROWS, max(_TOKENS // settings.max_length, 1))
    part = store.part(min(1.0, 2 * rows * settings.max_length / max(len(store.tokens), 1)))
    if settings.join_documents:
        joined, pairs = shuffled_rows(part, settings.max_length, _SEED, epoch=0)
        drawn = pairs.take(slice(0, rows))
        return [(drawn, joined.grid(drawn))] if len(drawn) else []
    return [(pairs, grid(part, pairs, settings.max_length)) for pairs in _pairs_of(part, settings, rows)]


def _pairs_of(part: TokenStore, settings: PairsConfig, rows: int) -> list[Pairs]:
    several = part.document_count > 1
    if not several and settings.single_sentence == "released":  # such a run is refused before training
        return []
    drawn = []
    for objective in (IN_ORDER, *(task for task in SENTENCE_TASKS if several and task.needs_second_document)):
        count = 0
        for epoch in range(_EPOCHS):  # a small text needs several epochs; each cuts it differently
            pairs = build_pairs(part, objective, settings, _SEED, epoch).take(slice(0, rows - count))
            count += len(pairs)
            if len(pairs):
                drawn.append(pairs)
    return drawn


def _measured(
    drawn: list[_Drawn],
    settings: PairsConfig,
    word_starts: np.ndarray,
    masking: MaskingConfig,
) -> MaskedShare | None:
    sums = np.zeros(6, dtype=np.int64)
    for number, (pairs, (ids, segment_starts, lengths)) in enumerate(drawn):
        keys = streams.hashed(streams.key(_SEED, "masked share", number), pairs.document, pairs.ordinal)
        masked = mask_batch(ids, lengths, segment_starts, word_starts, keys, held_out_masking(masking))
        words = (find_words(ids, segment_starts, word_starts).pieces > 0).sum()
        targets = np.bincount(masked.positions // settings.max_length, minlength=len(pairs))
        budget = masking_budget(lengths, masking)
        sums += [len(pairs), lengths.sum(), words, budget.sum(), targets.sum(), (targets == 0).sum()]
    return MaskedShare(*sums.tolist()) if drawn else None
