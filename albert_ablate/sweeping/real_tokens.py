"""How many of a training sequence's positions are real tokens: what a budget of tokens is counted in."""

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
from albert_ablate.training.budget import step_flops

#: Pieces of a sentence, for the estimate: English prose and a vocabulary of 30,000.
_SENTENCE = 25
#: Sequences that are looked at: at least so many, or so many positions. Of a small text several epochs.
_ROWS, _POSITIONS, _EPOCHS = 8192, 2_000_000, 100


class RealTokens:
    """Real tokens of a sequence for the cells of a sweep; each text is opened once."""

    def __init__(self) -> None:
        self._stores: dict[str, TokenStore | None] = {}
        self._found: dict[str, float | None] = {}

    def of(self, config: RunConfig) -> tuple[float, bool]:
        """(real tokens of a sequence, whether they were counted on the prepared text or are an estimate)."""
        values = config.as_dict()
        text = digest([values[name] for name in ("data", "tokenizer")])
        if text not in self._stores:
            self._stores[text] = prepared_train(config)
        store = self._stores[text]
        needed = [values[name] for name in ("objective", "pairs", "masking", "budget", "batch", "seed")]
        key = digest([text, needed])
        if key not in self._found:
            self._found[key] = None if store is None else measured(store, config)
        found = self._found[key]
        return (estimated(config.pairs), False) if found is None else (found, True)


def prepared_train(config: RunConfig) -> TokenStore | None:
    """The training tokens of ``config`` where the cache has them; nothing is prepared."""
    cache = Path(config.paths.cache)
    if config.data.source == "packed":
        return _part(find_packed(Path(config.data.path or "").expanduser(), cache), config)
    if not any((cache / "text").glob(f"{config.data.name}-*")):
        return None  # before large files are hashed
    try:
        text = text_folder(open_corpus(config.data), config.data.language, config.data.validation_fraction, cache)
        tokenizer = find_tokenizer(config.tokenizer, text, cache) if text.is_dir() else None
        whole = None if tokenizer is None else find_train(text, tokenizer, cache)
    except UserError:  # no such file, say: told where the run is started
        return None
    return _part(whole, config)


def _part(whole: TokenStore | None, config: RunConfig) -> TokenStore | None:
    return None if whole is None else whole.part(config.data.fraction)


def measured(store: TokenStore, config: RunConfig) -> float | None:
    """Mean real tokens of the sequences that the run reads; None where the text gives it none.

    Of many sequences the first, and of a large text those of some documents.
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
    """Sequences that the run reads, as far as its settings say; of a budget of tokens without padding, so at least."""
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
    """Mean real tokens of a sequence of a text that is not prepared.

    Documents are taken to be long, and sentences to have 25 pieces. A document's target length is the longest there
    is or, for ``short_probability`` of the documents, uniform from 2 up to it. A sequence goes on to the end of the
    sentence that reaches its target, holds two sentences at least, and is cut at the longest length; documents with
    a short target give more sequences.
    """
    longest = pairs.max_length - SPECIAL_TOKENS
    target = np.arange(2, longest + 1)
    share = np.full(len(target), pairs.short_probability / len(target))
    share[-1] += 1 - pairs.short_probability
    taken = np.maximum(target, 2 * _SENTENCE) + _SENTENCE / 2  # of the document
    sequences = share / taken
    return float((sequences * np.minimum(taken, longest)).sum() / sequences.sum()) + SPECIAL_TOKENS
