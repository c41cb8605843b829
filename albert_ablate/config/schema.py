"""The typed configuration: frozen dataclasses with validated fields.

All defaults are in ``conf/``, none in this file. ``parse.parse`` makes a ``RunConfig`` from plain values.
"""

import re
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from albert_ablate.axes import AXES, BlockType, Objective, Share
from albert_ablate.config.attention import AttentionConfig
from albert_ablate.config.init import InitConfig
from albert_ablate.config.knowledge import KnowledgeConfig
from albert_ablate.config.kshot import KShotConfig
from albert_ablate.config.method import MethodConfig
from albert_ablate.config.tasks import (
    Count,
    FineTuneConfig,
    Fraction,
    OpenFraction,
    Positive,
    PositiveFloat,
    TaskConfig,
    UpdateConfig,
)
from albert_ablate.languages import known_code
from albert_ablate.model.architecture import Architecture
from albert_ablate.shipped import shipped

#: The folder with all defaults.
CONF = shipped("conf")

_STRICT = ConfigDict(extra="forbid")


def _plain_name(name: str) -> str:
    """Check a part of a folder's name. Raises ValueError for one that could lead outside the parent folder."""
    if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", name) or len(name.encode()) > 100:
        raise ValueError("it becomes part of a folder's name: give 1 to 100 characters, no / and no \\ among them")
    return name


def _language(code: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*", code):
        raise ValueError("give a language's code, such as en or pt-br")
    return known_code(code)


Name = Annotated[str, AfterValidator(_plain_name)]
#: A file, a folder or a glob pattern.
PathText = Annotated[str, Field(min_length=1)]
Strength = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=_STRICT)
class RatesConfig:
    """A scale's learning rate for each optimizer, the default of ``optimizer.learning_rate``."""

    lamb: PositiveFloat
    adamw: PositiveFloat


@dataclass(frozen=True, config=_STRICT)
class ScaleConfig:
    """The preset that sets the other groups."""

    name: Name
    learning_rate: RatesConfig
    seconds: Positive  # of training, for budget=seconds


@dataclass(frozen=True, config=_STRICT)
class EmbedConfig:
    """Axis 1: the embedding width."""

    size: Positive  # E


@dataclass(frozen=True, config=_STRICT)
class ShareConfig:
    """Axis 2: parameter sharing across layers."""

    strategy: Share
    groups: Positive  # number of groups of consecutive layers; each has its own parameters (paper, section 4.5)
    inner: Positive  # distinct layers that a group repeats

    @property
    def all_layers_equal(self) -> bool:
        """Whether every layer is the same block."""
        return self.strategy is Share.ALL and self.groups == 1 and self.inner == 1


@dataclass(frozen=True, config=_STRICT)
class ObjectiveConfig:
    """Axis 3: the sentence objective."""

    name: Objective


@dataclass(frozen=True, config=_STRICT)
class BlockConfig:
    """What a layer is made of. The sizes inside it are settings of the model."""

    type: BlockType


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """Shape of the encoder, except embedding width and vocabulary."""

    name: Name
    hidden: Positive
    layers: Positive
    heads: Positive
    intermediate: Positive
    max_positions: Annotated[int, Field(ge=8)]
    type_vocab: Positive
    projection: Literal["auto", "always"]  # of the embedding; always: also at E = H and E > H
    hidden_dropout: Fraction
    attention_dropout: Fraction
    activation: Literal["gelu_tanh", "gelu_erf", "relu"]
    initializer_range: PositiveFloat
    layer_norm_eps: PositiveFloat
    norm: Literal["post", "pre"]  # where a sub-layer's norm is: after the residual sum, or before the sub-layer
    embedding_norm: bool
    residual_init: Literal["plain", "depth"]
    lm_head: Literal["transform", "plain", "extended"]
    norm_type: Literal["layer_norm", "no_norm"]  # of sub-layers and embedding
    trigram: bool  # whether the embedding reads three positions
    table_width: Literal["embedding", "hidden"]  # of position and type tables
    pooler: Literal["tanh", "bare"]
    block_width: Positive | None  # inside a layer with bottlenecks; null: a quarter of ``hidden``
    feed_forwards: Positive  # of a layer with bottlenecks
    attention_input: Literal["body", "shared", "bottleneck"]  # of a layer with bottlenecks


@dataclass(frozen=True, config=_STRICT)
class HubSource:
    """One Hugging Face dataset and how its rows become documents."""

    path: str
    config: str | None
    revision: str | None
    split: str
    validation_split: str | None
    data_files: str | None
    text_column: str
    documents: Literal["row", "headings", "rows_of_sentences"]
    rows_per_document: Annotated[int, Field(ge=2)]
    max_documents: Positive | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, config=_STRICT)
class PlantedConfig:
    """Text drawn from a known structure (``data/planted.py``); strengths are probabilities."""

    topic: Strength  # that a word belongs to its document's topic
    order: Strength  # that a sentence begins with the marker of its position
    local: Strength  # that a word is determined by its left neighbour
    documents: Annotated[int, Field(ge=20, le=10_000_000)]
    sentences: Annotated[int, Field(ge=2, le=1000)]  # of a document
    words: Annotated[int, Field(ge=2, le=1000)]  # of a sentence
    markers: Annotated[int, Field(ge=2, le=1000)]  # that a document's sentences cycle through
    vocabulary: Annotated[int, Field(ge=4, le=100_000)]  # words of all topics, markers not counted
    topics: Annotated[int, Field(ge=2)]
    pieces: Annotated[int, Field(ge=32)]  # vocabulary size at which every word is one piece
    seed: Count  # of the text, independent of the run's seed


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """The corpus."""

    name: Name
    source: Literal["embedded", "files", "hub", "planted", "packed"]
    path: PathText | None
    validation_path: PathText | None
    validation_fraction: Annotated[float, Field(gt=0, le=1)]  # 1: the whole text, for evaluation only
    fraction: Annotated[float, Field(gt=0, le=1)]  # random share of the training documents to use
    format: Literal["auto", "sentences", "prose", "headings"]
    documents_of: Annotated[int, Field(ge=2)] | None  # sentences, for files without document boundaries
    text_column: str
    language: Annotated[str, AfterValidator(_language)]
    hub: tuple[HubSource, ...]
    planted: PlantedConfig | None


@dataclass(frozen=True, config=_STRICT)
class PairsConfig:
    """How documents become segment pairs (paper, section 4.1)."""

    max_length: Annotated[int, Field(ge=8)]
    short_probability: Annotated[float, Field(ge=0, le=1)]
    single_sentence: Literal["extend", "skip", "released", "alone"]
    nsp_tail: Literal["put_back", "drop"]
    join_documents: bool


@dataclass(frozen=True, config=_STRICT)
class MaskingConfig:
    """n-gram masking (paper, section 4.1)."""

    probability: OpenFraction
    max_ngram: Annotated[int, Field(ge=1, le=10)]
    max_predictions: Positive | None
    copies: Positive | None
    long_words: Literal["auto", "whole", "pieces"]  # rule for words with more pieces than the masking budget
    fill: Literal["auto", "bert", "electra"]  # a key of ``data.masking.FILLS``; auto: the method's
    draw: Literal["spans", "with_replacement", "smoothed"]
    smoothing: Annotated[float, Field(ge=0, le=10)]  # exponent of draw=smoothed


@dataclass(frozen=True, config=_STRICT)
class TokenizerConfig:
    """SentencePiece unigram (paper, section 4.1), or another kind."""

    name: Literal["unigram", "bpe", "wordpiece"]
    words: Literal["script", "spaces", "reference"]  # how word starts are recognised for whole-word masking
    model_path: PathText | None
    vocab_size: Annotated[int, Field(ge=32)]
    lowercase: bool
    strip_accents: bool
    split_digit_commas: bool
    character_coverage: Annotated[float, Field(gt=0.9, le=1)]
    training_sentences: Annotated[int, Field(ge=1000)]


@dataclass(frozen=True, config=_STRICT)
class OptimizerConfig(UpdateConfig):
    """Update rule and learning-rate schedule of pretraining (reference optimization)."""

    name: Literal["lamb", "adamw"]
    learning_rate: PositiveFloat
    skip_spikes: PositiveFloat | None  # skip steps this many standard deviations above the previous ones


@dataclass(frozen=True, config=_STRICT)
class BudgetConfig:
    """How long to train. The amount of ``unit`` ends the training; the learning-rate schedule of
    ``steps`` and ``warmup_steps`` is stretched over this amount.
    """

    unit: Literal["steps", "tokens", "flops", "seconds"]
    steps: Positive
    warmup_steps: Count
    tokens: Positive | None  # real tokens, padding left out
    flops: PositiveFloat | None  # of the matrix products, forward and backward
    seconds: PositiveFloat | None  # of training, without evaluation and saving
    lookups: Literal["free", "dense"]  # in word tables, for ``flops``

    def amount(self) -> float:
        """The amount of ``unit`` that a run may use."""
        amounts = {"steps": self.steps, "tokens": self.tokens, "flops": self.flops, "seconds": self.seconds}
        amount = amounts[self.unit]
        assert amount is not None  # parse() refuses it
        return amount


@dataclass(frozen=True, config=_STRICT)
class WarmStartConfig:
    """Shallower networks, or one on shorter sequences, that are trained first (paper, appendix A.1)."""

    layers: tuple[Positive, ...]
    length: Annotated[int, Field(ge=8)] | None  # ``pairs.max_length`` of the run on shorter sequences


@dataclass(frozen=True, config=_STRICT)
class BatchConfig:
    """Sequences in an optimizer step (``size``) and in one forward pass (``micro_size``)."""

    size: Positive
    micro_size: Positive


@dataclass(frozen=True, config=_STRICT)
class EvaluationConfig:
    """Held-out evaluation."""

    max_pairs: Annotated[int, Field(ge=16)]  # at the end, for each task
    curve_every: Positive  # steps between points of the held-out curve
    curve_pairs: Positive
    probe_pairs: Annotated[int, Field(ge=16)]  # training pairs for a head fitted on the frozen encoder
    similarity_pairs: Positive


@dataclass(frozen=True, config=_STRICT)
class RuntimeConfig:
    """Where and how to run. Only ``precision`` changes the numbers by intent."""

    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "bf16", "fp32"]
    backend: Literal["auto", "eager", "compiled", "graph"]  # of a GPU
    block_kernel: Literal["gather", "flex"]  # of attention in blocks
    threads: Annotated[int, Field(ge=1, le=1024)] | None
    workers: Annotated[int, Field(ge=0, le=1024)] | None
    log_every: Positive
    checkpoint_every: Positive
    checkpoint_minutes: PositiveFloat | None
    async_checkpoints: bool
    keep_checkpoints: Positive
    retries: Count  # times that a sweep starts a cell again whose process was killed
    time_limits: Positive  # of a cluster, that a run may reach before it fails
    cells_per_gpu: Annotated[int, Field(ge=1, le=1024)]  # of a sweep, at once
    oom_halving: bool
    activation_checkpointing: bool
    deterministic: bool


@dataclass(frozen=True, config=_STRICT)
class PathsConfig:
    """Folders, relative to where the command is run."""

    runs: PathText
    cache: PathText


@dataclass(frozen=True, config=_STRICT)
class TrackerConfig:
    """Trackers that mirror the metrics, which may be combined; the record is always the run folder."""

    wandb: bool
    tensorboard: bool
    project: Name | None
    mode: Literal["offline", "online", "disabled"] | None


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """One cell of an ablation."""

    seed: Count
    sweep: str | None  # the sweep that a cell belongs to
    rerun: Literal["missing", "failed", "all"]
    scale: ScaleConfig
    embed: EmbedConfig
    share: ShareConfig
    objective: ObjectiveConfig
    attention: AttentionConfig
    method: MethodConfig
    block: BlockConfig
    model: ModelConfig
    data: DataConfig
    pairs: PairsConfig
    masking: MaskingConfig
    tokenizer: TokenizerConfig
    optimizer: OptimizerConfig
    budget: BudgetConfig
    init: InitConfig
    warm_start: WarmStartConfig
    batch: BatchConfig
    evaluation: EvaluationConfig
    task: FineTuneConfig
    tasks: dict[str, TaskConfig]
    knowledge: KnowledgeConfig
    kshot: KShotConfig
    runtime: RuntimeConfig
    paths: PathsConfig
    tracker: TrackerConfig

    @property
    def fine_tuned(self) -> dict[str, TaskConfig]:
        """The tasks that the run is fine-tuned on."""
        return {} if self.kshot.ask == "instead" else self.tasks

    @property
    def has_tasks(self) -> bool:
        """Whether the settings name a task, to be fine-tuned on or asked."""
        return bool(self.tasks) or self.kshot.minimal_pairs is not None

    def without_tasks(self) -> "RunConfig":
        """The same run, which ends with its pretraining."""
        return replace(self, tasks={}, kshot=replace(self.kshot, ask="command", minimal_pairs=None))

    @property
    def has_pooler(self) -> bool:
        """Whether the model has a pooler and a sentence head."""
        return self.method.pooler == "always" or self.objective.name.trains_sentences

    @property
    def attention_width(self) -> int:
        """The width of all heads together: H, or the width inside a layer with bottlenecks."""
        if not self.block.type.has_bottlenecks:
            return self.model.hidden
        return self.model.block_width or self.model.hidden // 4

    def architecture(self) -> Architecture:
        """The shape of the model."""
        m = self.model
        return Architecture(
            vocab_size=self.tokenizer.vocab_size,
            embedding_size=self.embed.size,
            hidden_size=m.hidden,
            layers=m.layers,
            heads=m.heads,
            intermediate_size=m.intermediate,
            max_positions=m.max_positions,
            share=self.share.strategy,
            groups=self.share.groups,
            inner=self.share.inner,
            projection=m.projection == "always",
            type_vocab_size=m.type_vocab if self.method.token_types else 0,
            hidden_dropout=m.hidden_dropout,
            attention_dropout=m.attention_dropout,
            activation=m.activation,
            layer_norm_eps=m.layer_norm_eps,
            initializer_range=m.initializer_range,
            pattern="causal" if self.method.name.predicts_next else self.attention.name.value,
            blocks=self.attention.pattern(self.seed),
            norm=m.norm,
            embedding_norm=m.embedding_norm,
            residual_init=m.residual_init,
            lm_head=m.lm_head,
            norm_type=m.norm_type,
            trigram=m.trigram,
            table_width=m.table_width,
            pooler=m.pooler,
            layer_type=str(self.block.type),
            block_width=self.attention_width if self.block.type.has_bottlenecks else None,
            feed_forwards=m.feed_forwards,
            attention_input=m.attention_input,
            choices=tuple((axis.group, str(axis.value(self))) for axis in AXES if axis.before is not None),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values, for YAML and JSON."""
        plain: dict[str, Any] = pydantic.TypeAdapter(RunConfig).dump_python(self, mode="json")
        return plain
