"""Controls: compares the scores of runs on planted text with the best achievable scores.

A positive control is a score that an arm was trained for, on a text where it can be learned. It passes where a t test
over seeds shows that the share of the way from chance to the achievable exceeds ``PART``. A negative control is any
score on a text where it cannot be learned. It passes where the test shows that the score is less than ``MARGIN``
beyond chance. Each test is one-sided at 95% and not corrected: all of them must pass, and a set of tests that must
all reject keeps its level without correction (an intersection-union test). The claims are judged like the paper's, as
a family of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from ..read.arms import in_order
from ..read.cautions import left_out, lost
from ..read.cells import largest
from ..read.planted import asked_for, planted
from ..read.seeds import Seeds
from . import numbers
from .claims import Claim, Verdict, judge
from .metrics import SENTENCE_SCORES, metric, resolution, values
from .statistics import ALPHA, Estimate, estimate, p_above, p_below

#: The claims that are judged on planted text.
CLAIMS = Path(__file__).parent.parent / "controls.yaml"
#: ``PART``: the share of the way from chance to the achievable that a positive control must exceed. ``MARGIN``: how
#: far beyond chance a negative control may be, in nats or points; a text allows a score if more is achievable.
PART = {"MLM loss": 0.5, "NSP": 0.5, "SOP": 0.9}
MARGIN = {"MLM loss": 0.1, "NSP": 5.0, "SOP": 5.0}
_CHANCE = {"MLM loss": "chance_mlm_loss", **{score: f"{task}_majority" for score, task in SENTENCE_SCORES.items()}}
_BEST = {"MLM loss": "achievable_mlm_loss", **{score: f"achievable_{task}" for score, task in SENTENCE_SCORES.items()}}
PASS, FAIL, OPEN = "pass", "fail", "not settled"


@dataclass(frozen=True)
class Control:
    """A score of an arm on planted text."""

    text: str  # strengths of the planted text
    arm: str
    score: str
    head: str  # of a sentence score: trained, or fitted on the frozen encoder
    achieved: Estimate
    achievable: float
    chance: float
    way: Estimate | None  # share of the way from chance to the achievable; None where the text does not allow the score
    kind: str  # positive, negative, or empty: achievable, but not trained for
    verdict: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Controls:
    """The results of runs on planted text."""

    scores: tuple[Control, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> bool:
        """Whether there are results to show."""
        return bool(self.scores) or any(v.arms for v in self.verdicts)

    def counted(self, kind: str) -> dict[str, int]:
        """Verdict -> number of controls of this kind with it."""
        return {name: sum(c.kind == kind and c.verdict == name for c in self.scores) for name in (PASS, FAIL, OPEN)}


def divided(claims: Sequence[Claim]) -> tuple[list[Claim], list[Claim]]:
    """Claims about natural text, and claims with an arm on planted text."""
    on_planted = [any(map(asked_for, claim.terms().values())) for claim in claims]
    return [c for c, is_planted in zip(claims, on_planted, strict=True) if not is_planted], [
        c for c, is_planted in zip(claims, on_planted, strict=True) if is_planted
    ]


def controls_of(runs: pd.DataFrame, claims: Sequence[Claim], survivors: bool = False) -> Controls:
    """Controls and verdicts from the runs on planted text among ``runs``; empty without any.

    ``survivors``: judge arms with a diverged seed by their remaining seeds.
    """
    runs = planted(runs)
    if not len(runs):
        return Controls()
    scores: list[Control] = []
    notes = []
    for text in sorted(runs["planted"].unique(), reverse=True):
        selection = largest(runs[runs["planted"] == text])
        chosen = in_order(selection.runs["all"])
        for arm, frame in chosen.groupby("arm", sort=False):
            seeds = selection.seeds.get(str(arm), Seeds(()))
            doubt = None if survivors else seeds.doubt
            scores += [_control(text, str(arm), frame, score, doubt) for score in PART if _measured(frame, score)]
        notes += [f"{text}: {sentence}" for sentence in lost(selection)]
        if selection.left_out:
            notes.append(f"{text}: {left_out(selection)}")
    return Controls(tuple(scores), tuple(judge(runs, claims, survivors)), tuple(notes))


def _measured(runs: pd.DataFrame, score: str) -> bool:
    return bool(runs[[_BEST[score], _CHANCE[score], *metric(score).source]].notna().all(axis=None))


def _control(text: str, arm: str, runs: pd.DataFrame, score: str, doubt: str | None) -> Control:
    """The control of one score of an arm. ``runs``: one for each seed; ``doubt``: why the arm is not judged."""
    spec = metric(score)
    sign = 1 if spec.higher_is_better else -1
    achieved = values(runs, score) * spec.scale
    best, chance = (float(runs[column].mean()) * spec.scale for column in (_BEST[score], _CHANCE[score]))
    possible = sign * (best - chance)
    head = "" if score == "MLM loss" else str(runs[f"{SENTENCE_SCORES[score]}_head"].iloc[0]).split()[0]
    floor = resolution(runs, score)
    estimated = estimate(achieved, spec.within, floor)
    assert estimated is not None  # measured
    if possible <= MARGIN[score]:
        beyond = estimate(sign * (achieved - chance) - max(possible, 0.0), floor=floor)
        assert beyond is not None
        verdict = _verdict(p_below(beyond, MARGIN[score]), p_above(beyond, MARGIN[score]), doubt)
        return Control(text, arm, score, head, estimated, best, chance, None, "negative", verdict, tuple(runs["run"]))
    way = estimate(100 * sign * (achieved - chance) / possible, floor=100 * floor / possible)
    assert way is not None
    trained = score == "MLM loss" or head == "trained"
    sides = p_above(way, 100 * PART[score]), p_below(way, 100 * PART[score])
    verdict = _verdict(*sides, doubt) if trained else ""
    kind = "positive" if trained else ""
    return Control(text, arm, score, head, estimated, best, chance, way, kind, verdict, tuple(runs["run"]))


def _verdict(holds: float, fails: float, doubt: str | None) -> str:
    """The verdict from the one-sided p values of the hypotheses that the control does not hold, and that it does."""
    if doubt:
        return OPEN
    return PASS if holds < ALPHA else FAIL if fails < ALPHA else OPEN


def frame(controls: Controls) -> pd.DataFrame:
    """A row for each arm and score: achieved, interval, achievable, chance, share of the way, kind, verdict, runs."""
    return pd.DataFrame(
        {
            "planted_text": c.text, "arm": c.arm, "score": c.score, "head": c.head, "n": c.achieved.n,
            "achieved": c.achieved.mean, "low": c.achieved.low, "high": c.achieved.high, "achievable": c.achievable,
            "chance": c.chance, "way_percent": None if c.way is None else c.way.mean,
            "way_low": None if c.way is None else c.way.low, "way_high": None if c.way is None else c.way.high,
            "control": c.kind, "verdict": c.verdict, "runs": " ".join(c.runs),
        }
        for c in controls.scores
    )  # fmt: skip


HEAD = ("planted text", "arm", "score", "n", "achieved", "achievable", "chance", "of the way", "control", "verdict")


def rows(controls: Controls) -> list[list[str]]:
    """The rows of the printed table; text and arm are given only in the first row of each group."""
    lines = _lines(controls)
    shown = [list(line) for line in lines]
    for (before, line), new in zip(pairwise(lines), shown[1:], strict=True):
        if line[:2] == before[:2]:
            new[:2] = ["", ""]
    return shown


def _lines(controls: Controls) -> list[list[str]]:
    return [
        [
            c.text, c.arm, f"{metric(c.score).label}{' *' if c.head not in ('', 'trained') else ''}",
            str(c.achieved.n), numbers.number(c.score, c.achieved),
            *(_plain(c.score, value) for value in (c.achievable, c.chance)),
            numbers.DASH if c.way is None else f"{c.way.mean:.0f}%{numbers.spread(c.way, 0)}", c.kind, c.verdict,
        ]
        for c in controls.scores
    ]  # fmt: skip


def _plain(score: str, value: float) -> str:
    return numbers.number(score, estimate([value]))


def reading(controls: Controls) -> list[str]:
    """The notes below the table."""
    parts = ", ".join(f"{share:.0%} for {metric(score).label}" for score, share in PART.items())
    return [
        "Achieved: mean over seeds ± half of the 95% t interval, percent or nats. Achievable: what exact knowledge of "
        "how the text was drawn predicts on the same held-out pairs. Chance: the more frequent label; for masked LM, "
        "word frequencies and the piece that is shown. * head fitted on the frozen encoder.",
        f"Positive control: a score that the arm was trained for. It passes where it exceeds a share of the way from "
        f"chance to the achievable ({parts}), one-sided t test over seeds at 95%.",
        "Negative control: a score that the text does not allow. It passes where what was achieved is less than "
        f"{MARGIN['NSP']:g} points ({MARGIN['MLM loss']:g} nats) beyond chance and the achievable, by the same test.",
        *controls.notes,
    ]


def summary(controls: Controls) -> list[str]:
    """The results of the controls as sentences; empty without controls."""
    if not controls.shown:
        return []
    lines = []
    for kind in ("positive", "negative"):
        counts = controls.counted(kind)
        total = sum(counts.values())
        if total:
            rest = [
                f"{counts[name]} {label}" for name, label in ((FAIL, "fail"), (OPEN, "not settled")) if counts[name]
            ]
            more = f" ({', '.join(rest)})" if rest else ""
            lines.append(f"{counts[PASS]} of {total} {kind} controls pass{more}.")
    blank = [v for v in controls.verdicts if without_structure(v.claim)]
    if any(v.arms for v in blank):
        wrong = [v.claim.id for v in blank if v.verdict == "reproduced"]
        lines.append(
            f"Of {len(blank)} claims on text without structure {len(wrong) or 'none'} "
            f"{'are' if len(wrong) > 1 else 'is'} reproduced{': ' + ', '.join(wrong) if wrong else ', as it must be'}."
        )
    return lines


def without_structure(claim: Claim) -> bool:
    """Whether every arm of a claim is on text without structure: all strengths are 0."""
    strengths = [
        float(value) for terms in claim.terms().values() for key, value in terms.items()
        if key in ("data.planted.topic", "data.planted.order", "data.planted.local")
    ]  # fmt: skip
    return bool(strengths) and not any(strengths)


def page_rows(controls: Controls) -> list[dict[str, Any]]:
    """The rows of the sortable table of the page: each with its text, its arm and its sort key."""
    return [
        {"cells": line, "verdict": c.verdict, "sort": c.achieved.mean}
        for line, c in zip(_lines(controls), controls.scores, strict=True)
    ]
