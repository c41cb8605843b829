"""The page of a report and the same in Markdown: layout. Sentences and numbers are made elsewhere."""

import json
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from albert_ablate.command_line import command_name

from ..judge import prompted, targets
from ..judge.claims import counted, divided, is_there
from ..judge.controls import HEAD, Controls, page_rows, reading, rows
from ..judge.controls import summary as controls_summary
from ..judge.recipes import leaderboard, recipe_table
from ..judge.tables import Table
from ..read import paper
from . import own, render, web
from .content import (
    OF_FAMILY,
    Report,
    answer,
    cautions,
    details,
    footer_of,
    missing,
    subtitle_of,
    untested_summary,
)
from .costs import cost_html, cost_rows, costs, latency_note
from .figure import figure_of
from .filled import filled_part
from .reproduce import commands
from .scorecard import MARKS, paper_claims, rank, score_row, scorecard_markdown
from .sources import of_tables

_TEMPLATES = Path(__file__).parent.parent / "templates"
_NOTES = {
    "table9": "Leaderboard of September 2019, as printed. Nothing here reproduces it.",
    "table10": "Leaderboard of September 2019, as printed. Nothing here reproduces it.",
    "table14": "What the runs used, else the default of conf/task, with the paper's in brackets where it differs.",
}


_PROMPTED = "Zero-, one- and few-shot scores"
_CONTROLS = "Controls (planted text)"
_CONTROL_CLAIMS = "Claims of Table 5 on planted text; p after Holm's correction over these claims alone:"


def html(report: Report) -> str:
    """The page as self-contained HTML: it loads no scripts or pictures."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True)
    filled = report.filled
    claimed, papers = divided(report.verdicts)
    sources = of_tables(report.tables)
    sources = {name: sources[name] | of_sweeps for name, of_sweeps in own.provenance(report.sweeps).items()}
    runs = report.runs[report.runs["run"].isin(sources["runs"]) & (report.runs["state"] != "copy")]
    sources["commands"] = commands(runs.to_dict("records"))
    provenance = json.dumps(sources).replace("<", "\\u003c")
    return environment.get_template("report.html.j2").render(
        title=report.title,
        answer=answer(report),
        marks=MARKS,
        subtitle=subtitle_of(report.runs),
        summary=details(report),
        cautions=cautions(report),
        first=own.sections(report.first, report.forests),
        later=own.sections(report.later, report.forests),
        own_claims=[score_row(v) for v in claimed],
        counts=counted(report.verdicts),
        scorecard=[score_row(v) for v in sorted(papers, key=rank) if v.verdict != "not tested"],
        untested=[score_row(v) for v in papers if v.verdict == "not tested"],
        untested_summary=untested_summary(papers),
        controls=_controls(report.controls) if report.controls.shown else None,
        tables=[
            {
                "heading": t.heading,
                "title": t.title,
                "html": web.html(part := filled_part(t)),
                "whole": "" if part is t else web.html(t, " with the paper's empty cells"),
            }
            for t in filled
        ],
        unfilled=[
            {
                "heading": t.heading,
                "title": t.title,
                "html": web.html(t),
                "command": f"{command_name('sweep')} sweep={t.name}",
            }
            for t in report.tables
            if t not in filled and _is_offered(t, report.runs)
        ],
        reference=[_reference_html(name, report.runs) for name in _NOTES],
        figures=[figure_of(drawing) for drawing in report.drawings],
        cost=cost_html(cost_rows(costs(report.runs)), latency_note(report.runs)),
        further=_further(report.runs),
        missing=missing(report),
        run_count=len(report.runs),
        runs=web.plain_table("Runs", _RUN_HEAD, [_run_row(run) for run in report.runs.to_dict("records")]),
        provenance=Markup(provenance),
        footer=footer_of(report.runs),
    )


def _further(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The sections below the figures that only some runs fill: by prompts, and by target."""
    found: list[dict[str, Any]] = [
        {"id": "kshot", "title": _PROMPTED, "note": prompted.NOTE, "head": prompted.HEAD, "rows": prompted.rows(runs)}
    ]
    numbers = targets.frame(runs)
    by_target = {"title": targets.TITLE, "note": targets.note(numbers), "head": targets.HEAD}
    found.append({"id": "targets", **by_target, "rows": targets.rows(numbers)})
    return [
        part | {"table": web.plain_table(part["title"], part["head"], part["rows"])} for part in found if part["rows"]
    ]


def _is_offered(table: Table, runs: pd.DataFrame) -> bool:
    """Whether the page shows a table without runs: those of some papers only where a run is what they speak of."""
    claims = OF_FAMILY.get(paper.family(table.name))
    return claims is None or is_there(runs, claims)


def markdown(report: Report) -> str:
    """The content of ``report.md``: the page without provenance; figures are in ``figures/`` beside it."""
    above = (answer(report), subtitle_of(report.runs), details(report))
    parts = [f"# {render.plain(report.title)}", *map(render.plain, above)]
    parts += ["\n".join(f"- {render.plain(line)}" for line in known)] if (known := cautions(report)) else []
    for sweep in report.first:
        parts += own.markdown(sweep, report.forests.get(sweep.table.name))
    claimed = divided(report.verdicts)[0]
    parts += ["## Your claims", scorecard_markdown(claimed)] if claimed else []
    parts += ["## What the paper claims, and what these runs say", paper_claims(report)]
    if report.controls.shown:
        parts += [f"## {_CONTROLS}", " ".join(controls_summary(report.controls))]
        parts += [render.pipes(HEAD, rows(report.controls))] if report.controls.scores else []
        parts += ["\n".join(f"- {render.plain(line)}" for line in reading(report.controls))]
        parts += [_CONTROL_CLAIMS, scorecard_markdown(report.controls.verdicts)]
    for sweep in report.later:
        parts += own.markdown(sweep, report.forests.get(sweep.table.name))
    parts += ["## Tables", *(render.markdown(filled_part(table)) for table in report.filled)]
    recipes = _reference("table14", report.runs)
    parts += [f"### Table 14. {recipes['title']}", render.pipes(recipes["head"], recipes["rows"]), recipes["note"]]
    for part in _further(report.runs):
        parts += [f"## {part['title']}", part["note"], render.pipes(part["head"], part["rows"])]
    parts += ["## Figures"] if report.drawings else []
    parts += [f"### {d.title}\n\n![{d.title}](figures/{d.name}.svg)\n\n{d.caption}" for d in report.drawings]
    cost = cost_rows(costs(report.runs))
    if cost["rows"]:
        shown = [[cell for cell, _ in row] for row in cost["rows"]]
        parts += ["## What each arm cost", render.pipes(cost["head"], shown)]
        parts += [note] if (note := latency_note(report.runs)) else []
    parts += ["## What is missing", "\n".join(f"- {render.plain(line)}" for line in missing(report)) or "Nothing."]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _controls(controls: Controls) -> dict[str, Any]:
    return {
        "title": _CONTROLS, "summary": controls_summary(controls),
        "head": web.heads(HEAD, HEAD[3:8]), "rows": page_rows(controls),
        "notes": reading(controls), "claims": _CONTROL_CLAIMS, "scorecard": [score_row(v) for v in controls.verdicts],
    }  # fmt: skip


def _reference(name: str, runs: pd.DataFrame) -> dict[str, Any]:
    printed = paper.table(name)
    frame = recipe_table(runs) if name == "table14" else leaderboard(name)
    rows = [[str(cell) for cell in row] for row in frame.itertuples(index=False)]
    title = printed["title"].rstrip(".")
    return {
        "heading": paper.heading(name),
        "title": title,
        "head": list(frame.columns),
        "rows": rows,
        "note": _NOTES[name],
    }


def _reference_html(name: str, runs: pd.DataFrame) -> dict[str, Any]:
    table = _reference(name, runs)
    return table | {"html": web.plain_table(f"{table['heading']}. {table['title']}", table["head"], table["rows"])}


_RUN_HEAD = ("run", "state", "seed", "steps", "commit", "tokens", "note")


def _run_row(run: dict[Any, Any]) -> list[str]:
    steps = "—" if pd.isna(run["steps"]) else f"{int(run['steps']):,}"
    commit, tokens = (_known(run[name]) for name in ("commit", "tokens_fingerprint"))
    seed = "—" if pd.isna(run["seed"]) else str(int(run["seed"]))
    note = "; ".join(filter(None, [f"planted text: {run['planted']}" if run["planted"] else "", run["note"]]))
    return [run["run"], run["state"], seed, steps, commit[:10], tokens, note]


def _known(value: Any) -> str:
    """A text of a run; a dash where the run has none, such as one that failed before its settings were written."""
    return "—" if pd.isna(value) or not value else str(value)
