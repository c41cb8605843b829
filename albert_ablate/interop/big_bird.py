"""transformers' BigBird: which models it computes, and its settings of blocks."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from albert_ablate.data.tokenizer import SEP
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.model.block_pattern import BlockPattern
from albert_ablate.model.shape import Shape


def require_big_bird(shape: Shape, tensors: Mapping[str, Tensor]) -> None:
    """Raise ForeignCheckpointError for a model in blocks that transformers' BigBird does not compute."""
    assert shape.blocks is not None
    needed = {
        "attention.plan=transformers": shape.blocks.plan == "transformers",
        "embed=full": shape.embedding_size == shape.hidden_size,
        "model.projection=auto": not shape.projection,
        "method=mlm": "replaced_head.out.weight" not in tensors,
    }
    missing = [name for name, fits in needed.items() if not fits]
    if missing:
        raise ForeignCheckpointError(
            f"transformers' BigBird computes this model only with {', '.join(missing)}. Its random blocks are those of "
            "its own plan in training, and in evaluation it has none: a model with another plan would have other "
            "outputs there. It can be used here, or trained so."
        )


def sizes_of_blocks(pattern: BlockPattern | None) -> dict[str, Any]:
    """Fields of ``config.json`` that BERT lacks; None: of full attention."""
    common = {"use_bias": True, "rescale_embeddings": False, "sep_token_id": SEP}
    if pattern is None:
        return common | {"attention_type": "original_full"}
    sizes = {"block_size": pattern.block, "num_random_blocks": pattern.random}
    return common | {"attention_type": "block_sparse"} | sizes


def attention_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the group ``attention``, from a whole ``config.json``."""
    if config["attention_type"] == "original_full":
        return {"name": "full"}
    return {
        "name": "bigbird", "block": config["block_size"], "window": 3, "global_blocks": 2,
        "random": config["num_random_blocks"], "plan": "transformers",
    }  # fmt: skip
