"""The settings of facts in fine-tuning (K-BERT), and settings that exclude each other."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from albert_ablate.config.tasks import Count, FineTuneConfig, Positive, TaskConfig

#: Settings that only branches have, with their defaults.
_BRANCHES: Mapping[str, Any] = {"soft_positions": True, "visible_matrix": True}
#: Settings that have no effect without facts, with their defaults.
KNOWLEDGE: Mapping[str, Any] = {
    "file": None, "max_triples": 2, "relation_text": True, "shuffle_seed": None, **_BRANCHES,
}  # fmt: skip


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class KnowledgeConfig:
    """Facts about the words of a text, beside the text (Liu et al., 2020, "K-BERT")."""

    name: Literal["none", "inject", "text"]
    file: Annotated[str, Field(min_length=1)] | None  # subject, predicate, object; None: the task's own facts
    max_triples: Positive  # of a mention
    relation_text: bool
    soft_positions: bool
    visible_matrix: bool
    shuffle_seed: Count | None

    @property
    def reads_facts(self) -> bool:
        """Whether texts get facts."""
        return self.name != "none"

    @property
    def as_branches(self) -> bool:
        """Whether facts stand beside their mention, else after the text."""
        return self.name == "inject"

    def counted(self) -> dict[str, Any]:
        """The settings that change numbers, without the file, whose content counts."""
        unread = {"file", *(() if self.as_branches else _BRANCHES)}
        return {key: value for key, value in vars(self).items() if key in ("name", *KNOWLEDGE) and key not in unread}


def unread_facts(settings: Mapping[str, Any]) -> frozenset[str]:
    """Full names of the settings of facts that a run with the flat ``settings`` does not read."""
    name = settings.get("knowledge.name", "none")
    unread = KNOWLEDGE if name == "none" else {} if name == "inject" else _BRANCHES
    return frozenset(f"knowledge.{key}" for key in unread)


def knowledge_contradictions(
    knowledge: KnowledgeConfig, common: FineTuneConfig, tasks: Mapping[str, TaskConfig], sees_all: bool
) -> list[str]:
    """One message for each contradiction. ``sees_all``: whether every position attends to all others."""
    unread = [] if knowledge.as_branches else list(_BRANCHES)
    remedy = "knowledge=inject"
    if not knowledge.reads_facts:
        unread, remedy = list(KNOWLEDGE), "knowledge=inject or knowledge=text"
    problems = [
        f"knowledge.{key}={_plain(getattr(knowledge, key))}: no effect with knowledge={knowledge.name}. Give {remedy}, "
        "or leave it."
        for key in unread
        if getattr(knowledge, key) != KNOWLEDGE[key]
    ]
    if not knowledge.reads_facts:
        return problems
    said = f"knowledge={knowledge.name}"
    without = [name for name, task in tasks.items() if not task.takes_facts]
    if without:
        problems.append(
            f"{said} with task={','.join(without)}: facts are read beside texts whose head answers for the whole text. "
            "Leave these tasks out, or use knowledge=none."
        )
    foreign = [name for name, task in tasks.items() if task.takes_facts and not task.own_facts]
    if knowledge.file is None and foreign:
        problems.append(
            f"knowledge.file is empty: {said} needs facts for task={','.join(foreign)}. Give "
            "knowledge.file=FACTS.tsv, with subject, predicate and object in each line, separated by tabs."
        )
    if knowledge.as_branches and not sees_all:
        problems.append(
            f"{said}: a branch stands after its mention, which attends only to what is before it in this model, so no "
            "fact would reach the sentence. Use knowledge=text with task.pool=last, or a model that sees both sides."
        )
    if common.distil.teacher is not None:
        problems.append(
            f"{said} with task.distil.teacher={common.distil.teacher}: the teacher does not read facts, so its layers "
            "have no states at their tokens. Use knowledge=none, or leave task.distil.teacher empty."
        )
    if common.augment.copies:
        problems.append(
            f"{said} with task.augment.copies={common.augment.copies}: a copy may lose the words that a fact is about. "
            "Use knowledge=none, or set task.augment.copies=0."
        )
    return problems


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
