"""The loop that pretraining and fine-tuning share: accumulate, clip, update, log, score, checkpoint, stop.

Without checkpoints, signals and several processes the loop is:

    for step in range(steps):
        batch = batches[step]
        for part in batch.micro(micro_size):              # losses are sums, so any division gives the same gradient
            terms = model's loss terms on part
            sum(term.weight * term.loss_sum / count[term.per] for term in terms).backward()
        refuse a step that is not finite; clip the gradient
        optimizer.step()
        if a log line is due: means over the steps since the last one

With several processes, each trains on its share of every batch. Counts, sums and gradients are added over the processes
before they are used. All processes log, save and stop at the same step.
"""

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_ablate.console import Progress
from albert_ablate.methods.batch import StepBatch
from albert_ablate.stopping import Stop, deferred
from albert_ablate.training import checkpoint
from albert_ablate.training.backend import Backend
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.guards import Spikes
from albert_ablate.training.saving import Saver
from albert_ablate.training.step import Stepper
from albert_ablate.training.sums import Sums


@dataclass(frozen=True)
class Agreed:
    """What the processes have agreed on for a step."""

    counts: dict[str, int]  # of the whole batch
    stop: bool  # at least one process has received a stop signal
    due: bool  # the first process wants a checkpoint
    elapsed: float  # seconds since the last log line, by the first process's clock


class Loop(Stepper):
    """Trains a model; ``fit`` continues from the newest checkpoint."""

    title = "training"  # of the progress bar
    keep_checkpoints = 2

    owner: Owner  # of the checkpoints
    seconds = 0.0  # of training up to the last log line, over all starts of the run

    @abstractmethod
    def stream(self, done: int) -> Iterator[Any]:
        """The batches that follow after ``done`` steps."""

    @abstractmethod
    def scored_at(self, done: int, over: bool) -> bool:
        """Whether held-out scores are due after step ``done``; ``over``: it is the last step."""

    def logged_at(self, done: int, seconds: float) -> bool:
        """Whether a log line is due after step ``done``, ``seconds`` after the last line (first process's clock)."""
        return done % self.runtime.log_every == 0

    @abstractmethod
    def saved_at(self, done: int, scored: bool) -> bool:
        """Whether a checkpoint is due after step ``done``, apart from ``runtime.checkpoint_minutes``."""

    @abstractmethod
    def log(self, done: int, position: float, sums: Sums, scored: bool, progress: Progress) -> None:
        """Write a line of ``metrics.jsonl`` for the steps in ``sums``, with held-out scores if ``scored``."""

    @abstractmethod
    def progress(self) -> dict[str, Any]:
        """The subclass's plain numbers for a checkpoint."""

    @abstractmethod
    def restore(self, meta: Mapping[str, Any]) -> None:
        """Restore the numbers of ``progress`` from a checkpoint."""

    @abstractmethod
    def finish(self, done: int) -> dict[str, Any]:
        """Do what is due after the last step, and return the record."""

    def position(self, done: int, sums: Sums) -> float:
        """Position on the schedule after ``done`` steps. ``sums`` has those not yet logged."""
        return done

    def ends_stage(self, position: float) -> bool:
        """Whether the next step, at ``position`` on the schedule, has other loss terms than the last one."""
        return False

    def stopped(self, stop: Stop, done: int) -> BaseException:
        """The error that ends a run that was asked to stop after step ``done``."""
        return stop.error(f"step {done:,} of {self.schedule.steps:,}")

    def fit(self) -> dict[str, Any]:
        """Train to the end of the schedule and return the record.

        Raises DivergedError if loss or gradient is not finite, PreemptedError after a stop signal, DiskFullError if a
        checkpoint does not fit the disk, and CheckpointError if the run cannot be continued.
        """
        world, end = self.machine.world, self.schedule.steps
        done, sums = self._resume()
        position = self.position(done, sums)
        stream = self.stream(done)
        lap = time.perf_counter() - sums.seconds
        bar = Progress(end, position, self.schedule.unit, self.title)
        with deferred() as stopped, self._saver() as saver, bar:
            while position < end:
                batch = next(stream)
                agreed = self._agree(batch, stopped.is_set(), saver.due(), time.perf_counter() - lap)
                sums.add(agreed.counts, self.update(done, batch, position, agreed.counts))
                done += 1
                stop, sums.seconds = agreed.stop, agreed.elapsed
                if world.size == 1:  # no agreement needed: honour a signal that arrived during the step
                    stop, sums.seconds = stopped.is_set(), time.perf_counter() - lap
                position = self.position(done, sums)
                over = position >= end
                scored = self.scored_at(done, over)
                logged = scored or self.logged_at(done, sums.seconds) or self.ends_stage(position)
                saved = over or stop or agreed.due or self.saved_at(done, scored)
                if logged or saved:
                    self.settle()  # a bad step is neither logged nor saved
                    if world.size == 1:  # measured now that the GPU has finished its work
                        sums.seconds = time.perf_counter() - lap
                if logged:
                    self.log(done, position, sums, scored, bar)
                    sums, lap = Sums(), time.perf_counter()
                if saved:
                    sums.seconds = time.perf_counter() - lap
                    self._save(saver, done, sums)
                if stop and not over:
                    saver.wait()
                    world.from_main(None)  # barrier: a process that exits now would kill the first one mid-write
                    raise self.stopped(stopped, done)
        world.from_main(None)  # barrier: the last checkpoint is complete before any process goes on
        return self.finish(done)

    def _agree(self, batch: StepBatch, stop: bool, due: bool, elapsed: float) -> Agreed:
        """All processes stop if one has to. Time and checkpoints by the clock are those of the first process."""
        world, counts = self.machine.world, batch.counts()
        clock = [float(due), elapsed] if world.main else [0.0, 0.0]
        *summed, stops, dues, seconds = world.sum([*counts.values(), float(stop), *clock])
        return Agreed(
            {key: int(count) for key, count in zip(counts, summed, strict=True)}, stops > 0, dues > 0, seconds
        )

    def _resume(self) -> tuple[int, Sums]:
        """Load the newest checkpoint. Returns the number of finished steps and the sums since the last log line."""
        if self.machine.world.main:
            checkpoint.clear_unfinished(self.folder.checkpoints)
        meta = checkpoint.load_latest(self.folder.checkpoints, self.owner, self.model, self.optimizer)
        done = 0 if meta is None else int(meta["step"])
        self.check(done, meta)
        self.folder.truncate_metrics(done)
        if meta is None:
            return 0, Sums()
        self.seconds = meta["seconds"]
        self.micro_size = meta.get("micro_size", self.micro_size)
        self.spikes = Spikes(self.settings.skip_spikes, meta.get("spikes"))
        self.skipped = meta.get("skipped", 0)
        self._continue_backends(meta.get("backends", []))
        self.restore(meta)
        for name in meta["damaged"]:
            self.folder.say(f"checkpoint {name} is damaged; the previous one is used")
        self.folder.say(self.continuing(done))
        return done, Sums.from_dict(meta.get("sums"), self.machine.device)

    def _continue_backends(self, names: Sequence[str]) -> None:
        """Restore the backends of earlier starts, and say if this start has another one."""
        earlier = [Backend(name) for name in names]
        if earlier and self.backend is not None and earlier[-1] is not self.backend:
            self.folder.say(
                f"begun with runtime.backend={earlier[-1]}, continues with {self.backend}: the last digits of its "
                "numbers may differ, and so does the noise of dropout"
            )
        self.backends = earlier + (self.backends if earlier[-1:] != self.backends else [])

    def check(self, done: int, meta: Mapping[str, Any] | None) -> None:
        """Raise CheckpointError if this process cannot continue from a checkpoint (``meta`` is None without one)."""

    @abstractmethod
    def continuing(self, done: int) -> str:
        """The log line that says after which step training continues."""

    def _saver(self) -> Saver:
        runtime, folder = self.runtime, self.folder.checkpoints
        if self.machine.world.main:
            checkpoint.require_space(folder, 3 * sum(p.nbytes for p in self.model.parameters()))
        return Saver(folder, self.owner, self.keep_checkpoints, runtime.async_checkpoints, runtime.checkpoint_minutes)

    def _save(self, saver: Saver, step: int, sums: Sums) -> None:
        if not self.machine.world.main:
            return
        numbers = {"seconds": self.seconds, "sums": sums.as_dict(), "processes": self.machine.world.size}
        numbers |= {"micro_size": self.micro_size, "skipped": self.skipped}
        if self.settings.skip_spikes is not None:
            numbers["spikes"] = self.spikes.as_dict()
        if self.backends:
            numbers["backends"] = list(self.backends)
        saver.save(step, self.model, self.optimizer, numbers | self.progress(), self.beside())

    def beside(self) -> Sequence[Path]:
        """Files beside the checkpoint that it depends on."""
        return ()
