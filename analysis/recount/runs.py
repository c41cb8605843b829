"""A run folder's files, read once; its fine-tunings as their own folders give them."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from albert_ablate.axes import AXES, SENTENCE_TASKS

from .files import at, middle, read_json, read_lines, read_yaml


class Run:
    """One run folder. ``tasks`` holds entries of fine-tuned tasks, for ``fine_tunings`` to replace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.status: dict[str, Any] = read_json(folder / "status.json")
        self.config: dict[str, Any] = read_yaml(folder / "config.yaml")
        self.manifest: dict[str, Any] = read_json(folder / "manifest.json")
        self.similarity: dict[str, Any] = read_json(folder / "similarity.json")
        self.state = str(self.status.get("state", "unknown"))
        if self.state == "running" and not (folder / "lock.json").is_file():
            self.state = "preempted"
        finished = self.state == "finished"
        self.results: dict[str, Any] = read_json(folder / "results.json") if finished else {}
        lines = read_lines(folder / "metrics.jsonl") if finished else []
        self.lines = [line for line in lines if line is not None]
        self.broken = len(lines) - len(self.lines)
        self.tasks: list[dict[str, Any]] = self.results.get("tasks") or []

    @property
    def seed(self) -> int:
        """Of pretraining."""
        return int(self.config.get("seed", 0))

    @property
    def identity(self) -> str:
        """Of the manifest, else the end of the folder's name."""
        return str(self.manifest.get("identity") or self.name.rpartition("-")[2])

    @property
    def counts(self) -> bool:
        """Whether it is finished and has a number."""
        tasks = (f"{task}.accuracy" for task in SENTENCE_TASKS)
        paths = ("training.steps", "masked_lm.accuracy", "masked_lm.loss", *tasks)
        return self.state == "finished" and any(at(self.results, path) is not None for path in paths)

    @cached_property
    def updated(self) -> datetime | None:
        """When the status changed last."""
        try:
            found = datetime.fromisoformat(self.status["updated"])
        except (KeyError, TypeError, ValueError):
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    @cached_property
    def rates(self) -> list[float]:
        """Tokens a second of each log interval: what was added to tokens over what was added to seconds.

        Where a line does not say both, or one is broken, as it is recorded.
        """
        recorded = [line["tokens_per_second"] for line in self.lines if line.get("tokens_per_second")]
        derived = [rate for rate in self.intervals if rate is not None]
        return derived if not self.broken and len(derived) == len(self.lines) == len(recorded) else recorded

    @cached_property
    def intervals(self) -> list[float | None]:
        """The same for every line; None where tokens or seconds are not said or did not grow."""
        found: list[float | None] = []
        tokens: Any = 0
        seconds: Any = 0.0
        for line in self.lines:
            now, then = line.get("tokens"), line.get("seconds")
            grown = now is not None and then is not None and tokens is not None and then > (seconds or 0.0)
            found.append((now - tokens) / (then - seconds) if grown else None)
            tokens, seconds = now, then
        return found

    @property
    def speed(self) -> float | None:
        """Median tokens a second; of the whole training where no intervals are kept."""
        return middle(self.rates) if self.rates else at(self.results, "training.tokens_per_second")

    @property
    def unevenness(self) -> float | None:
        """Upper over lower quartile of the speed."""
        return middle(self.rates, 0.75) / middle(self.rates, 0.25) if self.rates else None


def mark_copies(runs: Sequence[Run]) -> None:
    """Of several folders with one identity and the same axes all but one get the state ``copy``.

    The finished one counts, then one whose records are whole, then the newest, then one with most fine-tunings.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if re.fullmatch("[0-9a-f]{12}", run.identity):
            axes = (axis.of(run.config) for axis in AXES)
            rest = (at(run.config, path) for path in ("seed", "model.hidden", "model.layers"))
            groups.setdefault((run.identity, *axes, *rest), []).append(run)
    for members in groups.values():
        best = max(members, key=_worth)
        for run in members:
            if run is not best:
                run.state = "copy"


def _worth(run: Run) -> tuple[Any, ...]:
    whole = bool(run.config and run.manifest and run.results and run.similarity)
    stamp = run.updated.timestamp() if run.updated else float("-inf")
    return run.state == "finished", whole, stamp, len(run.tasks), str(run.folder)
