"""The campaign: as many cells as the measured speed allows, in several processes at once.

``first`` starts it; ``python -m benchmarks.rented_gpu.campaign`` runs it without ``first``. It ends within 470 seconds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.rented_gpu.places import Folders, folders_of, install, parser

#: Shares of the whole time by which cells and fine-tunings must be finished; the rest is for packing.
_CELLS_UNTIL, _TUNING_UNTIL = 0.78, 0.94
#: Learning rates of LAMB that the pilot tries; if all of the first three diverge, the others.
_RATES = ((0.0028, 0.004, 0.0057), (0.0007, 0.001, 0.0014))
_PILOT = ("embed=e32", "share=all", "objective=sop", "seed=9")
#: A job whose process died is run once more.
_TRIES = 2


@dataclass
class Campaign:
    """The state of the campaign: what to run, the outcomes so far, and the end of its time."""

    folders: Folders
    size: Any
    decision: dict[str, Any]
    end: float  # on the clock of ``time.monotonic``
    record: dict[str, Any] = field(default_factory=dict)
    packed_at: float = 0.0
    speed: float = 0.0  # tokens a second of one process while all are running
    beside: float = 0.0  # seconds that a cell takes in addition to its training
    tuning: float = 0.0  # seconds of the fine-tunings of a cell: the most seen so far

    def until(self, share: float) -> float:
        """The time, on the monotonic clock, at which ``share`` of the whole time has passed."""
        return self.end - (1 - share) * float(self.size.campaign)

    def seconds_of(self, job: Any) -> float:
        """Estimated seconds of a job."""
        return self.tuning if job.tuning else 1.1 * job.tokens / self.speed + self.beside

    def note(self, job: Any, state: str, seconds: float | None = None, reason: str = "") -> None:
        """Record the state of a job in the journal."""
        entry = {"state": state, "seconds": seconds, "tokens": job.tokens, "words": list(job.overrides)}
        self.record["jobs"][job.name] = entry | ({"reason": reason} if reason else {})
        self.save()

    def save(self) -> None:
        """Write the journal."""
        from albert_ablate.files import write_json

        write_json(self.folders.journal, self.record)

    def pack_if_due(self) -> None:
        """Pack the results anew if ``size.pack_every`` seconds have passed."""
        from benchmarks.rented_gpu.results import pack

        if time.monotonic() - self.packed_at >= self.size.pack_every:
            self.record["left_out"] = pack(self.folders, weights=False)
            self.packed_at = time.monotonic()


def take(queue: list[Any], left: float, seconds_of: Callable[[Any], float]) -> Any | None:
    """Remove and return the first job that fits into ``left`` seconds; None if no job fits."""
    index = next((n for n, job in enumerate(queue) if seconds_of(job) <= left), None)
    return None if index is None else queue.pop(index)


def work_off(campaign: Campaign, crew: Any, queue: list[Any], until: float) -> None:
    """Run the jobs of ``queue`` in order until the time ``until``; remaining jobs are recorded as not started."""
    tries: dict[str, int] = {}
    for job in queue:
        campaign.note(job, "waiting")
    while True:
        for worker in crew.idle():
            job = take(queue, until - time.monotonic(), campaign.seconds_of)
            if job is None:
                break
            tries[job.name] = tries.get(job.name, 0) + 1
            crew.give(worker, job)
            campaign.note(job, "running")
        if not crew.running():
            break
        over = time.monotonic() >= until
        for job, outcome in crew.stop() if over else crew.ended(min(1.0, until - time.monotonic())):
            campaign.note(job, outcome.state, round(outcome.seconds, 1), outcome.reason)
            if outcome.state == "lost" and tries[job.name] < _TRIES and not over:
                queue.append(job)
            if job.tuning and outcome.state == "finished":
                campaign.tuning = max(campaign.tuning, outcome.seconds)
        campaign.pack_if_due()
    for job in queue:
        campaign.note(job, "not started", reason="no time left")


def pilot(campaign: Campaign, crew: Any) -> float | None:
    """The learning rate with the lowest held-out masked-LM loss at equal tokens; None if every run failed.

    Also measures the speed of a process and the seconds that a cell takes in addition to its training.
    """
    from albert_ablate.files import read_json
    from benchmarks.rented_gpu.ladder import Job
    from benchmarks.rented_gpu.sizes import budget

    processes = campaign.decision["processes"]
    campaign.speed = campaign.decision["tokens_per_second"] / processes
    tokens = campaign.speed * campaign.size.pilot
    for rates in _RATES:
        queue = []
        for rate in rates:
            learning_rate = f"optimizer.learning_rate={rate}"
            overrides = (*campaign.size.model, *_PILOT, *budget(tokens, campaign.size), learning_rate)
            queue.append(Job(f"pilot {rate}", (*overrides, *_incidental(campaign, f"pilot/{rate}")), tokens))
        work_off(campaign, crew, queue, campaign.until(_CELLS_UNTIL))
        losses = {}
        for rate in rates:
            results = next((campaign.folders.pilot / str(rate)).glob("[!.]*/results.json"), None)
            if results is None:
                continue
            scores = read_json(results)
            losses[rate] = scores["masked_lm"]["loss"]
            campaign.speed = scores["training"]["tokens_per_second"]
            took = campaign.record["jobs"][f"pilot {rate}"]["seconds"]
            campaign.beside = max(campaign.beside, took - scores["training"]["seconds"])
        campaign.record["pilot"] = {"losses": losses, "tokens": round(tokens)}
        if losses:
            return min(losses, key=lambda rate: losses[rate])
    return None


def _incidental(campaign: Campaign, runs: str) -> tuple[str, ...]:
    """Settings of a job that are equal in all cells: data, folders and backend."""
    from benchmarks.rented_gpu.sizes import backend_overrides

    folders = campaign.folders
    return (
        "data=packed", f"data.path={folders.pack}", f"paths.cache={folders.cache}", f"paths.runs={folders.work / runs}",
        *backend_overrides(campaign.decision["backend"]),
    )  # fmt: skip


def run(campaign: Campaign) -> None:
    """Run the pilot, the cells and the fine-tunings."""
    from benchmarks.rented_gpu.crew import Crew
    from benchmarks.rented_gpu.ladder import blocks, jobs, tunings

    size, decision = campaign.size, campaign.decision
    rate_of_all = decision["assumed"] or decision["tokens_per_second"]
    chosen = blocks(rate_of_all)
    campaign.record |= {"blocks": [block.name for block in chosen], "tokens_per_second": rate_of_all}
    if not chosen:
        campaign.record["why"] = "too slow for one table; the speeds in checks.json say where the time goes"
        return
    crew = Crew(decision["processes"], campaign.folders.log)
    try:
        learning_rate = pilot(campaign, crew)
        if learning_rate is None:
            campaign.record["why"] = "every run of the pilot failed"
            return
        campaign.record["learning_rate"] = learning_rate
        where = _incidental(campaign, "runs")
        queue = [replace(job, overrides=(*job.overrides, *where)) for job in jobs(chosen, size, learning_rate)]
        work_off(campaign, crew, queue, campaign.until(_CELLS_UNTIL))
        if campaign.folders.tasks.is_dir():
            queue = tunings(chosen, size, learning_rate, str(campaign.folders.tasks))
            finished = {name for name, job in campaign.record["jobs"].items() if job["state"] == "finished"}
            queue = [
                replace(job, overrides=(*job.overrides, *where))
                for job in queue
                if job.name.removesuffix(", tasks") in finished
            ]
            work_off(campaign, crew, queue, campaign.until(_TUNING_UNTIL))
    finally:
        crew.dismiss()


def main() -> None:
    """Run the campaign and pack its results."""
    began = time.monotonic()
    options = parser("campaign", (__doc__ or "").partition("\n")[0]).parse_args()
    folders = folders_of(options)
    install(folders)
    from albert_ablate.files import read_json
    from benchmarks.rented_gpu.results import pack
    from benchmarks.rented_gpu.sizes import size_of

    size = size_of(options.tiny)
    decision = read_json(folders.decisions)
    campaign = Campaign(folders, size, decision, began + size.campaign, {"decision": decision, "jobs": {}})
    try:
        run(campaign)
    except Exception as error:  # finished cells are packed all the same
        campaign.record["why"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        campaign.record["seconds"] = round(time.monotonic() - began, 1)
        campaign.save()
        campaign.record["left_out"] = pack(folders, weights=True)
        campaign.record["ended"] = True
        campaign.save()
        pack(folders, weights=False)  # with the final journal


if __name__ == "__main__":
    main()
