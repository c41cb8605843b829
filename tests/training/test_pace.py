"""A run that other programs slow down says so once, with what may help."""

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from runhelpers import run

from albert_ablate.config.schema import RunConfig
from albert_ablate.training.pace import ADVICE, Pace


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two CPU threads during the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_fifth_of_the_best_speed_is_slow(two_threads: None) -> None:
    pace = Pace(torch.device("cpu"))
    speeds = [300.0, 1000.0, 210.0, 200.0, 900.0]
    assert [pace.advice(speed) for speed in speeds] == [None, None, None, ADVICE, None]


def test_one_thread_and_a_gpu_wait_for_no_other_thread(two_threads: None) -> None:
    gpu = Pace(torch.device("cuda"))
    torch.set_num_threads(1)
    alone = Pace(torch.device("cpu"))
    for pace in (gpu, alone):
        assert [pace.advice(speed) for speed in (1000.0, 1.0)] == [None, None]


def test_a_run_says_it_once(cell: Callable[..., RunConfig], two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([1e9] + [1.0] * 20)  # of the log lines after steps 3, 5, 6, ...
    real = Pace.advice
    monkeypatch.setattr(Pace, "advice", lambda self, speed: real(self, next(speeds)))
    folder = run(cell("runtime.threads=2"))
    (said,) = re.findall(f".*{re.escape(ADVICE)}", (folder.path / "log.txt").read_text())
    assert "step 5: " in said
