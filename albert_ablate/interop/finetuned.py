"""Converts a fine-tuned encoder with its head to transformers.

| head | class of transformers | equal to ours |
|---|---|---|
| pooled (dense, tanh), on a text | BertFor..., AlbertForSequenceClassification | tensor by tensor |
| pooled, on each of several texts | BertFor..., AlbertForMultipleChoice | tensor by tensor |
| bare, on a text | DistilBertFor..., ElectraForSequenceClassification | but for rounding, see ``_passing`` |
| bare, on each of several texts | ElectraForMultipleChoice | tensor by tensor |
| of spans | BertFor..., AlbertFor..., DistilBertFor..., ElectraForQuestionAnswering | tensor by tensor |
| of tags | BertFor..., AlbertFor..., DistilBertFor..., ElectraForTokenClassification | tensor by tensor |

DistilBERT and ELECTRA have no tanh in their heads: an encoder of their form with a pooled head becomes BERT or ALBERT.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from albert_ablate.axes import Part
from albert_ablate.config.tasks import AnswerKind
from albert_ablate.errors import ForeignCheckpointError
from albert_ablate.interop.exported import Exported, tensors_of
from albert_ablate.interop.huggingface import Body, encoder_to_huggingface, has_distilberts_form
from albert_ablate.interop.weights import require_finite
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.shape import Shape

#: How the names of classes end, and what ``config.json`` says of an answer.
_CLASSES: Mapping[AnswerKind, str] = {
    **dict.fromkeys(("classes", "labels", "values"), "ForSequenceClassification"),
    "choices": "ForMultipleChoice", "spans": "ForQuestionAnswering",
    "tags": "ForTokenClassification",
}  # fmt: skip
_PROBLEMS: Mapping[AnswerKind, str] = {
    "classes": "single_label_classification", "labels": "multi_label_classification", "values": "regression",
}  # fmt: skip
#: Kinds of answers that are read from the state of every token.
_OF_TOKENS = ("spans", "tags")
#: Where the GELU of an fp32 number is the number itself: the normal distribution beyond it has less than 1e-9.
_LINEAR_FROM = 6.0


@dataclass(frozen=True)
class TaskHead:
    """The head of a fine-tuned model: an optional pooler (dense, tanh), and a linear layer."""

    answers: AnswerKind
    names: tuple[str, ...]  # of classes, labels, numbers or tags; empty for choices and spans
    pooler: nn.Module | None
    last: nn.Linear  # numbers on the scale of the task's files
    dropout: float  # before the last layer


def to_finetuned(
    encoder: Encoder, head: TaskHead, discriminates: bool = False, origin: Mapping[str, Any] | None = None
) -> Exported:
    """A transformers model that gives the same answers.

    ``discriminates``: whether the encoder was pretrained as ELECTRA's; ``origin`` is the entry of an imported run's
    manifest. Raises ForeignCheckpointError if a weight is not finite, and if no class computes the function.
    """
    model = nn.ModuleDict({"encoder": encoder} | ({} if head.pooler is None else {"pooler": head.pooler}))
    require_finite(model.state_dict() | head.last.state_dict(), "The fine-tuning's best weights")
    body = _body(encoder.shape, head, discriminates)
    if body == "electra" and encoder.shape.projection and encoder.shape.embedding_size == encoder.shape.hidden_size:
        raise ForeignCheckpointError(
            "model.projection=always at E = H with task.head=bare: the class of transformers with a bare head is "
            "ELECTRA's, which projects only an embedding of another width. Fine-tune with task.head=pooled."
        )
    bare = encoder_to_huggingface(encoder.shape, tensors_of(model), origin or {}, body)
    family = bare.architecture.removesuffix("Model")
    config = bare.config | _dropouts(family, head)
    if head.answers in _PROBLEMS:
        config["problem_type"] = _PROBLEMS[head.answers]
    if head.names:
        config |= {
            "num_labels": len(head.names),
            "id2label": {str(number): name for number, name in enumerate(head.names)},
            "label2id": {name: number for number, name in enumerate(head.names)},
        }
    tensors = bare.tensors | _head_tensors(family, encoder, head)
    architecture = f"{family}{_CLASSES[head.answers]}"
    return replace(bare, architecture=architecture, config=config, tensors=tensors)


def _body(shape: Shape, head: TaskHead, discriminates: bool) -> Body:
    if head.answers in _OF_TOKENS:
        extra = shape.projection and shape.embedding_size == shape.hidden_size
        return "electra" if discriminates and not extra else "any"
    if head.pooler is not None:
        return "typed"
    return "electra" if head.answers == "choices" or not has_distilberts_form(shape) else "any"


def _dropouts(family: str, head: TaskHead) -> dict[str, Any]:
    """The dropout of the head; spans have none, and that of tags is DistilBERT's ``dropout`` of the encoder."""
    if head.answers == "spans":
        return {"qa_dropout": 0.0} if family == "DistilBert" else {}
    if head.answers == "tags" and family == "DistilBert":
        return {}
    name = {"Albert": "classifier_dropout_prob", "DistilBert": "seq_classif_dropout"}.get(family, "classifier_dropout")
    if family == "Electra" and head.answers == "choices":
        plain = {"summary_type": "first", "summary_use_proj": False, "summary_activation": ""}
        return {**plain, "summary_last_dropout": head.dropout}
    return {name: head.dropout}


def _head_tensors(family: str, encoder: Encoder, head: TaskHead) -> dict[str, Tensor]:
    weight, bias = head.last.weight.detach(), head.last.bias.detach()
    if head.answers == "spans":
        return {"qa_outputs.weight": weight.clone(), "qa_outputs.bias": bias.clone()}
    if head.pooler is not None or head.answers in ("choices", "tags"):
        return {"classifier.weight": weight.clone(), "classifier.bias": bias.clone()}
    names = ("pre_classifier", "classifier") if family == "DistilBert" else ("classifier.dense", "classifier.out_proj")
    return _passing(encoder, weight, bias, *names)


def _passing(encoder: Encoder, weight: Tensor, bias: Tensor, dense: str, out: str) -> dict[str, Tensor]:
    """A dense layer that lets a state through the ReLU or GELU after it, and a last layer that allows for it.

    The last norm bounds a state: |x - beta| <= |gamma| sqrt(H - 1). The dense layer is the identity and adds a constant
    that makes every number so large that the activation changes nothing; the last layer subtracts it.
    """
    shape, tensors = encoder.shape, encoder.state_dict()
    norm = f"ffn.{shape.sharing.index(Part.FFN, shape.layers - 1)}.norm"
    gamma, beta = tensors[f"{norm}.weight"].double(), tensors[f"{norm}.bias"].double()
    added = (gamma.abs() * math.sqrt(shape.hidden_size - 1) - beta + _LINEAR_FROM).float()
    less = bias.double() - weight.double() @ added.double()
    return {
        f"{dense}.weight": torch.eye(shape.hidden_size), f"{dense}.bias": added,
        f"{out}.weight": weight.clone(), f"{out}.bias": less.float(),
    }  # fmt: skip
