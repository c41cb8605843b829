"""Fine-tuning heads on the pretrained encoder (reference classifier_utils, squad_utils, race_utils).

The encoder computes in the run's number format, a head (including the pooler) always in fp32. In bf16, with eight
significant bits, a regression would give only a few distinct values, and similar answers would tie.

Letters: B examples, C choices, T tokens, H hidden, K starts and K ends of a beam.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.config.tasks import Pool
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.dropout import Dropout
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.heads import Pooler
from albert_ablate.model.norms import norm
from albert_ablate.model.rows import first_rows, last_rows
from albert_ablate.tasks.task import HeadSettings, TaskBatch
from albert_ablate.training.precision import full_precision

#: Added to the scores of positions where no answer may start or end.
_FORBIDDEN = -1e30


def _first(encoder: nn.Module, batch: TaskBatch) -> Tensor:
    """The state of [CLS], (B, H)."""
    state: Tensor = encoder(
        batch.input_ids, batch.type_ids, batch.visible, batch.position_ids, rows=first_rows(batch.input_ids)
    )
    return state.float()


def _mean(encoder: nn.Module, batch: TaskBatch) -> Tensor:
    """The mean state of the real tokens, [CLS] and [SEP] included, branches left out, (B, H)."""
    states: Tensor = encoder(batch.input_ids, batch.type_ids, batch.visible, batch.position_ids)  # (B, T, H)
    real = batch.sentence[:, :, None]
    return (states.float() * real).sum(1) / real.sum(1)


def _last(encoder: nn.Module, batch: TaskBatch) -> Tensor:
    """The state of the last real token, the final [SEP], which no branch follows, (B, H)."""
    state: Tensor = encoder(
        batch.input_ids, batch.type_ids, batch.visible, batch.position_ids, rows=last_rows(batch.mask)
    )
    return state.float()


#: (encoder, batch) -> (B, H) fp32, one state of the last layer for each sequence.
POOLS: Mapping[Pool, Callable[[nn.Module, TaskBatch], Tensor]] = {"first": _first, "mean": _mean, "last": _last}


class PooledModel(nn.Module):
    """``outputs`` values for each sequence, from one state: the pooler (dense, tanh), dropout and a linear layer.

    A bare head has no pooler, as in ELECTRA, so that no arm profits from a pooler that a sentence objective trained.
    The head of TinyBERT's released code (``relu``) has a ReLU in place of the dropout.
    """

    def __init__(self, shape: Architecture, outputs: int, head: HeadSettings) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.settings = head
        self.pool = POOLS[head.pool]
        self.pooler = None if head.kind == "bare" else Pooler(shape)
        self.dropout = nn.ReLU() if head.kind == "relu" else Dropout(head.dropout)
        self.classifier = nn.Linear(shape.hidden_size, outputs)

    def forward(self, batch: TaskBatch) -> Tensor:
        """-> (B, outputs), or (B, C) for a choice between C sequences."""
        state = self.pool(self.encoder, batch)  # (B, H)
        with full_precision(state.device):
            if self.pooler is not None:
                state = self.pooler(state[:, None])
            logits = self.classifier(self.dropout(state))
        return logits if batch.choices == 1 else logits.view(-1, batch.choices)


class JoinedModel(PooledModel):
    """``outputs`` values for each example, from the states of its ``passes`` sequences side by side.

    The layers are those of ``PooledModel``; the pooler, if there is one, is the same for every pass.
    """

    def __init__(self, shape: Architecture, outputs: int, head: HeadSettings, passes: int) -> None:
        super().__init__(shape, outputs, head)
        self.passes = passes
        self.classifier = nn.Linear(passes * shape.hidden_size, outputs)

    def forward(self, batch: TaskBatch) -> Tensor:
        """-> (B, outputs)."""
        states = [self.pool(self.encoder, part) for part in batch.passes()]  # (B, H) each
        with full_precision(batch.input_ids.device):
            if self.pooler is not None:
                states = [self.pooler(state[:, None]) for state in states]
            return self.classifier(self.dropout(torch.cat(states, 1)))


class TokenModel(nn.Module):
    """``outputs`` values for each position: dropout and a linear layer."""

    def __init__(self, shape: Architecture, outputs: int, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(shape.hidden_size, outputs)

    def forward(self, batch: TaskBatch) -> Tensor:
        """-> (B, T, outputs) fp32."""
        hidden = self.encoder(batch.input_ids, batch.type_ids, batch.mask)
        with full_precision(hidden.device):
            return self.classifier(self.dropout(hidden.float()))


class SpanModel(nn.Module):
    """SQuAD 1.1: start and end scores from one linear layer on the sequence output, no dropout."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.span = nn.Linear(shape.hidden_size, 2)

    def forward(self, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """-> (B, T) scores of start and of end; padding is excluded."""
        hidden = self.encoder(batch.input_ids, batch.type_ids, batch.mask)
        with full_precision(hidden.device):
            scores = self.span(hidden.float()).masked_fill(~batch.mask[:, :, None], _FORBIDDEN)  # (B, T, 2)
        start, end = scores.unbind(-1)
        return start, end


class AnswerableSpanModel(nn.Module):
    """SQuAD 2.0: start, end given the start, and whether there is an answer (the head of XLNet)."""

    def __init__(self, shape: Architecture, dropout: float) -> None:
        super().__init__()
        h = shape.hidden_size
        self.encoder = Encoder(shape)
        self.start = nn.Linear(h, 1)
        self.end_hidden = nn.Linear(2 * h, h)
        self.end_norm = norm(h, shape)
        self.end = nn.Linear(h, 1)
        self.answer_hidden = nn.Linear(2 * h, h)
        self.dropout = Dropout(dropout)
        self.answer = nn.Linear(h, 1, bias=False)

    def forward(self, batch: TaskBatch) -> tuple[Tensor, Tensor, Tensor]:
        """-> (B, T, H) hidden states, (B, T) start log-probabilities, (B,) logit that there is no answer; all fp32."""
        hidden = self.encoder(batch.input_ids, batch.type_ids, batch.mask).float()
        with full_precision(hidden.device):
            start = F.log_softmax(self.start(hidden)[..., 0] + forbidden(batch), -1)
            # The expected hidden state at the start of the answer; it is combined with that of [CLS].
            summary = torch.einsum("bt,bth->bh", start.exp(), hidden)
            answer = torch.tanh(self.answer_hidden(torch.cat([summary, hidden[:, 0]], -1)))
            return hidden, start, self.answer(self.dropout(answer))[:, 0]

    def ends(self, hidden: Tensor, starts: Tensor, batch: TaskBatch) -> Tensor:
        """(B, T, H) fp32 and (B, K) start positions -> (B, K, T) end log-probabilities, given each start."""
        b, t, h = hidden.shape
        k = starts.shape[1]
        at_start = hidden.gather(1, starts[:, :, None].expand(b, k, h))  # (B, K, H)
        pairs = torch.cat([hidden[:, None].expand(b, k, t, h), at_start[:, :, None].expand(b, k, t, h)], -1)
        with full_precision(hidden.device):
            scores = self.end(self.end_norm(torch.tanh(self.end_hidden(pairs))))[..., 0]  # (B, K, T)
            return F.log_softmax(scores + forbidden(batch)[:, None], -1)


def forbidden(batch: TaskBatch) -> Tensor:
    """(B, T): 0 at [CLS] and at the pieces of the document, else a score that excludes the position."""
    document = (batch.type_ids == 1) & batch.mask
    last = batch.mask.sum(1, keepdim=True) - 1  # the final [SEP]
    positions = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    allowed = (document & (positions != last)) | (positions == 0)
    return torch.where(allowed, 0.0, _FORBIDDEN)
