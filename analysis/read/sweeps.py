"""The sweeps recorded beside the runs, and which runs belong to each: what a report shows first."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.axes import BLOCK
from albert_ablate.axes.block import unread_inside
from albert_ablate.config.labels import TUNED, arm_labels, differing
from albert_ablate.sweeping.record import SWEEPS

from .arms import APART, DETAILED, full_names, settings_of_arms
from .cells import Selection, largest
from .planted import natural
from .records import printable
from .setups import SHAPE, TOKENS, under
from .tunings import in_kinds


@dataclass(frozen=True)
class Record:
    """One recorded start of a sweep."""

    name: str
    title: str  # of the sweep file; empty for a sweep of the command line alone
    started: float  # seconds since the epoch
    folders: tuple[str, ...]  # names of the run folders of its cells
    arms: tuple[str, ...]  # those without the runs that others start from
    reference: tuple[str, ...]  # those of the arm that the others are compared with
    words: tuple[str, ...] = ()  # of its command line; older records have none
    reference_units: tuple[str, ...] = ()  # fine-tunings of the reference arm; older records have none


@dataclass(frozen=True)
class Group:
    """Runs that are compared with each other: those of a sweep, or all that belong to no recorded sweep."""

    name: str
    title: str  # empty where the sweep has none
    selection: Selection  # one set-up; its frame ``all`` has a column ``arm``
    reference: frozenset[str] = frozenset()  # runs of the arm that the others are compared with
    listed: tuple[str, ...] = ()  # names of the run folders in the order of the sweep
    words: tuple[str, ...] = ()  # of the command line of its latest start; empty where that is not known
    reference_units: frozenset[str] = frozenset()  # names of fine-tunings of that arm; empty where it has none

    @property
    def runs(self) -> pd.DataFrame:
        """The finished runs, a row for each arm and seed."""
        return self.selection.runs["all"]

    def is_reference(self, arm: pd.DataFrame) -> bool:
        """Whether ``arm``, rows of ``runs``, is the one that the others are compared with.

        Arms may share their runs and differ in fine-tuning: then it has the fine-tunings of the reference.
        """
        if not self.reference & set(arm["run"]):
            return False
        units = {unit for tasks in arm["tasks"] for entry in tasks for unit in entry.get("units", ())}
        return not units or not self.reference_units or bool(units & self.reference_units)


def records_in(folder: Path) -> list[Record]:
    """Every sweep recorded beside the run folders in ``folder``; records that cannot be read are left out."""
    return list(_records(folder))


def _records(folder: Path) -> Iterator[Record]:
    for file in sorted((folder / SWEEPS).glob("*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            name, started = printable(str(record["name"])), float(record["started"])
            cells = [cell for cell in record["cells"] if cell["folder"] is not None]
            folders = tuple(str(cell["folder"]) for cell in cells)
            arms = tuple(str(cell["folder"]) for cell in cells if cell.get("rows", True))
            reference = tuple(map(str, record.get("reference") or ()))
            words = tuple(printable(str(word)) for word in record.get("words") or ())
            units = tuple(str(unit).rpartition("/")[2] for unit in record.get("reference_units") or ())
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
        if all(cell == Path(cell).name for cell in folders):
            title = printable(str(record.get("title") or ""))
            yield Record(name, title, started, folders, arms, reference, words, units)


def groups(runs: pd.DataFrame) -> list[Group]:
    """A group for each recorded sweep that has a finished run, the latest first, then one of all other runs.

    Runs on planted text are controls and belong to no group. Records of one sweep file are joined, so that seeds that
    were added later count.
    """
    runs = natural(runs)
    runs = runs[runs["state"] != "copy"]
    parents = pd.Series([Path(path).parent for path in runs["path"]], index=runs.index, dtype=object)
    names = pd.Series([Path(path).name for path in runs["path"]], index=runs.index, dtype=object)
    recorded = [(folder, record) for folder in sorted(set(parents)) for record in records_in(folder)]
    titles = {record.name: record.title for _, record in recorded if record.title}  # older records have none
    sweeps: dict[tuple[str, ...], dict[str, Any]] = {}
    for folder, record in sorted(recorded, key=lambda place: place[1].started):
        members = runs.index[(parents == folder) & names.isin(record.arms)]
        title = record.title or titles.get(record.name, "")
        key = (record.name, title) if title else (record.name, *record.folders)
        empty: dict[str, Any] = {"members": set(), "known": set(), "listed": {}}
        empty |= {"reference": frozenset(), "units": frozenset()}
        sweep = sweeps.setdefault(key, empty)
        sweep["known"] |= set(runs.index[(parents == folder) & names.isin(record.folders)])
        sweep["members"] |= set(members)
        sweep["listed"] |= dict.fromkeys(record.arms)
        reference = frozenset(runs["run"][(parents == folder) & names.isin(record.reference)])
        # Seeds may have come one by one: the reference arm has runs in each record.
        sweep |= {"reference": sweep["reference"] | reference, "name": record.name, "title": title}
        sweep |= {"started": record.started, "words": record.words}
        sweep["units"] |= set(record.reference_units)
    made = []
    for sweep in sorted(sweeps.values(), key=lambda sweep: -sweep["started"]):
        chosen = in_kinds(runs[runs.index.isin(sweep["members"])])
        selection = largest(chosen, _free(chosen), _arm_names)
        group = Group(
            sweep["name"], sweep["title"], selection, sweep["reference"], tuple(sweep["listed"]), sweep["words"],
            sweep["units"],
        )  # fmt: skip
        made.append(group)
    listed = {index for sweep in sweeps.values() for index in sweep["known"]}
    title = "Runs of no recorded sweep" if listed else "All runs"
    made.append(Group("runs", title, largest(in_kinds(runs[~runs.index.isin(listed)]), (*APART, TUNED), _arm_names)))
    return [group for group in made if len(group.runs)]


def _arm_names(runs: pd.DataFrame) -> list[str]:
    """The settings that vary; where none does, the name that the arm has in the paper's figures."""
    labels = arm_labels(settings_of_arms(runs))
    return labels if all(labels) else full_names(runs)


def _free(runs: pd.DataFrame) -> tuple[str, ...]:
    """The settings in which the arms of a sweep may differ: those that its cells set to several values.

    Where methods, attention or layers differ, so may all settings that one of them reads and another does not.
    """
    names = differing([settings for settings in settings_of_arms(runs) if settings])
    groups = tuple(axis.group for axis in DETAILED if axis.path in names)
    shape = (*SHAPE, "model.base") if any(under(name, ("model",)) for name in names) else ()
    text = (TOKENS,) if any(under(name, ("data", "tokenizer")) for name in names) else ()
    inside = tuple(unread_inside({})) if BLOCK.path in names else ()
    kinds = (TUNED,) if any(TUNED in config for config in runs["config"]) else ()  # a kind lacks settings of another
    return tuple(dict.fromkeys((*names, *shape, *text, *groups, *inside, *kinds)))
