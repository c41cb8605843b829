"""How well an encoder finds the tokens that its own generator has replaced, and how good that generator is.

Held-out text is masked as in training and corrupted by the generator, with noise that is the same for every run of a
corpus. The numbers describe a run's own game: a better generator makes a harder text, so discriminators of different
generators are not comparable by them. Scores that arms have in common are those of the fitted heads
(``evaluation.replaced``) and of fine-tuning.

What the discriminator must beat: the answer "all original", and a model that knows the shown piece but no context. The
generator must beat the unigram model, else its samples are as easy to find as random ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from albert_ablate import streams
from albert_ablate.data.batches import Batch
from albert_ablate.data.corrupting import cumulative, with_noise
from albert_ablate.data.store import TokenStore
from albert_ablate.evaluation.baselines import PLATEAU_MARGIN, NgramBaselines
from albert_ablate.evaluation.heldout import PairSet, masked_positions
from albert_ablate.evaluation.intervals import SHARE, clustered_auc, clustered_mean
from albert_ablate.evaluation.passes import columns, moved, read, shared
from albert_ablate.evaluation.replaced import odds_by_piece
from albert_ablate.methods.electra import Corrupting
from albert_ablate.record.results import Discriminator, GeneratorScores
from albert_ablate.training.machine import Machine

#: A constant instead of the run's seed, so that all runs of a corpus have the same noise.
_SEED = 0


@dataclass(frozen=True)
class _Masked:
    """Masked positions, M in all."""

    loss: np.ndarray  # (M,) nats
    hit: np.ndarray  # (M,) whether the original is the most probable piece
    unigram: np.ndarray  # (M,) nats of the unigram model
    sequence: np.ndarray  # (M,) index of the pair


@dataclass(frozen=True)
class _Tokens:
    """Real tokens of the corrupted text, N in all."""

    odds: np.ndarray  # (N,) logit of being replaced
    replaced: np.ndarray  # (N,) 0 or 1
    piece: np.ndarray  # (N,) the shown piece
    sequence: np.ndarray  # (N,) index of the pair
    masked: np.ndarray  # (N,) whether it was masked for the generator


class GeneratedText:
    """Scores a model of ``method`` on the text that its own generator corrupts."""

    def __init__(
        self,
        method: Corrupting,
        model: Any,
        pairs: PairSet,
        train: TokenStore,
        baselines: NgramBaselines,
        machine: Machine,
    ) -> None:
        self.method, self.model, self.machine, self.baselines = method, model, machine, baselines
        self.pairs = replace(pairs, config=replace(pairs.config, masking=method.masking))
        config = method.config
        self._discriminates = config.method.name.discriminates
        self._distribution = cumulative(config.method.generator, train, config.tokenizer.vocab_size)

    def curve_point(self, pairs: int) -> dict[str, float]:
        """Scores on the first ``pairs`` held-out pairs, for the curve."""
        masked, tokens = self._scored(pairs)
        point: dict[str, float] = {}
        if masked is not None:
            point = {"generator_loss": float(masked.loss.mean()), "generator_accuracy": float(masked.hit.mean())}
        rate = float(tokens.replaced.mean())
        point["fake_rate"] = rate
        if self._discriminates and 0 < rate < 1:
            d = _discriminator(tokens)
            assert d.loss is not None
            assert d.accuracy is not None
            assert d.auc is not None
            assert d.recall is not None
            point |= {
                "replaced_loss": d.loss, "replaced_accuracy": d.accuracy, "replaced_auc": d.auc,
                "replaced_recall": d.recall,
            }  # fmt: skip
        return point

    def results(self) -> dict[str, Any]:
        """The fields ``generator`` and ``discriminator`` of the record; one that the method lacks is absent."""
        masked, tokens = self._scored(None)
        found: dict[str, Any] = {}
        if masked is not None:
            found["generator"] = _generator(masked, tokens).as_json()
        if self._discriminates and 0 < tokens.replaced.mean() < 1:
            found["discriminator"] = _discriminator(tokens).as_json()
        return found

    @torch.inference_mode()
    def _scored(self, limit: int | None) -> tuple[_Masked | None, _Tokens]:
        """The masked positions, None without a generator that is a network; and the tokens."""
        self.model.eval()
        at_masked: list[tuple[np.ndarray, ...]] = []
        at_tokens: list[tuple[np.ndarray, ...]] = []
        for (start, batch, left, documents), (ids, replaced, odds, *generator) in read(self._passes(limit)):
            real = batch.mask.numpy()
            chosen = np.zeros(real.size, dtype=bool)
            chosen[batch.positions.numpy()] = True
            sequence = start + np.nonzero(real)[0]
            at_tokens.append((
                odds[real].astype(np.float64), replaced[real].astype(np.int64), ids[real].astype(np.int64), sequence,
                chosen.reshape(real.shape)[real],
            ))  # fmt: skip
            if generator:
                loss, hit = generator
                unigram = self.baselines.scores(left, batch.targets.numpy(), documents)["unigram"]
                rows = start + batch.positions.numpy() // real.shape[1]
                at_masked.append((loss.astype(np.float64), hit, unigram, rows))
        tokens = _Tokens(*columns(at_tokens, len(fields(_Tokens)), self.machine.world))
        if self._distribution is not None:
            return None, tokens
        return _Masked(*columns(at_masked, len(fields(_Masked)), self.machine.world)), tokens

    def _passes(self, limit: int | None) -> Iterator[tuple[tuple[int, Batch, np.ndarray, np.ndarray], list[Any]]]:
        """Each batch with the number of its first pair, the left neighbours and documents of its masked positions.

        The tensors: ids (B, T) of the corrupted text, which of them are replaced (B, T), and logits (B, T), zero
        without a discriminator; then the generator's loss and hits (M,), if it is a network.
        """
        size = self.pairs.config.batch.micro_size
        numbered = enumerate(zip(self.pairs.batches(limit), self.pairs.parts(limit), strict=True))
        for number, (plain, part) in shared(numbered, self.machine.world):
            keys = streams.hashed(streams.key(_SEED, "held-out samples"), part.document, part.ordinal)
            batch = with_noise(plain, keys, self._distribution)
            masked = masked_positions(batch, part)
            b = moved(batch, self.machine.device, self.pairs.filled)
            with self.machine.autocast():
                made, generator = self.method.scored(self.model, b)
            n, m = len(batch), len(batch.targets)
            tensors = [made.input_ids[:n], made.replaced[:n], made.logits[:n], *(values[:m] for values in generator)]
            yield (number * size, batch, masked.left, masked.document), tensors


def _generator(masked: _Masked, tokens: _Tokens) -> GeneratorScores:
    loss, interval = clustered_mean(*_by_sequence(masked.loss, masked.sequence))
    accuracy, accuracy_interval = clustered_mean(*_by_sequence(masked.hit, masked.sequence), SHARE)
    gain, gain_interval = clustered_mean(*_by_sequence(masked.unigram - masked.loss, masked.sequence))
    return GeneratorScores(
        loss=loss,
        loss_interval=interval,
        accuracy=accuracy,
        interval=accuracy_interval,
        sample_accuracy=float(1 - tokens.replaced[tokens.masked].mean()),
        examples=len(masked.loss),
        unigram_loss=float(masked.unigram.mean()),
        gain_over_unigram=gain,
        left_baseline=bool(gain_interval[0] > PLATEAU_MARGIN),
    )


def _discriminator(tokens: _Tokens) -> Discriminator:
    replaced, odds = tokens.replaced, tokens.odds
    losses = np.logaddexp(0, odds) - replaced * odds
    answers = odds > 0
    hits = answers == (replaced == 1)
    loss, loss_interval = clustered_mean(*_by_sequence(losses, tokens.sequence))
    accuracy, interval = clustered_mean(*_by_sequence(hits, tokens.sequence), SHARE)
    auc, auc_interval = clustered_auc(odds, replaced, tokens.sequence)
    found, rate = int((answers & (replaced == 1)).sum()), float(replaced.mean())
    by_piece = _by_piece(tokens)
    token_auc, _ = clustered_auc(by_piece, replaced, tokens.sequence)
    base = float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))
    token_loss = float((np.logaddexp(0, by_piece) - replaced * by_piece).mean())
    beaten = auc_interval[0] > token_auc and loss_interval[1] < min(base, token_loss) and found > 0
    return Discriminator(
        loss=loss,
        loss_interval=loss_interval,
        accuracy=accuracy,
        interval=interval,
        auc=auc,
        auc_interval=auc_interval,
        precision=found / int(answers.sum()) if answers.any() else None,
        recall=found / int(replaced.sum()),
        fake_rate=rate,
        examples=len(replaced),
        base_loss=base,
        base_accuracy=1 - rate,
        token_auc=token_auc,
        token_loss=token_loss,
        left_baseline=bool(beaten),
    )


def _by_sequence(values: np.ndarray, sequence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the (N,) ``values`` of each sequence, and their numbers; sequences without any are left out."""
    count = np.bincount(sequence)
    return np.bincount(sequence, weights=values)[count > 0], count[count > 0]


def _by_piece(tokens: _Tokens) -> np.ndarray:
    """(N,) log-odds of being replaced by the shown piece; each half of the sequences is judged by the other half."""
    vocabulary = int(tokens.piece.max()) + 1
    even = tokens.sequence % 2 == 0
    odds = np.zeros(len(tokens.piece))
    for judged, known in ((even, ~even), (~even, even)):
        if known.any() and 0 < tokens.replaced[known].mean() < 1:
            times = np.bincount(tokens.piece[known], minlength=vocabulary)
            fakes = np.bincount(tokens.piece[known], weights=tokens.replaced[known], minlength=vocabulary)
            table = odds_by_piece(times, fakes)
            odds[judged] = table[tokens.piece[judged]]
    return odds
