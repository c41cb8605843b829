"""Running a sweep: what is missing is launched, watched, retried and counted."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from albert_ablate import console
from albert_ablate.config import RuntimeConfig
from albert_ablate.console import duration
from albert_ablate.errors import PreemptedError, UserError
from albert_ablate.files import require_writable
from albert_ablate.lock import owner
from albert_ablate.runs import FAILURES, standing_of, wanted
from albert_ablate.sweeping.board import Watch, board, counts
from albert_ablate.sweeping.cells import Cell, Placed, place
from albert_ablate.sweeping.process import Outcome, warm_up
from albert_ablate.sweeping.record import SWEEPS, end_record, standings, write_record

#: Runs cells and returns how each ended, in order; None where the launcher lost the answer.
Launch = Callable[[Sequence[Cell]], Sequence[Outcome | None]]

_POLL_SECONDS = 2.0


def run_sweep(
    name: str,
    cells: Sequence[Cell],
    rerun: str,
    launch: Launch,
    one_by_one: bool,
    precision_of: Callable[[RuntimeConfig], str],
) -> int:
    """Run the cells that ``rerun`` asks for; returns the exit code.

    0 when every cell of the sweep is finished; 75 after a stop signal; else the code of the worst
    failure, and 1 where ``rerun=failed`` left out cells that never ran. Cells that another process
    trains are left to it and waited for; those of a process that died are taken over. A cell whose
    own process is killed is started again ``runtime.retries`` times and continues from its
    checkpoint. With ``one_by_one`` the report says where the wall time went. ``precision_of`` says in
    which number format a cell runs where it is launched.
    """
    began = time.perf_counter()
    runs = Path(cells[0].config.paths.runs)
    require_writable(runs / SWEEPS, Path(cells[0].config.paths.cache))
    if one_by_one:
        warm_up()
    placed = place(cells, precision_of)
    preparing = time.perf_counter() - began
    known = [p for p in placed if p.folder is not None]
    chosen = [p for p in known if wanted(rerun, p.state())]
    record = write_record(runs, name, placed)
    if rerun == "all":
        for p in chosen:
            assert p.folder is not None
            p.folder.set_aside()
    console.say(f"sweep {name}: {len(placed)} cells, {_plan_words(placed, chosen)}")
    codes: dict[str, int] = {p.label: p.problem.exit_code for p in placed if p.problem is not None}
    fresh = [p for p in chosen if p.folder is not None and p.folder.state() == "missing" and not p.units]
    stopped = False
    try:
        with _stop_as_interrupt(), Watch(f"sweep {name}", lambda: standings(record)):
            _run(chosen, launch, codes)
    except KeyboardInterrupt:
        stopped = True
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


def _run(chosen: list[Placed], launch: Launch, codes: dict[str, int]) -> None:
    """Rounds of launching until every chosen cell has ended; fills ``codes`` for those that failed."""
    tries: Counter[str] = Counter()
    left = list(chosen)
    while left:
        ours = [p for p in left if p.folder is not None and owner(p.folder.path) is None]
        if not ours:  # the rest is being trained elsewhere
            time.sleep(_POLL_SECONDS)
            left = [p for p in left if not _ended(p, codes)]
            continue
        before = [p.state() for p in ours]
        try:
            outcomes = launch([p.cell for p in ours])
            lost = (
                "" if len(outcomes) == len(ours) else f"the launcher gave {len(outcomes)} answers to {len(ours)} cells"
            )
            outcomes = [None] * len(ours) if lost else outcomes
        except Exception as error:  # of the launcher: a worker was killed, or the cluster refused
            outcomes, lost = [None] * len(ours), f"{type(error).__name__}: {' '.join(str(error).split())}"
        if outcomes and all(outcome is not None and outcome.elsewhere for outcome in outcomes):
            time.sleep(_POLL_SECONDS)  # they wait for what another process trains
        moved = [p.state() for p in ours] != before
        for p, outcome in zip(ours, outcomes, strict=True):
            if outcome is not None and outcome.elsewhere:
                continue
            never_reached = outcome is None and moved and p.state() == "missing"  # the launcher fell over before it
            tries[p.label] += not never_reached
            if _settle(p, outcome, lost, tries[p.label] > p.cell.config.runtime.retries, codes):
                left.remove(p)


def _settle(p: Placed, outcome: Outcome | None, lost: str, last: bool, codes: dict[str, int]) -> bool:
    """Whether the cell has ended; a failure's code goes to ``codes``."""
    if _ended(p, codes):
        return True
    if not last:
        return False
    assert p.folder is not None
    state = p.state()
    reason = (outcome.message if outcome else lost) or "it did not run"
    if state != "running":
        broken = next((f for f in (p.folder, *p.units) if f.state() != "finished"), p.folder)
        broken.set_status("preempted" if state == "preempted" else "failed", reason, UserError.exit_code)
    known = outcome is not None and outcome.code not in (0, PreemptedError.exit_code)
    codes[p.label] = outcome.code if outcome is not None and known else UserError.exit_code
    return True


def _ended(p: Placed, codes: dict[str, int]) -> bool:
    """Whether the cell is finished or failed, wherever it was trained; a failure's code goes to ``codes``."""
    assert p.folder is not None
    state, status = standing_of(p.folder, p.units)
    if state in FAILURES:
        codes[p.label] = (status or {}).get("exit_code") or UserError.exit_code
    return state in ("finished", *FAILURES)


def _plan_words(placed: Sequence[Placed], chosen: Sequence[Placed]) -> str:
    broken = sum(p.problem is not None for p in placed)
    finished = sum(p.state() == "finished" for p in placed)
    words = [f"{finished} finished", f"{len(chosen)} to run"]
    return ", ".join(words + ([f"{broken} that cannot run"] if broken else []))


def _report(name: str, record: Path, wall: float, preparing: float, fresh: Sequence[Placed], stopped: bool) -> None:
    """The board at the end, every failure with its reason, and where the time went."""
    cells = standings(record)
    console.show(board(f"\nsweep {name}", cells))
    for cell in cells:
        if cell.state in (*FAILURES, "preempted"):
            console.say(f"  {cell.label} {cell.state}: {cell.reason}")
    runs = record.parent.parent
    if stopped:
        console.say(f"\nStopped after {duration(wall)}, {counts(cells)}. The same command runs the rest.")
    else:
        console.say(
            f"\n{duration(wall)} in all{_shares(fresh, wall, preparing)}. Results: python -m analysis.report {runs}"
        )


def _shares(fresh: Sequence[Placed], wall: float, preparing: float) -> str:
    """How the wall time divides, where every cell was trained here, one after another."""
    results = [p.folder.read("results.json") for p in fresh if p.folder is not None and p.folder.state() == "finished"]
    training = sum(found["training"]["seconds"] for found in results)
    evaluation = sum(found["evaluation"]["seconds"] for found in results)
    rest = wall - preparing - training - evaluation
    if not results or rest < 0:
        return ""
    parts = {"data": preparing, "training": training, "evaluation": evaluation}
    words = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items())
    return f": {words}, everything else {duration(rest)} ({rest / wall:.1%})"


@contextmanager
def _stop_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGUSR1 end a sweep as Ctrl-C does."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
