"""Text that a causal model writes: a prompt, continued piece by piece.

The input begins as in training: with a separator or, if the run read the sequences of masked LM, with [CLS]. The model
reads at most as many tokens as a sequence of its training had; of a longer text it reads the end.

A piece is sampled from the model's distribution, with the logits divided by the temperature, among the fewest pieces
that together have at least the probability ``top_p`` (Holtzman et al., 2020). The random number of token ``i`` depends
on the seed and ``i`` alone. The pieces that are no text ([CLS], [MASK], padding, the unknown piece) are never written;
a separator ends the text.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from albert_ablate import streams
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import CLS, FIRST_PIECE, SEP, Tokenizer
from albert_ablate.data.written import written
from albert_ablate.errors import ConfigError
from albert_ablate.methods import Measure, method_of


@dataclass(frozen=True)
class Sampler:
    """How a piece is chosen from its probabilities. Raises ConfigError for a value out of its range."""

    seed: int = 0
    temperature: float = 1.0  # 0: always the most probable piece
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed}: give 0 or more.")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature={self.temperature:g}: give a number from 0 (always the best piece).")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p:g}: give a probability above 0 and up to 1.")

    def choose(self, logits: np.ndarray, index: int) -> int:
        """The piece of token ``index`` for (V,) ``logits``; of equally probable pieces the one with the lowest id."""
        if self.temperature == 0:
            return int(logits.argmax())
        scaled = (logits - logits.max()) / self.temperature
        order = np.argsort(-scaled, kind="stable")
        mass = np.cumsum(np.exp(scaled[order]))
        kept = int(np.searchsorted(mass, self.top_p * mass[-1])) + 1
        draw = float(streams.uniform(streams.key(self.seed, "generation"), index)) * mass[min(kept, len(mass)) - 1]
        return int(order[min(int(np.searchsorted(mass, draw, side="right")), kept - 1, len(order) - 1)])


@dataclass(frozen=True)
class Continuation:
    """What a model wrote."""

    text: str  # without the prompt
    pieces: tuple[int, ...]
    ended: bool  # by a separator
    left_out: int  # tokens at the beginning of the prompt that the model never read


class Writer:
    """Continues texts with the model of a run."""

    def __init__(self, model: Any, config: RunConfig, tokenizer: Tokenizer, device: torch.device) -> None:
        """Raises ConfigError for a model that does not predict the next piece."""
        if Measure.CAUSAL_LM not in method_of(config).measures:
            raise ConfigError(
                f"method={config.method.name}: this run does not predict the next piece, so it continues no text. Give "
                "a run with method=causal."
            )
        self._model, self._tokenizer, self._device = model.eval(), tokenizer, device
        self._window = min(config.pairs.max_length, config.model.max_positions)
        self._start = SEP if config.method.blocks == "packed" else CLS

    @torch.inference_mode()
    def continued(self, prompt: str, sampler: Sampler, tokens: int) -> Continuation:
        """At most ``tokens`` pieces after ``prompt``. Raises ConfigError for less than one."""
        if tokens < 1:
            raise ConfigError(f"tokens={tokens}: give 1 or more.")
        (ids,) = self._tokenizer.encode([prompt]) if prompt.strip() else [[]]
        text = [self._start, *ids]
        left_out = max(0, len(text) - self._window)
        found: list[int] = []
        for index in range(tokens):
            piece = sampler.choose(self._logits(text[-self._window :]), index)
            if piece == SEP:
                break
            found.append(piece)
            text.append(piece)
        shown = "".join(written(self._tokenizer, piece) for piece in found)
        return Continuation(shown, tuple(found), len(found) < tokens, left_out)

    def _logits(self, ids: list[int]) -> np.ndarray:
        """(V,) fp64 logits of the piece after ``ids``; -inf for those that are no text."""
        row = torch.tensor([ids], dtype=torch.int32, device=self._device)
        last = torch.tensor([len(ids) - 1], device=self._device)
        states = self._model.encoder(row, torch.zeros_like(row), rows=last)
        logits: np.ndarray = self._model.token_logits(states)[0].double().cpu().numpy()
        specials = np.arange(FIRST_PIECE)
        logits[specials[specials != SEP]] = -np.inf
        return logits
