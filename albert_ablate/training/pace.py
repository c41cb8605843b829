"""Notices a training that has become several times slower because other programs use the processor.

Threads of one step wait for each other by running idle (libgomp). Beside other programs they then take turns with
themselves. Sleeping instead (``OMP_WAIT_POLICY=passive``) is slower on an idle machine, so it is advice and no default;
``docs/performance.md`` has the figures.
"""

import torch

#: How many times slower than the fastest log line a line must be.
_SLOWER = 5.0
ADVICE = "other programs use the processor; OMP_WAIT_POLICY=passive or runtime.threads=1 may be faster"


class Pace:
    """The speeds of a run on a CPU, in any unit per second."""

    def __init__(self, device: torch.device) -> None:
        self._threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._best = 0.0

    def advice(self, speed: float) -> str | None:
        """What may help if ``speed`` is a fifth of the best so far or less; None otherwise, and with one thread."""
        self._best = max(self._best, speed)
        return ADVICE if self._threads > 1 and speed * _SLOWER <= self._best else None
