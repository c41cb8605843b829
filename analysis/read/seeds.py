"""The seeds of an arm and their states: a mean over the finished ones says nothing about those that diverged."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from albert_ablate.axes import SENTENCE_TASKS

#: States of a seed that ended without numbers because of what training did.
_ENDED = ("diverged", "without numbers")


@dataclass(frozen=True)
class Seeds:
    """The seeds of one arm, with and without numbers."""

    planned: tuple[int, ...]
    lost: dict[int, str] = field(default_factory=dict)  # seed without numbers -> its state
    notes: dict[int, str] = field(default_factory=dict)  # seed without numbers -> why, where it is known

    @property
    def doubt(self) -> str | None:
        """``1 of 3 seeds diverged``: why the arm is not judged; None where no seed ended without numbers."""
        parts = []
        for state in _ENDED:
            count = sum(outcome == state for outcome in self.lost.values())
            if count:
                parts.append(f"{count} of {len(self.planned)} seeds {_VERBS.get(state, state)}")
        return " and ".join(parts) or None

    def of(self, n: int) -> str:
        """``2 of 3``, or ``3`` where every seed has its number."""
        return of_planned(n, len(self.planned))

    def description(self) -> str:
        """``seed 2 diverged (loss is NaN at step 1234), seed 4 missing``; empty where every seed has numbers."""
        return ", ".join(
            f"seed {seed} {_VERBS.get(state, state)}" + (f" ({self.notes[seed]})" if self.notes.get(seed) else "")
            for seed, state in sorted(self.lost.items())
        )


_VERBS = {"without numbers": "gave no numbers", "queued": "waits", "running": "still runs", "preempted": "stopped"}


def of_planned(n: int, planned: int) -> str:
    """``2 of 3``, or ``3`` where every planned seed has its number."""
    return str(n) if n >= planned else f"{n} of {planned}"


def numberless(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Which finished runs have no numbers: their results are missing or cannot be read."""
    empty = pd.Series(True, index=runs.index)
    for name in ("steps", "mlm", "mlm_loss", *(task.value for task in SENTENCE_TASKS), "replaced_auc", "bits_per_byte"):
        empty &= runs[name].isna()
    return (runs["state"] == "finished") & empty


def seeds_of(arm: pd.DataFrame) -> Seeds:
    """The seeds of one arm and set-up, from its runs in any state. A seed with a finished run is not lost."""
    lost: dict[int, str] = {}
    notes: dict[int, str] = {}
    without = numberless(arm)
    columns = (arm["seed"], arm["state"], arm["note"], without, arm["updated"])
    runs = [(int(seed), *rest) for seed, *rest in zip(*columns, strict=True)]
    done = {seed for seed, state, _, empty, _ in runs if state == "finished" and not empty}
    unfinished = [run for run in runs if run[0] not in done]
    for seed, state, note, empty, _ in sorted(unfinished, key=lambda run: str(run[-1])):  # the latest run counts
        lost[seed] = "without numbers" if empty else str(state)
        notes[seed] = " ".join(str(note or "").split())
    return Seeds(tuple(sorted(done | set(lost))), lost, notes)


def missing_too(seeds: Mapping[str, Seeds]) -> dict[str, Seeds]:
    """The seeds of all arms, each planned in every arm: a seed that an arm has no run of is ``missing``."""
    planned = tuple(sorted({seed for arm_seeds in seeds.values() for seed in arm_seeds.planned}))
    return {
        arm: replace(
            arm_seeds,
            planned=planned,
            lost=arm_seeds.lost | {s: "missing" for s in planned if s not in arm_seeds.planned},
        )
        for arm, arm_seeds in seeds.items()
    }


def doubt(seeds: Mapping[str, Seeds]) -> str | None:
    """``1 of 3 seeds diverged``: why some of the arms are not judged; None where all can be."""
    return ", ".join(dict.fromkeys(arm_seeds.doubt for arm_seeds in seeds.values() if arm_seeds.doubt)) or None


def lost_seeds(seeds: Mapping[str, Seeds]) -> str:
    """``unshared: seed 2 failed (out of memory)`` for every arm with a seed without numbers."""
    return "; ".join(f"{arm}: {arm_seeds.description()}" for arm, arm_seeds in seeds.items() if arm_seeds.lost)
