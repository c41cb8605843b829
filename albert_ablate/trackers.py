"""Mirrors of the metrics: Weights & Biases, TensorBoard, both or none.

The run folder is the record. A tracker that is not installed, cannot start or fails later is
reported once and left alone; it never changes or stops a run.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from albert_ablate.config import RunConfig
from albert_ablate.runs import RunFolder


class Tracker(Protocol):
    """What a run tells a mirror."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Numbers of one step."""

    def record(self, results: dict[str, Any], similarity: dict[str, Any]) -> None:
        """The content of ``results.json`` and ``similarity.json``."""

    def summarise(self, values: dict[str, float]) -> None:
        """The final numbers of a fine-tuning."""

    def close(self, failed: bool) -> None:
        """The end of the run."""


class WandbTracker:
    """Weights & Biases; offline by default, so no account is needed. A sweep is a group."""

    def __init__(self, config: RunConfig, folder: RunFolder, identity: str, job: str) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=config.tracker.project,
            group=config.sweep,
            id=identity,
            name=folder.name,
            job_type=job,
            tags=[f"E={config.embed.size}", f"share={config.share.strategy}", f"objective={config.objective.name}"],
            mode=config.tracker.mode,
            dir=str(folder.path),
            resume="allow",
            config=config.as_dict(),
            settings=wandb.Settings(silent=True),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """A row of the run's history."""
        self._run.log(values, step=step)

    def record(self, results: dict[str, Any], similarity: dict[str, Any]) -> None:
        """Summary, a table of the held-out scores, and the per-layer figure."""
        self._run.summary.update({**results, "similarity": similarity})
        rows: list[Any] = [
            [task, *_score(results[task])] for task in ("masked_lm", "nsp", "sop") if results[task] is not None
        ]
        table = self._wandb.Table(columns=["task", "accuracy", "low", "high", "examples"], data=rows)
        self._run.log({"held_out": table, "layers": self._wandb.Image(_layers_figure(similarity))})

    def summarise(self, values: dict[str, float]) -> None:
        """Into the run's summary."""
        self._run.summary.update(values)

    def close(self, failed: bool) -> None:
        """Finish inside the cell, so that the next cell of a sweep starts a run of its own."""
        self._run.finish(exit_code=int(failed))


class TensorboardTracker:
    """TensorBoard event files in the run folder's ``tensorboard/``."""

    def __init__(self, config: RunConfig, folder: RunFolder, identity: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder.path / "tensorboard"))
        self._writer.add_text("identity", identity)

    def log(self, step: int, values: dict[str, float]) -> None:
        """One scalar a number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def record(self, results: dict[str, Any], similarity: dict[str, Any]) -> None:
        """Held-out scores and the per-layer figure."""
        steps = results["training"]["steps"]
        for task in ("masked_lm", "nsp", "sop"):
            if results[task] is not None:
                self._writer.add_scalar(f"final/{task}_accuracy", results[task]["accuracy"], steps)
        self._writer.add_figure("layers", _layers_figure(similarity), steps)

    def summarise(self, values: dict[str, float]) -> None:
        """One scalar a number."""
        self.log(0, {f"final/{name}": value for name, value in values.items()})

    def close(self, failed: bool) -> None:
        """Flush and close the file."""
        self._writer.close()


class Trackers:
    """Every configured tracker; the first failure of one silences that one."""

    def __init__(self) -> None:
        self._working: dict[str, Tracker] = {}

    def start(self, name: str, make: Callable[[], Tracker]) -> None:
        """Add a tracker, or say why it is left out."""
        try:
            self._working[name] = make()
        except ModuleNotFoundError as error:
            _warn(name, f"is not installed ({error}); run `pip install {name}`. The run goes on without it")
        except Exception as error:
            _warn(name, f"did not start ({type(error).__name__}: {error}). The run goes on without it")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Numbers of one step, to all."""
        self._tell(lambda tracker: tracker.log(step, values))

    def record(self, results: dict[str, Any], similarity: dict[str, Any]) -> None:
        """The results, to all."""
        self._tell(lambda tracker: tracker.record(results, similarity))

    def summarise(self, values: dict[str, float]) -> None:
        """The final numbers of a fine-tuning, to all."""
        self._tell(lambda tracker: tracker.summarise(values))

    def close(self, failed: bool) -> None:
        """The end, to all."""
        self._tell(lambda tracker: tracker.close(failed))

    def _tell(self, message: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._working.items()):
            try:
                message(tracker)
            except Exception as error:
                del self._working[name]
                _warn(name, f"failed ({type(error).__name__}: {error}) and is left out from here")


def untracked(config: RunConfig) -> RunConfig:
    """The same run without mirrors, for a process that must not write."""
    return replace(config, tracker=replace(config.tracker, wandb=False, tensorboard=False))


@contextmanager
def open_trackers(config: RunConfig, folder: RunFolder, identity: str, job: str = "pretrain") -> Iterator[Trackers]:
    """The configured trackers, closed at the end of the body, however it ends."""
    trackers = Trackers()
    if config.tracker.wandb:
        trackers.start("wandb", lambda: WandbTracker(config, folder, identity, job))
    if config.tracker.tensorboard:
        trackers.start("tensorboard", lambda: TensorboardTracker(config, folder, identity))
    try:
        yield trackers
    except BaseException:
        trackers.close(failed=True)
        raise
    trackers.close(failed=False)


def _warn(name: str, text: str) -> None:
    warnings.warn(f"tracker {name} {text}", stacklevel=3)


def _score(task: dict[str, Any]) -> list[float]:
    return [task["accuracy"], *task["interval"], task["examples"]]


def _layers_figure(similarity: dict[str, Any]) -> Any:
    """Input against output of each layer, as in the paper's Figure 1."""
    from matplotlib.figure import Figure  # takes a while to load

    figure = Figure(figsize=(8, 3), layout="constrained")
    distance, angle = figure.subplots(1, 2)
    layers = range(1, len(similarity["l2"]) + 1)
    distance.plot(layers, similarity["l2"], marker="o")
    distance.set(xlabel="layer", ylabel="L2 distance", ylim=(0, None))
    angle.plot(layers, similarity["degrees"], marker="o")
    angle.set(xlabel="layer", ylabel="angle, degrees", ylim=(0, None))
    return figure
