"""The model of ELECTRA and its relatives: an encoder that reads corrupted text, its heads, and the generator.

Letters: B batch, T tokens, R rows (chosen positions), E embedding, H hidden, V vocabulary.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from albert_ablate import streams
from albert_ablate.model.base import EncoderModel, without_values
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.generator import Corrupted, Generator, MaskedText, corrupt
from albert_ablate.model.heads import CopyGate, Pooler, ReplacedTokenHead, SentenceHead, token_head
from albert_ablate.model.pretraining import initialise
from albert_ablate.model.rounding import compute_dtype, wide_dtype
from albert_ablate.model.sampling import Sampling
from albert_ablate.model.shape import Shape

#: What the encoder predicts: which tokens are replaced, the originals at masked positions, or those of all tokens.
Head = Literal["replaced", "masked", "all"]
#: Logits of a piece of all-tokens MLM, 32 MiB in fp32.
_PIECE = 1 << 23


@dataclass(frozen=True)
class Judged:
    """What an encoder says of a corrupted text."""

    input_ids: Tensor  # (B, T)
    replaced: Tensor  # (B, T) bool
    logits: Tensor  # (B, T) of being replaced


class ElectraModel(EncoderModel):
    """Encoder with pooler, sentence head and the head of its token loss; the generator if it is a network.

    The encoder, its pooler and heads are named as in masked LM, so both begin with equal weights.
    """

    def __init__(self, shape: Shape, generator: Shape | None, tie: str, head: Head) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.pooler = Pooler(shape)
        self.sentence_head = SentenceHead(shape)
        if head == "replaced":
            self.replaced_head = ReplacedTokenHead(shape)
        else:
            self.mlm_head = token_head(shape)
        if head == "all":
            self.copy_gate = CopyGate(shape)
        self.generator = None if generator is None else Generator(generator, self.encoder, tie)
        self.register_state_dict_post_hook(_leave_out_tied)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_tied)  # type: ignore[no-untyped-call]

    def corrupted(self, batch: MaskedText, sampling: Sampling | None, repeated: bool) -> Corrupted:
        """The batch with samples of the generator, or with its ``fakes`` if there is no generator."""
        loss = hits = None
        if self.generator is None:
            assert batch.fakes is not None
            samples = batch.fakes
        else:
            assert sampling is not None
            loss, hits, samples = self.generator(batch, sampling)
        return Corrupted(*corrupt(batch, samples, repeated), loss, hits)

    def replaced_logits(self, states: Tensor) -> Tensor:
        """(..., H) last hidden states -> (...) logits in fp32 or wider; positive means that the token was replaced."""
        logits: Tensor = self.replaced_head(states)
        return logits.to(wide_dtype(logits.dtype))

    def judged(self, corrupted: Corrupted, batch: MaskedText) -> Judged:
        """The logits of every token; zero without a head for replaced tokens."""
        if not hasattr(self, "replaced_head"):
            zeros = torch.zeros(corrupted.replaced.shape, device=corrupted.replaced.device)
            return Judged(corrupted.input_ids, corrupted.replaced, zeros)
        states = self.encoder(corrupted.input_ids, batch.type_ids, batch.mask)
        return Judged(corrupted.input_ids, corrupted.replaced, self.replaced_logits(states))

    def generator_scores(self, batch: MaskedText, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
        """Losses in nats, hits and samples of the generator, (M,) each, from one pass."""
        assert self.generator is not None
        encoder = self.generator.encoder
        states = encoder(batch.input_ids, batch.type_ids, batch.mask, rows=batch.positions)  # (M, H)
        logits = self.generator.mlm_head(states, encoder.embedding.word.weight).float()  # (M, V)
        losses = F.cross_entropy(logits, batch.targets.clamp(min=0), reduction="none")
        hits = logits.argmax(-1) == batch.targets
        weights = (logits - logits.amax(-1, keepdim=True)).exp()
        return losses, hits, sampling.of(weights, batch.targets[:, None], slice(None))

    def sentence_logits(self, hidden: Tensor) -> Tensor:
        """(B, T, H) last hidden states, of which the first position is read -> (B, 2)."""
        logits: Tensor = self.sentence_head(self.pooler(hidden))
        return logits

    def all_tokens_loss(self, states: Tensor, inputs: Tensor, targets: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of -log p(target) in nats over (R,) tokens with ``inputs``, and the number of correct predictions.

        Takes (R, H) states; only rows that are ``real``, (R,) bool, count. With the copy probability s, p is s at the
        input plus (1 - s) times the softmax (ELECTRA, section 3.4). The logits of a piece are computed again for the
        gradient, so that only a piece of them exists.
        """
        x = self.mlm_head.transform(states)
        x, gates = x.to(compute_dtype(x)), self.copy_gate(states)  # (R, E), (R,)
        gates = gates.to(wide_dtype(gates.dtype))
        table, bias = self.mlm_head.matrix(self.encoder.embedding.word.weight), self.mlm_head.bias
        size = max(1, _PIECE // len(table))
        loss, hits = gates.new_zeros(()), inputs.new_zeros((), dtype=torch.int64)
        for first in range(0, len(x), size):
            part = slice(first, first + size)
            values = (x[part], gates[part], table, bias, inputs[part], targets[part], real[part])
            part_loss, part_hits = checkpoint(
                copied_or_predicted, *values, use_reentrant=False, preserve_rng_state=False
            )
            loss, hits = loss + part_loss, hits + part_hits
        return loss, hits


def copied_or_predicted(
    x: Tensor, gates: Tensor, table: Tensor, bias: Tensor | None, inputs: Tensor, targets: Tensor, real: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum of -log p(target) in nats of (R, E) rows, and the number of targets with the highest probability.

    ``gates`` (R,) are logits of copying the ``inputs`` (R,). ``bias`` (V,): None if the head has none. Rows that are
    not ``real`` count nothing.
    """
    low_bias = None if bias is None else bias.to(x.dtype)
    logits = F.linear(x, table.to(x.dtype), low_bias).to(wide_dtype(x.dtype))  # (R, V)
    log_p = F.log_softmax(logits, -1)
    inputs, targets = inputs.long()[:, None], targets.long()[:, None]  # (R, 1)
    copy, predict = F.logsigmoid(gates)[:, None], F.logsigmoid(-gates)[:, None]  # (R, 1)
    at_input = torch.logaddexp(copy, predict + log_p.gather(1, inputs))  # (R, 1), log probability of the input
    at_target = torch.where(inputs == targets, at_input, predict + log_p.gather(1, targets))
    best, where = log_p.detach().scatter(1, inputs, -torch.inf).max(-1, keepdim=True)  # of the other pieces
    answer = torch.where(at_input >= predict + best, inputs, where)
    return -(at_target[:, 0] * real).sum(), ((answer == targets)[:, 0] & real).sum()


def build_electra(
    shape: Shape, generator: Shape | None, tie: str, head: Head, seed: int, released: bool = False
) -> ElectraModel:
    """The model on CPU, initialised from the seed's named streams.

    Kernels and tables are normal, as in masked LM. Glorot uniform, the default of the released code's framework: the
    last layer of the replaced-token head and the generator's projection; with ``released`` also the encoder's
    projection, which otherwise begins as in masked LM.
    """
    model = without_values(lambda: ElectraModel(shape, generator, tie, head))
    initialise(model, shape.initializer_range, seed)
    own = tie != "all" and generator is not None and generator.has_projection
    names = ["replaced_head.out"] if head == "replaced" else []
    names += ["generator.encoder.embedding.projection"] if own else []
    names += ["encoder.embedding.projection"] if released and shape.has_projection else []
    for name in names:
        draw = streams.torch_generator(seed, "init", f"{name}.weight", "glorot")
        nn.init.xavier_uniform_(model.get_parameter(f"{name}.weight"), generator=draw)
    return model


def tied(model: nn.Module) -> dict[str, str]:
    """Name -> first name, of every tensor that has several names."""
    first = {id(tensor): name for name, tensor in _tensors(model, once=True)}
    return {name: first[id(tensor)] for name, tensor in _tensors(model, once=False) if first[id(tensor)] != name}


def _tensors(model: nn.Module, once: bool) -> Iterable[tuple[str, Tensor]]:
    return model.named_parameters(remove_duplicate=once)


def _leave_out_tied(model: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """A tensor with several names is saved once."""
    for name in tied(model):
        del state[name]


def _add_tied(model: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """Weights are loaded under every name of a tensor."""
    state |= {name: state[first] for name, first in tied(model).items() if first in state}
