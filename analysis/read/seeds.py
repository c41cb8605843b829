"""What became of the seeds of an arm: a mean over those that are left says nothing about those that diverged."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from albert_ablate.axes import SENTENCE_TASKS

#: States of a seed that ended without numbers because of what training did.
_ENDED = ("diverged", "without numbers")


@dataclass(frozen=True)
class Seeds:
    """The seeds of one arm, those without numbers among them."""

    planned: tuple[int, ...]
    lost: dict[int, str] = field(default_factory=dict)  # seed without numbers -> its state
    notes: dict[int, str] = field(default_factory=dict)  # seed without numbers -> why, where it is known

    @property
    def doubt(self) -> str | None:
        """``1 of 3 seeds diverged``: why the others decide nothing; None where no seed ended without numbers."""
        parts = []
        for state in _ENDED:
            count = sum(found == state for found in self.lost.values())
            if count:
                parts.append(f"{count} of {len(self.planned)} seeds {_VERBS.get(state, state)}")
        return " and ".join(parts) or None

    def of(self, n: int) -> str:
        """``2 of 3``, or ``3`` where every seed has its number."""
        return of_planned(n, len(self.planned))

    def words(self) -> str:
        """``seed 2 diverged (loss is NaN at step 1234), seed 4 missing``; nothing where none is lost."""
        return ", ".join(
            f"seed {seed} {_VERBS.get(state, state)}" + (f" ({self.notes[seed]})" if self.notes.get(seed) else "")
            for seed, state in sorted(self.lost.items())
        )


_VERBS = {"without numbers": "gave no numbers", "queued": "waits", "running": "still runs", "preempted": "stopped"}


def of_planned(n: int, planned: int) -> str:
    """``2 of 3``, or ``3`` where every planned seed has its number."""
    return str(n) if n >= planned else f"{n} of {planned}"


def numberless(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Which finished runs have no number at all: their results are missing, or cannot be read."""
    empty = pd.Series(True, index=runs.index)
    for name in ("steps", "mlm", "mlm_loss", *(task.value for task in SENTENCE_TASKS)):
        empty &= runs[name].isna()
    return (runs["state"] == "finished") & empty


def seeds_of(arm: pd.DataFrame) -> Seeds:
    """The seeds of the runs of one arm and set-up, in whatever state; a seed with a finished run is not lost."""
    lost: dict[int, str] = {}
    notes: dict[int, str] = {}
    without = numberless(arm)
    columns = (arm["seed"], arm["state"], arm["note"], without, arm["updated"])
    runs = [(int(seed), *rest) for seed, *rest in zip(*columns, strict=True)]
    done = {seed for seed, state, _, empty, _ in runs if state == "finished" and not empty}
    left = [run for run in runs if run[0] not in done]
    for seed, state, note, empty, _ in sorted(left, key=lambda run: str(run[-1])):  # the latest one counts
        lost[seed] = "without numbers" if empty else str(state)
        notes[seed] = " ".join(str(note or "").split())
    return Seeds(tuple(sorted(done | set(lost))), lost, notes)


def missing_too(seeds: Mapping[str, Seeds]) -> dict[str, Seeds]:
    """The same with every seed that another arm has as a planned one."""
    planned = tuple(sorted({seed for one in seeds.values() for seed in one.planned}))
    return {
        arm: replace(one, planned=planned, lost=one.lost | {s: "missing" for s in planned if s not in one.planned})
        for arm, one in seeds.items()
    }


def doubt(seeds: Mapping[str, Seeds]) -> str | None:
    """``1 of 3 seeds diverged``: why nothing can be said of some arms; None without a doubt."""
    return ", ".join(dict.fromkeys(one.doubt for one in seeds.values() if one.doubt)) or None


def lost_words(seeds: Mapping[str, Seeds]) -> str:
    """``unshared: seed 2 failed (out of memory)`` for every arm that lacks one."""
    return "; ".join(f"{arm}: {one.words()}" for arm, one in seeds.items() if one.lost)
