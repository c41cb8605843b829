"""A fine-tuned model with its head as a function of whole grids, for other programs to compute."""

import json

from torch import Tensor, nn

from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.onnx_file import Traceable, types_or_none
from albert_ablate.tasks.heads import AnswerableSpanModel, JoinedModel, PooledModel, SpanModel, TokenModel
from albert_ablate.tasks.leaving import HERE, scaled
from albert_ablate.tasks.task import HasMeaning, Task, TaskBatch


class Answers(nn.Module):
    """Logits of each text, (B, outputs); numbers on the scale of the task's files."""

    def __init__(self, model: PooledModel, last: nn.Linear) -> None:
        super().__init__()
        self.model, self.last = model, last

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """-> (B, outputs)."""
        state = self.model.pool(self.model.encoder, _batch(input_ids, attention_mask, token_type_ids))  # (B, H)
        if self.model.pooler is not None:
            state = self.model.pooler(state[:, None])
        logits: Tensor = self.last(self.model.dropout(state))
        return logits


class Tags(nn.Module):
    """Logits of each token's tag."""

    def __init__(self, model: TokenModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """-> (B, T, tags)."""
        logits: Tensor = self.model(_batch(input_ids, attention_mask, token_type_ids))
        return logits


class Spans(nn.Module):
    """Scores of each position as the start and as the end of the answer."""

    def __init__(self, model: SpanModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """-> (B, T) and (B, T)."""
        start, end = self.model(_batch(input_ids, attention_mask, token_type_ids))
        return start, end


def _batch(ids: Tensor, mask: Tensor, types: Tensor | None) -> TaskBatch:
    return TaskBatch(ids, types_or_none(types, ids), mask != 0, mask[:, :0], 1)


def traceable(task: Task, model: nn.Module, facts: bool) -> Traceable:
    """The model of a fine-tuning, with its kind of answers and its labels as facts.

    ``facts``: whether its texts are read with facts. Raises ForeignCheckpointError, which names the setting and the
    remedy, if the answer is more than one pass over a text.
    """
    name = task.name
    if facts:
        raise ForeignCheckpointError(
            f"{name}: knowledge is set, and a graph takes texts without facts. {HERE} To export, fine-tune with "
            "knowledge=none."
        )
    if isinstance(model, JoinedModel) and model.passes > 1:
        raise ForeignCheckpointError(
            f"tasks.{name}.title_pass=true: a graph takes one text, and this model joins two. {HERE} To export, "
            f"fine-tune with tasks.{name}.title_pass=false."
        )
    if isinstance(model, AnswerableSpanModel) or not isinstance(task, HasMeaning):
        raise ForeignCheckpointError(
            f"{name}: its answer is searched for by several passes of the head, which one graph does not do. {HERE}"
        )
    meaning = task.meaning
    known = {"answers": meaning.kind, "labels": json.dumps(list(meaning.names))}
    if isinstance(model, SpanModel):
        return Traceable(Spans(model).eval(), model.encoder, ("start_logits", "end_logits"), facts=known)
    if isinstance(model, TokenModel):
        return Traceable(Tags(model).eval(), model.encoder, ("logits",), facts=known)
    assert isinstance(model, PooledModel)
    head = Answers(model, scaled(model.classifier, meaning)).eval()
    return Traceable(head, model.encoder, ("logits",), by_text=True, facts=known)
