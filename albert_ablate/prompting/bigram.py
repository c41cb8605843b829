"""What a bigram model of the run's training text finds more probable: the bar beside minimal pairs.

It is the model that masked and causal LM are compared with (``evaluation.baselines``): counts of neighbouring pieces in
the training documents, smoothed with the frequencies of pieces. It has the run's tokenizer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from albert_ablate import console
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import encode
from albert_ablate.data.tokenizer import SEP, Tokenizer
from albert_ablate.errors import UserError
from albert_ablate.evaluation.baselines import NgramBaselines
from albert_ablate.record.folder import RunFolder

#: Ids of a text without special tokens -> its log-probability in nats.
Bigram = Callable[[Sequence[int]], float]


def bigram_of(config: RunConfig, run: RunFolder, tokenizer: Tokenizer) -> Bigram | None:
    """The bigram model of the training text of a run; None, with a message, if that text is not at hand."""
    reason = "its training text is not known"
    recorded = (run.read("manifest.json").get("data") or {}).get("tokens") or {}
    try:
        encoded, _ = encode(config)
    except UserError as error:
        reason = str(error).splitlines()[0]
    else:
        train = encoded.train.part(config.data.fraction)
        if recorded.get("fingerprint") == train.fingerprint and encoded.tokenizer.fingerprint == tokenizer.fingerprint:
            return _scorer(NgramBaselines(train, tokenizer.vocab_size, cache=Path(config.paths.cache)))
    console.say(f"{run.name}: no bigram model beside the minimal pairs ({reason})")
    return None


def _scorer(baselines: NgramBaselines) -> Bigram:
    def log_probability(ids: Sequence[int]) -> float:
        """The first piece is predicted from a separator, which has no counts: by its frequency."""
        pieces = np.asarray([SEP, *ids])
        return -float(baselines.bigram_loss(pieces[:-1], pieces[1:]).sum())

    return log_probability
