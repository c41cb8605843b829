"""The sections of a report on the user's own sweeps: table, effects and figure, for the page and for ``report.md``."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from albert_ablate.command_line import command_name

from ..draw.style import Drawing
from ..judge import numbers
from ..judge.effects import Effect, SweepTable
from ..judge.metrics import BITS_PER_BYTE, THOUSANDTHS, metric
from . import render, web
from .figure import figure_of
from .reproduce import named
from .sources import of_tables

HEAD = ("effect", "against", "score", "difference", "95% interval", "p", "paper", "verdict")
_NUMBERS = ("difference", "95% interval", "p", "paper")
_UNITS = {"%": " points", "nats": " nats", "": "", THOUSANDTHS: f" {THOUSANDTHS}"}
#: Scores that a sentence is about: of those that most effects have, the first.
_FIRST = ("Avg", "GLUE", "MLM", "MLM loss", BITS_PER_BYTE)
#: Of the command for more seeds.
_MOST_SEEDS = 20
_NOTE = (
    "Differences from the first row; ×: interaction, how much more one setting changes the score at the other's second "
    "value. Paired by seed, p after Holm's correction over this table."
)


def sections(sweeps: Sequence[SweepTable], forests: Mapping[str, Drawing]) -> list[dict[str, Any]]:
    """What the template shows of each sweep."""
    return [
        {
            "id": sweep.table.name, "title": sweep.title, "answer": answer(sweep), "html": web.html(sweep.table),
            "effects": _effects(sweep), "count": len(sweep.effects), "note": _NOTE, "folded": len(sweep.effects) > 24,
            "more_seeds": more_seeds(sweep),
            "students": None if sweep.students is None else web.html(sweep.students, f" of “{sweep.title}”"),
            "about_students": about_students(sweep),
            "figure": figure_of(drawing) if (drawing := forests.get(sweep.table.name)) else None,
        }
        for sweep in sweeps
    ]  # fmt: skip


def _effects(sweep: SweepTable) -> Markup:
    """The effects as a table, their verdicts as tags."""
    rows = []
    for effect in sweep.effects:
        cells = []
        for name, shown in zip(HEAD, effect_cells(sweep, effect), strict=True):
            numeric = Markup(' class="num"') if name in _NUMBERS else ""
            kind = {"differs": "yes", "within noise": "noise"}.get(shown, "weak")
            text = Markup('<span class="tag {}">{}</span>').format(kind, shown) if name == "verdict" else shown
            cells.append(Markup("<td{}>{}</td>").format(numeric, text))
        rows.append(Markup("").join(cells))
    return web.framed(f"Effects of “{sweep.title}”", web.heads(HEAD, _NUMBERS), rows)


def markdown(sweep: SweepTable, drawing: Drawing | None) -> list[str]:
    """The section of one sweep in ``report.md``, in parts."""
    body = render.markdown(sweep.table).partition("\n\n")[2]  # without the heading of a table of the paper
    parts = [f"## {render.plain(sweep.title)}", render.plain(answer(sweep)), body]
    if sweep.effects:
        parts += [_NOTE, render.pipes(HEAD, [effect_cells(sweep, effect) for effect in sweep.effects])]
    if (more := more_seeds(sweep)) is not None:
        parts.append(f"{more[0]}\n\n    {more[1]}")
    if sweep.students is not None:
        parts += [f"### {sweep.students.heading}. {render.plain(sweep.title)}", render.plain(about_students(sweep))]
        parts.append(render.markdown(sweep.students).partition("\n\n")[2])
    if drawing is not None:
        parts.append(f"![{drawing.title}](figures/{drawing.name}.svg)\n\n{drawing.caption}")
    return parts


def effect_cells(sweep: SweepTable, effect: Effect) -> list[str]:
    """One effect as a row of texts."""
    return [effect.name, effect.against, *render.compared(sweep.table, effect.comparison)[2:]]


def more_seeds(sweep: SweepTable) -> tuple[str, str] | None:
    """What more seeds would settle, and the command that trains them.

    None where every effect is decided, where 1,000 seeds would not settle one, and for records without the command.
    """
    needed = sweep.seeds_needed
    if needed is None or not sweep.words:
        return None
    words = [word for word in sweep.words if not word.startswith("seed=")]
    first, more = max(sweep.seeds) + 1, min(needed, _MOST_SEEDS) - len(sweep.seeds)
    if more < 1:
        return None
    seeds = ",".join(str(first + i) for i in range(more))
    last = first + more - 1
    which = f"Seed {first}" if more == 1 else f"Seeds {first} to {last}"
    text = f"About {needed} seeds would settle one of the undecided effects, if it is as large as it seems. {which}:"
    return text, " ".join([command_name("sweep"), *(shlex.quote(named(word)) for word in words), f"seed={seeds}"])


def about_students(sweep: SweepTable) -> str:
    """One sentence: each student against a model of its size that learned without a teacher."""
    matched = sweep.matched
    if not matched:
        return "No model of a student's size learned without a teacher here, so a gain may be its size alone."
    key = _score_of(matched)
    if key is None:
        return "No score that a student shares with a model of its size without a teacher."
    shown = [_said(effect, key) for effect in matched if effect.comparison.metric == key]
    return f"Against a model of the same size without a teacher, {metric(key).label}: {'; '.join(shown)}."


def _score_of(effects: Sequence[Effect]) -> str | None:
    """The score that a sentence on these effects is about: one that may be compared, if there is one."""
    known = Counter(effect.comparison.metric for effect in effects)
    fit = {effect.comparison.metric for effect in effects if effect.comparison.mark is None}
    tuned = sorted(score for score in known if metric(score).task is not None)  # methods without masked LM
    scores = sorted((score for score in (*_FIRST, *tuned) if score in known), key=lambda score: -known[score])
    return next((score for score in scores if score in fit), next(iter(scores), None))


def answer(sweep: SweepTable, most: int = 3) -> str:
    """One sentence: at most ``most`` effects, in the score that the arms are compared by.

    Students against models of their size come first, then interactions, then differences.
    """
    rows = sweep.table.rows
    if len(rows) < 2:
        return "One arm: there is nothing to compare it with."
    key = _score_of(sweep.matched) or _score_of(sweep.effects)
    if key is None:
        return "No score that two arms have."
    effects = [effect for effect in sweep.effects if effect.comparison.metric == key]
    judged = [effect for effect in effects if effect.comparison.mark is None]
    if not judged:
        return f"Nothing can be compared: {effects[0].comparison.mark}."
    ranked = sorted(judged, key=lambda e: (not e.matched, bool(e.against), e.comparison.p))
    shown = "; ".join(_said(effect, key) for effect in ranked[:most])
    more = f"; {len(ranked) - most} more below" if len(ranked) > most else ""
    unfit = len(effects) - len(judged)
    left = f"; {unfit} effects are not judged: an arm is below its baseline" if unfit else ""
    return f"{key}: {shown}{more}{left}."


def _said(effect: Effect, key: str) -> str:
    """``share × layers: +0.40 points (−0.10 to +0.90), within noise``."""
    difference, decimals = effect.comparison.difference, 3 if numbers.unit(key) == "nats" or key == BITS_PER_BYTE else 2
    against = f" against {effect.against}" if effect.against else ""
    interval = ""
    if not math.isnan(difference.low):
        ends = (numbers.signed(end, decimals) for end in (difference.low, difference.high))
        interval = f" ({' to '.join(ends)})"
    value = f"{numbers.signed(difference.mean, decimals)}{_UNITS[numbers.unit(key)]}"
    return f"{effect.name}{against}: {value}{interval}, {effect.comparison.verdict}"


def provenance(sweeps: Sequence[SweepTable]) -> dict[str, Any]:
    """``sources.of_tables`` of the sweeps, each arm named after its sweep."""
    sources = of_tables([sweep.table for sweep in sweeps])
    of_students = of_tables([sweep.students for sweep in sweeps if sweep.students is not None])
    for arm, found in of_students["arms"].items():
        sources["arms"][arm]["scores"] |= found["scores"]
    for sweep in sweeps:
        for row in sweep.table.rows:
            if row.arm in sources["arms"]:
                sources["arms"][row.arm]["name"] = f"{sweep.title}: {', '.join(row.labels)}"
    return sources


def frames(sweeps: Sequence[SweepTable]) -> dict[str, pd.DataFrame]:
    """File of ``sweeps/`` -> its numbers: the arms of each sweep, and their effects."""
    by_file = {f"sweeps/{sweep.table.name}.csv": render.frame(sweep.table) for sweep in sweeps}
    by_file |= {f"sweeps/{s.students.name}.csv": render.frame(s.students) for s in sweeps if s.students is not None}
    return by_file | {f"sweeps/{s.table.name}-effects.csv": effects_frame(s) for s in sweeps if s.effects}


def _sum(sweep: SweepTable, effect: Effect) -> str:
    """``+2 -1``: the second arm of the table minus the first."""
    places = {row.arm: place for place, row in enumerate(sweep.table.rows, 1)}
    return " ".join(f"{'+' if factor > 0 else '-'}{places[arm]}" for arm, factor in effect.factors.items())


def effects_frame(sweep: SweepTable) -> pd.DataFrame:
    """A row for each effect and score: mean, interval, p before and after correction, the paper's value, verdict."""
    return pd.DataFrame(
        {
            "effect": e.name, "against": e.against, "sum": _sum(sweep, e), "score": e.comparison.metric,
            "unit": numbers.unit(e.comparison.metric), "n": e.comparison.difference.n,
            "difference": e.comparison.difference.mean, "low": e.comparison.difference.low,
            "high": e.comparison.difference.high, "p": e.comparison.p, "p_holm": e.comparison.adjusted,
            "paper": e.comparison.paper, "verdict": e.comparison.verdict,
        }
        for e in sweep.effects
    )  # fmt: skip
