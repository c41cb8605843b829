"""The page of a report and the same in Markdown: text and layout. The numbers are computed elsewhere."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from albert_ablate.command_line import command_name
from albert_ablate.console import duration

from ..draw import style
from ..draw.style import Drawing
from ..judge import numbers
from ..judge.claims import Verdict, bound_text, counted, divided
from ..judge.controls import HEAD, Controls, page_rows, reading, rows
from ..judge.controls import summary as controls_summary
from ..judge.effects import SweepTable
from ..judge.metrics import unfit
from ..judge.recipes import leaderboard, recipe_table
from ..judge.tables import Table
from ..read import paper
from ..read.arms import arm_names, in_order
from ..read.cautions import judged_in_one_setup, of_runs
from ..read.cells import main_setup
from ..read.copies import short
from ..read.planted import natural
from ..read.seeds import of_planned
from . import own, render
from .answer import answer as answer_of
from .answer import on_plateau
from .filled import filled_part
from .sources import of_tables

_TEMPLATES = Path(__file__).parent.parent / "templates"
_MARKS = {"reproduced": "✓", "contradicted": "✗", "inconclusive": "~", "not tested": "–"}
_NOTES = {
    "table9": "Leaderboard of September 2019, as printed. Nothing here reproduces it.",
    "table10": "Leaderboard of September 2019, as printed. Nothing here reproduces it.",
    "table14": "What the runs used, else the default of conf/task, with the paper's in brackets where it differs.",
}


_CONTROLS = "Controls (planted text)"
_CONTROL_CLAIMS = "Claims of Table 5 on planted text; p after Holm's correction over these claims alone:"


@dataclass(frozen=True)
class Report:
    """The content of a report."""

    title: str
    runs: pd.DataFrame
    tables: tuple[Table, ...]
    verdicts: tuple[Verdict, ...]
    drawings: tuple[Drawing, ...]
    undrawn: dict[str, str] = field(default_factory=dict)  # figure -> why it was not drawn
    controls: Controls = field(default_factory=Controls)  # of runs on planted text
    sweeps: tuple[SweepTable, ...] = ()  # the user's, the latest first
    forests: dict[str, Drawing] = field(default_factory=dict)  # table of a sweep -> its effects

    @property
    def filled(self) -> list[Table]:
        """Tables with runs, and Table 1, which needs no runs."""
        return [table for table in self.tables if table.filled or table.number == 1]


def answer(report: Report) -> str:
    """One sentence: what the runs answer, or why they answer nothing."""
    claimed, papers = divided(report.verdicts)
    return answer_of(main_setup(report.runs), report.sweeps, claimed, papers) or summary(report)[0]


def summary(report: Report) -> list[str]:
    """Three sentences: the runs, their results, and what is not tested."""
    done = main_setup(report.runs)
    counts = counted(divided(report.verdicts)[1])
    if not len(done) and report.controls.scores:
        return [
            "Every finished run is of planted text: these are controls.",
            *controls_summary(report.controls),
            "Nothing that the paper claims is judged by them.",
        ]
    if not len(done):
        return [
            "No run has finished yet.",
            "Nothing can be judged.",
            f"`{command_name('status')}` shows what runs.",
        ]
    arms, seeds = done["arm"].nunique(), done["seed"].nunique()
    shapes = sorted({f"{h}×{n}" for h, n in zip(done["hidden"], done["layers"], strict=True)})
    taken = sorted({int(steps) for steps in done["steps"].dropna()})
    steps = f"{taken[0]:,} steps" if len(taken) == 1 else f"{done['tokens'].mean() / 1e6:.1f} M tokens"
    papers = divided(report.verdicts)[1]
    first = (
        f"{len(done)} finished runs of one set-up, {arms} arms with {_plural(seeds, 'seed')}, trained models of "
        f"H×L = {', '.join(shapes[:3])} for {steps}"
    )
    if on_plateau(done):
        untested = f"None of the paper's {len(papers)} claims can be judged."
        return [f"{first}.", untested, "An arm below its baseline is never compared with another one."]
    first += ": not the paper's scale, so direction and order can be compared, sizes cannot."
    tested = len(papers) - counts["not tested"]
    if not tested:
        return [first, "They can test no claim of the paper.", f"{_untested_summary(papers)}."]
    second = (
        f"They can test {_plural(tested, 'claim')} of the paper: {counts['reproduced']} reproduced, "
        f"{counts['contradicted']} contradicted and {counts['inconclusive']} inconclusive"
        f"{_contradicted(papers)}."
    )
    unjudged = [v for v in papers if v.verdict == "not tested" and v.arms]
    third = f"{counts['not tested']} claims are not tested"
    third += f", {len(unjudged)} of them because an arm is not fit to be judged" if unjudged else ""
    strongest = max((v for v in papers if v.verdict == "reproduced"), key=lambda v: -v.adjusted, default=None)
    third += f"; most firmly reproduced: {_quoted(strongest.claim.claim)}" if strongest else "; none is reproduced yet"
    return [first, second, f"{third}."]


def _details(report: Report) -> str:
    """The summary without the answer, where that is one of its sentences."""
    return " ".join(sentence for sentence in summary(report) if sentence != answer(report))


def control_summary(report: Report) -> list[str]:
    """The results of the controls on planted text as sentences; empty without controls."""
    return controls_summary(report.controls)


def cautions(report: Report) -> list[str]:
    """Cautions above the numbers: sentences about the code, the copies and the set-ups of the runs."""
    return [*of_runs(report.runs), *judged_in_one_setup([v.left_out for v in report.verdicts])]


def missing(report: Report) -> list[str]:
    """What the report cannot show and why, a line each."""
    lines = [
        f"Table {t.number}, {', '.join(row.labels)}: {t.selection.waiting[row.arm]}"
        for t in report.tables
        if t.filled
        for row in t.rows
        if row.arm in t.selection.waiting
    ]
    lines += [
        f"Table {t.number}: fewer than two of its arms have runs ({command_name('sweep')} sweep={t.name})"
        for t in report.tables
        if t not in report.filled
    ]
    lines += [f"Figure {name.removeprefix('figure')}: {why}" for name, why in report.undrawn.items()]
    unfinished = report.runs[(report.runs["state"] != "finished") | (report.runs["note"] != "")]
    lines += [
        f"{short(run['path']) if run['state'] == 'copy' else run['run']}: {run['state']}"
        f"{', ' if run['note'] else ''}{run['note']}"
        for run in unfinished.to_dict("records")
    ]
    return lines


def costs(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of any set-up: runs, parameters, steps, tokens, FLOPs, training time and speed."""
    runs = natural(runs)
    done = runs[(runs["state"] == "finished") & runs["hidden"].notna()]  # a run without settings has no arm
    done = in_order(done.assign(arm=arm_names(done)))
    rows = []
    for (arm, steps), frame in done.groupby(["arm", "steps"], sort=False):
        rows.append(
            {
                "arm": arm, "runs": len(frame), "parameters": frame["params_with_pooler"].iloc[0], "steps": steps,
                "tokens": frame["tokens"].mean(), "FLOPs": frame["flops"].mean(),
                "time a run, s": frame["seconds"].mean(),
                "tokens/s": frame["tokens_per_second"].mean(), "time in all, s": frame["seconds"].sum(),
                "note": "speed disturbed" if unfit(frame, "tokens/s") else "",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def html(report: Report) -> str:
    """The page as self-contained HTML: it loads no scripts or pictures."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True)
    filled = report.filled
    sources, claimed, papers = of_tables(report.tables), *divided(report.verdicts)
    sources = {name: sources[name] | of_sweeps for name, of_sweeps in own.provenance(report.sweeps).items()}
    provenance = json.dumps(sources).replace("<", "\\u003c")
    return environment.get_template("report.html.j2").render(
        title=report.title,
        subtitle=_subtitle(report.runs),
        answer=answer(report),
        own=own.sections(report.sweeps, report.forests, render.html),
        own_claims=[_score_row(v) for v in claimed],
        summary=_details(report),
        cautions=cautions(report),
        counts=counted(report.verdicts),
        scorecard=[_score_row(v) for v in papers if v.verdict != "not tested"],
        untested=[_score_row(v) for v in papers if v.verdict == "not tested"],
        untested_summary=_untested_summary(papers),
        controls=_controls(report.controls) if report.controls.shown else None,
        tables=[
            {
                "number": t.number,
                "title": t.title,
                "html": render.html(part := filled_part(t)),
                "whole": "" if part is t else render.html(t),
            }
            for t in filled
        ],
        unfilled=[
            {
                "number": t.number,
                "title": t.title,
                "html": render.html(t),
                "command": f"{command_name('sweep')} sweep={t.name}",
            }
            for t in report.tables
            if t not in filled
        ],
        reference=[_reference(name, report.runs) for name in _NOTES],
        figures=[
            {"name": d.name, "title": d.title, "caption": d.caption, "svg": Markup(style.inline(d))}
            for d in report.drawings
        ],
        cost=_cost_rows(costs(report.runs)),
        missing=missing(report),
        runs=[_run_row(run) for run in report.runs.to_dict("records")],
        provenance=Markup(provenance),
        footer=_footer(report.runs),
    )


def markdown(report: Report) -> str:
    """The content of ``report.md``: the page without provenance; figures are in ``figures/`` beside it."""
    above = (answer(report), _subtitle(report.runs), _details(report))
    parts = [f"# {render.plain(report.title)}", *map(render.plain, above)]
    parts += ["\n".join(f"- {render.plain(line)}" for line in known)] if (known := cautions(report)) else []
    for sweep in report.sweeps:
        parts += own.markdown(sweep, report.forests.get(sweep.table.name))
    claimed = divided(report.verdicts)[0]
    parts += ["## Your claims", scorecard_markdown(claimed)] if claimed else []
    parts += ["## What the paper claims, and what these runs say", _paper_claims(report)]
    if report.controls.shown:
        parts += [f"## {_CONTROLS}", " ".join(controls_summary(report.controls))]
        parts += [render.pipes(HEAD, rows(report.controls))] if report.controls.scores else []
        parts += ["\n".join(f"- {render.plain(line)}" for line in reading(report.controls))]
        parts += [_CONTROL_CLAIMS, scorecard_markdown(report.controls.verdicts)]
    parts += ["## Tables", *(render.markdown(filled_part(table)) for table in report.filled)]
    recipes = _reference("table14", report.runs)
    parts += [f"### Table 14. {recipes['title']}", render.pipes(recipes["head"], recipes["rows"]), recipes["note"]]
    parts += ["## Figures"] if report.drawings else []
    parts += [f"### {d.title}\n\n![{d.title}](figures/{d.name}.svg)\n\n{d.caption}" for d in report.drawings]
    cost = _cost_rows(costs(report.runs))
    if cost["rows"]:
        shown = [[cell for cell, _ in row] for row in cost["rows"]]
        parts += ["## What each arm cost", render.pipes(cost["head"], shown)]
    parts += ["## What is missing", "\n".join(f"- {render.plain(line)}" for line in missing(report)) or "Nothing."]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _paper_claims(report: Report) -> str:
    """The scorecard of the claims that are tested, and one line on the others."""
    papers = divided(report.verdicts)[1]
    if report.controls.shown and all(v.verdict == "not tested" for v in papers):
        return f"None of the paper's {len(papers)} claims is tested: no run is of natural text."
    tested = [v for v in papers if v.verdict != "not tested"]
    untested = [f"{_untested_summary(papers)}."] if len(tested) < len(papers) else []
    return "\n\n".join(([scorecard_markdown(tested)] if tested else []) + untested)


def _untested_summary(papers: Sequence[Verdict]) -> str:
    """``24 claims of the paper need other runs``, and how many have runs that cannot be judged."""
    untested = [v for v in papers if v.verdict == "not tested"]
    unfit_count = sum(bool(v.arms) for v in untested)
    text = f"{_plural(len(untested), 'claim')} of the paper {'needs' if len(untested) == 1 else 'need'} other runs"
    return f"{text}, {unfit_count} of them because an arm is not fit to be judged" if unfit_count else text


def scorecard_markdown(verdicts: Sequence[Verdict]) -> str:
    """The scorecard as a Markdown table."""
    head = ["claim", "verdict", "score", "effect", "95% interval", "p (Holm)", "the paper", "n", "why"]
    rows = []
    for verdict in verdicts:
        row = _score_row(verdict)
        paper_effect = f"{row['paper']} {row['paper_score']}".strip()
        rows.append(
            [
                f"{row['claim']} ({row['source']})", f"{row['mark']} {row['verdict']}", row["score"], row["effect"],
                row["interval"], row["p"], paper_effect, row["n"], row["reason"],
            ]
        )  # fmt: skip
    return render.pipes(head, rows)


def _score_row(verdict: Verdict) -> dict[str, Any]:
    claim, effect = verdict.claim, verdict.effect
    unit = numbers.unit(verdict.score or claim.scores[0])
    unit_label = {"%": " points", "nats": " nats", "1/s": " tokens/s"}.get(unit, "")
    many = 3 if unit in ("nats", "") else 2
    return {
        "claim": claim.claim, "source": claim.source, "verdict": verdict.verdict, "mark": _MARKS[verdict.verdict],
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


def _controls(controls: Controls) -> dict[str, Any]:
    return {
        "title": _CONTROLS, "summary": controls_summary(controls), "head": HEAD, "rows": page_rows(controls),
        "notes": reading(controls), "claims": _CONTROL_CLAIMS, "scorecard": [_score_row(v) for v in controls.verdicts],
    }  # fmt: skip


def _reference(name: str, runs: pd.DataFrame) -> dict[str, Any]:
    printed = paper.table(name)
    frame = recipe_table(runs) if name == "table14" else leaderboard(name)
    rows = [[str(cell) for cell in row] for row in frame.itertuples(index=False)]
    title = printed["title"].rstrip(".")
    return {
        "number": printed["number_v6"],
        "title": title,
        "head": list(frame.columns),
        "rows": rows,
        "note": _NOTES[name],
    }


def _cost_rows(frame: pd.DataFrame) -> dict[str, Any]:
    """The table of costs: its head, and for each cell (shown text, sort key)."""
    forms: dict[str, Any] = {
        "parameters": lambda v: f"{v / 1e6:.2f} M", "steps": lambda v: f"{v:,.0f}",
        "tokens": lambda v: f"{v / 1e6:,.1f} M",
        "FLOPs": lambda v: f"{v:.2g}", "tokens/s": lambda v: f"{v:,.0f}", "time a run, s": duration,
        "time in all, s": duration,
    }  # fmt: skip
    rows = [
        [
            (forms.get(str(name), str)(value) if value == value and value is not None else "—", value)
            for name, value in row.items()
        ]
        for row in frame.to_dict("records")
    ]
    return {"head": [str(name).removesuffix(", s") for name in frame.columns], "rows": rows}


def _run_row(run: dict[Any, Any]) -> list[str]:
    steps = "—" if pd.isna(run["steps"]) else f"{int(run['steps']):,}"
    commit = str(run["commit"])[:10] if run["commit"] else "—"
    seed = "—" if pd.isna(run["seed"]) else str(int(run["seed"]))
    note = "; ".join(filter(None, [f"planted text: {run['planted']}" if run["planted"] else "", run["note"]]))
    return [run["run"], run["state"], seed, steps, commit, run["tokens_fingerprint"] or "—", note]


def _subtitle(runs: pd.DataFrame) -> str:
    runs = runs[runs["state"] != "copy"]
    done = runs[runs["state"] == "finished"]
    corpora = sorted({str(data.get("corpus")) for data in done["data"] if isinstance(data, dict)})
    devices = sorted({str(device) for device in done["device"].dropna()})
    spent = duration(float(done["seconds"].sum())) if len(done) else "no time"
    where = f"data: {', '.join(corpora) or '—'} · {', '.join(devices) or '—'}"
    return f"{len(done)} of {len(runs)} runs finished · {where} · {spent} of training"


def _footer(runs: pd.DataFrame) -> str:
    commits = sorted({str(commit)[:10] for commit in runs["commit"].dropna()})
    record = paper.record()["paper"]
    return (
        f"Made by albert-ablate from run folders; code of {', '.join(commits) or 'unknown commits'}. "
        f"The paper's numbers: Lan et al., {record['title']}, ICLR 2020 (arXiv {record['arxiv']}, v6)."
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _contradicted(verdicts: Sequence[Verdict], most: int = 3) -> str:
    claims = [_quoted(v.claim.claim) for v in verdicts if v.verdict == "contradicted"]
    more = f" and {len(claims) - most} more" if len(claims) > most else ""
    return f"; contradicted: {', '.join(claims[:most])}{more}" if claims else ""


def _quoted(claim: str) -> str:
    return f"“{claim.rstrip('.')}”"
