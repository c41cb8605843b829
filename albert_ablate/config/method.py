"""The settings of the group ``method``: what a training step optimises."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from albert_ablate.axes import MethodName
from albert_ablate.config.tasks import AttentionTarget, LayerMap, Padding, PositiveFloat, Projections, Weight

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class MethodConfig:
    """What a training step optimises."""

    name: MethodName
    token_types: bool  # whether the embedding has a table of segment ids
    pooler: Literal["always", "trained"]  # and the sentence head; trained: only with a sentence loss

    generator: Literal["learned", "uniform", "unigram"]
    generator_width: Annotated[float, Field(gt=0, le=2)]  # of the encoder's
    generator_depth: Annotated[float, Field(gt=0, le=2)]  # of the encoder's
    tie: Literal["embeddings", "none", "all"]  # what generator and encoder share
    temperature: PositiveFloat
    disallow_correct: bool
    discriminator_weight: Weight
    sentence_weight: PositiveFloat
    initialisation: Literal["equal", "released"]

    teacher: Annotated[str, Field(min_length=1)] | None  # a run folder
    teacher_run: str | None  # the identity of that run
    teacher_depth: Annotated[float, Field(gt=0)]  # of the student's layers
    teacher_width: Annotated[float, Field(gt=0)]  # of the student's width
    start: Literal["random", "teacher"]

    copy_transform: bool  # start the transform of the masked-LM head from the teacher's
    kl_weight: Weight
    mlm_weight: Weight
    cosine_weight: Weight
    kl_temperature: PositiveFloat
    kl_positions: Literal["all", "masked"]

    embedding_weight: Weight
    hidden_weight: Weight
    attention_weight: Weight
    layer_map: LayerMap
    attention_target: AttentionTarget
    projections: Projections
    padding: Padding
    inputs: Literal["plain", "masked"]

    blocks: Literal["packed", "pairs"]

    transfer: Literal["progressive", "joint", "auxiliary", "none"]
    transfer_share: Annotated[float, Field(gt=0, lt=1)]  # of the budget
    feature_weight: Weight
    mean_weight: Weight
    spread_weight: Weight
    map_weight: Weight
    feature_form: Literal["normalised", "plain"]
    stage_rates: Literal["released", "equal", "frozen"]
    stage_ramp: Literal["released", "none"]
    teacher_inside: PositiveFloat  # of the student's width inside its layers
    alpha: Annotated[float, Field(ge=0, le=1)]  # share of the true pieces

    @property
    def reads_documents(self) -> bool:
        """Whether a text begins with the separator of documents, without [CLS]: of causal LM on packed blocks."""
        return self.name.predicts_next and self.blocks == "packed"
