"""A line of ``metrics.jsonl``: a log step of training or fine-tuning, or a curve point with held-out numbers."""

from pydantic import ConfigDict, Field

from albert_ablate.record.part import Number, Part, Rate, Whole


class Line(Part):
    """Means are over the steps since the previous line; totals count from the start of the run.

    Other losses and accuracies are named by what is trained (``mlm_loss``, ``sentence_accuracy``).
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number] = Field(init=False)

    step: Whole
    loss: Number | None = None  # of fine-tuning
    learning_rate: Number | None = None  # of the last step
    gradient_norm: Number | None = None  # of the last step, before clipping
    tokens: Whole | None = None  # real ones
    flops: Number | None = None  # of matrix products
    seconds: Number | None = None  # without evaluation and saving
    tokens_per_second: Rate | None = None
    examples_per_second: Number | None = None  # of fine-tuning
    skipped_steps: Whole | None = None  # without an update
    held_out_mlm_loss: Number | None = None  # nats
    held_out_mlm_accuracy: Number | None = None
    held_out_sentence_accuracy: Number | None = None
    dev_score: Number | None = None  # of fine-tuning, on the first dev set
