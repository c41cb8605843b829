"""What methods that learn from a teacher have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from albert_ablate.errors import ConfigError
from albert_ablate.methods.continued import continued
from albert_ablate.methods.method import Method, Term, sentence_term
from albert_ablate.methods.mlm import model_parameters
from albert_ablate.methods.parents import Parent, as_word
from albert_ablate.methods.teacher import TEACHER, require_same_text, teacher_of
from albert_ablate.model.architecture import Architecture, ParameterCount

if TYPE_CHECKING:  # they load torch
    from torch import Tensor

    from albert_ablate.data.batches import Batch
    from albert_ablate.model.pretraining import PretrainingModel
    from albert_ablate.model.student import StudentModel


class Student(Method):
    """A method whose model learns from a teacher: a finished run, without dropout and gradients."""

    def parameters(self) -> ParameterCount:
        """As masked LM's; the teacher is not trained."""
        return model_parameters(self.config)

    @cached_property
    def teacher(self) -> Parent:
        """The teacher's run. Raises UserError if it cannot be read."""
        return teacher_of(self.config)

    @property
    def teacher_shape(self) -> Architecture:
        """The shape of the teacher."""
        return self.teacher.config.architecture()

    def parents(self) -> tuple[Parent, ...]:
        """The teacher. Raises ConfigError if the student cannot learn from it."""
        shallower, name = list(self.config.warm_start.layers), self.config.method.name
        if (length := self.config.warm_start.length) is not None:
            raise ConfigError(
                f"warm_start.length={length}: a student with method={name} begins with random layers or those of its "
                "teacher. Leave it empty and set method.start."
            )
        if shallower:
            raise ConfigError(
                f"warm_start.layers={shallower}: a student with method={name} begins with random layers or those of "
                "its teacher. Leave it empty and set method.start."
            )
        require_same_text(self.config, self.teacher.config)
        problems = self.problems()
        if problems:
            raise ConfigError(problems)
        return (self.teacher, *continued(self.config))

    def problems(self) -> list[str]:
        """A sentence for each way in which student and teacher do not fit."""
        return self._start_problems() if self.config.method.start == "teacher" else []

    def _start_problems(self) -> list[str]:
        """Why the student cannot begin with layers of its teacher."""
        from albert_ablate.model.student import copied_blocks

        ours, theirs = self.config.architecture(), self.teacher_shape
        wanted = "method.start=teacher"
        sizes = {
            "embed.size": (ours.embedding_size, theirs.embedding_size),
            "model.hidden": (ours.hidden_size, theirs.hidden_size),
            "model.intermediate": (ours.intermediate_size, theirs.intermediate_size),
            "model.heads": (ours.heads, theirs.heads),
            "model.max_positions": (ours.max_positions, theirs.max_positions),
            "model.norm": (ours.norm, theirs.norm),
            "model.embedding_norm": (as_word(ours.embedding_norm), as_word(theirs.embedding_norm)),
        }
        problems = [
            f"{wanted}: {name}={own}, the teacher has {other}. Set it to {other}, or use method.start=random."
            for name, (own, other) in sizes.items()
            if own != other
        ]
        if problems:
            return problems
        if self.config.method.copy_transform and ours.lm_head != theirs.lm_head:
            return [
                f"{wanted} with method.copy_transform=true: model.lm_head={ours.lm_head}, the teacher has "
                f"{theirs.lm_head}. Set it to {theirs.lm_head}, or use method.copy_transform=false."
            ]
        if ours.has_projection != theirs.has_projection:
            return [
                f"{wanted}: model.projection differs from the teacher's. Make it equal, or use method.start=random."
            ]
        if any(len(sources) > 1 for sources in copied_blocks(ours, theirs).values()):
            return [
                f"{wanted} with share={ours.share}: layers of the student share a block, and those of the teacher that "
                "they begin with differ. Use a teacher that shares as the student does, or method.start=random."
            ]
        return []

    def flops(self) -> float:
        """FLOPs of the student's three passes and one forward pass of the teacher."""
        return self.student_flops() + self.teacher_flops()

    @abstractmethod
    def teacher_flops(self) -> float:
        """FLOPs of the teacher for one training sequence: forward."""

    @abstractmethod
    def student_flops(self) -> float:
        """FLOPs of the student for one training sequence: forward and backward."""

    def lookup_flops(self) -> float:
        """Three passes of the student and one of the teacher."""
        return super().lookup_flops() + self.teacher_shape.lookup_flops(self.config.pairs.max_length)

    def build(self, parents: Mapping[str, Path]) -> "StudentModel":
        """The student; with what it needs to learn from its teacher if there is a teacher's run."""
        from albert_ablate.model.student import load_teacher

        model = self.new_model()
        if TEACHER in parents:
            self.take_teacher(model, load_teacher(parents[TEACHER], self.teacher_shape))
        return model

    def rehearsal(self) -> "StudentModel":
        """With a random teacher, which differs from the student."""
        from albert_ablate.model.pretraining import build_model

        model = self.new_model()
        self.take_teacher(model, build_model(self.teacher_shape, self.config.seed + 1, pooler=False))
        return model

    def take_teacher(self, model: "StudentModel", teacher: "PretrainingModel") -> None:
        """Give ``model`` its teacher and, if ``method.start`` says so, the first values of its layers."""
        from albert_ablate.model.student import begin_with

        model.learn_from(teacher)
        if self.config.method.start == "teacher":
            begin_with(model, teacher, self.config.method.copy_transform)

    def new_model(self) -> "StudentModel":
        """The student, initialised from the seed."""
        from albert_ablate.model.base import without_values
        from albert_ablate.model.pretraining import initialise
        from albert_ablate.model.student import StudentModel

        c = self.config
        shape = c.architecture()
        model = without_values(lambda: StudentModel(shape, c.has_pooler))
        initialise(model, shape.initializer_range, c.seed)
        return model

    def sentence_terms(self, model: "StudentModel", batch: "Batch", first: "Tensor") -> "tuple[Term, ...]":
        """The sentence loss of the objective, if it has one, from the (B, H) states of [CLS]."""
        if not self.config.objective.name.trains_sentences:
            return ()
        logits = model.sentence_logits(first[:, None])
        return (sentence_term(logits, batch.labels, self.config.method.sentence_weight),)
