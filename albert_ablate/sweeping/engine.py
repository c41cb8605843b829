"""Runs a sweep: launches, watches, retries and counts its cells."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from albert_ablate import console
from albert_ablate.command_line import call, command_name
from albert_ablate.config.schema import RuntimeConfig
from albert_ablate.console import duration
from albert_ablate.errors import PreemptedError, UserError
from albert_ablate.files import read_json, require_writable
from albert_ablate.record.folder import FAILURES, standing_of, wanted
from albert_ablate.record.lock import owner
from albert_ablate.stopping import interrupting
from albert_ablate.sweeping.board import Watch, board, counts
from albert_ablate.sweeping.cells import Cell, Placed, Stand, assign_folders
from albert_ablate.sweeping.process import Outcome, warm_up
from albert_ablate.sweeping.record import SWEEPS, end_record, standings, write_record

#: Runs cells and returns how each ended, in order; None for an answer that the launcher lost.
Launch = Callable[[Sequence[Cell]], Sequence[Outcome | None]]

_POLL_SECONDS = 2.0
#: Consecutive stops from outside without progress after which a cell is given up.
_STANDSTILLS = 3


def run_sweep(
    name: str,
    cells: Sequence[Cell],
    rerun: str,
    launch: Launch,
    one_by_one: bool,
    precision_of: Callable[[RuntimeConfig], str],
    title: str = "",
    words: Sequence[str] = (),
) -> int:
    """Run the cells that ``rerun`` asks for; returns the exit code.

    0 if every cell of the sweep is finished; 75 after a stop signal; else the code of the worst
    failure, and 1 if ``rerun=failed`` left out cells that never ran. Cells that another process
    trains are waited for; those of a process that died are taken over. A cell whose process is
    killed is started again ``runtime.retries`` times and continues from its checkpoint. A cell that
    is stopped from outside, such as by a time limit, is started again as long as it makes progress.
    With ``one_by_one`` the report divides the wall time. ``precision_of`` gives the number format of
    a cell on the machine where it is launched. ``title`` is that of the sweep file, and ``words`` are those
    of the command line, both for the record.
    """
    began = time.perf_counter()
    runs = Path(cells[0].config.paths.runs)
    require_writable(runs / SWEEPS, Path(cells[0].config.paths.cache))
    try:
        with interrupting():
            if one_by_one:
                warm_up()
            placed = assign_folders(cells, precision_of)
            preparing = time.perf_counter() - began
            known = [p for p in placed if p.folder is not None]
            chosen = [p for p in known if wanted(rerun, p.state())]
            if rerun == "all":
                for p in chosen:
                    assert p.folder is not None
                    p.folder.set_aside()
            record = write_record(runs, name, placed, title, words)
            console.say(f"sweep {name}: {len(placed)} cells, {_plan_line(placed, chosen)}")
            codes: dict[str, int] = {p.label: p.problem.exit_code for p in placed if p.problem is not None}
            fresh = [p for p in chosen if p.folder is not None and p.folder.state() == "missing" and not p.units]
            stopped = _launched(name, record, chosen, launch, codes)
    except KeyboardInterrupt:
        raise PreemptedError("Stopped before a cell was started; what is cached stays.") from None
    wall = time.perf_counter() - began
    unrun = [] if stopped else [p.label for p in known if p.label not in codes and p.state() != "finished"]
    code = PreemptedError.exit_code if stopped else max([*codes.values(), UserError.exit_code if unrun else 0])
    try:
        end_record(record, wall_seconds=wall, exit_code=code)
    except OSError as error:  # the runs are finished all the same
        console.say(f"{record}: the end of the sweep could not be recorded ({error.strerror})")
    _report(name, record, wall, preparing, fresh if one_by_one and len(fresh) == len(chosen) else [], stopped)
    if unrun:
        console.say(f"  {len(unrun)} cells are not finished and were left out by rerun={rerun}, {unrun[0]} among them.")
    return code


def _launched(name: str, record: Path, chosen: list[Placed], launch: Launch, codes: dict[str, int]) -> bool:
    """Run the chosen cells and show the board. Returns whether a stop signal ended them."""
    try:
        with Watch(f"sweep {name}", lambda: standings(record), read_json(record)["started"]):
            _run(chosen, launch, codes)
    except KeyboardInterrupt:
        return True
    return False


def _run(chosen: list[Placed], launch: Launch, codes: dict[str, int]) -> None:
    """Launch in rounds until every chosen cell has ended; ``codes`` gets the exit codes of failed cells."""
    histories = {p.label: _History(p.cell.config.runtime.retries) for p in chosen}
    left = list(chosen)
    while left:
        available = [p for p in left if p.folder is not None and owner(p.folder.path) is None]
        if not available:  # other processes train the remaining cells
            time.sleep(_POLL_SECONDS)
            left = [p for p in left if not _ended(p, codes)]
            continue
        before = [p.stand() for p in available]
        try:
            outcomes = launch([p.cell for p in available])
            complete = len(outcomes) == len(available)
            lost = "" if complete else f"the launcher gave {len(outcomes)} answers to {len(available)} cells"
            outcomes = [None] * len(available) if lost else outcomes
        except Exception as error:  # from the launcher: a worker was killed, or the cluster refused
            outcomes, lost = [None] * len(available), f"{type(error).__name__}: {' '.join(str(error).split())}"
        if outcomes and all(outcome is not None and outcome.elsewhere for outcome in outcomes):
            time.sleep(_POLL_SECONDS)  # other processes train these cells
        after = [p.stand() for p in available]
        for p, outcome, old, new in zip(available, outcomes, before, after, strict=True):
            if _ended(p, codes):
                left.remove(p)
                continue
            if new.state == "running" or (outcome is not None and outcome.elsewhere):
                continue
            if outcome is None and new.state == "missing" and after != before:
                continue  # the launcher failed before it started this cell
            reason = histories[p.label].reason_to_give_up(outcome, old, new, lost)
            if reason is not None:
                _give_up(p, outcome, reason, codes)
                left.remove(p)


class _History:
    """Kills and stops of a cell that has not ended yet."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._kills = self._standstills = 0
        self._last_reason = ""

    def reason_to_give_up(self, outcome: Outcome | None, before: Stand, after: Stand, lost: str) -> str | None:
        """Count one more round. Returns why the cell is not started again, or None if it is.

        If the launcher lost the ``outcome``, the run folder decides.
        """
        asked, further = after.asked_since(before), after.saved != before.saved
        reason = outcome.message if outcome is not None else after.reason if asked else lost
        reason = reason or "it did not run"
        if outcome.stopped if outcome is not None else asked or further:
            # A new reason: the run that it starts from made progress.
            further = further or self._last_reason not in ("", reason)
            self._last_reason = reason
            self._standstills = 0 if further else self._standstills + 1
            return f"stopped {_STANDSTILLS} times in one place: {reason}" if self._standstills == _STANDSTILLS else None
        self._kills += 1
        return reason if self._kills > self._retries else None


def _give_up(p: Placed, outcome: Outcome | None, reason: str, codes: dict[str, int]) -> None:
    """Record why a cell is not started again, and its exit code."""
    assert p.folder is not None
    broken = next((f for f in (p.folder, *p.units) if f.state() != "finished"), p.folder)
    broken.set_status("preempted" if p.state() == "preempted" else "failed", reason, UserError.exit_code)
    failed = outcome is not None and outcome.code not in (0, PreemptedError.exit_code)
    codes[p.label] = outcome.code if outcome is not None and failed else UserError.exit_code


def _ended(p: Placed, codes: dict[str, int]) -> bool:
    """Whether the cell is finished or failed, in any process; ``codes`` gets the exit code of a failure."""
    assert p.folder is not None
    state, status = standing_of(p.folder, p.units)
    if state in FAILURES:
        codes[p.label] = (status or {}).get("exit_code") or UserError.exit_code
    return state in ("finished", *FAILURES)


def _plan_line(placed: Sequence[Placed], chosen: Sequence[Placed]) -> str:
    broken = sum(p.problem is not None for p in placed)
    finished = sum(p.state() == "finished" for p in placed)
    parts = [f"{finished} finished", f"{len(chosen)} to run"]
    return ", ".join(parts + ([f"{broken} that cannot run"] if broken else []))


def _report(name: str, record: Path, wall: float, preparing: float, fresh: Sequence[Placed], stopped: bool) -> None:
    """Print the board, every failure with its reason, and how the wall time divides."""
    cells = standings(record)
    console.say("")
    console.show(board(f"sweep {name}", [replace(cell, reason=None) for cell in cells]))
    for cell in cells:
        if cell.state in (*FAILURES, "preempted"):
            console.say(f"  {cell.label} {cell.state}: {cell.reason}")
    runs = record.parent.parent
    if stopped:
        console.say(f"\nStopped after {duration(wall)}, {counts(cells)}. The same command runs the rest.")
    else:
        console.say(f"\n{duration(wall)} in all{_shares(fresh, wall, preparing)}.\n")
        _show_scores([runs / cell["folder"] for cell in read_json(record)["cells"] if cell["folder"] and cell["rows"]])
        console.say(f"Tables, figures and all verdicts: {command_name('report')} {runs}")
        console.say(f"The runs: {runs}")


def _show_scores(folders: Sequence[Path]) -> None:
    """Print the scores of the cells that belong to a table: parents of other cells do not."""
    started = [str(folder) for folder in dict.fromkeys(folders) if (folder / "status.json").is_file()]
    if not started:
        return
    try:
        call("scores", started)
    except Exception as error:  # the runs are finished all the same
        console.say(f"The scores could not be computed ({type(error).__name__}: {error}).")


def _shares(fresh: Sequence[Placed], wall: float, preparing: float) -> str:
    """How the wall time divides; empty unless all cells were trained now, one after another."""
    results = [p.folder.read("results.json") for p in fresh if p.folder is not None and p.folder.state() == "finished"]
    training = sum(result["training"]["seconds"] for result in results)
    evaluation = sum(result["evaluation"]["seconds"] for result in results)
    rest = wall - preparing - training - evaluation
    if not results or rest < 0:
        return ""
    parts = {"data": preparing, "training": training, "evaluation": evaluation}
    shares = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items())
    return f": {shares}, everything else {duration(rest)} ({rest / wall:.1%})"
