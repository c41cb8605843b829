"""The settings of downstream tasks: one dataclass a family, chosen by ``kind``.

Part of the typed configuration (``config.py``); values come from ``conf/task/`` alone.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _as_word(value: Any) -> Any:
    """A label that is a number is its digits; true and false are spelt in several ways, so quotes must say how."""
    if isinstance(value, bool):
        raise ValueError("a word is expected. Put it in quotes, spelt as in your file: ['true','false']")
    return str(value) if isinstance(value, int | float) else value


Word = Annotated[str, BeforeValidator(_as_word)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]

#: The paper's five columns, and the order in which it averages them.
PAPER_FIVE = ("squad11", "squad20", "mnli", "sst2", "race")


@dataclass(frozen=True, config=_STRICT)
class ScalingConfig:
    """How a scale changes every task's recipe."""

    steps: Literal["recipe", "epochs"]  # the recipe's steps, or its passes over the examples there are
    epochs: PositiveFloat  # factor
    learning_rate: PositiveFloat  # factor
    batch_size: Positive | None  # at most
    max_length: Positive | None  # at most


@dataclass(frozen=True, config=_STRICT)
class UpdateConfig:
    """What every update rule has, in pretraining and in fine-tuning."""

    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    beta1: Fraction
    beta2: Fraction
    epsilon: PositiveFloat
    bias_correction: bool
    clip_norm: PositiveFloat | None
    decay_from: Literal["start", "warmup_end"]


@dataclass(frozen=True, config=_STRICT)
class FineTuneConfig:
    """What all tasks of a run have in common."""

    source: Literal["files", "hub"]
    data_dir: str | None
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)]
    start: Literal["pretrained", "random"]
    evaluations: Positive  # on dev, evenly spaced
    evaluate_every: Positive | None  # or every so many steps
    group_by_length: bool
    micro_size: Positive | None  # sequences in one forward pass
    keep_weights: bool
    bag_of_words: bool
    scaling: ScalingConfig
    optimizer: UpdateConfig  # of the released fine-tuning code's AdamW


@dataclass(frozen=True, config=_STRICT)
class RecipeConfig:
    """A task's hyperparameters at full size (paper, Table 14)."""

    learning_rate: PositiveFloat
    batch_size: Positive
    dropout: Fraction  # of the encoder
    classifier_dropout: Fraction
    steps: Positive | None
    warmup_steps: Count | None
    epochs: PositiveFloat  # steps x batch_size / official training examples
    warmup: Fraction  # warmup_steps / steps
    max_length: Annotated[int, Field(ge=8)]


@dataclass(frozen=True, config=_STRICT)
class HubTask:
    """A Hugging Face dataset."""

    path: str
    config: str | None
    revision: str | None


@dataclass(frozen=True, config=_STRICT)
class TaskBase:
    """What every task has. The settings that are empty come from ``recipe`` and ``task.scaling``."""

    name: str
    recipe: RecipeConfig
    hub: HubTask | None
    train_file: str | None  # instead of the official name
    dev_file: str | None
    max_train: Positive | None  # examples, for a quick look; the first ones of a fixed shuffle
    max_dev: Positive | None
    learning_rate: PositiveFloat | None
    batch_size: Positive | None
    epochs: PositiveFloat | None
    steps: Positive | None
    warmup_steps: Count | None
    max_length: Annotated[int, Field(ge=8)] | None
    dropout: Fraction | None
    classifier_dropout: Fraction | None


@dataclass(frozen=True, config=_STRICT)
class GlueConfig(TaskBase):
    """A GLUE task; columns, labels and metrics stand in ``tasks/glue.py``."""

    kind: Literal["glue"]


@dataclass(frozen=True, config=_STRICT)
class TextConfig(TaskBase):
    """Classification or regression of a user's own files."""

    kind: Literal["text_classification", "text_regression"]
    text_columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    target_columns: Annotated[tuple[str, ...], Field(min_length=1)]
    id_column: str | None
    labels: tuple[Word, ...] | None  # in order; empty: those of the training file, sorted
    dev_fraction: OpenFraction  # of the training rows, by a hash of their text, where there is no dev file
    dev_split: Literal["text", "label"]  # which rows that are: drawn from all, or the same share of every class
    class_weights: Literal["none", "balanced"] | tuple[PositiveFloat, ...]  # of each class's errors; in labels' order
    choose_by: Literal["macro_f1"] | None  # the metric that chooses the checkpoint; empty: the first one


@dataclass(frozen=True, config=_STRICT)
class GeneratedConfig(TaskBase):
    """A task made from the embedded corpus."""

    kind: Literal["generated"]
    task: Literal["era", "word_order"]
    train_examples: Positive
    dev_examples: Positive


@dataclass(frozen=True, config=_STRICT)
class SquadConfig(TaskBase):
    """Extractive question answering."""

    kind: Literal["squad"]
    version: Literal["1.1", "2.0"]
    max_query: Positive  # pieces
    stride: Positive  # pieces between two windows at the recipe's length; shorter windows take their share
    n_best: Positive
    max_answer: Positive  # pieces
    beam: Positive  # starts, and ends for each, of the 2.0 head
    threshold: Literal["best_f1", "zero"]  # of the null score: searched on dev, or a probability of one half
    f1_unit: Literal["auto", "words", "characters"]  # what F1 counts; auto: what the paragraph's script has


@dataclass(frozen=True, config=_STRICT)
class RaceConfig(TaskBase):
    """Four-way multiple choice."""

    kind: Literal["race"]
    levels: Annotated[tuple[Literal["middle", "high"], ...], Field(min_length=1)]
    max_query: Positive  # pieces of question and option, counted from the end


TaskConfig = Annotated[
    GlueConfig | TextConfig | GeneratedConfig | SquadConfig | RaceConfig, Field(discriminator="kind")
]
