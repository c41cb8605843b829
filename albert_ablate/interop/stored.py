"""Tensors of a checkpoint under one set of names, in whichever way its file stores them.

Files differ in the model's prefix, in LayerNorm parameters called gamma and beta, in old buffers, and in tied output
weights that are stored twice.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.names import FAMILIES

#: Buffers that older versions stored: position ids 0, 1, 2, ... and zeros.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
#: Parts of the model without heads; files that hold nothing else leave out its name.
_PARTS = ("embeddings", "embeddings_project", "encoder", "pooler", "transformer")


def under_current_names(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` under current names: with the model's prefix, LayerNorm as weight and bias, without buffers."""
    renamed: dict[str, Tensor] = {}
    body = FAMILIES[kind].body
    for stored, tensor in tensors.items():
        name = f"{body}.{stored}" if stored.split(".")[0] in _PARTS else stored
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name in (f"{body}.{buffer}" for buffer in _BUFFERS):
            continue
        if name in renamed:
            raise ForeignCheckpointError(f"The checkpoint holds {name} twice, once under another name.")
        renamed[name] = tensor
    return renamed


def untied(kind: str, tensors: Mapping[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """``tensors`` without the decoder that repeats the word table; its bias is kept, as in transformers.

    Raises ForeignCheckpointError if the two matrices differ, or if transformers would draw a new one.
    """
    family = FAMILIES[kind]
    decoder = family.decoder
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{decoder}.")}
    stored, table = tensors.get(f"{decoder}.weight"), kept.get(f"{family.body}.embeddings.word_embeddings.weight")
    if stored is not None and table is not None and not torch.equal(stored, table):
        raise ForeignCheckpointError(f"{decoder}.weight differs from the word embeddings; they are one matrix here.")
    absent = [name for name in (f"{decoder}.weight", f"{decoder}.bias") if name not in tensors]
    if not tied and absent and any(name.startswith(family.head) for name in tensors):
        raise ForeignCheckpointError(
            f"config.json: tie_word_embeddings is false, but the checkpoint has no {' and no '.join(absent)}: "
            "transformers draws new values there. Set it to true if the output weights are the word embeddings."
        )
    if f"{decoder}.bias" in tensors:
        kept[family.bias] = tensors[f"{decoder}.bias"]
    unknown = [name for name in tensors if name not in kept and name.removeprefix(decoder) not in (".weight", ".bias")]
    return kept | {name: tensors[name] for name in unknown}
