"""The encoder: an embedding, then layers whose sub-layers come from banks.

Letters: B batch, T tokens, H hidden, N heads, L layers, R rows (chosen positions).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from albert_ablate.model import cpu
from albert_ablate.model.attention import View, views
from albert_ablate.model.blocks import KINDS, bank_entries, bank_sizes, needing_all
from albert_ablate.model.embedding import FactorisedEmbedding
from albert_ablate.model.norms import norm
from albert_ablate.model.rounding import compute_dtype, rounded_norm, stream_dtype
from albert_ablate.model.rows import Rows
from albert_ablate.model.shape import Shape
from albert_ablate.model.sub_layer import Block, LayerCall, SubLayer


class Encoder(nn.Module):
    """Embedding, then L layers. The blocks of each kind of sub-layer are in one bank (a ModuleList).

    With L = 4 and share=ffn, attention follows the layer and all layers use one feed-forward block:

        layer    sub-layers, in the order of computation
        0        attention.0, ffn.0
        1        attention.1, ffn.0
        2        attention.2, ffn.0
        3        attention.3, ffn.0

    The banks are ``encoder.attention`` with four blocks and ``encoder.ffn`` with one. With share=all
    and two groups, layers 0 and 1 use attention.0 and ffn.0, layers 2 and 3 attention.1 and ffn.1.

    Where sub-layers begin with their norm, the encoder ends with one, ``encoder.norm``.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = FactorisedEmbedding(shape)
        self.kinds = bank_sizes(shape)  # kind -> blocks in its bank
        for kind, size in self.kinds.items():
            self.add_module(kind, nn.ModuleList(KINDS[kind].build(shape) for _ in range(size)))
        #: For each layer: (kind, index into its bank) of each sub-layer, in the order of computation.
        self.layer_blocks = [bank_entries(shape, layer) for layer in range(shape.layers)]
        self.norm = norm(shape.hidden_size, shape) if shape.norm_first else None
        self.needing_all = needing_all(shape)  # number of a layer's first sub-layers that need every position
        self.recompute = False  # recompute layers in the backward pass instead of keeping their activations
        #: Use torch.compile for sub-layers and masked-LM loss. For training on a GPU, with batches of one shape.
        self.compiled = False
        self.plain = False  # compute with the modules themselves, without the fast paths, so that they can be traced

    def forward(
        self,
        input_ids: Tensor,
        type_ids: Tensor,
        mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """(B, T) ids and types -> (B, T, H); with ``rows`` (R,), indices into the flattened B*T grid -> (R, H).

        ``mask`` is (B, T), non-zero at real tokens, or (B or 1, 1 or N, T or 1, T), non-zero where the query of the
        row may attend to the key of the column. None: there is no padding. Pairs that the attention pattern masks
        stay masked. ``position_ids`` (B or 1, T) are rows of the position table; None: 0, 1, 2, ... Raises
        ValueError for a mask with another number of dimensions.

        With ``rows`` the last layer computes only what these positions need. Values and gradients are the same up to
        the order of sums. While dropout is active, every position is computed and the rows are taken from the
        result, because the noise depends on the shape of its input.
        """
        chosen = None if rows is None else Rows(rows, *input_ids.shape)
        if chosen is not None and self._dropout_active:
            return chosen.of(self(input_ids, type_ids, mask, position_ids))
        for x in self._states(input_ids, type_ids, mask, position_ids, chosen):
            last = x
        return last

    def hidden_states(
        self,
        input_ids: Tensor,
        type_ids: Tensor,
        mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        layers: int | None = None,
        final_norm: bool = True,
    ) -> list[Tensor]:
        """L + 1 tensors (B, T, H): the projected embedding, then the output of each layer.

        With ``layers`` only those of the first ``layers`` layers; the others are not computed. The encoder's norm, if
        it has one, is applied to the last layer's output, as in transformers' GPT-2; not with ``final_norm=False``.
        """
        states = self._states(input_ids, type_ids, mask, position_ids, final_norm=final_norm)
        return list(islice(states, None if layers is None else layers + 1))

    @property
    def compiling(self) -> bool:
        """Whether a forward pass now uses compiled code.

        Evaluation does not: its batches have many shapes, and each would be compiled for a single use.
        """
        return self.compiled and self.training and torch.is_grad_enabled()

    @property
    def _dropout_active(self) -> bool:
        return self.training and max(self.shape.hidden_dropout, self.shape.attention_dropout) > 0

    def _states(
        self,
        input_ids: Tensor,
        type_ids: Tensor,
        mask: Tensor | None,
        position_ids: Tensor | None,
        rows: Rows | None = None,
        final_norm: bool = True,
    ) -> Iterator[Tensor]:
        x = self.embedding(input_ids, type_ids, position_ids)
        low = compute_dtype(x)
        x = x.to(stream_dtype(low, self.shape))  # its number format must not depend on the projection
        banks = {
            kind: [
                block if self.plain else _sub_layer(block, x, low, self.compiling)
                for block in self.get_submodule(kind).children()
            ]
            for kind in self.kinds
        }
        last = self.shape.layers - 1
        yield x
        for layer, view in enumerate(views(self.shape, mask, x, self.training)):
            steps = [banks[kind][entry] for kind, entry in self.layer_blocks[layer]]
            chosen = rows if layer == last else None
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(_layer, x, steps, layer, view, chosen, self.needing_all, use_reentrant=False)
            else:
                x = _layer(x, steps, layer, view, chosen, self.needing_all)
            if self.norm is not None and final_norm and layer == last:
                x = rounded_norm(self.norm, x).to(low)
            yield x


def _sub_layer(block: nn.Module, x: Tensor, low: torch.dtype, compiled: bool) -> SubLayer:
    """The fastest implementation of the block with products in ``low`` for a stream on the device of ``x``."""
    assert isinstance(block, Block)
    fast = block.on_cpu(low) if cpu.by_hand(x) else block.on_gpu(low, compiled)
    return fast or block


def _layer(x: Tensor, steps: Sequence[SubLayer], layer: int, view: View, rows: Rows | None, needing_all: int) -> Tensor:
    """One layer: (B, T, H) through its sub-layers -> (B, T, H), or (R, H) at ``rows``.

    The first ``needing_all`` sub-layers need every position. The last of these may return only the rows; the
    sub-layers after it receive only the rows.

    ``x`` is a separate argument because recomputation must draw the same dropout noise, and it restores the random
    state only for the devices of tensor arguments.
    """
    call, y = LayerCall(layer, x, view), x
    if rows is None:
        for step in steps:
            y = step(y, call)
        return y
    for number, step in enumerate(steps[:needing_all], 1):
        y = step(y, replace(call, rows=rows) if number == needing_all else call)
    y = y if y.dim() == 2 else rows.of(y)  # (R, width)
    call = LayerCall(layer, rows.of(x), view)
    for step in steps[needing_all:]:
        y = step(y, call)
    return y
