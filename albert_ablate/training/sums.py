"""What a log line averages over: counts and losses since the last one."""

from typing import Any

import torch
from torch import Tensor


class Sums:
    """Values stay on the device until they are asked for."""

    def __init__(self) -> None:
        self.steps = self.sequences = self.tokens = self.masked = 0
        self.seconds = 0.0  # of training, up to the last checkpoint
        self.values: Tensor | None = None  # (4,): MLM loss and correct, sentence loss and correct

    def add(self, sequences: int, tokens: int, masked: int, values: Tensor) -> None:
        """One step."""
        self.steps += 1
        self.sequences += sequences
        self.tokens += tokens
        self.masked += masked
        self.values = values if self.values is None else self.values + values

    def means(self, trains_sentences: bool) -> dict[str, float]:
        """Losses in nats and accuracies; the masked-LM ones over all masked positions of these steps."""
        assert self.values is not None
        mlm_loss, mlm_correct, sentence_loss, sentence_correct = self.values.tolist()
        means = {"mlm_loss": mlm_loss / max(self.masked, 1), "mlm_accuracy": mlm_correct / max(self.masked, 1)}
        if trains_sentences:
            means["sentence_loss"] = sentence_loss / self.sequences
            means["sentence_accuracy"] = sentence_correct / self.sequences
        return means

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint between two log lines."""
        values = None if self.values is None else self.values.tolist()
        plain = {name: getattr(self, name) for name in ("steps", "sequences", "tokens", "masked", "seconds")}
        return plain | {"values": values}

    @classmethod
    def from_dict(cls, plain: dict[str, Any] | None, device: torch.device) -> "Sums":
        """What ``as_dict`` gave; None for a checkpoint of before it was kept."""
        sums = cls()
        for name, value in (plain or {}).items():
            on_device = name == "values" and value is not None
            setattr(sums, name, torch.tensor(value, device=device) if on_device else value)
        return sums
