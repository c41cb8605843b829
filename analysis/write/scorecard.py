"""The scorecard: a row for each claim, for the page and for ``report.md``."""

import math
from collections.abc import Sequence
from typing import Any

from ..judge import numbers
from ..judge.claims import VERDICTS, Verdict, bound_text, divided, whose
from ..judge.metrics import THOUSANDTHS
from ..read.seeds import of_planned
from . import render
from .content import Report, untested_summary

MARKS = {"reproduced": "✓", "contradicted": "✗", "inconclusive": "~", "not tested": "–"}


def paper_claims(report: Report) -> str:
    """The scorecard of the claims that are tested, and one line on the others."""
    papers = divided(report.verdicts)[1]
    if report.controls.shown and all(v.verdict == "not tested" for v in papers):
        owner = "the paper's" if whose(papers) == "the paper" else "both papers'"
        return f"None of {owner} {len(papers)} claims is tested: no run is of natural text."
    tested = [v for v in papers if v.verdict != "not tested"]
    untested = [f"{untested_summary(papers)}."] if len(tested) < len(papers) else []
    return "\n\n".join(([scorecard_markdown(tested)] if tested else []) + untested)


def scorecard_markdown(verdicts: Sequence[Verdict]) -> str:
    """The scorecard as a Markdown table."""
    head = ["claim", "verdict", "score", "effect", "95% interval", "p (Holm)", "the paper", "n", "why"]
    rows = []
    for verdict in verdicts:
        row = score_row(verdict)
        paper_effect = f"{row['paper']} {row['paper_score']}".strip()
        rows.append(
            [
                f"{row['claim']} ({row['source']})", f"{row['mark']} {row['verdict']}", row["score"], row["effect"],
                row["interval"], row["p"], paper_effect, row["n"], row["reason"],
            ]
        )  # fmt: skip
    return render.pipes(head, rows)


def rank(verdict: Verdict) -> int:
    """Place on the page: what was decided comes first."""
    return VERDICTS.index(verdict.verdict)


def score_row(verdict: Verdict) -> dict[str, Any]:
    """The cells of a claim's row as texts, by name."""
    claim, effect = verdict.claim, verdict.effect
    unit = numbers.unit(verdict.score or claim.scores[0])
    unit_label = {"%": " points", "nats": " nats", "1/s": " tokens/s", THOUSANDTHS: f" {THOUSANDTHS}"}.get(unit, "")
    many = 3 if unit in ("nats", "") else 2
    return {
        "claim": claim.claim, "source": claim.source, "verdict": verdict.verdict, "mark": MARKS[verdict.verdict],
        "holds_if": bound_text(claim), "unit": unit_label,
        "score": (verdict.score or "") + (" (stand-in)" if verdict.stand_in else ""),
        "effect": "" if effect is None else numbers.signed(effect.mean, many),
        "raw": "" if effect is None else f"{effect.mean:.6g}",
        "interval": "" if effect is None or math.isnan(effect.low)
        else f"{numbers.signed(effect.low, many)} to {numbers.signed(effect.high, many)}",
        "p": "" if not verdict.judged else numbers.p_value(verdict.adjusted),
        "paper": "" if verdict.paper is None else numbers.signed(verdict.paper, 1 if unit == "%" else many),
        "paper_score": (verdict.paper_score or "") if verdict.paper is not None else "",
        "n": _counted(verdict), "reason": _why(verdict),
    }  # fmt: skip


def _counted(verdict: Verdict) -> str:
    n = 0 if verdict.effect is None else verdict.effect.n
    return of_planned(n, verdict.planned if n else 0)


def _why(verdict: Verdict) -> str:
    """The reason of a verdict, and the seeds without numbers unless the claim is not tested."""
    lost = verdict.lost if verdict.effect is not None else ""
    return "; ".join(filter(None, (verdict.reason, lost)))
