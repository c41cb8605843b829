"""Checkpoints written in a background thread. Training waits only until the tensors have been copied."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from albert_ablate.training import checkpoint
from albert_ablate.training.checkpoint import Owner


class Saver:
    """Writes one checkpoint at a time. The next checkpoint and the end of the context wait for it.

    An error in the writer thread is raised by the next call that waits for it.
    """

    def __init__(self, folder: Path, owner: Owner, keep: int, background: bool, minutes: float | None = None) -> None:
        self._folder = folder
        self._owner = owner
        self._keep = keep
        self._background = background
        self._minutes = minutes
        self._last = time.monotonic()
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def due(self) -> bool:
        """Whether ``minutes`` have passed since the last checkpoint. Raises its error if it has failed."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()
        return self._minutes is not None and time.monotonic() - self._last >= 60 * self._minutes

    def save(
        self, step: int, model: nn.Module, optimizer: Optimizer, progress: dict[str, Any], beside: Sequence[Path] = ()
    ) -> None:
        """Begin to write the state after ``step``. Raises the error of the previous checkpoint if it has failed."""
        self.wait()
        state = checkpoint.snapshot(model, optimizer, copied=self._background)
        self._last = time.monotonic()

        def write() -> None:
            checkpoint.save(self._folder, step, self._owner, state, progress, self._keep, beside)

        if not self._background:
            write()
            return
        self._thread = threading.Thread(target=self._guarded, args=(write,), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written. Raises the writer's error if there was one."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def _guarded(self, write: Any) -> None:
        try:
            write()
        except BaseException as error:
            self._failed = error

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()
