"""Log-probabilities of tokens after a context, of models that predict the next token and of masked models.

Letters: B sequences in a batch, T tokens, R rows (positions whose prediction is read), H hidden, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from albert_ablate.config.kshot import PLL
from albert_ablate.data.tokenizer import CLS, MASK, SEP

#: Tokens of a batch, padding included.
_TOKENS = 16_384
#: Rows whose logits are computed together, (R, V) numbers.
_ROWS = 2_048


@dataclass(frozen=True)
class Candidate:
    """Tokens to score, and what stands before them; both without special tokens."""

    context: tuple[int, ...]
    option: tuple[int, ...]


@dataclass(frozen=True)
class Pass:
    """An input of the model, and the predictions to read from it."""

    ids: tuple[int, ...]
    reads: tuple[tuple[int, int], ...]  # (position whose prediction is read, token whose log-probability is wanted)


class Likelihood(ABC):
    """Scores candidates by one kind of model, in fp32 and without dropout."""

    #: Special tokens of an input.
    specials: int

    def __init__(self, model: Any, device: torch.device) -> None:
        """``model``: with ``encoder`` and ``token_logits``, on ``device``."""
        self._model, self._device = model.eval(), device
        self.passes = 0  # inputs computed so far

    @abstractmethod
    def inputs(self, candidate: Candidate) -> list[Pass]:
        """The passes of a candidate; their reads, one after another, are those of the option's tokens in order."""

    @torch.no_grad()
    def __call__(self, candidates: Sequence[Candidate]) -> list[list[float]]:
        """The log-probability, in nats, of each token of each candidate's option.

        Equal inputs are computed once: options of one token after one prompt, all content-free prompts of one class
        of questions. The other inputs are batched by length.
        """
        wanted: dict[
            tuple[int, ...], list[tuple[int, int, int]]
        ] = {}  # input -> (position, token, place in the result)
        lengths = []
        place = 0
        for candidate in candidates:
            lengths.append(len(candidate.option))
            for one in self.inputs(candidate):
                for position, token in one.reads:
                    wanted.setdefault(one.ids, []).append((position, token, place))
                    place += 1
        found = np.zeros(place)
        order = sorted(wanted, key=len, reverse=True)
        start = 0
        while start < len(order):
            batch = order[start : start + max(1, _TOKENS // len(order[start]))]
            self._score(batch, [wanted[ids] for ids in batch], found)
            start += len(batch)
        self.passes += len(order)
        return [part.tolist() for part in np.split(found, np.cumsum(lengths)[:-1])]

    def _score(
        self, batch: Sequence[tuple[int, ...]], reads: Sequence[Sequence[tuple[int, int, int]]], found: np.ndarray
    ) -> None:
        """Write the log-probabilities of ``reads`` of a ``batch`` of inputs to their places in ``found``."""
        width = len(batch[0])
        ids = torch.zeros(len(batch), width, dtype=torch.int64)
        real = torch.zeros(len(batch), width, dtype=torch.bool)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            real[row, : len(tokens)] = True
        cells = [
            (row * width + position, token, place)
            for row, asked in enumerate(reads)
            for position, token, place in asked
        ]
        grid, cell = np.unique([position for position, _, _ in cells], return_inverse=True)
        ids, real = ids.to(self._device), real.to(self._device)
        states = self._model.encoder(
            ids, torch.zeros_like(ids), real, rows=torch.from_numpy(grid).to(self._device)
        )  # (R, H)
        for first in range(0, len(grid), _ROWS):
            here = np.flatnonzero((cell >= first) & (cell < first + _ROWS))
            logs = self._model.token_logits(states[first : first + _ROWS]).float().log_softmax(-1)  # (R, V)
            rows = torch.from_numpy(cell[here] - first).to(self._device)
            targets = torch.tensor([cells[number][1] for number in here], device=self._device)
            found[[cells[number][2] for number in here]] = logs[rows, targets].double().cpu().numpy()


class NextToken(Likelihood):
    """A model whose prediction at a position is of the token that follows: log P(option | context), one pass.

    The first token of a text is predicted from the special token that begins every training sequence.
    """

    specials = 1

    def __init__(self, model: Any, device: torch.device, start: int) -> None:
        """``start``: the special token before a text, [SEP] of packed documents or [CLS]."""
        super().__init__(model, device)
        self._start = start

    def inputs(self, candidate: Candidate) -> list[Pass]:
        """Start, context and option without its last token; the prediction of a token stands one position before it."""
        ids = (self._start, *candidate.context, *candidate.option[:-1])
        first = len(candidate.context)
        return [Pass(ids, tuple((first + place, token) for place, token in enumerate(candidate.option)))]


class PseudoLikelihood(Likelihood):
    """A masked model: each token of the option is masked in a pass of its own and predicted from all others.

    The sum over a text is its pseudo-log-likelihood (Salazar et al., 2020), which no product of probabilities gives:
    it is not comparable with a likelihood. With ``word_l2r`` the later tokens of the same word are masked too, as they
    would give it away (Kauf and Ivanova, 2023). Special tokens are not scored.
    """

    specials = 2

    def __init__(self, model: Any, device: torch.device, word_starts: np.ndarray, pll: PLL) -> None:
        """``word_starts``: (V,) bool, tokens that open a word."""
        super().__init__(model, device)
        self._opens, self._by_word = word_starts, pll == "word_l2r"

    def inputs(self, candidate: Candidate) -> list[Pass]:
        """[CLS] context option [SEP], once for each token of the option, which is masked."""
        ids = (CLS, *candidate.context, *candidate.option, SEP)
        first, end = 1 + len(candidate.context), len(ids) - 1
        made = []
        for position in range(first, end):
            stop = position + 1
            while self._by_word and stop < end and not self._opens[ids[stop]]:
                stop += 1
            masked = (*ids[:position], *[MASK] * (stop - position), *ids[stop:])
            made.append(Pass(masked, ((position, ids[position]),)))
        return made
