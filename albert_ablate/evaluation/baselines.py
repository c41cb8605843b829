"""What a result has to beat: the unigram model and the majority class."""

import numpy as np

from albert_ablate.data.store import TokenStore

#: A run whose held-out masked-LM loss is not at least this many nats below the unigram baseline
#: is marked as still on its plateau: arms compared there compare nothing.
PLATEAU_MARGIN = 0.1


def unigram_log_probabilities(store: TokenStore, vocab_size: int) -> np.ndarray:
    """(V,) log-probabilities of training tokens, one added to each count."""
    counts = np.bincount(np.asarray(store.tokens), minlength=vocab_size).astype(np.float64) + 1
    return np.log(counts / counts.sum())
