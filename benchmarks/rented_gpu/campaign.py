"""The campaign: as many cells as the measured speed has time for, in several processes at once.

``first`` starts it; ``python -m benchmarks.rented_gpu.campaign`` starts it alone. It ends within 470 seconds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.rented_gpu.places import Places, install, parser, places_of

#: Shares of the whole time at which cells and fine-tunings have to be finished; packing has the rest.
_CELLS_UNTIL, _TUNING_UNTIL = 0.78, 0.94
#: LAMB's rates that the pilot tries; where all of them diverge, those below.
_RATES = ((0.0028, 0.004, 0.0057), (0.0007, 0.001, 0.0014))
_PILOT = ("embed=e32", "share=all", "objective=sop", "seed=9")
#: A job whose process died is run once more.
_TRIES = 2


@dataclass
class Campaign:
    """What is to be done, what became of it, and until when."""

    places: Places
    size: Any
    decision: dict[str, Any]
    end: float  # on the clock of ``time.monotonic``
    record: dict[str, Any] = field(default_factory=dict)
    packed_at: float = 0.0
    speed: float = 0.0  # tokens a second of one process among all
    beside: float = 0.0  # seconds of a cell beside its training
    tuning: float = 0.0  # seconds of the fine-tunings of a cell, as far as known

    def until(self, share: float) -> float:
        """The moment at that share of the whole time."""
        return self.end - (1 - share) * float(self.size.campaign)

    def seconds_of(self, job: Any) -> float:
        """What a job will take."""
        return self.tuning if job.tuning else 1.1 * job.tokens / self.speed + self.beside

    def note(self, job: Any, state: str, seconds: float | None = None, reason: str = "") -> None:
        """Write down what became of a job."""
        entry = {"state": state, "seconds": seconds, "tokens": job.tokens, "words": list(job.words)}
        self.record["jobs"][job.name] = entry | ({"reason": reason} if reason else {})
        self.save()

    def save(self) -> None:
        """Write the journal."""
        from albert_ablate.files import write_json

        write_json(self.places.journal, self.record)

    def pack_if_due(self) -> None:
        """Renew the packed results every so often."""
        from benchmarks.rented_gpu.results import pack

        if time.monotonic() - self.packed_at >= self.size.pack_every:
            self.record["left_out"] = pack(self.places, weights=False)
            self.packed_at = time.monotonic()


def take(queue: list[Any], left: float, seconds_of: Callable[[Any], float]) -> Any | None:
    """Remove and return the first job that the time is enough for; None where it is enough for none."""
    place = next((n for n, job in enumerate(queue) if seconds_of(job) <= left), None)
    return None if place is None else queue.pop(place)


def work_off(campaign: Campaign, crew: Any, queue: list[Any], until: float) -> None:
    """Run the jobs of ``queue`` in its order until the time is up; what is left is noted as not started."""
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
    """The rate whose run has the lowest held-out masked-LM loss at equal tokens; None where every run failed.

    Measures on the way what a cell takes.
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
            words = (*campaign.size.model, *_PILOT, *budget(tokens, campaign.size), f"optimizer.learning_rate={rate}")
            queue.append(Job(f"pilot {rate}", (*words, *_incidental(campaign, f"pilot/{rate}")), tokens))
        work_off(campaign, crew, queue, campaign.until(_CELLS_UNTIL))
        losses = {}
        for rate in rates:
            results = next((campaign.places.pilot / str(rate)).glob("[!.]*/results.json"), None)
            if results is None:
                continue
            found = read_json(results)
            losses[rate] = found["masked_lm"]["loss"]
            campaign.speed = found["training"]["tokens_per_second"]
            took = campaign.record["jobs"][f"pilot {rate}"]["seconds"]
            campaign.beside = max(campaign.beside, took - found["training"]["seconds"])
        campaign.record["pilot"] = {"losses": losses, "tokens": round(tokens)}
        if losses:
            return min(losses, key=lambda rate: losses[rate])
    return None


def _incidental(campaign: Campaign, runs: str) -> tuple[str, ...]:
    """Settings of a job that do not say what it trains: its data, its folders, its backend."""
    from benchmarks.rented_gpu.sizes import backend_words

    places = campaign.places
    return (
        "data=packed", f"data.path={places.pack}", f"paths.cache={places.cache}", f"paths.runs={places.work / runs}",
        *backend_words(campaign.decision["backend"]),
    )  # fmt: skip


def run(campaign: Campaign) -> None:
    """Pilot, cells, fine-tunings."""
    from benchmarks.rented_gpu.crew import Crew
    from benchmarks.rented_gpu.ladder import blocks, jobs, tunings

    size, decision = campaign.size, campaign.decision
    rate_of_all = decision["assumed"] or decision["tokens_per_second"]
    chosen = blocks(rate_of_all)
    campaign.record |= {"blocks": [block.name for block in chosen], "tokens_per_second": rate_of_all}
    if not chosen:
        campaign.record["why"] = "too slow for one table; the speeds in checks.json say where the time goes"
        return
    crew = Crew(decision["processes"], campaign.places.log)
    try:
        learning_rate = pilot(campaign, crew)
        if learning_rate is None:
            campaign.record["why"] = "every run of the pilot failed"
            return
        campaign.record["learning_rate"] = learning_rate
        where = _incidental(campaign, "runs")
        queue = [replace(job, words=(*job.words, *where)) for job in jobs(chosen, size, learning_rate)]
        work_off(campaign, crew, queue, campaign.until(_CELLS_UNTIL))
        if campaign.places.tasks.is_dir():
            queue = tunings(chosen, size, learning_rate, str(campaign.places.tasks))
            finished = {name for name, job in campaign.record["jobs"].items() if job["state"] == "finished"}
            queue = [
                replace(job, words=(*job.words, *where))
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
    places = places_of(options)
    install(places)
    from albert_ablate.files import read_json
    from benchmarks.rented_gpu.results import pack
    from benchmarks.rented_gpu.sizes import size_of

    size = size_of(options.tiny)
    decision = read_json(places.decisions)
    campaign = Campaign(places, size, decision, began + size.campaign, {"decision": decision, "jobs": {}})
    try:
        run(campaign)
    except Exception as error:  # what is finished is packed all the same
        campaign.record["why"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        campaign.record["seconds"] = round(time.monotonic() - began, 1)
        campaign.save()
        campaign.record["left_out"] = pack(places, weights=True)
        campaign.record["ended"] = True
        campaign.save()
        pack(places, weights=False)  # with the journal as it ended


if __name__ == "__main__":
    main()
