"""Sums of named losses and hits, and the means that log lines show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from albert_ablate.methods.method import Term

#: Name -> count of each sum in checkpoints written before sums were saved with names.
_UNNAMED = {
    "mlm_loss": "masked", "mlm_accuracy": "masked", "sentence_loss": "sequences", "sentence_accuracy": "sequences",
}  # fmt: skip


@dataclass(frozen=True)
class Totals:
    """Sums of losses and hits. They stay on the device until they are read."""

    per: Mapping[str, str]  # name, such as mlm_loss or mlm_accuracy -> the count that is its mean's denominator
    values: Tensor  # (len(per),) fp32, in the order of ``per``

    @classmethod
    def of(cls, terms: Sequence[Term]) -> "Totals":
        """The sums of a micro-batch."""
        per, values = {}, []
        for term in terms:
            per[f"{term.name}_loss"] = term.per
            values.append(term.loss_sum.detach().float())
            if term.hits is not None:
                per[f"{term.name}_accuracy"] = term.per
                values.append(term.hits.detach().float())
        return cls(per, torch.stack(values))

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.per, self.values + other.values)

    def __getitem__(self, name: str) -> Tensor:
        """The sum with this name, a scalar on the device."""
        return self.values[list(self.per).index(name)]

    def means(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Each sum divided by its count; 0 if the count is 0."""
        values = self.values.tolist()
        return {name: value / max(counts[key], 1) for (name, key), value in zip(self.per.items(), values, strict=True)}


class Sums:
    """Sums and counts since the last log line."""

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0  # of training, up to the last checkpoint
        self.counts: dict[str, int] = {}  # such as masked positions, sequences and tokens
        self.totals: Totals | None = None

    def add(self, counts: Mapping[str, int], totals: Totals) -> None:
        """Add a step."""
        self.steps += 1
        self.counts = {key: self.counts.get(key, 0) + count for key, count in counts.items()}
        self.totals = totals if self.totals is None else self.totals + totals

    def means(self) -> dict[str, float]:
        """Mean losses and accuracies by name, over at least one step."""
        assert self.totals is not None
        return self.totals.means(self.counts)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint between two log lines."""
        plain: dict[str, Any] = {"steps": self.steps, "seconds": self.seconds, "counts": self.counts}
        if self.totals is not None:
            plain |= {"per": dict(self.totals.per), "values": self.totals.values.tolist()}
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any] | None, device: torch.device) -> "Sums":
        """The inverse of ``as_dict``. ``plain`` is None in checkpoints written before sums were saved."""
        sums = cls()
        if plain is None:
            return sums
        sums.steps, sums.seconds = plain["steps"], plain["seconds"]
        unnamed = "counts" not in plain
        sums.counts = {key: plain[key] for key in ("masked", "sequences", "tokens")} if unnamed else plain["counts"]
        if plain.get("values") is not None:
            values = torch.tensor(plain["values"], device=device)
            sums.totals = Totals(plain.get("per", _UNNAMED), values)
        return sums
