"""Cautions above the numbers of a report: several commits, copies, number formats, runs of other set-ups."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from . import heads
from .cells import Selection, main_selection
from .records import printable
from .runs import setting
from .seeds import Seeds
from .sweeps import records_in


def of_runs(runs: pd.DataFrame) -> list[str]:
    """All cautions about a collection of runs, as sentences."""
    sentences = [*code(runs[runs["state"] == "finished"]), *copies(runs), *heads.sentences(runs)]
    selection = main_selection(runs)
    sentences += [f"Of several set-ups one is shown. {left_out(selection)}"] if selection.left_out else []
    return [*sentences, *selection.tasks, *lost(selection), *not_begun(runs)]


def lost(selection: Selection) -> list[str]:
    """Which seeds of the arms have no numbers, and why."""
    short = _lacking(selection)
    if not short:
        return []
    lines = [f"{arm}: {seeds.description()}" for arm, seeds in short.items()]
    more = f"; and {len(lines) - 6} more arms" if len(lines) > 6 else ""
    count = f"{len(short)} of {len(selection.seeds)} arms lack" if len(short) > 1 else "One arm lacks"
    return [f"{count} the numbers of a planned seed: {'; '.join(lines[:6])}{more}."]


def not_begun(runs: pd.DataFrame) -> list[str]:
    """Which cells of the sweeps recorded beside the runs have no run folder."""
    sentences = []
    for folder in sorted({Path(path).parent for path in runs["path"].dropna()}):
        for name, cells in _latest_sweeps(folder).items():
            missing = [cell for cell in cells if not (folder / cell).is_dir()]
            if missing and len(missing) < len(cells):  # else its runs lie elsewhere
                names = ", ".join(printable(cell.rpartition("-")[0] or cell) for cell in missing[:6])
                more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
                sentences.append(f"Of sweep {name} {len(missing)} of {len(cells)} cells have no run: {names}{more}.")
    return sentences


def _latest_sweeps(folder: Path) -> dict[str, tuple[str, ...]]:
    """Sweep -> folders of its cells at its latest start."""
    latest = sorted(records_in(folder), key=lambda record: record.started)
    return {record.name: record.folders for record in latest}


def lost_in_short(selection: Selection) -> str:
    """``2 of 14 arms lack a seed: E=32, shared FFN, SOP (2 of 3)``; empty where every arm has all its seeds."""
    short = _lacking(selection)
    names = [f"{arm} ({seeds.of(len(seeds.planned) - len(seeds.lost))})" for arm, seeds in short.items()]
    return f"{len(short)} of {len(selection.seeds)} arms lack a seed: {'; '.join(names)}." if short else ""


def _lacking(selection: Selection) -> dict[str, Seeds]:
    """Arm -> its seeds, for the arms with a seed without numbers."""
    return {arm: seeds for arm, seeds in selection.seeds.items() if seeds.lost}


def code(finished: pd.DataFrame) -> list[str]:
    """Cautions where the runs do not come from one known state of the code."""
    commits = sorted({str(commit)[:10] for commit in finished["commit"].dropna()})
    unknown, dirty = int(finished["commit"].isna().sum()), sum(flag is True for flag in finished["dirty"])
    sentences = []
    if len(commits) > 1:
        more = f" and {len(commits) - 6} more" if len(commits) > 6 else ""
        sentences.append(f"The runs come from {len(commits)} commits of the code ({', '.join(commits[:6])}{more}).")
    if commits and unknown:
        sentences.append(f"Of {unknown} of {len(finished)} runs the commit of the code is not known.")
    if commits and dirty:
        sentences.append(f"{dirty} of {len(finished)} runs come from code with uncommitted changes.")
    return sentences


def copies(runs: pd.DataFrame) -> list[str]:
    """How many folders are copies of a run that is counted once, and whether their numbers agree."""
    copied = runs[runs["state"] == "copy"]
    if not len(copied):
        return []
    differing = sum("other numbers" in note for note in copied["note"])
    agreement = (
        f"{differing} of them with other numbers than the run that counts" if differing else "with the same numbers"
    )
    return [f"{len(copied)} of {len(runs)} run folders are copies of a run that is counted once, {agreement}."]


def different_texts(finished: pd.DataFrame) -> list[str]:
    """Cautions where held-out losses of different sequences or texts stand side by side."""
    lengths = sorted({setting(config, "pairs.max_length") for config in finished["config"]} - {None})
    texts = finished["tokens_fingerprint"].dropna().nunique()
    notes = []
    if len(lengths) > 1:
        values = " and ".join(map(str, lengths))
        notes.append(f"The runs are scored on sequences of different length (pairs.max_length {values}).")
    if texts > 1:
        notes.append(f"The runs are scored on {texts} different texts, or on one text in different pieces.")
    return [f"{sentence} Their losses are not comparable." for sentence in notes]


def left_out(selection: Selection) -> str:
    """Which of several set-ups was taken and why, and in what the others differ."""
    most = 4
    values = [f"{name}: {value}" for name, value in selection.differs.items()]
    more = f"; and {len(values) - most} more settings" if len(values) > most else ""
    others = "another set-up" if selection.other_setups == 1 else f"{selection.other_setups} other set-ups"
    runs = f"{selection.left_out} run" + ("" if selection.left_out == 1 else "s")
    return (
        f"Left out: {runs} of the same cells in {others} ({'; '.join(values[:most])}{more}). "
        f"Taken: the set-up named first, because {selection.taken}."
    )


def judged_in_one_setup(left: Sequence[int]) -> list[str]:
    """A caution where claims left out runs of other set-ups; ``left``: how many, for each claim."""
    several = sum(count > 0 for count in left)
    if not several:
        return []
    return [
        f"Of {several} claim{'s' if several > 1 else ''} runs of several set-ups fit the arms: judged in the one with "
        "most arms, then most runs, then the latest run."
    ]
