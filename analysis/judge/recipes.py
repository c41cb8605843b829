"""Tables 9, 10 and 14 of the paper: the leaderboards, and its fine-tuning settings beside ours."""

from functools import cache
from typing import Any

import pandas as pd
import yaml

from albert_ablate.config.schema import CONF

from ..read import paper

#: The paper's name of a task -> the file in ``conf/task``.
_TASKS = {
    "CoLA": "cola", "STS": "stsb", "SST-2": "sst2", "MNLI": "mnli", "QNLI": "qnli", "QQP": "qqp", "RTE": "rte",
    "MRPC": "mrpc", "WNLI": "wnli", "SQuAD v1.1": "squad11", "SQuAD v2.0": "squad20", "RACE": "race",
}  # fmt: skip
#: The paper's column -> the setting of a recipe.
SETTINGS = {
    "LR": "learning_rate", "BSZ": "batch_size", "ALBERT_DR": "dropout", "classifier_DR": "classifier_dropout",
    "TS": "steps", "WS": "warmup_steps", "MSL": "max_length",
}  # fmt: skip


def recipes(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 14: a row for each task and setting with the paper's value, our default and the values the runs used."""
    rows = []
    for row in paper.table("table14")["rows"]:
        task = _TASKS[row["task"]]
        default = _recipe(task)
        used = [e["recipe"] for tasks in runs["tasks"] for e in tasks if e["task"] == task and e.get("recipe")]
        for column, name in SETTINGS.items():
            values = sorted({recipe[name] for recipe in used if isinstance(recipe.get(name), int | float)})
            ours = {"default": default.get(name), "used": values}
            rows.append({"task": row["task"], "setting": name.replace("_", " "), "paper": row[column], **ours})
    return pd.DataFrame(rows)


def recipe_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 14 in the paper's layout: a row for each task. A cell is ``used [paper]``, one value where both agree."""
    rows: dict[str, dict[str, str]] = {}
    for entry in recipes(runs).to_dict("records"):
        ours = entry["used"] or [entry["default"]]
        printed = f"{entry['paper']:g}"
        shown = "/".join("—" if value is None else f"{value:g}" for value in ours)
        name = str(entry["setting"])
        rows.setdefault(str(entry["task"]), {})[name] = printed if shown == printed else f"{shown} [{printed}]"
    return pd.DataFrame([{"task": task, **settings} for task, settings in rows.items()])


def leaderboard(name: str) -> pd.DataFrame:
    """Table 9 or 10 as printed by the paper; no run reproduces a leaderboard."""
    frame = pd.DataFrame(paper.table(name)["rows"]).rename(columns=lambda column: str(column).replace("_", " "))
    return frame.map(
        lambda value: "—" if value is None or value != value else f"{value:.1f}" if isinstance(value, float) else value
    )


@cache
def _recipe(task: str) -> dict[str, Any]:
    values = yaml.safe_load((CONF / "task" / f"{task}.yaml").read_text(encoding="utf-8"))
    return dict(values["tasks"][task]["recipe"])
