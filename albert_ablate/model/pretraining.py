"""The pretraining model: encoder, heads, initialisation and the loss.

Letters: B batch, T tokens, M masked positions in the batch, E embedding, H hidden, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate import streams
from albert_ablate.model.base import EncoderModel, without_values
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.heads import Pooler, SentenceHead, token_head
from albert_ablate.model.norms import first_values
from albert_ablate.model.rows import first_rows
from albert_ablate.model.shape import Shape
from albert_ablate.model.sub_layer import Block


@dataclass(frozen=True)
class PretrainingOutput:
    """Sums, not means, so that those of the micro-batches add up to those of the batch."""

    mlm_loss_sum: Tensor  # nats over the M masked positions
    mlm_correct: Tensor
    sentence_loss_sum: Tensor | None  # nats over the B sequences; None without a sentence objective
    sentence_correct: Tensor | None


class PretrainingModel(EncoderModel):
    """Encoder with tied masked-LM head and, if ``pooler`` is set, pooler and sentence head."""

    def __init__(self, shape: Shape, pooler: bool = True) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        if pooler:
            self.pooler = Pooler(shape)
        self.mlm_head = token_head(shape)
        if pooler:
            self.sentence_head = SentenceHead(shape)

    def forward(
        self,
        input_ids: Tensor,
        type_ids: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        targets: Tensor,
        sentence_labels: Tensor | None,
    ) -> PretrainingOutput:
        """Losses of one micro-batch.

        ``input_ids``, ``type_ids`` and ``mask`` are (B, T). ``positions`` (M,) are indices into the flattened B*T grid,
        ``targets`` (M,) the original ids at these positions. ``sentence_labels`` are (B,), or None without a sentence
        objective; pooler and sentence head then get no gradient.
        """
        rows = positions if sentence_labels is None else torch.cat([positions, first_rows(input_ids)])
        states = self.encoder(input_ids, type_ids, mask, rows=rows)  # (M, H) or (M + B, H)
        masked, first = states.split([len(positions), len(rows) - len(positions)])  # (M, H), (0 or B, H)
        word_table = self.encoder.embedding.word.weight  # tied: its gradient comes from both uses
        mlm_loss, mlm_correct = self.mlm_head.loss(masked, word_table, targets, compiled=self.encoder.compiling)
        if sentence_labels is None:
            return PretrainingOutput(mlm_loss, mlm_correct, None, None)
        sentence = self.sentence_logits(first[:, None]).float()  # (B, 2)
        sentence_loss = F.cross_entropy(sentence, sentence_labels, reduction="sum")
        sentence_correct = (sentence.detach().argmax(-1) == sentence_labels).sum()
        return PretrainingOutput(mlm_loss, mlm_correct, sentence_loss, sentence_correct)

    def token_logits(self, masked: Tensor) -> Tensor:
        """(M, H) last hidden states -> (M, V): of the masked pieces, or of the next ones under a causal pattern."""
        logits: Tensor = self.mlm_head(masked, self.encoder.embedding.word.weight)
        return logits

    def sentence_logits(self, hidden: Tensor) -> Tensor:
        """(B, T, H) last hidden states, of which the first position is read -> (B, 2)."""
        logits: Tensor = self.sentence_head(self.pooler(hidden))
        return logits


def build_model(shape: Shape, seed: int, pooler: bool = True) -> PretrainingModel:
    """The model on CPU, initialised from the seed's named streams."""
    model = without_values(lambda: PretrainingModel(shape, pooler))
    initialise(model, shape.initializer_range, seed)
    return model


@torch.no_grad()
def initialise(model: nn.Module, std: float, seed: int) -> None:
    """Kernels and tables: normal, truncated at two standard deviations. Biases: 0. Norms: as in ``norms.NORMS``.

    A block may ask for another standard deviation (``Block.first_scales``).

    Each tensor draws from a stream with its name, so arms of one seed start from equal weights where name and shape
    agree.
    """
    norms = first_values(model)
    scales = {id(tensor): scale for block in model.modules() if isinstance(block, Block)
              for tensor, scale in block.first_scales()}  # fmt: skip
    for name, parameter in model.named_parameters():
        if id(parameter) in norms:
            parameter.fill_(norms[id(parameter)])
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            draw = streams.torch_generator(seed, "init", name)
            spread = std * scales.get(id(parameter), 1.0)
            nn.init.trunc_normal_(parameter, std=spread, a=-2 * spread, b=2 * spread, generator=draw)
