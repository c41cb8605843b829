"""Checks held-out scores and the cost of training in results.json against the other files of the run.

The predictions of masked LM, causal LM, NSP, SOP and the replaced-token probe are not kept, so their hits cannot be
counted again. Checked are: accuracy times examples is a whole number; Wilson's interval; the loss equals the unigram
loss minus the gain over it; bits per byte from the loss; the gain of context from its two losses; the scores of the
base rate; whether a baseline was left. The totals of training are compared with the last line of metrics.jsonl.
"""

import math
from collections.abc import Sequence
from typing import Any

from albert_ablate.axes import SENTENCE_TASKS

from .checks import Check, compare, unknown
from .files import at
from .runs import Run

HELD_OUT, TRAINING = "held-out scores", "training"
_NORMAL = 1.959963984540054
#: Gain over the unigram model with which masked LM has left its baseline, nats (docs/analysis.md).
_MARGIN = 0.1
_NO_ODDS = "its predictions are not kept; checked: whole hits, base rate, baseline"
_NOT_KEPT = "its predictions are not kept; checked: whole hits, interval, baseline"


def wilson(share: float, n: int) -> list[float]:
    """The 95% score interval of a share of ``n`` examples (Wilson, 1927)."""
    z2 = _NORMAL**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return [centre - half, centre + half]


def check(run: Run) -> list[Check]:
    """Checks of one run; none unless it is finished."""
    if not run.results:
        return []
    file = str(run.folder / "results.json")
    checks = _above_unigram(f"{run.name} · masked LM", run.results.get("masked_lm") or {}, file)
    for task in SENTENCE_TASKS:
        scores = run.results.get(task) or {}
        where = f"{run.name} · {task}"
        checks += _share(where, scores, "interval", file)
        checks += _share(f"{where} own head", scores.get("own_head") or {}, "interval", file)
        if scores.get("majority_class") is not None and scores.get("interval"):
            left = scores["interval"][0] > scores["majority_class"]
            checks.append(compare(HELD_OUT, f"{where} · left_baseline", scores.get("left_baseline"), left, file))
    checks += _replaced(run, run.results.get("replaced_tokens") or {}, file)
    checks += _causal(run, run.results.get("causal_lm") or {}, file)
    return checks + _training(run)


def _above_unigram(where: str, scores: dict[str, Any], file: str) -> list[Check]:
    """Checks of the prediction of pieces: whole hits, the interval, the loss from the gain, the baseline."""
    checks = _share(where, scores, "binomial_interval", file)
    unigram, gain, pair = (scores.get(name) for name in ("unigram_loss", "gain_over_unigram", "gain_interval"))
    if unigram is not None and gain is not None:
        checks.append(compare(HELD_OUT, f"{where} · loss", scores.get("loss"), unigram - gain, file))
    elif scores.get("loss") is not None:
        checks.append(unknown(HELD_OUT, f"{where} · loss", scores["loss"], "its predictions and gains are not kept"))
    if pair:
        left = pair[0] > _MARGIN
        checks.append(compare(HELD_OUT, f"{where} · left_baseline", scores.get("left_baseline"), left, file))
    return checks


def _causal(run: Run, scores: dict[str, Any], file: str) -> list[Check]:
    """Checks of causal LM: those of masked LM, bits per byte, and the gain of context from both of its losses."""
    where = f"{run.name} · causal LM"
    checks = _above_unigram(where, scores, file)
    if scores.get("bytes"):
        bits = scores["loss"] * scores["examples"] / math.log(2) / scores["bytes"]
        checks.append(compare(HELD_OUT, f"{where} · bits_per_byte", scores.get("bits_per_byte"), bits, file))
    if context := scores.get("context"):
        gain = context["late_loss"] - context["early_loss"]
        checks.append(compare(HELD_OUT, f"{where} · context", context["gain"], gain, file))
    return checks


def _replaced(run: Run, scores: dict[str, Any], file: str) -> list[Check]:
    """Checks of the replaced-token probe: whole hits, the loss and accuracy of the base rate, the baseline."""
    where = f"{run.name} · replaced tokens"
    if scores.get("auc") is None:
        return []
    checks = [unknown(HELD_OUT, f"{where} · AUC", scores["auc"], _NO_ODDS)]
    n, rate, accuracy = (scores.get(name) for name in ("examples", "replaced", "accuracy"))
    if n and accuracy is not None:
        checks.append(compare(HELD_OUT, f"{where} · hits of {n:,}", accuracy * n, round(accuracy * n), file))
    if rate is not None and 0 < rate < 1:
        entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
        checks.append(compare(HELD_OUT, f"{where} · base_loss", scores.get("base_loss"), entropy, file))
        checks.append(
            compare(HELD_OUT, f"{where} · base_accuracy", scores.get("base_accuracy"), max(rate, 1 - rate), file)
        )
    if scores.get("interval") and scores.get("token_auc") is not None:
        left = scores["interval"][0] > scores["token_auc"]
        checks.append(compare(HELD_OUT, f"{where} · left_baseline", scores.get("left_baseline"), left, file))
    return checks


def _share(where: str, scores: dict[str, Any], interval: str, file: str) -> list[Check]:
    """Checks of an accuracy, its number of examples and its binomial interval."""
    share, n = scores.get("accuracy"), scores.get("examples")
    if share is None:
        return []
    if not n:
        return [unknown(HELD_OUT, f"{where} · accuracy", share, "neither its predictions nor their number are kept")]
    return [
        unknown(HELD_OUT, f"{where} · accuracy", share, _NOT_KEPT),
        compare(HELD_OUT, f"{where} · hits of {n:,}", share * n, round(share * n), file),
        compare(HELD_OUT, f"{where} · {interval}", scores.get(interval), _cut(wilson(share, n)), file),
    ]


def _cut(pair: Sequence[float]) -> list[float]:
    return [max(pair[0], 0.0), min(pair[1], 1.0)]


def _training(run: Run) -> list[Check]:
    record, file = at(run.results, "training") or {}, str(run.folder / "metrics.jsonl")
    last = run.lines[-1] if run.lines else {}
    checks = []
    for name, line in (("steps", "step"), ("tokens", "tokens"), ("flops", "flops"), ("seconds", "seconds")):
        if name not in record:
            continue
        where = f"{run.name} · {name}"
        if last.get(line) is None:
            checks.append(unknown(TRAINING, where, record[name], f"metrics.jsonl says no {line}"))
        else:
            checks.append(compare(TRAINING, where, record[name], last[line], file))
    checks += _lines(run, file)
    per_step = run.manifest.get("flops_per_step")
    if per_step is not None and {"flops", "steps"} <= record.keys():
        where = f"{run.name} · FLOPs a step times steps"
        checks.append(compare(TRAINING, where, record["flops"], per_step * record["steps"], "manifest.json"))
    if {"tokens", "seconds", "tokens_per_second"} <= record.keys() and last.get("seconds"):
        where = f"{run.name} · tokens over seconds"
        derived = record["tokens"] / record["seconds"]
        checks.append(compare(TRAINING, where, record["tokens_per_second"], derived, "results.json"))
    return checks


def _lines(run: Run, file: str) -> list[Check]:
    """Checks of the speed of each log interval: tokens over seconds since the previous line."""
    if run.broken:
        return [unknown(TRAINING, f"{run.name} · tokens/s of each line", run.speed, "metrics.jsonl has broken lines")]
    return [
        compare(TRAINING, f"{run.name} · tokens/s at step {line.get('step')}", line["tokens_per_second"], rate, file)
        for line, rate in zip(run.lines, run.intervals, strict=True)
        if rate is not None and line.get("tokens_per_second")
    ]
