"""A step of a student against the sum of its two parts, measured apart: ``python -m benchmarks.distillation``.

The teacher has twice the student's layers and its width. Three contenders take turns, each with one method:

- the whole step: batch, the teacher's forward pass, the student's forward pass, losses, backward, clip, update;
- the student alone: the same step, with what the teacher shows kept in memory. For DistilBERT these are the teacher's
  states, and logits from states of width one, which cost next to nothing; for TinyBERT its states and attention scores;
- the teacher alone: its forward pass over the same batches. For DistilBERT with the logits of every token; for TinyBERT
  with its attention scores, up to the last layer that is read.

A whole step should take little more than the two parts, at most 1.2 times as long.
"""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from albert_ablate.model import imitation
from albert_ablate.training.trainer import Trainer
from benchmarks.cases import Case
from benchmarks.measure import Build, first_line, report, take_turns
from benchmarks.sides import in_line, our_trainer, side_of

CASES = {
    "mini": Case("mini, 2 of 4 layers, 32 x 128", h=256, layers=2, e=128, v=8000, b=32, t=128, share="none"),
    "small": Case("small, 6 of 12 layers, 8 x 128", h=256, layers=6, e=128, v=30000, b=8, t=128, share="none"),
}
_PLAIN = ("objective=none", "model.activation=gelu_erf")
#: Batches that the teacher alone reads in turn.
_BATCHES = 8


class Shown(nn.Module):
    """The encoder of a teacher whose states (B, T, H) are in memory, with a word table of width one."""

    def __init__(self, states: Tensor, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Module()
        self.embedding.word = nn.Embedding(vocabulary, 1)
        self.states = states

    def forward(self, input_ids: Tensor, _types: Tensor, _mask: Tensor) -> Tensor:
        """The states of a batch that may be shorter."""
        return self.states[:, : input_ids.shape[1]]


class OfWidthOne(nn.Module):
    """The masked-LM head of a teacher whose product with the word table costs next to nothing."""

    def __init__(self, inputs: Tensor, vocabulary: int) -> None:
        super().__init__()
        self.inputs, self.bias = inputs, nn.Parameter(torch.zeros(vocabulary))

    def transform(self, states: Tensor) -> Tensor:
        """(R, H) -> (R, 1)."""
        return self.inputs[: len(states)]

    def matrix(self, word_table: Tensor) -> Tensor:
        """(V, 1) -> the same: what the transformed states are multiplied by."""
        return word_table


class Given(nn.Module):
    """A teacher whose forward pass costs next to nothing."""

    def __init__(self, case: Case, states: Tensor) -> None:
        super().__init__()
        self.encoder = Shown(states, case.v)
        self.mlm_head = OfWidthOne(states.new_ones(case.tokens, 1), case.v)


def give_states(case: Case, trainer: Trainer) -> None:
    """DistilBERT's student learns from a teacher in memory."""
    states = torch.randn(case.b, case.t, case.h)
    model: Any = trainer.model
    model.learn_from(Given(case, states.bfloat16() if trainer.machine.precision == "bf16" else states))


def give_layers(case: Case, trainer: Trainer) -> None:
    """TinyBERT's student learns from layers in memory."""
    model: Any = trainer.model
    teacher, observe = model.teacher.encoder, imitation.observe
    ids = torch.randint(5, case.v, (case.b, case.t))
    seen: list[imitation.Observed] = []

    def observed(encoder: Any, input_ids: Tensor, *rest: Any) -> imitation.Observed:
        if encoder is not teacher:
            return observe(encoder, input_ids, *rest)
        if not seen:
            full = (torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))
            seen.append(observe(encoder, ids, *full, *rest[2:]))
        (kept,), t = seen, input_ids.shape[1]
        hidden = tuple(states[:, :t] for states in kept.hidden)
        return imitation.Observed(kept.embedding[:, :t], hidden, tuple(a[:, :, :t, :t] for a in kept.attention))

    setattr(imitation, "observe", observed)  # noqa: B010 (another signature, for the types)


@torch.no_grad()
def logits_of_teacher(trainer: Trainer, batch: Any) -> None:
    """The forward pass of DistilBERT's teacher, with the logits of all real tokens, in pieces."""
    model: Any = trainer.model
    teacher = model.teacher
    states = teacher.encoder(batch.input_ids, batch.type_ids, batch.mask)
    x = teacher.mlm_head.transform(states[batch.mask.bool()])
    for piece in x.split(2048):
        F.linear(piece, teacher.encoder.embedding.word.weight, teacher.mlm_head.bias)


@torch.no_grad()
def layers_of_teacher(trainer: Trainer, batch: Any) -> None:
    """The forward pass of TinyBERT's teacher."""
    model: Any = trainer.model
    teacher, settings = model.teacher, trainer.config.method
    depths = (trainer.config.model.layers, teacher.shape.layers)
    layers = imitation.layers_of(settings.layer_map, *depths)
    ids, types, mask = batch.input_ids, batch.type_ids, batch.mask
    imitation.observe(teacher.encoder, ids, types, mask, layers, settings.attention_target)


#: Method -> what the student is given instead of its teacher, and the teacher's pass.
PARTS: dict[str, tuple[Callable[[Case, Trainer], None], Callable[[Trainer, Any], None]]] = {
    "distilbert": (give_states, logits_of_teacher), "tinybert": (give_layers, layers_of_teacher),
}  # fmt: skip


def whole_step(case: Case, method: str) -> Callable[[], Any]:
    """The step of a student with its teacher."""
    return in_line(side_of(our_trainer(case, *_PLAIN, f"method={method}")))


def student_alone(case: Case, method: str) -> Callable[[], Any]:
    """The step of a student that is given what its teacher would show."""
    trainer = our_trainer(case, *_PLAIN, f"method={method}")
    PARTS[method][0](case, trainer)
    return in_line(side_of(trainer))


def teacher_alone(case: Case, method: str) -> Callable[[], Any]:
    """The teacher's forward pass over a batch."""
    trainer = our_trainer(case, *_PLAIN, f"method={method}")
    batches = cycle([trainer.batches[number] for number in range(_BATCHES)])

    def forward() -> None:
        with trainer.machine.autocast():
            PARTS[method][1](trainer, next(batches))

    return forward


def compare(case: Case, method: str, seconds: float) -> dict[str, Any]:
    """One row."""
    contenders: dict[str, Build] = {
        part.__name__: partial(part, case, method) for part in (whole_step, student_alone, teacher_alone)
    }
    measured = take_turns(contenders, seconds)
    step, student, teacher = (measured[name].median for name in contenders)
    return {
        "method": method,
        "model": case.name,
        "step ms": round(1000 * step, 1),
        "student alone ms": round(1000 * student, 1),
        "teacher alone ms": round(1000 * teacher, 1),
        "step / both": step / (student + teacher),
    }


def main() -> None:
    """Run the chosen cases with both methods."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distillation", description=first_line(__doc__))
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--seconds", type=float, default=10, help="for each contender of each row")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    chosen = options.cases or CASES
    rows = [compare(CASES[name], method, options.seconds) for name in chosen for method in PARTS]
    notes = ["medians; share=none, E = 128, erf GELU, no dropout, no sentence loss, a teacher of twice the layers"]
    report("distillation", "Steps of students on CPU, bf16, AdamW", rows, notes, options.out)


if __name__ == "__main__":
    main()
