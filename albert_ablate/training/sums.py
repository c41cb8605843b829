"""Sums of named losses and hits, and the means that log lines show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from albert_ablate.methods.method import Term

#: The sums of checkpoints written before they had names, and what each was a mean over.
_UNNAMED = {
    "mlm_loss": "masked", "mlm_accuracy": "masked", "sentence_loss": "sequences", "sentence_accuracy": "sequences",
}  # fmt: skip


@dataclass(frozen=True)
class Totals:
    """Losses and hits of a step, summed; on the device until they are asked for."""

    per: Mapping[str, str]  # name, such as mlm_loss or mlm_accuracy -> the count that its mean is over
    values: Tensor  # (len(per),) fp32, in this order

    @classmethod
    def of(cls, terms: Sequence[Term]) -> "Totals":
        """Of one micro-batch."""
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
        """One sum, a scalar on the device."""
        return self.values[list(self.per).index(name)]

    def means(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Each sum over its count; 0 where nothing was counted."""
        values = self.values.tolist()
        return {name: value / max(counts[key], 1) for (name, key), value in zip(self.per.items(), values, strict=True)}


class Sums:
    """What has gathered since the last log line."""

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0  # of training, up to the last checkpoint
        self.counts: dict[str, int] = {}  # masked positions, sequences, tokens: whatever the batches count
        self.totals: Totals | None = None

    def add(self, counts: Mapping[str, int], totals: Totals) -> None:
        """Add one step."""
        self.steps += 1
        self.counts = {key: self.counts.get(key, 0) + count for key, count in counts.items()}
        self.totals = totals if self.totals is None else self.totals + totals

    def means(self) -> dict[str, float]:
        """Losses and accuracies by name; there must have been a step."""
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
        """Undo ``as_dict``; None for checkpoints written before sums were saved."""
        sums = cls()
        if plain is None:
            return sums
        sums.steps, sums.seconds = plain["steps"], plain["seconds"]
        older = "counts" not in plain
        sums.counts = {key: plain[key] for key in ("masked", "sequences", "tokens")} if older else plain["counts"]
        if plain.get("values") is not None:
            values = torch.tensor(plain["values"], device=device)
            sums.totals = Totals(plain.get("per", _UNNAMED), values)
        return sums
