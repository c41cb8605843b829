"""``results.json`` of a run: its measurements. Losses are in nats, accuracies are shares, intervals have 95%.

Any measurement may be absent, as some models do not allow it.
"""

from pydantic import Field

from albert_ablate.record.kshot import KShotEntry
from albert_ablate.record.manifest import Imported
from albert_ablate.record.part import Interval, Number, Part, Whole
from albert_ablate.record.tasks import Average, TaskEntry


class Bars(Part):
    """Baselines of masked LM on a text that the run was not trained on (``evaluation.foreign``)."""

    of: str | None = None  # the text whose pieces were counted, or None
    fitted_on: str | None = None
    left_out: str | None = None  # why no pieces were counted
    run_left_out: str | None = None  # why the training text gives no baseline
    run_unigram_loss: Number | None = None  # by piece frequencies of the training text


class LossByPosition(Part):
    """Masked LM of sequences of more than 512 tokens, apart by position in the sequence."""

    split: Whole  # the first late position, from 0
    early: Number  # nats
    early_interval: Interval | None = None  # with independent sequences
    late: Number
    late_interval: Interval | None = None


class MaskedLM(Part):
    """Masked LM on held-out pairs, beside the n-gram baselines of the training text."""

    loss: Number | None = None
    loss_interval: Interval | None = None  # with independent sequences
    accuracy: Number | None = None
    interval: Interval | None = None  # of the accuracy, with independent sequences
    binomial_interval: Interval | None = None  # of the accuracy, with independent pieces
    examples: Whole | None = None  # masked pieces
    sequences: Whole | None = None
    unigram_loss: Number | None = None
    bigram_loss: Number | None = None
    unigram_accuracy: Number | None = None  # of the most frequent piece
    gain_over_unigram: Number | None = None  # nats
    gain_interval: Interval | None = None
    left_baseline: bool | None = None  # whether the gain is above the plateau, with 95% confidence
    bars: Bars | None = None  # on a text that the run was not trained on
    by_position: LossByPosition | None = None  # absent where all sequences are shorter


class ContextGain(Part):
    """How much better pieces are predicted that see much of their document (``evaluation.causal``)."""

    gain: Number  # nats of late pieces less those of early ones; below 0 if context helps
    interval: Interval | None = None  # with independent documents
    early: list[Whole]  # tokens of the window before the first and the last early piece
    late: list[Whole]
    early_loss: Number
    late_loss: Number
    documents: Whole  # those with a window
    windows: Whole | None = None  # of ``pairs.max_length`` tokens, after the first of each document


class CausalLM(Part):
    """The next piece on held-out documents, beside the n-gram baselines of the training text (``evaluation.causal``).

    Not comparable with masked LM, whose pieces are predicted from both sides.
    """

    loss: Number | None = None
    loss_interval: Interval | None = None  # with independent documents, as all intervals but the binomial one
    bits_per_byte: Number | None = None
    bits_per_byte_interval: Interval | None = None
    bytes: Whole | None = None
    bytes_of: str | None = None  # ``text``, or ``decoded tokens`` where the text is not at hand
    accuracy: Number | None = None
    interval: Interval | None = None
    binomial_interval: Interval | None = None  # of the accuracy, with independent pieces
    examples: Whole | None = None  # predicted pieces, separators among them
    documents: Whole | None = None
    of_documents: Whole | None = None
    length: Whole | None = None  # tokens of a block, which begins where the one before it ends
    unigram_loss: Number | None = None
    bigram_loss: Number | None = None
    unigram_accuracy: Number | None = None  # of the most frequent piece
    gain_over_unigram: Number | None = None  # nats
    gain_interval: Interval | None = None
    left_baseline: bool | None = None  # whether the gain is above the plateau, with 95% confidence
    bars: Bars | None = None  # on a text that the run was not trained on
    context: ContextGain | None = None  # None if no document is long enough


class Proportion(Part):
    """A share of right answers with Wilson's interval."""

    accuracy: Number | None = None
    interval: Interval | None = None
    examples: Whole | None = None


class SentenceTask(Proportion):
    """NSP or SOP on held-out pairs."""

    head: str | None = None  # ``trained``, or ``fitted on the frozen encoder``, with ``, last token`` if it reads that
    majority_class: Number | None = None  # share of the more frequent label
    left_baseline: bool | None = None  # whether the accuracy is above it, with 95% confidence
    own_head: Proportion | None = None  # of the head that was trained on the task of the objective
    above_majority: bool | None = None  # replaces ``left_baseline`` on a text that the run was not trained on


class ReplacedTokens(Part):
    """The replaced-token probe on held-out pairs: a linear head on the frozen encoder (``evaluation.replaced``)."""

    auc: Number | None = None  # of replaced against original tokens
    interval: Interval | None = None  # of the AUC, with independent sequences
    unigram_auc: Number | None = None  # of tokens drawn by the unigram model against original ones
    bigram_auc: Number | None = None  # of tokens drawn by the bigram model against original ones
    loss: Number | None = None
    loss_interval: Interval | None = None  # with independent sequences
    accuracy: Number | None = None
    accuracy_interval: Interval | None = None  # with independent sequences
    recall: Number | None = None  # share of the replaced tokens that the head finds
    examples: Whole | None = None  # tokens of text
    sequences: Whole | None = None
    replaced: Number | None = None  # share of replaced tokens
    base_loss: Number | None = None  # of the best constant answer
    base_accuracy: Number | None = None  # of ``all original``
    token_auc: Number | None = None  # of the token-only model, which knows the shown piece but no context
    token_loss: Number | None = None
    left_baseline: bool | None = None  # whether the AUC is above that of the token-only model, with 95% confidence
    above_tokens: bool | None = None  # replaces ``left_baseline`` on a text that the run was not trained on


class Discriminator(Part):
    """How well the encoder finds the tokens that its own generator has replaced (``evaluation.generated``).

    Not comparable between generators.
    """

    loss: Number | None = None
    loss_interval: Interval | None = None  # with independent sequences
    accuracy: Number | None = None
    interval: Interval | None = None  # of the accuracy, with independent sequences
    auc: Number | None = None
    auc_interval: Interval | None = None
    precision: Number | None = None  # None if no token is said to be replaced
    recall: Number | None = None
    fake_rate: Number | None = None  # share of replaced tokens
    examples: Whole | None = None  # real tokens
    base_loss: Number | None = None  # of the best constant answer
    base_accuracy: Number | None = None  # of ``all original``
    token_auc: Number | None = None  # of a model that knows the shown piece but no context
    token_loss: Number | None = None
    left_baseline: bool | None = None  # whether AUC and loss are better than these, with 95% confidence


class GeneratorScores(Part):
    """Masked LM of the generator on held-out pairs, filled as in its training (``evaluation.generated``)."""

    loss: Number | None = None
    loss_interval: Interval | None = None  # with independent sequences
    accuracy: Number | None = None
    interval: Interval | None = None  # of the accuracy, with independent sequences
    sample_accuracy: Number | None = None  # share of samples that are the original
    examples: Whole | None = None  # masked pieces
    unigram_loss: Number | None = None
    gain_over_unigram: Number | None = None  # nats
    left_baseline: bool | None = None  # whether the gain is above the plateau, with 95% confidence


class BestMaskedLM(Part):
    """The lowest masked-LM loss that is possible on the held-out pairs."""

    loss: Number
    loss_interval: Interval | None = None
    accuracy: Number
    interval: Interval | None = None
    chance_loss: Number | None = None  # from piece frequencies and the shown piece


class BestSentenceTask(Part):
    """Accuracy that the reference model of the corpus expects on a sentence task."""

    accuracy: Number
    realised: Proportion | None = None  # its accuracy on the held-out pairs


class Achievable(Part):
    """The best possible scores, for a corpus whose generating process is known."""

    masked_lm: BestMaskedLM | None = None
    nsp: BestSentenceTask | None = None
    sop: BestSentenceTask | None = None


class Training(Part):
    """Resources that training used."""

    steps: Whole | None = None
    tokens: Whole | None = None  # real ones
    flops: Number | None = None  # of matrix products
    seconds: Number | None = None  # without evaluation and saving
    tokens_per_second: Number | None = None
    skipped_steps: Whole | None = None  # without an update; absent unless ``optimizer.skip_spikes`` is set
    micro_size: Whole | None = None  # sequences, if it had to be lowered
    processes: Whole | None = None  # if there were several
    tokens_in_all: Whole | None = None  # with those of the runs that it continues
    flops_in_all: Number | None = None  # with those of the runs that it continues
    backends: list[str] | None = None  # of a GPU, in the order in which they computed steps


class Scored(Part):
    """How much of a text the masked-LM numbers of an evaluation cover."""

    documents: Whole
    tokens: Whole
    of_documents: Whole
    of_tokens: Whole
    held_out_by: Number | None = None  # data.validation_fraction; None if the text has a validation file
    stopped: bool | None = None  # whether evaluation.max_pairs ended it
    max_length: Whole | None = None  # tokens of a sequence
    seen_in_training: Whole | None = None  # scored documents that the run was trained on; None if unknown


class Inference(Part):
    """Duration of one forward pass of the encoder (``evaluation.speed``)."""

    milliseconds: Number  # median
    percentiles: Interval | None = None  # the 10th and the 90th, milliseconds
    sequences: Whole | None = None  # of a pass
    length: Whole | None = None  # tokens of a sequence
    repetitions: Whole | None = None  # measured passes
    precision: str | None = None  # bf16 or fp32
    threads: Whole | None = None  # of PyTorch
    device: str | None = None  # ``cpu``, or the GPU's name


class EvaluationTime(Part):
    """Duration of held-out evaluation."""

    seconds: Number | None = None


class Results(Part):
    """Every measurement of a run."""

    imported: Imported | None = None
    masked_lm: MaskedLM | None = None
    causal_lm: CausalLM | None = None  # only of methods that predict the next piece
    nsp: SentenceTask | None = None
    sop: SentenceTask | None = None
    replaced_tokens: ReplacedTokens | None = None  # absent in older runs
    discriminator: Discriminator | None = None  # only of methods that learn to find replaced tokens
    generator: GeneratorScores | None = None  # only of methods with a generator that is a network
    left_out: dict[str, str] = Field(default_factory=dict)  # measure -> why it could not be scored
    training: Training | None = None
    achievable: Achievable | None = None
    scored: Scored | None = None  # only of ``evaluate``
    inference: Inference | None = None  # absent in older runs
    evaluation: EvaluationTime | None = None
    tasks: list[TaskEntry] = Field(default_factory=list)
    average: Average | None = None  # absent without the paper's five tasks
    kshot: list[KShotEntry] = Field(default_factory=list)
