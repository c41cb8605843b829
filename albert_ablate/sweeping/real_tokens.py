"""How many positions of a training sequence are real tokens, the unit of a token budget."""

import math
from pathlib import Path

import numpy as np

from albert_ablate.config.schema import PairsConfig, RunConfig
from albert_ablate.data.batches import PairBatches
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.packed import find_packed
from albert_ablate.data.segments import SPECIAL_TOKENS, needs_second_document
from albert_ablate.data.store import TokenStore, find_train
from albert_ablate.data.text import text_folder
from albert_ablate.data.vocabulary import find_tokenizer
from albert_ablate.errors import UserError
from albert_ablate.files import digest
from albert_ablate.methods import method_of
from albert_ablate.training.budget import step_flops

#: Pieces of a sentence in the estimate: English prose with a vocabulary of 30,000.
_SENTENCE = 25
#: Sequences to count: at least _ROWS, or as many as have _POSITIONS; of a small text at most _EPOCHS epochs.
_ROWS, _POSITIONS, _EPOCHS = 8192, 2_000_000, 100


class RealTokens:
    """Mean real tokens of a sequence for the cells of a sweep; each text is opened once."""

    def __init__(self) -> None:
        self._stores: dict[str, TokenStore | None] = {}
        self._counted: dict[str, float | None] = {}

    def of(self, config: RunConfig) -> tuple[float, bool]:
        """(mean real tokens of a sequence, whether counted on the prepared text, else estimated)."""
        if not method_of(config).padded:
            return float(config.pairs.max_length), True
        values = config.as_dict()
        text = digest([values[name] for name in ("data", "tokenizer")])
        if text not in self._stores:
            self._stores[text] = prepared_train(config)
        store = self._stores[text]
        needed = [values[name] for name in ("objective", "pairs", "masking", "budget", "batch", "seed")]
        key = digest([text, needed])
        if key not in self._counted:
            self._counted[key] = None if store is None else measured(store, config)
        counted = self._counted[key]
        return (estimated(config.pairs), False) if counted is None else (counted, True)


def prepared_train(config: RunConfig) -> TokenStore | None:
    """The training tokens of ``config`` from the cache, or None; nothing is prepared."""
    cache = Path(config.paths.cache)
    if config.data.source == "packed":
        return _part(find_packed(Path(config.data.path or "").expanduser(), cache), config)
    if not any((cache / "text").glob(f"{config.data.name}-*")):
        return None  # before large files are hashed
    try:
        text = text_folder(open_corpus(config.data), config.data.language, config.data.validation_fraction, cache)
        tokenizer = find_tokenizer(config.tokenizer, text, cache) if text.is_dir() else None
        whole = None if tokenizer is None else find_train(text, tokenizer, cache)
    except UserError:  # such as a missing file; the start of the run reports it
        return None
    return _part(whole, config)


def _part(whole: TokenStore | None, config: RunConfig) -> TokenStore | None:
    return None if whole is None else whole.part(config.data.fraction)


def measured(store: TokenStore, config: RunConfig) -> float | None:
    """Mean real tokens of the sequences that the run reads; None if the text gives none.

    Counts the first sequences of a long run and some documents of a large text.
    """
    settings, objective = config.pairs, config.objective.name
    rows = int(min(max(_ROWS, _POSITIONS // settings.max_length), _needed(config)))
    part = store.part(min(1.0, 2 * rows * settings.max_length / max(len(store.tokens), 1)))
    if part.document_count < 2 and needs_second_document(objective, settings):
        return None  # refused before training
    batches = PairBatches(part, np.zeros(0, bool), objective, settings, config.masking, rows, config.seed)
    if not batches.epoch_size:
        return None
    batches.batch_size = min(rows, _EPOCHS * batches.epoch_size)
    pairs, _ = batches.instances(0)  # as one batch
    lengths = pairs.a_length + pairs.b_length + np.where(pairs.b_length > 0, SPECIAL_TOKENS, SPECIAL_TOKENS - 1)
    return float(lengths.mean())


def _needed(config: RunConfig) -> float:
    """Sequences that the run reads according to its settings; for a token budget a lower bound (no padding)."""
    budget = config.budget
    size = config.batch.size
    sequences = {
        "steps": budget.steps * size,
        "tokens": math.ceil(budget.amount() / config.pairs.max_length),
        "flops": math.ceil(budget.amount() / step_flops(config)) * size,
        "seconds": math.inf,
    }
    return max(sequences[budget.unit], size)


def estimated(pairs: PairsConfig) -> float:
    """Estimated mean real tokens of a sequence, for a text that is not prepared.

    Assumes long documents and sentences of 25 pieces. A document's target length is the maximum or, for
    ``short_probability`` of the documents, uniform from 2 to the maximum. A sequence ends with the sentence that
    reaches the target, has at least two sentences, and is cut at the maximum. Short targets give more sequences.
    """
    longest = pairs.max_length - SPECIAL_TOKENS
    target = np.arange(2, longest + 1)
    share = np.full(len(target), pairs.short_probability / len(target))
    share[-1] += 1 - pairs.short_probability
    taken = np.maximum(target, 2 * _SENTENCE) + _SENTENCE / 2  # of the document
    sequences = share / taken
    return float((sequences * np.minimum(taken, longest)).sum() / sequences.sum()) + SPECIAL_TOKENS
