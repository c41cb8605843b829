"""The head of a fine-tuned model as other programs read it, or why they cannot."""

import torch
from torch import nn

from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.finetuned import TaskHead
from albert_ablate.model.attention import PATTERNS
from albert_ablate.model.encoder import Encoder
from albert_ablate.tasks.heads import AnswerableSpanModel, JoinedModel, PooledModel, SpanModel, TokenModel
from albert_ablate.tasks.task import HasMeaning, Meaning, Task

HERE = "`predict` and aa.load(RUN).predict can use the fine-tuning here."


def head_of(task: Task, model: nn.Module, facts: bool) -> tuple[Encoder, TaskHead]:
    """The encoder and the head of a task's model; ``facts``: whether its texts are read with facts.

    Raises ForeignCheckpointError, which names the setting and the remedy, if no class of transformers computes it.
    """
    name = task.name
    if facts:
        raise ForeignCheckpointError(
            f"{name}: knowledge is set, and no class of transformers reads facts beside texts. {HERE} "
            "To export, fine-tune with knowledge=none."
        )
    if isinstance(model, AnswerableSpanModel):
        raise ForeignCheckpointError(
            f"tasks.{name}.version=2.0: its head (the end given the start, and whether there is an answer) is XLNet's, "
            "and no class of transformers has it on this encoder. To export, fine-tune on task=squad11."
        )
    if not isinstance(task, HasMeaning):
        raise ForeignCheckpointError(f"{name}: no class of transformers has the head of this task.")
    if isinstance(model, SpanModel):
        return _sees_both_sides(name, model.encoder), TaskHead("spans", (), None, model.span, 0.0)
    if isinstance(model, TokenModel):
        head = TaskHead(task.meaning.kind, task.meaning.names, None, model.classifier, model.dropout.rate)
        return _sees_both_sides(name, model.encoder), head
    assert isinstance(model, PooledModel)
    return _sees_both_sides(name, model.encoder), _pooled(name, task.meaning, model)


def _sees_both_sides(name: str, encoder: Encoder) -> Encoder:
    if PATTERNS[encoder.shape.pattern].past_only:
        raise ForeignCheckpointError(
            f"{name}: a fine-tuned causal model cannot be exported (transformers' GPT2ForSequenceClassification reads "
            f"another state through another head). {HERE} The pretrained model can be exported: give the run itself."
        )
    return encoder


def _pooled(name: str, meaning: Meaning, model: PooledModel) -> TaskHead:
    if isinstance(model, JoinedModel) and model.passes > 1:
        raise ForeignCheckpointError(
            f"tasks.{name}.title_pass=true: no class of transformers joins the states of two passes. {HERE} "
            f"To export, fine-tune with tasks.{name}.title_pass=false."
        )
    where = f"tasks.{name}" if isinstance(model, JoinedModel) else "task"  # such tasks have settings of their own
    head = model.settings
    if head.pool != "first":
        raise ForeignCheckpointError(
            f"{where}.pool={head.pool}: the heads of transformers' ALBERT, BERT, DistilBERT and ELECTRA read the state "
            f"of [CLS]. {HERE} To export, fine-tune with {where}.pool=first."
        )
    if head.kind == "relu":
        raise ForeignCheckpointError(
            f"{where}.head=relu: no class of transformers has a ReLU after the pooler's tanh. {HERE} To export, "
            f"fine-tune with {where}.head=pooled or {where}.head=bare."
        )
    return TaskHead(meaning.kind, meaning.names, model.pooler, scaled(model.classifier, meaning), head.dropout)


def scaled(last: nn.Linear, meaning: Meaning) -> nn.Linear:
    """The last layer, with numbers on the scale of the task's files."""
    mean, deviation = torch.from_numpy(meaning.mean), torch.from_numpy(meaning.deviation)
    made = nn.Linear(last.in_features, last.out_features)
    with torch.no_grad():
        made.weight.copy_(last.weight.double().cpu() * deviation[:, None])
        made.bias.copy_(last.bias.double().cpu() * deviation + mean)
    return made
