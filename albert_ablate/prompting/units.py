"""The k-shot evaluations of a run: one unit per task, number of demonstrations and seed, skipped if finished.

``RUN/kshot/<task>-k<k>-s<seed>-<identity>/`` is a run folder of its own. ``collect`` copies finished units into the
run's ``results.json``.
"""

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from filelock import FileLock

from albert_ablate import console
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import PreemptedError, UserError, raise_worst
from albert_ablate.prompting.draw import Demonstrations
from albert_ablate.prompting.likelihood import Likelihood
from albert_ablate.prompting.models import load_likelihood, room_of, scoring
from albert_ablate.prompting.planning import Asked, Unit
from albert_ablate.prompting.prompts import Prompts
from albert_ablate.prompting.scores import (
    Asker,
    ask_all,
    drop_parts,
    judged,
    judged_by_bigram,
    of_phenomenon,
    read_lines,
)
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.kshot import KShotEntry, KShotManifest, KShotUnit
from albert_ablate.record.lock import guard_file, locked
from albert_ablate.record.outcome import recorded
from albert_ablate.record.results import Results
from albert_ablate.tasks.questions import Questions
from albert_ablate.training.checkpoint import newest
from albert_ablate.training.describe import code, hardware
from albert_ablate.training.machine import Machine


@dataclass(frozen=True)
class Read:
    """The questions of a task, and how many minimal pairs were left out."""

    questions: Questions
    left_out: dict[str, int]


def read_all(asked: Iterable[Asked], tokenizer: Tokenizer, room: int) -> dict[str, Read]:
    """Task -> its questions, read and checked. Raises UserError."""
    found: dict[str, Read] = {}
    for one in asked:
        if one.name not in found:
            with console.stage(f"reading {one.name}"):
                found[one.name] = Read(*one.read(tokenizer, room))
    return found


def evaluate_all(
    config: RunConfig,
    run: RunFolder,
    units: Sequence[Unit],
    read: Mapping[str, Read],
    tokenizer: Tokenizer,
    machine: Machine,
) -> None:
    """Score every unfinished unit.

    A failing unit does not stop the others; the worst error is raised at the end. A stop signal is raised at once.
    """
    run.read("results.json")  # damaged ones are refused before the work
    waiting = [unit for unit in units if unit.folder.state() != "finished"]
    likelihood = load_likelihood(config, run, tokenizer, machine.device) if waiting else None
    failures: list[UserError] = []
    for unit in waiting:
        assert likelihood is not None
        try:
            with (
                locked(unit.folder.path),
                recorded(unit.folder, no_memory(config), config.runtime.time_limits),
            ):
                unit.folder.set_status("running")
                _evaluate(config, run, unit, read[unit.asked.name], likelihood, tokenizer, machine)
        except PreemptedError:
            raise
        except UserError as error:
            console.say(f"  ✗ {unit.folder.name}: {error}")
            failures.append(error)
        collect(run)
    raise_worst(failures, f"{len(units)} evaluations of {run.name}")


def _evaluate(
    config: RunConfig,
    run: RunFolder,
    unit: Unit,
    read: Read,
    likelihood: Likelihood,
    tokenizer: Tokenizer,
    machine: Machine,
) -> None:
    asked, questions, folder, room = unit.asked, read.questions, unit.folder, room_of(config)
    folder.write("manifest.json", KShotManifest(
        task=asked.name, k=unit.k, seed=unit.seed, group=unit.group, run=run.name,
        checkpoint=newest(run.checkpoints).name, scoring=scoring(config), template=asdict(asked.template),
        settings=unit.counted, data=asked.data, tokenizer=tokenizer.fingerprint, room=room, source=code(),
        hardware=hardware(machine), precision="fp32",
    ))  # fmt: skip
    drawn = Demonstrations(questions.training, asked.name, unit.seed or 0, config.kshot.balanced)
    prompts = Prompts(asked.template, tokenizer, room)
    asker = Asker(prompts, likelihood, drawn, unit.k, asked.rules, asked.bigram(tokenizer))
    started, before = time.perf_counter(), likelihood.passes
    title = f"{asked.name}, k={unit.k}" + ("" if unit.seed is None else f", seed {unit.seed}")
    with console.stage(f"{title}: {len(questions.dev):,} questions"):
        ask_all(asker, questions.dev, folder.path)
    lines = read_lines(folder.path)
    names = dict.fromkeys(line["phenomenon"] for line in lines if "phenomenon" in line)
    shots = [len(line["shots"]) for line in lines]
    record = KShotUnit(
        task=asked.name,
        k=unit.k,
        seed=unit.seed,
        group=unit.group,
        scoring=scoring(config),
        questions=len(lines),
        accuracy=judged(lines, asked.rules),
        phenomena={name: judged(of_phenomenon(lines, name), asked.rules) for name in names},
        chance=questions.chance,
        majority=questions.majority,
        k_used=statistics.fmean(shots),
        shortened=sum(count < unit.k for count in shots),
        cut=sum(line["cut"] > 0 for line in lines),
        moved=sum(line["moved"] for line in lines),
        left_out=read.left_out,
        passes=likelihood.passes - before,
        seconds=time.perf_counter() - started,
    )
    bigram = judged_by_bigram(lines)
    if bigram is not None:
        record.bigram = bigram
        each = {name: judged_by_bigram(of_phenomenon(lines, name)) for name in names}
        record.bigram_phenomena = {name: share for name, share in each.items() if share is not None}
    folder.write("results.json", record)
    folder.set_status("finished")
    drop_parts(folder.path)
    for remark in _remarks(record):
        folder.say(f"{folder.name}: {remark}")


def _remarks(record: KShotUnit) -> list[str]:
    """What the user should know about the prompts."""
    remarks = []
    if record.shortened:
        remarks.append(
            f"{record.shortened} of {record.questions} prompts have fewer than {record.k} demonstrations, as more did "
            f"not fit or do not exist ({record.k_used:.1f} on average)"
        )
    if record.cut:
        remarks.append(f"{record.cut} of {record.questions} questions did not fit and lost their beginning")
    if record.moved:
        remarks.append(
            f"in {record.moved} prompts a token spans prompt and option; it is scored as a part of the option"
        )
    remarks += [
        f"{count} pairs left out: {reason.replace('_', ' ')}" for reason, count in record.left_out.items() if count
    ]
    return remarks


def collect(run: RunFolder) -> None:
    """Write every finished unit to ``kshot`` of the run's ``results.json``, with the seeds of a setting together."""
    guard = guard_file(run.path)
    guard.parent.mkdir(exist_ok=True)
    with FileLock(f"{guard}.results"):
        folders = [RunFolder(f.parent.parent, f.parent.name) for f in sorted(run.path.glob("kshot/[!.]*/results.json"))]
        groups: dict[str, list[tuple[str, KShotUnit]]] = {}
        for folder in folders:
            if folder.state() == "finished":
                record = folder.load("results.json", KShotUnit)
                groups.setdefault(record.group, []).append((folder.name, record))
        entries = sorted(map(_entry, groups.values()), key=lambda entry: (entry.task, entry.k))
        run.amend("results.json", Results(kshot=entries))


def _entry(members: Sequence[tuple[str, KShotUnit]]) -> KShotEntry:
    """One task and setting over its seeds."""
    members = sorted(members, key=lambda member: member[1].seed or 0)
    records = [record for _, record in members]
    first = records[0]
    rules = [rule for rule in first.accuracy if all(rule in record.accuracy for record in records)]
    each = {rule: [record.accuracy[rule].value for record in records] for rule in rules}
    entry = KShotEntry(
        task=first.task,
        k=first.k,
        group=first.group,
        scoring=first.scoring,
        seeds=[record.seed for record in records if record.seed is not None],
        questions=first.questions,
        accuracy={rule: statistics.fmean(values) for rule, values in each.items()},
        spread={rule: statistics.stdev(values) if len(values) > 1 else None for rule, values in each.items()},
        accuracies=each,
        intervals={rule: first.accuracy[rule].interval for rule in rules},
        phenomena=first.phenomena,
        chance=first.chance,
        majority=first.majority,
        k_used=statistics.fmean(record.k_used for record in records),
        cut=first.cut,
        units=[name for name, _ in members],
    )
    if first.bigram is not None:
        entry.bigram, entry.bigram_phenomena = first.bigram, first.bigram_phenomena
    return entry


def no_memory(config: RunConfig) -> str:
    """What to do when memory runs out."""
    device = config.runtime.device
    return (
        f"Out of memory while scoring options (runtime.device={device}). Use runtime.device=cpu, or a smaller kshot.k."
    )
