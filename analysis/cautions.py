"""What to know before the numbers of a report: code of several commits, copies, formats, runs of other set-ups."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from albert_ablate.sweeping.record import SWEEPS

from . import heads
from .cells import Selection, main_selection
from .records import printable
from .runs import setting
from .seeds import Seeds


def of_runs(runs: pd.DataFrame) -> list[str]:
    """Sentences about a collection of runs; none where there is nothing to know."""
    found = [*code(runs[runs["state"] == "finished"]), *copies(runs), *heads.sentences(runs)]
    selection = main_selection(runs)
    found += [f"Of several set-ups one is shown. {left_out(selection)}"] if selection.other else []
    return [*found, *selection.tasks, *lost(selection), *not_begun(runs)]


def lost(selection: Selection) -> list[str]:
    """Which seeds of the arms have no numbers, and why."""
    short = _lacking(selection)
    if not short:
        return []
    words = [f"{arm}: {seeds.words()}" for arm, seeds in short.items()]
    more = f"; and {len(words) - 6} more arms" if len(words) > 6 else ""
    count = f"{len(short)} of {len(selection.seeds)} arms lack" if len(short) > 1 else "One arm lacks"
    return [f"{count} the numbers of a planned seed: {'; '.join(words[:6])}{more}."]


def not_begun(runs: pd.DataFrame) -> list[str]:
    """Which cells of the sweeps recorded beside the runs have no run folder: planned, and in no arm."""
    found = []
    for folder in sorted({Path(path).parent for path in runs["path"].dropna()}):
        for name, cells in _latest_sweeps(folder).items():
            missing = [cell for cell in cells if not (folder / cell).is_dir()]
            if missing and len(missing) < len(cells):  # else its runs lie elsewhere
                words = ", ".join(printable(cell.rpartition("-")[0] or cell) for cell in missing[:6])
                more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
                found.append(f"Of sweep {name} {len(missing)} of {len(cells)} cells have no run: {words}{more}.")
    return found


def _latest_sweeps(folder: Path) -> dict[str, list[str]]:
    """Sweep -> folders of its cells, as it was started last. Records that cannot be read say nothing."""
    started: dict[str, float] = {}
    cells: dict[str, list[str]] = {}
    for file in sorted((folder / SWEEPS).glob("*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            name, begun = printable(str(record["name"])), float(record["started"])
            own = [str(cell["folder"]) for cell in record["cells"] if cell["folder"] is not None]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
        if begun >= started.get(name, float("-inf")) and all(cell == Path(cell).name for cell in own):
            started[name], cells[name] = begun, own
    return cells


def lost_in_short(selection: Selection) -> str:
    """``2 of 14 arms lack a seed: E=32, shared FFN, SOP (2 of 3)``; nothing where none does."""
    short = _lacking(selection)
    words = [f"{arm} ({seeds.of(len(seeds.planned) - len(seeds.lost))})" for arm, seeds in short.items()]
    return f"{len(short)} of {len(selection.seeds)} arms lack a seed: {'; '.join(words)}." if short else ""


def _lacking(selection: Selection) -> dict[str, Seeds]:
    """Arm -> its seeds, of those that lack the numbers of one."""
    return {arm: seeds for arm, seeds in selection.seeds.items() if seeds.lost}


def code(finished: pd.DataFrame) -> list[str]:
    """Whether the runs come from one known state of the code."""
    commits = sorted({str(commit)[:10] for commit in finished["commit"].dropna()})
    unknown, dirty = int(finished["commit"].isna().sum()), sum(found is True for found in finished["dirty"])
    found = []
    if len(commits) > 1:
        more = f" and {len(commits) - 6} more" if len(commits) > 6 else ""
        found.append(f"The runs come from {len(commits)} commits of the code ({', '.join(commits[:6])}{more}).")
    if commits and unknown:
        found.append(f"Of {unknown} of {len(finished)} runs the commit of the code is not known.")
    if commits and dirty:
        found.append(f"{dirty} of {len(finished)} runs come from code with uncommitted changes.")
    return found


def copies(runs: pd.DataFrame) -> list[str]:
    """How many folders are copies of a run that another one is, and whether they say the same."""
    found = runs[runs["state"] == "copy"]
    if not len(found):
        return []
    other = sum("other numbers" in note for note in found["note"])
    words = f"{other} of them with other numbers than the run that counts" if other else "with the same numbers"
    return [f"{len(found)} of {len(runs)} run folders are copies of a run that is counted once, {words}."]


def unlike_texts(finished: pd.DataFrame) -> list[str]:
    """Whether held-out losses stand side by side that are of unlike sequences or texts."""
    lengths = sorted({setting(config, "pairs.max_length") for config in finished["config"]} - {None})
    texts = finished["tokens_fingerprint"].dropna().nunique()
    found = []
    if len(lengths) > 1:
        words = " and ".join(map(str, lengths))
        found.append(f"The runs are scored on sequences of unlike length (pairs.max_length {words}).")
    if texts > 1:
        found.append(f"The runs are scored on {texts} unlike texts, or on one text in unlike pieces.")
    return [f"{sentence} Their losses do not compare." for sentence in found]


def left_out(selection: Selection) -> str:
    """Which of several set-ups was taken, why, and what tells the others from it."""
    most = 4
    words = [f"{name}: {value}" for name, value in selection.differs.items()]
    more = f"; and {len(words) - most} more settings" if len(words) > most else ""
    others = "another set-up" if selection.setups == 1 else f"{selection.setups} other set-ups"
    runs = f"{selection.other} run" + ("" if selection.other == 1 else "s")
    return (
        f"Left out: {runs} of the same cells in {others} ({'; '.join(words[:most])}{more}). "
        f"Taken: the set-up named first, because {selection.taken}."
    )


def judged_in_one_setup(left: Sequence[int]) -> list[str]:
    """Of the runs that each claim left out because they are of another set-up."""
    several = sum(count > 0 for count in left)
    if not several:
        return []
    return [
        f"Of {several} claim{'s' if several > 1 else ''} runs of several set-ups fit the arms: judged in the one with "
        "most arms, then most runs, then the latest run."
    ]
