"""Scores the options of one unit's questions, in parts that survive an interruption, and judges them by each rule."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate.config.kshot import RuleName
from albert_ablate.evaluation.intervals import SHARE, clustered_mean, proportion
from albert_ablate.files import write_text
from albert_ablate.prompting.bigram import Bigram
from albert_ablate.prompting.draw import Demonstrations
from albert_ablate.prompting.likelihood import Candidate, Likelihood
from albert_ablate.prompting.prompts import Prompt, Prompts
from albert_ablate.prompting.rules import RULES, OptionScores, credit
from albert_ablate.record.kshot import Share
from albert_ablate.tasks.questions import Question

#: What the rules are computed from: a line for each question, in the order of the file.
OPTIONS = "options.jsonl"
#: Questions whose options are scored together and kept as one part. Fixed: a resumed unit then computes equal batches.
_PART = 64
#: Digits of a log-probability in nats. Rules are computed from the rounded numbers, so that a recount is exact.
_DIGITS = 6


class Asker:
    """Asks questions of one task: makes their prompts and scores the options."""

    def __init__(
        self, prompts: Prompts, likelihood: Likelihood, drawn: Demonstrations, k: int, rules: Sequence[RuleName],
        bigram: Bigram | None = None,
    ) -> None:  # fmt: skip
        """``bigram``: a model whose log-probabilities of the options are written, too."""
        self._prompts, self._likelihood, self._drawn, self._k = prompts, likelihood, drawn, k
        self._bigram = bigram
        self._null, self._free = "null" in rules, "calibrated" in rules

    def answers(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """A line of ``OPTIONS`` for each question. Raises DataError for options that cannot be scored."""
        made = [self._prompts.of(question, self._drawn.of(question, self._k)) for question in questions]
        neutral = {
            options: self._prompts.neutral(options)
            for options in (dict.fromkeys(question.options for question in questions) if self._null else ())
        }
        free = [
            self._prompts.content_free(question, prompt.shots) if self._free else []
            for question, prompt in zip(questions, made, strict=True)
        ]
        prompts = [*made, *neutral.values(), *(prompt for group in free for prompt in group)]
        scores = iter(self._likelihood([Candidate(p.context, option) for p in prompts for option in p.options]))
        main = [[next(scores) for _ in prompt.options] for prompt in made]
        nulls = {options: [sum(next(scores)) for _ in options] for options in neutral}
        frees = [[[sum(next(scores)) for _ in prompt.options] for prompt in group] for group in free]
        return [
            self._line(question, prompt, tokens, nulls.get(question.options), sums)
            for question, prompt, tokens, sums in zip(questions, made, main, frees, strict=True)
        ]

    def _line(
        self, question: Question, prompt: Prompt, tokens: Sequence[Sequence[float]], null: Sequence[float] | None,
        free: Sequence[Sequence[float]],
    ) -> dict[str, Any]:  # fmt: skip
        options = []
        for place, text in enumerate(self._prompts.template.words(question.options)):
            option: dict[str, Any] = {"text": text, "tokens": [round(value, _DIGITS) for value in tokens[place]]}
            if null is not None:
                option["null"] = round(null[place], _DIGITS)
            if free:
                option["content_free"] = [round(sums[place], _DIGITS) for sums in free]
            if self._bigram is not None:
                option["bigram"] = round(self._bigram((*prompt.context, *prompt.options[place])), _DIGITS)
            options.append(option)
        line = {"id": question.id, "answer": question.answer, "cluster": question.cluster}
        if question.phenomenon is not None:
            line["phenomenon"] = question.phenomenon
        shots = [shot.id for shot in prompt.shots]
        return line | {"shots": shots, "cut": prompt.cut, "moved": prompt.moved, "options": options}


def ask_all(asker: Asker, questions: Sequence[Question], folder: Path) -> None:
    """Write ``OPTIONS`` of all questions, part by part. Parts that exist are kept."""
    parts = folder / "parts"
    starts = range(0, len(questions), _PART)
    for start in starts:
        file = parts / f"{start:06d}.jsonl"
        if not file.is_file():
            lines = asker.answers(questions[start : start + _PART])
            write_text(file, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))
    whole = "".join((parts / f"{start:06d}.jsonl").read_text(encoding="utf-8") for start in starts)
    write_text(folder / OPTIONS, whole)


def drop_parts(folder: Path) -> None:
    """Remove the parts of a finished unit."""
    parts = folder / "parts"
    if parts.is_dir():
        for file in parts.iterdir():
            file.unlink()
        parts.rmdir()


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``OPTIONS``."""
    return [json.loads(line) for line in (folder / OPTIONS).read_text(encoding="utf-8").splitlines()]


def judged(lines: Sequence[dict[str, Any]], rules: Sequence[RuleName]) -> dict[str, Share]:
    """Rule -> accuracy over the questions ``lines``."""
    found = {}
    for rule in rules:
        credits_ = np.array([credit(RULES[rule](_options(line)), line["answer"]) for line in lines])
        found[str(rule)] = share(credits_, [line["cluster"] for line in lines])
    return found


def judged_by_bigram(lines: Sequence[dict[str, Any]]) -> Share | None:
    """Accuracy of the bigram model over the questions ``lines``; None if they were asked without one."""
    if not all("bigram" in option for line in lines for option in line["options"]):
        return None
    credits_ = [credit([option["bigram"] for option in line["options"]], line["answer"]) for line in lines]
    return share(np.array(credits_), [line["cluster"] for line in lines])


def of_phenomenon(lines: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The questions of one phenomenon."""
    return [line for line in lines if line["phenomenon"] == name]


def share(credits_: np.ndarray, clusters: Sequence[str]) -> Share:
    """The mean of (n,) credits: with Wilson's interval, or with a t interval over clusters, or if there are ties."""
    _, cluster = np.unique(clusters, return_inverse=True)
    if cluster.max() + 1 == len(credits_) and np.isin(credits_, (0, 1)).all():
        wilson = proportion(int(credits_.sum()), len(credits_))
        return Share(value=wilson["accuracy"], interval=wilson["interval"], n=len(credits_))
    sums, counts = np.bincount(cluster, weights=credits_), np.bincount(cluster).astype(float)
    value, interval = clustered_mean(sums, counts, SHARE)
    return Share(value=value, interval=interval, n=len(credits_))


def _options(line: dict[str, Any]) -> list[OptionScores]:
    return [OptionScores(**option) for option in line["options"]]
