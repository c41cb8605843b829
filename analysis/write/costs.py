"""What each arm cost: runs, parameters, tokens, FLOPs and time."""

from typing import Any

import pandas as pd
from markupsafe import Markup

from albert_ablate.console import duration

from ..judge.metrics import INFERENCE, LATENCY, ONNX_LATENCY, SETTINGS, WITH_TEACHER, measured_apart, unfit, values
from ..read.arms import arm_names, in_order
from ..read.planted import natural
from . import web

#: Column of a time -> its metric. A column is there if a run has the time.
_TIMED = {"inference, ms": INFERENCE, "latency, ms": LATENCY, "ONNX latency, ms": ONNX_LATENCY}


def costs(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm of any set-up: runs, parameters, steps, tokens, FLOPs, training time and speed."""
    runs = natural(runs)
    done = runs[(runs["state"] == "finished") & runs["hidden"].notna()]  # a run without settings has no arm
    done = in_order(done.assign(arm=arm_names(done)))
    taught = bool(done["teacher"].notna().any())
    rows = []
    for (arm, steps), frame in done.groupby(["arm", "steps"], sort=False):
        rows.append(
            {
                "arm": arm, "runs": len(frame), "parameters": frame["params_with_pooler"].iloc[0], "steps": steps,
                "tokens": frame["tokens"].mean(), "FLOPs": frame["flops"].mean(),
                "FLOPs with its teacher's": _with_teachers(frame) if taught else None,
                **{name: _time(frame, key) for name, key in _TIMED.items()},
                "time per run, s": frame["seconds"].mean(),
                "tokens/s": frame["tokens_per_second"].mean(), "total time, s": frame["seconds"].sum(),
                "note": "speed disturbed" if unfit(frame, "tokens/s") else "",
            }
        )  # fmt: skip
    absent = [] if taught else ["FLOPs with its teacher's"]
    absent += [name for name, key in _TIMED.items() if not done[SETTINGS[key]].notna().any()]
    return pd.DataFrame(rows).drop(columns=absent if rows else [])


def latency_note(runs: pd.DataFrame) -> str:
    """Where and how the times of ``latency.json`` were measured; empty if no run has them."""
    done = natural(runs[runs["state"] == "finished"])
    if done.empty:
        return ""
    found = {key: sorted(set(done[SETTINGS[key]].dropna())) for key in (LATENCY, ONNX_LATENCY)}
    parts = [f"{key[0].upper()}{key[1:]}: {'; '.join(how)}." for key, how in found.items() if how]
    apart = any(len(how) > 1 for how in found.values())
    parts += ["Runs that were measured in different ways, or on different machines, are not compared."] if apart else []
    return " ".join([*parts, "Medians of the calls of python -m benchmarks.latency."]) if parts else ""


def _with_teachers(frame: pd.DataFrame) -> float | None:
    """Mean FLOPs with those of the teacher's training; None if one is not known."""
    known = values(frame, WITH_TEACHER)
    return float(known.mean()) if len(known) == len(frame) else None


def _time(frame: pd.DataFrame, key: str) -> float | None:
    """Mean milliseconds of a pass over one sequence; None if a run has none, or they were measured differently."""
    known = values(frame, key)
    return float(known.mean()) if len(known) == len(frame) and not measured_apart(frame, key=key) else None


def cost_rows(frame: pd.DataFrame) -> dict[str, Any]:
    """The table of costs: its head, and for each cell (shown text, sort key)."""
    forms: dict[str, Any] = {
        "parameters": lambda v: f"{v / 1e6:.2f} M", "steps": lambda v: f"{v:,.0f}",
        "tokens": lambda v: f"{v / 1e6:,.1f} M",
        "FLOPs": lambda v: f"{v:.2g}", "FLOPs with its teacher's": lambda v: f"{v:.2g}",
        **dict.fromkeys(_TIMED, lambda v: f"{v:.2f}"), "tokens/s": lambda v: f"{v:,.0f}", "time per run, s": duration,
        "total time, s": duration,
    }  # fmt: skip
    rows = [
        [
            (forms.get(str(name), str)(value) if value == value and value is not None else "—", value)
            for name, value in row.items()
        ]
        for row in frame.to_dict("records")
    ]
    return {"head": [str(name).removesuffix(", s") for name in frame.columns], "rows": rows}


def cost_html(cost: dict[str, Any], note: str = "") -> Markup:
    """The table of costs and ``note``; every column but the arm's name and the note is a number."""
    numeric = [name for name in cost["head"] if name not in ("arm", "note")]
    cells = Markup('<td{} data-sort="{}">{}</td>')
    rows = [
        Markup("").join(
            cells.format(Markup(' class="num"') if name in numeric else "", sort, shown)
            for name, (shown, sort) in zip(cost["head"], row, strict=True)
        )
        for row in cost["rows"]
    ]
    table = web.framed("What each arm cost", web.heads(cost["head"], numeric), rows)
    return Markup("{}\n<p>{}</p>").format(table, note) if note else table
