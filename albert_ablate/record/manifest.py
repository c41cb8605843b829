"""``manifest.json`` of a run: the origin of its numbers."""

from typing import Any

from pydantic import ConfigDict, Field

from albert_ablate.record.part import Number, Part, Whole


class Code(Part):
    """The commit that ran, as ``provenance.commit`` determines it."""

    commit: str | None = None
    dirty: bool | None = None  # whether the code differed from it
    unknown: str | None = None  # why one of the two is None


class Hardware(Part):
    """The machine as training saw it."""

    device: str | None = None  # ``cpu``, or the GPU's name
    processor: str | None = None
    cores: Whole | None = None
    threads: Whole | None = None  # of PyTorch
    system: str | None = None
    python: str | None = None

    @property
    def kind(self) -> str:
        """Kind of the device, ``cpu`` or ``cuda``. A run without a recorded device counts as one on a CPU."""
        return "cpu" if self.device in (None, "cpu") else "cuda"


class Attention(Part):
    """The attention kernel of a run on a GPU, as ``training.attention_choice`` measured it."""

    kernel: str
    milliseconds: dict[str, Number] = Field(default_factory=dict)  # kernel -> forward and backward
    left_out: dict[str, str] = Field(default_factory=dict)  # kernel -> why it was not used


class Blocks(Part):
    """What attention in blocks sees of a sequence of ``pairs.max_length`` tokens, in training."""

    pairs_seen: Number  # share of all pairs of positions, a mean over layers and heads
    keys: Number  # of a query, a mean; a key that is chosen twice counts twice
    is_full: bool  # all pairs are seen: the arm is that of full attention


class FormCount(Part):
    """Files that were read as one form, such as JSON lines."""

    files: Whole
    documents: Whole


class CorpusSource(Part):
    """Origin of a text; each kind of corpus sets its own fields."""

    package: str | None = None
    licence: str | None = None
    planted: dict[str, Any] | None = None  # settings of the planted structure (``config.PlantedConfig``)
    files: list[str] = Field(default_factory=list)
    validation_files: list[str] = Field(default_factory=list)
    hub: list[str] = Field(default_factory=list)  # data sets
    read_as: dict[str, FormCount] = Field(default_factory=dict)  # form -> its files
    left_aside: list[str] = Field(default_factory=list)  # files that were not read, with the reason
    left_out: dict[str, Whole] = Field(default_factory=dict)  # reason -> sentences, documents or characters


class Side(Part):
    """One side of a text: what is trained on, or what is held out."""

    documents: Whole
    sentences: Whole
    words: Whole


class Text(Part):
    """The sentences of a corpus."""

    fingerprint: str | None = None
    train: Side | None = None
    valid: Side | None = None
    duplicates_dropped: Whole | None = None  # documents


class Vocabulary(Part):
    """The tokenizer."""

    fingerprint: str | None = None
    vocab_size: Whole | None = None


class Tokens(Part):
    """The text as tokens, counted on each side."""

    fingerprint: str | None = None
    train: Whole | None = None
    valid: Whole | None = None


class Masking(Part):
    """Result of masking a sample of training pairs (``data.masked_share``)."""

    share: Number  # masked share of the tokens
    budget_share: Number  # requested share of the tokens
    words_per_row: Number
    tokens_per_row: Number
    rows_without_target: Whole
    rows: Whole
    long_words: str  # the rule for words of more pieces than a row's budget


class Data(Part):
    """The corpus as a run uses it."""

    corpus: str | None = None
    source: CorpusSource | None = None
    text: Text = Text()
    tokenizer: Vocabulary | None = None
    tokens: Tokens = Tokens()
    unknown_share: Number | None = None  # of the tokens
    masking: Masking | None = None  # absent if the text gives no pair
    marks_dropped: dict[str, Whole] | None = None  # script -> marks; absent where the tokenizer keeps accents
    pairs_per_epoch: Whole | None = None
    blocks_per_epoch: Whole | None = None  # of causal LM
    sequences_per_epoch: Whole | None = None  # of joined documents
    documents_cut: Whole | None = None  # longer than a sequence of joined documents
    tokens_dropped_per_epoch: Whole | None = None  # those after the last whole block or sequence
    lone_sentences_left_out: Whole | None = None


class Parameters(Part):
    """Counts by three rules, and of each part of the model, which the architecture names."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Whole] = Field(init=False)

    encoder: Whole | None = None  # without pooler and heads
    with_pooler: Whole | None = None
    with_heads: Whole | None = None  # all of them


class Deviation(Part):
    """A setting that differs from the paper's set-up."""

    field: str  # as on the command line
    ours: Any
    paper: Any


class Teacher(Part):
    """The run that a student learns from, and what it adds to the student's FLOPs."""

    run: str  # name of its folder
    identity: str | None = None
    parameters: Whole | None = None  # with pooler
    flops_per_step: Number | None = None  # of its forward passes in an optimizer step of the student
    training_flops: Number | None = None  # of its own training, and of its own teacher's; None if it was imported


class Origin(Part):
    """The run that a run continues, and what its training used, with that of the runs it continued itself."""

    run: str  # name of its folder
    identity: str | None = None
    tokens: Whole | None = None  # None where it is not known, as of an imported run
    flops: Number | None = None  # a teacher's training included


class Imported(Part):
    """The checkpoint that a run was imported from."""

    from_: str | None = Field(default=None, alias="from")  # folder, file or name on the hub
    files: dict[str, str] = Field(default_factory=dict)  # name -> sha256
    missing: list[str] = Field(default_factory=list)  # heads that it does not have
    left_out: list[str] = Field(default_factory=list)  # tensors of a task's head
    model_type: str | None = None  # of transformers
    num_hidden_groups: Whole | None = None  # of ALBERT
    classifier_dropout: Number | None = None


class Manifest(Part):
    """Everything that a run's numbers depend on."""

    identity: str | None = None
    name: str | None = None  # of the folder when it was made
    imported: Imported | None = None  # absent for a run that was trained here
    source: Code | None = None
    packages: dict[str, str | None] = Field(default_factory=dict)  # name -> version
    hardware: Hardware = Hardware()
    attention: Attention | None = None  # absent on a CPU
    blocks: Blocks | None = None  # absent for full attention
    precision: str | None = None  # bf16 or fp32
    backend: str | None = None  # of a GPU, that training begins with; absent on a CPU
    processes: Whole | None = None
    data: Data = Data()
    parameters: Parameters = Parameters()
    flops_per_step: Number | None = None  # of matrix products, a teacher's forward passes included
    flops_per_step_dense: Number | None = None  # if look-ups in word tables were products too
    training_flops: Number | None = None  # of the whole budget; None if it is not in steps
    continued_from: Origin | None = None  # absent for a run that began with random weights
    teacher: Teacher | None = None  # absent for a run that is no student
    deviations_from_paper: list[Deviation] = Field(default_factory=list)

    @property
    def came_with_masked_lm_head(self) -> bool:
        """False for an imported checkpoint without a masked-LM head."""
        return self.imported is None or "masked-LM head" not in self.imported.missing
