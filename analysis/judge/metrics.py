"""The metrics that arms are compared on: one value for each run, named as in the paper's tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from albert_ablate.axes import OBJECTIVE, SENTENCE_TASKS
from albert_ablate.config.tasks import PAPER_FIVE
from albert_ablate.record.formats import HEADS
from albert_ablate.record.tasks import direction
from albert_ablate.sweeping.estimate import STEADY

from ..read import students
from ..read.later_epochs import GAIN
from ..read.task_setups import one_setup_each
from . import prompted_scores
from .statistics import EVERYWHERE, NORMAL, Estimate, estimate


@dataclass(frozen=True)
class Metric:
    """One column of a table."""

    key: str  # the paper's column where it has one
    label: str
    unit: str
    scale: float = 100.0  # stored value -> printed value
    higher_is_better: bool = True
    source: tuple[str, ...] = ()  # ("task", "set", "metric") of a fine-tuned task, else ("column",)
    within: tuple[float, float] = (0.0, math.inf)  # bounds of the printed value
    exact: bool = False  # counted, not sampled
    interval: str | None = None  # column of a run's own 95% interval over its held-out examples
    sentences: bool = False  # score of a sentence task: compared only if the runs have learned their own task

    @property
    def task(self) -> str | None:
        """The fine-tuned task that the metric is a score of; None for any other metric."""
        return self.source[0] if len(self.source) == 3 else None


_PERCENT = "%"
_SHARE = (0.0, 100.0)
#: Task metrics that are shares, and those that are correlations.
_SHARES = ("accuracy", "exact", "f1", "macro_f1", "micro_f1")
_CORRELATIONS = ("matthews", "pearson", "spearman")
#: Metrics that depend on what else the machine does.
SPEEDS = ("tokens/s", "seconds", "inference", "latency", "ONNX latency")
#: 90th over 10th percentile of the passes of one measurement from which it counts as disturbed.
_EVEN = 2.0
#: Task -> its score in ELECTRA's average over GLUE, on its first dev set (Clark et al., 2020, section 3.1).
GLUE_SCORES = {
    "cola": "matthews", "sst2": "accuracy", "mrpc": "accuracy", "stsb": "spearman", "qqp": "accuracy",
    "mnli": "accuracy", "qnli": "accuracy", "rte": "accuracy",
}  # fmt: skip
#: The average of TinyBERT's ablations (Jiao et al., 2020, Tables 2 to 4).
FOUR = "four tasks"
#: Mean over several scores -> (task, set, metric) of each.
_MEANS = {
    "GLUE": tuple((task, "*", key) for task, key in GLUE_SCORES.items()),
    FOUR: (("mnli", "matched", "accuracy"), ("mnli", "mismatched", "accuracy"), ("mrpc", "*", "f1"),
           ("cola", "*", "matthews")),
}  # fmt: skip
#: Columns of TinyBERT's tables alone; other tables have these tasks in their own metric.
TINYBERTS = ("MNLI-mm", "MRPC", "CoLA")
#: Tasks whose own metric is the squared error of numbers from 0 to 1, as the presets of Google QUEST name them.
QUEST_TASKS = ("quest", "quest_single", "quest_pair", "quest_generated")
#: What a printed squared error is multiplied by, as its unit.
THOUSANDTHS = "×10⁻³"
#: A student's score as a percentage of its teacher's: this word alone, or before another score.
RETENTION = "kept"
#: A teacher's time of inference over its student's, and a student's FLOPs without and with its teacher's.
FASTER, ALONE, WITH_TEACHER = "times faster", "FLOPs alone", "FLOPs with teacher"
#: Milliseconds of a forward pass over one sequence.
INFERENCE = "inference"
#: The same from ``latency.json``, with one thread: in PyTorch, and in ONNX Runtime.
LATENCY, ONNX_LATENCY = "latency", "ONNX latency"
#: Time of a pass -> the column that says how it was measured.
SETTINGS = {INFERENCE: "inference_setting", LATENCY: "latency_setting", ONNX_LATENCY: "latency_onnx_setting"}
#: The scores of the sentence tasks, and the column of each in the table of runs.
SENTENCE_SCORES = {OBJECTIVE.label_of(task): task.value for task in SENTENCE_TASKS}
#: The score of the replaced-token probe.
REPLACED = "replaced AUC"
#: Causal LM on held-out documents, and the nats by which pieces are harder that see more of their document.
BITS_PER_BYTE, CONTEXT_GAIN = "bits per byte", "context gain"
#: What the publications call a task that has no column of its own.
_NAMES = {"ner": "NER F1", "stsb": "STS-B", "qqp": "QQP", "qnli": "QNLI", "rte": "RTE", "wnli": "WNLI"}
#: The paper's columns, then those that the paper does not have.
METRICS = {
    metric.key: metric
    for metric in (
        Metric("SQuAD1.1_F1", "SQuAD1.1 F1", _PERCENT, within=_SHARE, source=("squad11", "*", "f1")),
        Metric("SQuAD1.1_EM", "SQuAD1.1 EM", _PERCENT, within=_SHARE, source=("squad11", "*", "exact")),
        Metric("SQuAD2.0_F1", "SQuAD2.0 F1", _PERCENT, within=_SHARE, source=("squad20", "*", "f1")),
        Metric("SQuAD2.0_EM", "SQuAD2.0 EM", _PERCENT, within=_SHARE, source=("squad20", "*", "exact")),
        Metric("MNLI", "MNLI", _PERCENT, within=_SHARE, source=("mnli", "matched", "accuracy")),
        Metric("SST-2", "SST-2", _PERCENT, within=_SHARE, source=("sst2", "*", "accuracy")),
        Metric("RACE", "RACE", _PERCENT, within=_SHARE, source=("race", "*", "accuracy")),
        Metric("Avg", "Avg", _PERCENT, within=_SHARE),
        Metric("GLUE", "GLUE", _PERCENT, within=(-100.0, 100.0)),
        Metric("MNLI-mm", "MNLI-mm", _PERCENT, within=_SHARE, source=("mnli", "mismatched", "accuracy")),
        Metric("MRPC", "MRPC F1", _PERCENT, within=_SHARE, source=("mrpc", "*", "f1")),
        Metric("CoLA", "CoLA", _PERCENT, within=(-100.0, 100.0), source=("cola", "*", "matthews")),
        Metric(FOUR, "mean of the four", _PERCENT, within=(-100.0, 100.0)),
        *(
            Metric(
                f"task:{task}",
                f"{task.replace('_', ' ')} MSE",
                THOUSANDTHS,
                1000.0,
                higher_is_better=False,
                source=(task, "*", "*"),
            )
            for task in QUEST_TASKS
        ),
        Metric("QUEST R2", "QUEST R²", _PERCENT, within=EVERYWHERE, source=("quest", "*", "r2")),
        Metric("QUEST Spearman", "QUEST Spearman", _PERCENT, within=(-100.0, 100.0), source=("quest", "*", "spearman")),
        Metric(
            "QUEST ties", "QUEST, gain of ties", _PERCENT, within=EVERYWHERE, source=("quest", "*", "discretising_gain")
        ),
        Metric(
            "QUEST later epochs",
            "QUEST, gain after epoch 2",
            THOUSANDTHS,
            1000.0,
            within=EVERYWHERE,
            source=("quest", "*", GAIN),
        ),
        Metric("MLM", "MLM", _PERCENT, within=_SHARE, source=("mlm",), interval="mlm_interval"),
        *(
            Metric(score, score, _PERCENT, within=_SHARE, source=(task,), interval=f"{task}_interval", sentences=True)
            for score, task in SENTENCE_SCORES.items()
        ),
        *(
            Metric(
                f"{score} own head",
                f"{score}, own head",
                _PERCENT,
                within=_SHARE,
                source=(f"{task}_own_head",),
                interval=f"{task}_own_head_interval",
                sentences=True,
            )
            for score, task in SENTENCE_SCORES.items()
        ),
        Metric(REPLACED, REPLACED, _PERCENT, within=_SHARE, source=("replaced_auc",), interval="replaced_interval"),
        Metric(
            "MLM loss",
            "MLM loss",
            "nats",
            1.0,
            higher_is_better=False,
            source=("mlm_loss",),
            interval="mlm_loss_interval",
        ),
        Metric(
            BITS_PER_BYTE,
            BITS_PER_BYTE,
            "",
            1.0,
            higher_is_better=False,
            source=("bits_per_byte",),
            interval="bits_per_byte_interval",
        ),
        Metric(
            CONTEXT_GAIN,
            CONTEXT_GAIN,
            "nats",
            1.0,
            higher_is_better=False,
            source=("context_gain",),
            within=EVERYWHERE,
            interval="context_gain_interval",
        ),
        Metric("tokens/s", "tokens/s", "1/s", 1.0, source=("tokens_per_second",)),
        Metric("seconds", "seconds per run", "s", 1.0, higher_is_better=False, source=("seconds",)),
        Metric(INFERENCE, "inference", "ms", 1.0, higher_is_better=False, source=("inference_ms",)),
        Metric(
            LATENCY,
            LATENCY,
            "ms",
            1.0,
            higher_is_better=False,
            source=("latency_ms",),
            interval="latency_interval",
        ),
        Metric(
            ONNX_LATENCY,
            ONNX_LATENCY,
            "ms",
            1.0,
            higher_is_better=False,
            source=("latency_onnx_ms",),
            interval="latency_onnx_interval",
        ),
        Metric(FASTER, "faster than its teacher", "x", 1.0),
        Metric(ALONE, "training alone", "TFLOPs", 1e-12, higher_is_better=False, exact=True),
        Metric(WITH_TEACHER, "with the teacher's", "TFLOPs", 1e-12, higher_is_better=False, exact=True),
        Metric("params", "Parameters", "M", 1e-6, source=("params_with_pooler",), exact=True),
        Metric("L2 roughness", "L2 roughness", "", 1.0, higher_is_better=False, source=("l2",)),
        Metric("angle roughness", "angle roughness", "", 1.0, higher_is_better=False, source=("degrees",)),
    )
}


def metric(key: str) -> Metric:
    """A metric by its name; ``task:era`` is the score of a fine-tuned task in its own metric. Raises KeyError.

    ``few-shot:sst2`` is a score by prompts (``prompted_scores``).
    ``kept task:era`` is a student's part of its teacher's score; ``kept`` alone the mean over all fine-tuned tasks.
    """
    if key in METRICS:
        return METRICS[key]
    if key.startswith(RETENTION):
        of = key.removeprefix(RETENTION).removeprefix(" ")
        label = f"{metric(of).label} kept" if of else "kept, mean"
        return Metric(key, label, _PERCENT, 1.0, within=EVERYWHERE)
    if prompted_scores.is_prompted(key):
        return Metric(key, prompted_scores.label(key), _PERCENT, within=prompted_scores.within(key))
    if key.startswith("task:"):
        name = key.removeprefix("task:")
        return Metric(
            key, _NAMES.get(name, name.replace("_", " ")), _PERCENT, source=(name, "*", "*"), within=EVERYWHERE
        )
    return METRICS[key]


def is_of_fine_tuning(key: str) -> bool:
    """Whether ``key`` is a score of one fine-tuned task or of several."""
    return key == "Avg" or key in _MEANS or metric(key).task is not None


def summarised(runs: pd.DataFrame, key: str) -> Estimate | None:
    """Mean and interval of the metric over these runs, in printed units; None where no run has it."""
    spec = metric(key)
    return estimate(values(runs, key) * spec.scale, within(key, runs), resolution(runs, key), spec.exact)


def resolution(runs: pd.DataFrame, key: str) -> float:
    """Standard error of one run's score over its examples, in printed units; 0 where no interval is recorded.

    It is taken from the recorded 95% interval over examples; root mean square over the runs. The spread over seeds
    is never taken to be smaller: with N examples a score is a whole number of them.
    """
    spec = metric(key)
    if key == "Avg":
        errors = [_average_error(tasks) for tasks in entries_of(runs)]
    elif key in _MEANS:
        errors = [_mean_error(tasks, _MEANS[key]) for tasks in entries_of(runs)]
    elif prompted_scores.is_prompted(key):
        errors = [prompted_scores.error(run, key) for run in runs.to_dict("records")]
    elif spec.task is not None:
        errors = [_score_error(tasks.get(spec.task), *spec.source[1:]) for tasks in entries_of(runs)]
    else:
        errors = [] if spec.interval is None else [_error(interval) for interval in runs[spec.interval]]
    known = [error for error in errors if error is not None]
    return spec.scale * math.sqrt(sum(error**2 for error in known) / len(known)) if known else 0.0


def _error(interval: Any) -> float | None:
    """The standard error that belongs to a 95% interval."""
    return (interval[1] - interval[0]) / (2 * NORMAL) if isinstance(interval, list | tuple) else None


def _score_error(entry: dict[str, Any] | None, name: str, key: str) -> float | None:
    """Standard error of metric ``key`` on the set ``name``.

    ``*`` as name: the first set. ``*`` as key: the task's own metric; of two, the mean of their errors.
    """
    if entry is None:
        return None
    sets = entry["sets"]
    scores = sets.get(name, {}) if name != "*" else next(iter(sets.values()), {})
    names = entry["metric"].split(" and ") if key == "*" else [key]
    errors = [
        _error(scores[metric_name].get("interval"))
        for metric_name in names
        if isinstance(scores.get(metric_name), dict)
    ]
    known = [error for error in errors if error is not None]
    return sum(known) / len(known) if known else None


def _average_error(tasks: dict[str, Any]) -> float | None:
    """Standard error of the paper's Avg. The five tasks are independent; two metrics of one task share its examples."""
    if any(task not in tasks for task in PAPER_FIVE):
        return None
    parts = [_task_error(tasks[task]) for task in PAPER_FIVE]
    known = [part for part in parts if part is not None]
    return math.sqrt(sum(part**2 for part in known)) / len(PAPER_FIVE) if known else None


def _mean_error(tasks: dict[str, Any], scores: Sequence[tuple[str, str, str]]) -> float | None:
    """Standard error of a mean over scores on independent dev sets; None if a task is missing."""
    if any(task not in tasks for task, _, _ in scores):
        return None
    parts = [_score_error(tasks[task], name, key) for task, name, key in scores]
    known = [part for part in parts if part is not None]
    return math.sqrt(sum(part**2 for part in known)) / len(scores) if known else None


def _task_error(entry: dict[str, Any]) -> float | None:
    errors = [_error(score.get("interval")) for score in next(iter(entry["sets"].values()), {}).values()
              if isinstance(score, dict)]  # fmt: skip
    known = [error for error in errors if error is not None]
    return sum(known) / len(known) if known else None


def within(key: str, *frames: pd.DataFrame) -> tuple[float, float]:
    """Bounds of the metric in printed units; for ``task:NAME``, those of the metric that the runs recorded."""
    if key in METRICS or not key.startswith("task:"):
        return metric(key).within
    entries = (tasks.get(key.removeprefix("task:")) for runs in frames for tasks in entries_of(runs))
    names = {name for entry in entries if entry is not None for name in entry["metric"].split(" and ")}
    if names <= set(_SHARES):
        return _SHARE
    return (-100.0, 100.0) if names <= {*_SHARES, *_CORRELATIONS} else EVERYWHERE


def values(runs: pd.DataFrame, key: str) -> pd.Series:
    """The metric of each run as stored (shares, nats), indexed by seed; runs without it are left out."""
    spec = metric(key)
    if key == "Avg":
        numbers = [_average(tasks) for tasks in entries_of(runs)]
    elif key in _MEANS:
        numbers = [_mean(tasks, _MEANS[key]) for tasks in entries_of(runs)]
    elif spec.task is not None:
        numbers = [_score(tasks.get(spec.task), *spec.source[1:]) for tasks in entries_of(runs)]
    elif key.startswith(RETENTION):
        return retention(runs, key.removeprefix(RETENTION).removeprefix(" "))
    elif prompted_scores.is_prompted(key):
        numbers = [prompted_scores.value(run, key) for run in runs.to_dict("records")]
    elif key in _OF_STUDENTS:
        numbers = [_OF_STUDENTS[key](run) for run in runs.to_dict("records")]
    elif key.endswith("roughness"):
        numbers = [roughness(profile) for profile in runs[spec.source[0]]]
    else:
        numbers = list(runs[spec.source[0]])
    series = pd.Series(numbers, index=pd.Index(runs["seed"], name="seed"), dtype=object)
    return series.dropna().astype(float)


def retention(runs: pd.DataFrame, key: str) -> "pd.Series[float]":
    """Each student's score as a percentage of its teacher's; ``key`` empty: the mean over the fine-tuned tasks.

    The teacher's fine-tuning has the student's set-up but for teacher and augmentation. Runs without a teacher among
    the runs are left out.
    """
    if not key:
        parts = [retention(runs, f"task:{task}") for task in tasks_of(runs)]
        return pd.concat(parts).groupby(level="seed").mean() if parts else values(runs.iloc[:0], "params")
    own = values(runs, key)
    taught = [
        None if not isinstance(row, dict) else values(students.like(row, student), key)
        for row, student in _pairs(runs, key)
    ]
    kept = {
        seed: 100 * own[seed] / float(of_teacher.iloc[0])
        for seed, of_teacher in zip(runs["seed"], taught, strict=True)
        if seed in own.index and of_teacher is not None and len(of_teacher) and float(of_teacher.iloc[0]) > 0
    }
    return pd.Series(kept, dtype=float).rename_axis("seed")


def _pairs(runs: pd.DataFrame, key: str) -> list[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """For each run: the row of its teacher, and the run's own fine-tuning that the score ``key`` is from."""
    task = metric(key).task
    return [(row, tasks.get(str(task))) for row, tasks in zip(runs["taught_by"], entries_of(runs), strict=True)]


#: Columns of students -> their value of one run.
_OF_STUDENTS = {FASTER: students.faster, ALONE: students.flops_alone, WITH_TEACHER: students.flops_with_teacher}


def roughness(profile: Any) -> float | None:
    """Roughness of a per-layer curve: mean change from layer to layer, over the mean of the curve.

    A measure of "smoother" (paper, section 3.1 and Figure 1): 0 where every layer moves its input equally far.
    None with fewer than two layers.
    """
    if not isinstance(profile, list) or len(profile) < 2 or not any(profile):
        return None
    steps = [abs(after - before) for before, after in pairwise(profile)]
    return (sum(steps) / len(steps)) / (sum(profile) / len(profile))


def tasks_of(runs: pd.DataFrame) -> list[str]:
    """Every task that at least one run was fine-tuned on from its pretrained weights, sorted."""
    return sorted({entry["task"] for tasks in runs["tasks"] for entry in tasks if entry["start"] == "pretrained"})


def unfit(runs: pd.DataFrame, key: str) -> str | None:
    """Why this metric of the runs must not be compared; None where it may be.

    A score is not compared unless every seed is better than a baseline: to leave out a seed would be to select by
    result. A speed is not compared where something else used the machine.
    """
    if key in ("params", ALONE, WITH_TEACHER):
        return None
    if key == FASTER:
        teachers = [row for row in runs["taught_by"] if isinstance(row, dict)]
        return _disturbed(pd.concat([runs, pd.DataFrame(teachers)]) if teachers else runs)
    if key.startswith(RETENTION):
        return _unfit_pair(runs, key.removeprefix(RETENTION).removeprefix(" "))
    if key == INFERENCE:
        return measured_apart(runs) or _disturbed(runs)
    if key in SETTINGS:
        return measured_apart(runs, key=key)
    if key in SPEEDS:
        return _unsteady(runs)
    plateau = sum(1 for left in runs["mlm_left_baseline"] if left is False)
    if plateau:
        return f"not better than the unigram baseline of masked LM in {plateau} of {len(runs)} seeds"
    plateau = sum(1 for left in runs["causal_left_baseline"] if left is False)
    if plateau:
        return f"not better than the unigram baseline of causal LM in {plateau} of {len(runs)} seeds"
    if own := _own_text(runs):
        return own
    if prompted_scores.is_prompted(key):
        low = sum(prompted_scores.at_chance(run, key) for run in runs.to_dict("records"))
        return f"at chance in {low} of {len(runs)} seeds" if low else None
    if metric(key).sentences:
        flat = sum(1 for run in runs.to_dict("records") if run.get(f"{run['objective']}_left_baseline") is False)
        if flat:
            return f"its own sentence task not above the majority class in {flat} of {len(runs)} seeds"
    if key == REPLACED:
        blind = sum(1 for left in runs["replaced_left_baseline"] if left is False)
        if blind:
            return f"replaced tokens not told apart better than without context in {blind} of {len(runs)} seeds"
    task = metric(key).task
    if task is not None:
        entries = [tasks.get(task) for tasks in entries_of(runs)]
        low = sum(1 for entry in entries if entry is not None and not _above_floor(entry))
        if low:
            bar = (
                "better than the mean of the training set"
                if not metric(f"task:{task}").higher_is_better
                else "above the majority class"
            )
            return f"{task} not {bar} in {low} of {len(runs)} seeds"
    return None


def _own_text(runs: pd.DataFrame) -> str | None:
    """Why runs have learned nothing from their generator's samples; None for runs that did, or have none."""
    weak = sum(1 for left in runs["generator_left_baseline"] if left is False)
    if weak:
        return f"its generator not better than the unigram baseline in {weak} of {len(runs)} seeds"
    blind = sum(1 for left in runs["discriminator_left_baseline"] if left is False)
    if blind:
        return f"its generator's samples not found better than without context in {blind} of {len(runs)} seeds"
    return None


def _unfit_pair(runs: pd.DataFrame, key: str) -> str | None:
    """Why a student's part of its teacher's score says nothing: one of both has not left its baseline."""
    teachers = [row for row in runs["taught_by"] if isinstance(row, dict)]
    keys = [key] if key else [f"task:{task}" for task in tasks_of(runs)]
    marks = (unfit(frame, k) for frame in (runs, pd.DataFrame(teachers)) if len(frame) for k in keys)
    return next((mark for mark in marks if mark), None)


def _disturbed(runs: pd.DataFrame) -> str | None:
    """Why a time of inference says nothing: it varied too much within a run's measurement."""
    if not runs["inference_spread"].astype(float).max() >= _EVEN:  # NaN where it is not recorded
        return None
    return "the time of inference varied within a measurement (something else used the machine)"


def measured_apart(*arms: pd.DataFrame, key: str = INFERENCE) -> str | None:
    """Why times of these runs must not be compared; None where they were measured alike. ``key``: one of SETTINGS."""
    measured = sorted({str(how) for runs in arms for how in runs[SETTINGS[key]].dropna()})
    return f"{metric(key).label} was measured in different ways: {'; '.join(measured)}" if len(measured) > 1 else None


def _unsteady(runs: pd.DataFrame) -> str | None:
    speeds, spread = values(runs, "tokens/s"), runs["speed_spread"].astype(float).max()
    between = speeds.max() / speeds.min() if len(speeds) else 1.0
    if between < STEADY and not spread >= STEADY:  # NaN in older folders, which did not record it
        return None
    return "the speed changed within these runs or from one to the next (a shared machine, or another one)"


def entries_of(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """For each run: task -> its entry, in the set-up that most of these runs used."""
    kept, _ = one_setup_each({"runs": runs})
    return [{e["task"]: e for e in tasks if e["start"] == "pretrained"} for tasks in kept["runs"]["tasks"]]


def _score(entry: dict[str, Any] | None, name: str, key: str) -> float | None:
    """Metric ``key`` on the set ``name``, as a share. ``*`` as name: the first set; as key: the task's own metric."""
    if entry is None:
        return None
    if key == "*":
        return float(entry["score"])
    sets = entry["sets"]
    scores = sets.get(name) if name != "*" else next(iter(sets.values()), None)
    score = None if scores is None else scores.get(key)
    return None if score is None else float(score["value"] if isinstance(score, dict) else score)


def _mean(tasks: dict[str, Any], of: Sequence[tuple[str, str, str]]) -> float | None:
    """A mean over scores of one run; None if one is missing, or their heads differ in number format."""
    scores = [_score(tasks.get(task), name, key) for task, name, key in of]
    known = [score for score in scores if score is not None]
    if len(known) < len(scores) or not _one_format(tasks, tuple(task for task, _, _ in of)):
        return None
    return sum(known) / len(known)


def _one_format(tasks: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Whether the heads of these tasks have one number format."""
    return len({(tasks[task].get("recipe") or {}).get("heads", HEADS) for task in names}) == 1


def _average(tasks: dict[str, Any]) -> float | None:
    """The paper's Avg of one run; None if one of the five tasks is missing, or their heads differ in number format."""
    if any(task not in tasks for task in PAPER_FIVE):
        return None
    if not _one_format(tasks, PAPER_FIVE):
        return None
    return sum(float(tasks[task]["average"]) for task in PAPER_FIVE) / len(PAPER_FIVE)


def _above_floor(entry: dict[str, Any]) -> bool:
    floors: dict[str, float] = next(iter(entry.get("to_beat", {}).values()), {})
    scores: dict[str, Any] = next(iter(entry["sets"].values()), {})
    floor = floors.get("majority")
    score = scores.get(entry["metric"])
    if floor is None or not isinstance(score, dict) or "interval" not in score:
        return True
    if direction(entry["metric"]) < 0:
        return bool(score["interval"][1] < floor)
    return bool(score["interval"][0] > floor)
