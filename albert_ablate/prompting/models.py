"""Loads a run as a scorer of options."""

import torch

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import CLS, SEP, Tokenizer
from albert_ablate.errors import RunFolderError
from albert_ablate.methods import Measure, method_of
from albert_ablate.prompting.likelihood import Likelihood, NextToken, PseudoLikelihood
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.masked_words import predicts_masked_words
from albert_ablate.training.checkpoint import load_weights, newest


def predicts_next(config: RunConfig) -> bool:
    """Whether the run's model predicts the token that follows."""
    return Measure.CAUSAL_LM in method_of(config).measures


def scoring(config: RunConfig) -> str:
    """What the run's scores are: numbers of different names are not comparable."""
    return "likelihood" if predicts_next(config) else f"pseudo-likelihood, {config.kshot.pll}"


def require_predictions(config: RunConfig, folder: RunFolder) -> None:
    """Raise RunFolderError if the run's model does not predict tokens."""
    if not predicts_next(config) and not predicts_masked_words(config, folder):
        raise RunFolderError(
            f"{folder.path}: this run predicts no tokens (method={config.method.name}), so it gives no probability of "
            "an option. kshot takes runs of masked LM and of causal LM."
        )


def room_of(config: RunConfig) -> int:
    """Most tokens of a prompt with an option: later positions were never trained."""
    specials = (NextToken if predicts_next(config) else PseudoLikelihood).specials
    return min(config.pairs.max_length, config.model.max_positions) - specials


def load_likelihood(config: RunConfig, folder: RunFolder, tokenizer: Tokenizer, device: torch.device) -> Likelihood:
    """The newest checkpoint of the run as a scorer. Raises UserError if there is none."""
    model = method_of(config).build({})
    load_weights(newest(folder.checkpoints), model)
    model.to(device)
    if predicts_next(config):
        return NextToken(model, device, SEP if config.method.blocks == "packed" else CLS)
    return PseudoLikelihood(model, device, tokenizer.word_starts, config.kshot.pll)
