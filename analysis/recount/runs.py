"""The files of a run folder, read once."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from albert_ablate.axes import AXES, SENTENCE_TASKS

from .files import at, middle, read_json, read_lines, read_yaml


class Run:
    """One run folder. ``tasks`` holds the recorded fine-tuned tasks; ``fine_tunings`` replaces them by derived ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.status: dict[str, Any] = read_json(folder / "status.json")
        self.config: dict[str, Any] = read_yaml(folder / "config.yaml")
        self.manifest: dict[str, Any] = read_json(folder / "manifest.json")
        self.similarity: dict[str, Any] = read_json(folder / "similarity.json")
        self.timings: dict[str, Any] = read_json(folder / "latency.json")
        self.state = str(self.status.get("state", "unknown"))
        if self.state == "running" and not (folder / "lock.json").is_file():
            self.state = "preempted"
        finished = self.state == "finished"
        self.results: dict[str, Any] = read_json(folder / "results.json") if finished else {}
        lines = read_lines(folder / "metrics.jsonl") if finished else []
        self.lines = [line for line in lines if line is not None]
        self.broken = len(lines) - len(self.lines)
        self.tasks: list[dict[str, Any]] = self.results.get("tasks") or []
        self.teacher: Run | None = None  # of a student, if it is among the runs

    @property
    def seed(self) -> int:
        """The seed of pretraining."""
        return int(self.config.get("seed", 0))

    @property
    def identity(self) -> str:
        """The identity in the manifest, else the last part of the folder's name."""
        return str(self.manifest.get("identity") or self.name.rpartition("-")[2])

    @property
    def inference_spread(self) -> float | None:
        """The 90th over the 10th percentile of the passes that were timed."""
        ends = at(self.results, "inference.percentiles")
        return ends[1] / ends[0] if ends and ends[0] else None

    @property
    def inference_setting(self) -> str | None:
        """How inference was timed, as ``runs.csv`` has it; None where it was not."""
        taken = self.results.get("inference")
        if not taken:
            return None
        parts = [f"{taken.get('sequences') or 1}×{taken.get('length')} tokens", str(taken.get("device"))]
        return ", ".join([*parts, f"{taken.get('threads')} threads", str(taken.get("precision"))])

    def latency(self, form: str) -> dict[str, Any]:
        """The timing of one sequence with one thread, nearest to 128 tokens, and how it was taken; empty if none."""
        alone = [one for one in self.timings.get("timings") or [] if one["threads"] == one["sequences"] == 1]
        alone = sorted((one for one in alone if one["form"] == form), key=lambda one: one["length"])
        if not alone:
            return {}
        nearest = min(alone, key=lambda one: abs(one["length"] - 128))
        machine = self.timings["machine"]
        library = f"PyTorch {machine['torch']}" if form == "eager" else f"ONNX Runtime {machine['onnxruntime']}"
        where = f"{machine['cpu']} with {machine['processors']} processors"
        return {**nearest, "setting": f"1×{nearest['length']} tokens, 1 thread, fp32, {where}, {library}"}

    @property
    def counts(self) -> bool:
        """Whether the run is finished and has a number."""
        tasks = (f"{task}.accuracy" for task in SENTENCE_TASKS)
        paths = ("training.steps", "masked_lm.accuracy", "masked_lm.loss", *tasks)
        return self.state == "finished" and any(at(self.results, path) is not None for path in paths)

    @cached_property
    def updated(self) -> datetime | None:
        """Time of the last change of the status; None where it cannot be read."""
        try:
            moment = datetime.fromisoformat(self.status["updated"])
        except (KeyError, TypeError, ValueError):
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @cached_property
    def rates(self) -> list[float]:
        """Tokens/s of each log interval: added tokens over added seconds.

        The recorded speeds, if a line lacks tokens or seconds or is broken.
        """
        recorded = [line["tokens_per_second"] for line in self.lines if line.get("tokens_per_second")]
        derived = [rate for rate in self.intervals if rate is not None]
        return derived if not self.broken and len(derived) == len(self.lines) == len(recorded) else recorded

    @cached_property
    def intervals(self) -> list[float | None]:
        """Tokens/s of every line; None where tokens or seconds are missing or did not grow."""
        rates: list[float | None] = []
        tokens: Any = 0
        seconds: Any = 0.0
        for line in self.lines:
            now, then = line.get("tokens"), line.get("seconds")
            grown = now is not None and then is not None and tokens is not None and then > (seconds or 0.0)
            rates.append((now - tokens) / (then - seconds) if grown else None)
            tokens, seconds = now, then
        return rates

    @property
    def speed(self) -> float | None:
        """Median tokens/s; tokens/s of the whole training where no intervals are kept."""
        return middle(self.rates) if self.rates else at(self.results, "training.tokens_per_second")

    @property
    def unevenness(self) -> float | None:
        """Upper over lower quartile of the speed."""
        return middle(self.rates, 0.75) / middle(self.rates, 0.25) if self.rates else None


def link_teachers(runs: Sequence[Run]) -> None:
    """Give each student its teacher's run, if it is finished and among ``runs``."""
    by_identity = {run.identity: run for run in sorted(runs, key=lambda run: run.name, reverse=True)
                   if run.state == "finished"}  # fmt: skip
    for run in runs:
        named = at(run.manifest, "teacher.identity") or at(run.config, "method.teacher_run")
        run.teacher = None if named is None else by_identity.get(named)


def mark_copies(runs: Sequence[Run]) -> None:
    """Gives the state ``copy`` to all but one of several folders with one identity and the same axes.

    The finished one counts, then one with complete records, then the newest, then the one with most fine-tunings.
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
