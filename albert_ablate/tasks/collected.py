"""Copies finished fine-tunings into the run's ``results.json``, with the seeds of a setting grouped."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from filelock import FileLock

from albert_ablate.config.tasks import PAPER_FIVE
from albert_ablate.record import formats
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.lock import guard_file
from albert_ablate.record.results import Results
from albert_ablate.record.tasks import Average, TaskEntry, UnitResults


def collect(run: RunFolder) -> None:
    """Write every finished unit to ``tasks`` of the run's ``results.json``, with the seeds of a setting grouped."""
    guard = guard_file(run.path)
    guard.parent.mkdir(exist_ok=True)
    with FileLock(f"{guard}.results"):
        finished = [
            RunFolder(p.parent.parent, p.parent.name) for p in sorted((run.path / "tasks").glob("[!.]*/results.json"))
        ]
        records = [(unit, unit.load("results.json", UnitResults)) for unit in finished if unit.state() == "finished"]
        groups: dict[tuple[str, str], list[tuple[str, UnitResults]]] = {}
        for unit, record in records:
            answered = heads_of(unit, record.recipe)
            record.recipe = record.recipe | {"heads": answered}
            groups.setdefault((record.group, answered), []).append((unit.name, record))
        results = Results(tasks=[_entry(members) for members in groups.values()])
        average = paper_average(results.as_json()["tasks"])
        if average:
            results.average = Average.model_validate(average)
        run.amend("results.json", results)


def _entry(members: list[tuple[str, UnitResults]]) -> TaskEntry:
    """One task and setting over its seeds: median, range, and the sets of the median seed."""
    members = sorted(members, key=lambda member: member[1].seed)
    records = [record for _, record in members]
    best = [record.best.score for record in records]
    middle = records[best.index(statistics.median_low(best))]
    last = [record.last.score for record in records]
    return TaskEntry(
        task=middle.task,
        start=middle.start,
        group=middle.group,
        metric=middle.metric,
        seeds=[record.seed for record in records],
        score=statistics.median(best),
        spread=[min(best), max(best)],
        scores=best,
        last_score=statistics.median(last),
        last_scores=last,
        average=statistics.median(record.best.average for record in records),
        sets=middle.best.sets,
        last_sets=middle.last.sets,
        sets_of_seed=middle.seed,
        to_beat=middle.to_beat,
        to_beat_each=middle.to_beat_each,  # empty for older units, which recorded only the score's baselines
        selection=middle.selection,
        recipe=middle.recipe,
        set_up=middle.set_up,  # None for older units, which recorded only the recipe
        seconds=sum(map(_seconds, records)),
        units=[name for name, _ in members],
    )


def _seconds(record: UnitResults) -> float:
    """Seconds of training, both stages of a distillation together."""
    first = record.teacher.layers if record.teacher is not None else None
    return record.training.seconds + (0.0 if first is None else first.seconds)


def paper_average(tasks: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The paper's Avg (Table 2): the mean of five tasks, after averaging F1 and EM of each SQuAD.

    Covers fine-tunings of the pretrained model whose heads share a number format; None unless all five exist. If a
    task has several settings the last entry counts; if there are several formats, fp32.
    """
    by_format: dict[str, dict[str, float]] = {}
    for entry in tasks:
        if entry["start"] == "pretrained":
            answered = entry.get("recipe", {}).get("heads", formats.HEADS)
            by_format.setdefault(answered, {})[entry["task"]] = entry["average"]
    complete = sorted(
        (answered for answered in by_format if set(PAPER_FIVE) <= by_format[answered].keys()), key=formats.order
    )
    if not complete:
        return None
    parts = {name: by_format[complete[0]][name] for name in PAPER_FIVE}
    return {"value": statistics.mean(parts.values()), "tasks": parts, "heads": complete[0]}


def heads_of(folder: RunFolder, recipe: Mapping[str, Any]) -> str:
    """Number format of the head; for fine-tunings that did not record it, the format of the whole fine-tuning."""
    recorded_format = recipe.get("heads")
    return str(recorded_format or folder.read("manifest.json").get("precision", "unknown"))
