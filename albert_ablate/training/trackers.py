"""Trackers mirror the metrics: Weights & Biases, TensorBoard, both or none.

The run folder remains the record. Each tracker works in a separate thread. A tracker that is not installed, does not
start, fails or hangs is reported once and then left out. Trackers never change, stop or delay a run.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from albert_ablate import console
from albert_ablate.axes import AXES, CAUSAL_LM, HELD_OUT_SCORES, REPLACED_TOKENS
from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import UserError
from albert_ablate.record.folder import RunFolder

#: The W&B project if neither a setting nor WANDB_PROJECT names one.
_PROJECT = "albert-ablate"
#: Largest number of messages that wait for a tracker.
_MOST_WAITING = 10_000
#: Seconds without an answer after which a tracker is left out: at the end of a run; if a run is stopped or fails.
_PATIENCE, _PATIENCE_FAILED = 60.0, 10.0
#: Seconds that W&B may wait for the user to enter an API key.
_LOGIN_SECONDS = 30.0


class Tracker(Protocol):
    """The interface of trackers."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the metrics of a step."""

    def record(self, results: dict[str, Any], similarity: dict[str, Any]) -> None:
        """Log the content of ``results.json`` and ``similarity.json``."""

    def summarise(self, values: dict[str, float]) -> None:
        """Log the final numbers of a fine-tuning."""

    def close(self, failed: bool) -> None:
        """End the run."""


class WandbTracker:
    """Weights & Biases. Offline by default, so that no account is needed. A sweep is a group."""

    def __init__(self, config: RunConfig, folder: RunFolder, identity: str, job: str) -> None:
        import wandb

        self._wandb = wandb
        axes = [f"{axis.name}={axis.value(config)}" for axis in AXES]
        self._run = wandb.init(
            project=wandb_project(config.tracker.project),
            group=config.sweep,
            id=identity,
            name=os.environ.get("WANDB_NAME") or folder.name,
            job_type=job,
            tags=[*axes, *filter(None, os.environ.get("WANDB_TAGS", "").split(","))],
            mode=wandb_mode(config.tracker.mode),  # type: ignore[arg-type]
            dir=wandb_folder(folder.path),
            resume="allow",
            config=config.as_dict(),
            settings=wandb.Settings(silent=True, login_timeout=_LOGIN_SECONDS),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add a row to the run's history."""
        self._run.log(values, step=step)

    def record(self, results: dict[str, Any], similarity: dict[str, Any]) -> None:
        """Log the summary, a table of held-out scores and the figure of the layers."""
        self._run.summary.update({**results, "similarity": similarity})
        rows: list[Any] = [[task, *_score(results[task])] for task in HELD_OUT_SCORES if results[task] is not None]
        table = self._wandb.Table(columns=["task", "accuracy", "low", "high", "examples"], data=rows)
        self._run.log({"held_out": table, "layers": self._wandb.Image(_layers_figure(similarity))})

    def summarise(self, values: dict[str, float]) -> None:
        """Add to the run's summary."""
        self._run.summary.update(values)

    def close(self, failed: bool) -> None:
        """Finish within the cell, so that the next cell of a sweep starts a new run."""
        self._run.finish(exit_code=int(failed))


class TensorboardTracker:
    """TensorBoard event files in the run folder's ``tensorboard/``."""

    def __init__(self, config: RunConfig, folder: RunFolder, identity: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder.path / "tensorboard"))
        self._writer.add_text("identity", identity)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log each number as a scalar."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def record(self, results: dict[str, Any], similarity: dict[str, Any]) -> None:
        """Log the held-out scores and the figure of the layers."""
        steps = results["training"]["steps"]
        for task in HELD_OUT_SCORES:
            if results[task] is not None:
                self._writer.add_scalar(f"final/{task}_accuracy", results[task]["accuracy"], steps)
        if results.get(REPLACED_TOKENS) is not None:
            self._writer.add_scalar(f"final/{REPLACED_TOKENS}_auc", results[REPLACED_TOKENS]["auc"], steps)
        if results.get(CAUSAL_LM) is not None:
            self._writer.add_scalar("final/bits_per_byte", results[CAUSAL_LM]["bits_per_byte"], steps)
        self._writer.add_figure("layers", _layers_figure(similarity), steps)

    def summarise(self, values: dict[str, float]) -> None:
        """Log each number as a scalar."""
        self.log(0, {f"final/{name}": value for name, value in values.items()})

    def close(self, failed: bool) -> None:
        """Flush and close the file."""
        self._writer.close()


def wandb_project(setting: str | None) -> str:
    """The setting, else WANDB_PROJECT, else this project's name."""
    return setting or os.environ.get("WANDB_PROJECT") or _PROJECT


def wandb_mode(setting: str | None) -> str:
    """The setting, else WANDB_DISABLED and WANDB_MODE, else offline."""
    if setting is not None:
        return setting
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        return "disabled"
    return os.environ.get("WANDB_MODE") or "offline"


def wandb_folder(default: Path) -> str:
    """WANDB_DIR if it is writable, else ``default``."""
    folder = os.environ.get("WANDB_DIR", "")
    return folder if folder and os.access(folder, os.W_OK) else str(default)


class _Mirror(threading.Thread):
    """The thread of a tracker, with a queue of messages. The run does not wait for it."""

    def __init__(self, name: str, make: Callable[[], Tracker], say: Callable[[str, str], None]) -> None:
        super().__init__(name=f"tracker {name}", daemon=True)
        self._title = name
        self._make = make
        self._say = say
        self._waiting: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(_MOST_WAITING)
        self._left_out = False
        self._answered = 0  # messages handled
        self.start()

    def run(self) -> None:
        try:
            tracker = self._make()
        except BaseException as error:
            return self._leave_out(did_not_start(error))
        try:
            while (message := self._waiting.get()) is not None:
                message(tracker)
                self._answered += 1
        except BaseException as error:
            self._leave_out(f"failed ({type(error).__name__}: {error}) and is left out from now on")

    def tell(self, message: Callable[[Tracker], None] | None) -> None:
        """Queue a message for the tracker; None ends the thread."""
        if not self._left_out:
            try:
                self._waiting.put_nowait(message)
            except queue.Full:
                self._leave_out(f"is {_MOST_WAITING:,} messages late and is left out from now on")

    def finish(self, patience: float) -> None:
        """Wait until all messages are handled, at most ``patience`` seconds for each."""
        self.tell(None)
        answered = -1
        while self.is_alive() and not self._left_out and answered != self._answered:
            answered = self._answered
            self.join(patience)
        if self.is_alive() and not self._left_out:
            self._leave_out(f"has not answered for {patience:.0f} s and is left out")

    def _leave_out(self, why: str) -> None:
        if not self._left_out:
            self._left_out = True
            self._say(self._title, why)


def did_not_start(error: BaseException) -> str:
    """The message about a tracker that raised ``error`` at its start."""
    return f"did not start ({type(error).__name__}: {error}). The run goes on without it"


class Trackers:
    """All configured trackers. ``say`` receives a message for each tracker that is left out, with the reason."""

    def __init__(self, say: Callable[[str], None] = console.say) -> None:
        self._say = say
        self._mirrors: list[_Mirror] = []

    def start(self, name: str, module: str, make: Callable[[], Tracker]) -> None:
        """Add the tracker ``make()``, which needs ``module``."""
        try:
            import_module(module)  # in this thread: forking during an import in another thread can deadlock
        except UserError:
            raise  # a stop signal
        except ModuleNotFoundError as error:
            self._tell_user(name, f"is not installed ({error}); run `pip install {name}`. The run goes on without it")
        except Exception as error:
            self._tell_user(name, did_not_start(error))
        else:
            self._mirrors.append(_Mirror(name, make, self._tell_user))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send the metrics of a step to all trackers."""
        self._tell(lambda tracker: tracker.log(step, values))

    def record(self, results: dict[str, Any], similarity: dict[str, Any]) -> None:
        """Send the results to all trackers."""
        self._tell(lambda tracker: tracker.record(results, similarity))

    def summarise(self, values: dict[str, float]) -> None:
        """Send the final numbers of a fine-tuning to all trackers."""
        self._tell(lambda tracker: tracker.summarise(values))

    def close(self, failed: bool) -> None:
        """End all trackers; wait for those that still answer."""
        self._tell(lambda tracker: tracker.close(failed))
        for mirror in self._mirrors:
            mirror.finish(_PATIENCE_FAILED if failed else _PATIENCE)

    def _tell_user(self, name: str, why: str) -> None:
        text = f"tracker {name} {' '.join(why.split())}"
        try:
            self._say(text)
        except OSError:  # from writing the run's log
            console.say(text)

    def _tell(self, message: Callable[[Tracker], None]) -> None:
        for mirror in self._mirrors:
            mirror.tell(message)


def untracked(config: RunConfig) -> RunConfig:
    """The same run without trackers, for a process that must not write."""
    return replace(config, tracker=replace(config.tracker, wandb=False, tensorboard=False))


@contextmanager
def open_trackers(config: RunConfig, folder: RunFolder, identity: str, job: str = "pretrain") -> Iterator[Trackers]:
    """The configured trackers, closed at the end of the context in any case."""
    trackers = Trackers(folder.say)
    if config.tracker.wandb and wandb_mode(config.tracker.mode) != "disabled":
        trackers.start("wandb", "wandb", lambda: WandbTracker(config, folder, identity, job))
    if config.tracker.tensorboard:
        trackers.start("tensorboard", "torch.utils.tensorboard", lambda: TensorboardTracker(config, folder, identity))
    try:
        yield trackers
    except BaseException:
        trackers.close(failed=True)
        raise
    trackers.close(failed=False)


def _score(task: dict[str, Any]) -> list[float]:
    return [task["accuracy"], *task["interval"], task["examples"]]


def _layers_figure(similarity: dict[str, Any]) -> Any:
    """Distance and angle between input and output of each layer, as in the paper's Figure 1."""
    from albert_ablate.drawing_library import Figure  # slow to import

    figure = Figure(figsize=(8, 3), layout="constrained")
    distance, angle = figure.subplots(1, 2)
    layers = range(1, len(similarity["l2"]) + 1)
    distance.plot(layers, similarity["l2"], marker="o")
    distance.set(xlabel="layer", ylabel="L2 distance", ylim=(0, None))
    angle.plot(layers, similarity["degrees"], marker="o")
    angle.set(xlabel="layer", ylabel="angle, degrees", ylim=(0, None))
    return figure
