"""The score of each run that arms are compared on, in printed units, and whether it may be compared."""

import math
from collections.abc import Sequence
from typing import Any

from albert_ablate.axes import OBJECTIVE, SENTENCE_TASKS

from . import prompted
from .files import at, mean
from .fine_tunings import later_epochs
from .rules import Estimate, error, estimate, resolution
from .runs import Run
from .task_setups import alike, one_setup_each

Bounds = tuple[float, float]
_SHARE: Bounds = (0.0, 100.0)
_POSITIVE: Bounds = (0.0, math.inf)
#: Column -> task, set ("": the first one) and metric.
OF_TASKS = {
    "SQuAD1.1_F1": ("squad11", "", "f1"), "SQuAD1.1_EM": ("squad11", "", "exact"),
    "SQuAD2.0_F1": ("squad20", "", "f1"), "SQuAD2.0_EM": ("squad20", "", "exact"),
    "MNLI": ("mnli", "matched", "accuracy"), "SST-2": ("sst2", "", "accuracy"), "RACE": ("race", "", "accuracy"),
    "MNLI-mm": ("mnli", "mismatched", "accuracy"), "MRPC": ("mrpc", "", "f1"), "CoLA": ("cola", "", "matthews"),
}  # fmt: skip
#: Tasks whose own metric is a squared error, which is printed in thousandths.
_SQUARED = tuple(f"task:{name}" for name in ("quest", "quest_single", "quest_pair", "quest_generated"))
_LATER = "QUEST later epochs"
_QUEST = ("QUEST R2", "QUEST ties", _LATER)  # none has two bounds
OF_TASKS |= {"QUEST R2": ("quest", "", "r2"), "QUEST Spearman": ("quest", "", "spearman"),
             "QUEST ties": ("quest", "", "discretising_gain")}  # fmt: skip
#: The scores of the sentence tasks, and the key of each in results.json.
_SENTENCES = {OBJECTIVE.label_of(task): task for task in SENTENCE_TASKS}
#: Scores of every table; scores of a table with runs; tasks that have a column of the paper.
PRINTED = ("SQuAD1.1_F1", "SQuAD1.1_EM", "SQuAD2.0_F1", "SQuAD2.0_EM", "MNLI", "SST-2", "RACE", "Avg")
SENTENCES = tuple(_SENTENCES)
HELD_OUT = ("MLM loss", "MLM", *SENTENCES)
#: The score of the replaced-token probe, which a table has if one of its runs has it.
REPLACED = "replaced AUC"
#: The same for ELECTRA's tables, and what its average over GLUE is made of.
PRINTED_BY_ELECTRA = ("GLUE", "MNLI", "SST-2")
#: The same for TinyBERT's tables.
PRINTED_BY_TINYBERT = ("MNLI", "MNLI-mm", "MRPC", "CoLA", "four tasks")
#: The same for MobileBERT's and BigBird's.
PRINTED_BY_MOBILEBERT = ("GLUE", "MNLI", "task:qnli", "SST-2", "SQuAD1.1_F1")
PRINTED_BY_BIGBIRD = ("SQuAD1.1_F1", "MNLI")
#: Mean over scores -> (task, set, metric) of each.
_MEANS = {
    "GLUE": (
        ("cola", "", "matthews"), ("sst2", "", "accuracy"), ("mrpc", "", "accuracy"), ("stsb", "", "spearman"),
        ("qqp", "", "accuracy"), ("mnli", "", "accuracy"), ("qnli", "", "accuracy"), ("rte", "", "accuracy"),
    ),
    "four tasks": tuple(OF_TASKS[key] for key in PRINTED_BY_TINYBERT[:4]),
}  # fmt: skip
_AVERAGED = ("squad11", "squad20", "mnli", "sst2", "race")
#: Column -> its path in results.json, the paths of its interval, and the factor to printed units.
_HELD_OUT = {
    "MLM": ("masked_lm.accuracy", ("masked_lm.binomial_interval", "masked_lm.interval"), 100.0),
    "MLM loss": ("masked_lm.loss", ("masked_lm.loss_interval",), 1.0),
    REPLACED: ("replaced_tokens.auc", ("replaced_tokens.interval",), 100.0),
    "bits per byte": ("causal_lm.bits_per_byte", ("causal_lm.bits_per_byte_interval",), 1.0),
    "context gain": ("causal_lm.context.gain", ("causal_lm.context.interval",), 1.0),
    **{score: (f"{task}.accuracy", (f"{task}.interval",), 100.0) for score, task in _SENTENCES.items()},
    **{
        f"{score} own head": (f"{task}.own_head.accuracy", (f"{task}.own_head.interval",), 100.0)
        for score, task in _SENTENCES.items()
    },
}
_UNITS = {
    "MLM loss": "nats",
    "bits per byte": "",
    "context gain": "nats",
    "tokens/s": "1/s",
    "seconds": "s",
    "params": "M",
    "inference": "ms",
    "latency": "ms",
    "ONNX latency": "ms",
    "L2 roughness": "",
    "angle roughness": "",
    "speedup": "x",
}
#: Time of a pass in latency.json -> its form.
LATENCIES = {"latency": "eager", "ONNX latency": "onnx"}
#: How the keys of a student's part of its teacher's score begin, and what is computed of a student's costs.
_KEPT, _COSTS = "kept", ("times faster", "FLOPs alone", "FLOPs with teacher")
_UNITS |= dict.fromkeys((*_SQUARED, _LATER), "×10⁻³")
_UNITS |= {"times faster": "x", "FLOPs alone": "TFLOPs", "FLOPs with teacher": "TFLOPs"}
_PROPORTIONS = {"accuracy", "exact", "f1", "macro_f1", "micro_f1"}
_STEADY = 1.25
#: Counted, not sampled.
_EXACT = ("params", "FLOPs alone", "FLOPs with teacher")


def unit(key: str) -> str:
    """Unit that the score is printed in."""
    return _UNITS.get(key, "%")


def values(runs: Sequence[Run], key: str) -> dict[int, float]:
    """Seed -> the score, for the runs that have it."""
    if key.startswith(_KEPT):
        return kept(runs, key.removeprefix(_KEPT).strip())
    by_seed = {}
    for run, entries in zip(runs, _entries(runs), strict=True):
        number = _value(run, entries, key)
        if number is not None:
            by_seed[run.seed] = number
    return by_seed


def _value(run: Run, entries: dict[str, dict[str, Any]], key: str) -> float | None:
    if prompted.is_score(key):
        found = prompted.measured(run, key)
        return None if found is None else found[0]
    if key == _LATER:
        return later_epochs(run.folder, entries.get("quest"))
    if key in _HELD_OUT:
        path, _, scale = _HELD_OUT[key]
        number = at(run.results, path)
        return None if number is None else number * scale
    if key in OF_TASKS:
        task, name, metric = OF_TASKS[key]
        return _of_set(entries.get(task), name, metric)
    if key == "Avg":
        if any(task not in entries for task in _AVERAGED):
            return None
        return 100 * sum(entries[task]["average"] for task in _AVERAGED) / len(_AVERAGED)
    if key in _MEANS:
        parts = [_of_set(entries.get(task), name, metric) for task, name, metric in _MEANS[key]]
        return None if None in parts else mean([part for part in parts if part is not None])
    if key.startswith("task:"):
        entry = entries.get(key.removeprefix("task:"))
        return None if entry is None else (1000 if key in _SQUARED else 100) * entry["score"]
    if key == "tokens/s":
        return run.speed
    if key == "seconds":
        return at(run.results, "training.seconds")
    if key == "inference":
        return at(run.results, "inference.milliseconds")
    if key in LATENCIES:
        return run.latency(LATENCIES[key]).get("milliseconds")
    if key in _COSTS:
        return _cost(run, key)
    if key == "params":
        count = at(run.manifest, "parameters.with_pooler")
        return None if count is None else count / 1e6
    return roughness(run.similarity.get({"L2 roughness": "l2", "angle roughness": "degrees"}[key]))


def of_pretraining(key: str) -> bool:
    """Whether all fine-tunings of a run have one value of the score."""
    return not (key == "Avg" or key.startswith("task:") or key in (*OF_TASKS, *_MEANS, *_QUEST))


def kept(runs: Sequence[Run], key: str) -> dict[int, float]:
    """Seed -> percentage of the teacher's score that a student has; without a key the mean over its tasks."""
    if not key:
        by_task = [kept(runs, f"task:{task}") for task in sorted(tasks(runs))]
        seeds = sorted({seed for of_task in by_task for seed in of_task})
        return {seed: mean([of_task[seed] for of_task in by_task if seed in of_task]) for seed in seeds}
    name = OF_TASKS[key][0] if key in OF_TASKS else key.removeprefix("task:")
    shares = {}
    for run, entries in zip(runs, _entries(runs), strict=True):
        own = _value(run, entries, key)
        if own is None or run.teacher is None:
            continue
        plain = [entry for entry in run.teacher.tasks if entry["start"] == "pretrained"]
        like = {entry["task"]: entry for entry in plain if entry["task"] == name and _taught(entry, entries[name])}
        taught = _value(run.teacher, like, key)
        if taught is not None and taught > 0:
            shares[run.seed] = 100 * own / taught
    return shares


def _taught(teacher: dict[str, Any], student: dict[str, Any]) -> bool:
    """Whether a teacher's fine-tuning differs from a student's only in what belongs to distillation."""
    own = (f"set_up.all_tasks.{name}" for name in ("distil", "augment", "start"))
    steps = (f"recipe.{name}" for name in ("steps", "warmup_steps", "epochs", "warmup"))
    return alike(teacher, student, (*own, *steps))


def _cost(run: Run, key: str) -> float | None:
    """Times faster than the teacher, or FLOPs of training in units of 10^12."""
    if key == "times faster":
        teacher, own = run.teacher, at(run.results, "inference.milliseconds")
        if teacher is None or not own or teacher.inference_setting != run.inference_setting:
            return None
        return float(at(teacher.results, "inference.milliseconds") / own)
    spent, logged = at(run.results, "training.flops"), run.lines[-1].get("flops") if run.lines else None
    total = spent if spent is None or logged is None else logged
    if total is None:
        return None
    passes, theirs = (at(run.manifest, f"teacher.{name}") for name in ("flops_per_step", "training_flops"))
    if key == "FLOPs alone":
        return (total - (passes or 0.0) * at(run.results, "training.steps")) / 1e12
    named = at(run.manifest, "teacher.identity") or at(run.config, "method.teacher_run")
    return None if theirs is None and named else (total + (theirs or 0.0)) / 1e12


def roughness(profile: Any) -> float | None:
    """Mean change from layer to layer, over the mean of the layers; None with fewer than two layers."""
    if not isinstance(profile, list) or len(profile) < 2 or not any(profile):
        return None
    change = sum(abs(profile[k] - profile[k - 1]) for k in range(1, len(profile))) / (len(profile) - 1)
    return change / (sum(profile) / len(profile))


def bounds(key: str, *arms: Sequence[Run]) -> Bounds:
    """Bounds of a score, in printed units."""
    if key in (*_MEANS, "CoLA", "QUEST Spearman"):  # a correlation, or with one among its parts
        return (-100.0, 100.0)
    if prompted.is_score(key):
        plain = key == "minimal pairs" or key.startswith(("zero-shot:", "few-shot:"))
        return _SHARE if plain else (-100.0, 100.0)
    if key.startswith(_KEPT) or key in _QUEST or key == "context gain":
        return (-math.inf, math.inf)
    if key in _SQUARED:
        return _POSITIVE
    if not key.startswith("task:"):
        return _SHARE if unit(key) == "%" else _POSITIVE
    task = key.removeprefix("task:")
    entries = [tasks_of_run[task] for runs in arms for tasks_of_run in _entries(runs) if task in tasks_of_run]
    names = {name for entry in entries for name in entry["metric"].split(" and ")}
    if names <= _PROPORTIONS:
        return _SHARE
    return (-100.0, 100.0) if names <= _PROPORTIONS | {"matthews", "pearson", "spearman"} else (-math.inf, math.inf)


def floor(runs: Sequence[Run], key: str) -> float:
    """Floor of the spread: standard error of one run's score, in printed units; 0 where no interval is recorded."""
    if key in _HELD_OUT:
        _, paths, scale = _HELD_OUT[key]
        pairs = [next((pair for path in paths if (pair := at(run.results, path))), None) for run in runs]
        return scale * resolution([error(pair) for pair in pairs])
    if key in LATENCIES:
        return resolution([error(run.latency(LATENCIES[key]).get("interval")) for run in runs])
    if prompted.is_score(key):
        known = [found for run in runs if (found := prompted.measured(run, key)) is not None]
        parts = [[error(list(pair)) or 0.0 for pair in intervals] for _, intervals, _ in known]
        return resolution([math.sqrt(sum(one**2 for one in of_run)) for of_run in parts])
    if key == "Avg":
        return 100 * resolution([_error_of_average(entries) for entries in _entries(runs)])
    if key in _MEANS:
        return 100 * resolution([_error_of_mean(entries, _MEANS[key]) for entries in _entries(runs)])
    if key not in OF_TASKS and not key.startswith("task:"):
        return 0.0
    task, name, metric = OF_TASKS.get(key, (key.removeprefix("task:"), "", "*"))
    scale = 1000 if key in _SQUARED else 100
    return scale * resolution([_error_of_set(tasks_of_run.get(task), name, metric) for tasks_of_run in _entries(runs)])


def _error_of_set(entry: dict[str, Any] | None, name: str, metric: str) -> float | None:
    """Standard error of a metric on a set; ``*``: of the task's own metric, for two the mean of their errors."""
    if entry is None:
        return None
    of_set = _scores(entry, name)
    return _mean_error(
        [of_set.get(metric_name) for metric_name in (entry["metric"].split(" and ") if metric == "*" else [metric])]
    )


def _error_of_average(entries: dict[str, dict[str, Any]]) -> float | None:
    """Standard error of Avg. The five tasks are independent; two metrics of one task share its examples."""
    if any(task not in entries for task in _AVERAGED):
        return None
    parts = [_mean_error(list(_scores(entries[task], "").values())) for task in _AVERAGED]
    known = [part for part in parts if part is not None]
    return math.sqrt(sum(part**2 for part in known)) / len(_AVERAGED) if known else None


def _error_of_mean(entries: dict[str, dict[str, Any]], of: Sequence[tuple[str, str, str]]) -> float | None:
    """Standard error of a mean over scores on independent dev sets."""
    if any(task not in entries for task, _, _ in of):
        return None
    known = [e for task, name, metric in of if (e := _error_of_set(entries[task], name, metric)) is not None]
    return math.sqrt(sum(part**2 for part in known)) / len(of) if known else None


def _mean_error(recorded: Sequence[Any]) -> float | None:
    errors = [error(score.get("interval")) for score in recorded if isinstance(score, dict)]
    known = [value for value in errors if value is not None]
    return mean(known) if known else None


def summary(runs: Sequence[Run], key: str) -> Estimate | None:
    """Mean and interval of the score over these runs; None where no run has it."""
    return estimate(list(values(runs, key).values()), bounds(key, runs), floor(runs, key), key in _EXACT)


def unfit(runs: Sequence[Run], key: str) -> bool:
    """Whether the score must not be compared: a seed has not left its baseline, or the machine was shared."""
    if key in ("times faster", "inference"):
        timed = [*runs, *(run.teacher for run in runs if run.teacher is not None and key != "inference")]
        if any((run.inference_spread or 0.0) >= 2.0 for run in timed):
            return True
    if key == "params" or key in _COSTS:
        return False
    if key.startswith(_KEPT):
        of = key.removeprefix(_KEPT).strip()
        teachers = [run.teacher for run in runs if run.teacher is not None]
        parts = [of] if of else [f"task:{task}" for task in tasks(runs)]
        return any(unfit(members, part) for members in (runs, teachers) for part in parts if members)
    if key in LATENCIES:
        return len({how for run in runs if (how := run.latency(LATENCIES[key]).get("setting"))}) > 1
    if key == "inference":
        return len({how for run in runs if (how := run.inference_setting)}) > 1
    if key in ("tokens/s", "speedup", "seconds"):
        speeds = list(values(runs, "tokens/s").values())
        spread = max((run.unevenness for run in runs if run.unevenness is not None), default=0.0)
        return spread >= _STEADY or (bool(speeds) and max(speeds) / min(speeds) >= _STEADY)
    if any(at(run.results, f"{name}.left_baseline") is False for run in runs for name in ("masked_lm", "causal_lm")):
        return True
    if prompted.is_score(key):
        known = [found for run in runs if (found := prompted.measured(run, key)) is not None]
        return any(at_chance for _, _, at_chance in known)
    if key.startswith(tuple(_SENTENCES)):
        return any(at(run.results, f"{at(run.config, 'objective.name')}.left_baseline") is False for run in runs)
    if key == REPLACED and any(at(run.results, "replaced_tokens.left_baseline") is False for run in runs):
        return True
    named = {_LATER: "quest", **{column: of[0] for column, of in OF_TASKS.items()}}
    task = named.get(key, key.removeprefix("task:") if key.startswith("task:") else None)
    return task is not None and any(
        task in tasks_of_run and _below(tasks_of_run[task]) for tasks_of_run in _entries(runs)
    )


def tasks(runs: Sequence[Run]) -> set[str]:
    """Every task that at least one run was fine-tuned on from its pretrained weights."""
    return {entry["task"] for run in runs for entry in run.tasks if entry["start"] == "pretrained"}


def _entries(runs: Sequence[Run]) -> list[dict[str, dict[str, Any]]]:
    """For each run: task -> its entry, in the set-up that most of these runs used."""
    return [{e["task"]: e for e in run.tasks if e["start"] == "pretrained"} for run in one_setup_each([runs])[0]]


def _of_set(entry: dict[str, Any] | None, name: str, metric: str) -> float | None:
    score = _scores(entry, name).get(metric)
    number = score["value"] if isinstance(score, dict) else score
    return None if number is None else 100 * number


def _interval(entry: dict[str, Any] | None, name: str, metric: str) -> Any:
    chosen = entry["metric"] if entry is not None and metric == "*" else metric
    score = _scores(entry, name).get(chosen)
    return score.get("interval") if isinstance(score, dict) else None


def _scores(entry: dict[str, Any] | None, name: str) -> dict[str, Any]:
    if entry is None:
        return {}
    return entry["sets"].get(name, {}) if name else next(iter(entry["sets"].values()), {})


def _below(entry: dict[str, Any]) -> bool:
    """Whether the first set's interval reaches its majority class, or the squared error of the training mean."""
    floors: dict[str, float] = next(iter(entry.get("to_beat", {}).values()), {})
    majority = floors.get("majority")
    interval = _interval(entry, "", "*")
    if majority is None or interval is None:
        return False
    return not (interval[1] < majority if entry["metric"] == "mean_squared_error" else interval[0] > majority)
