"""The report in Weights & Biases, for those who keep theirs there; offline unless WANDB_MODE says otherwise."""

import os
from pathlib import Path

import wandb

from analysis.claims import scorecard
from analysis.page import Report, html
from analysis.render import differences, frame


def upload(report: Report, out: Path, project: str) -> None:
    """One run of type ``analysis``: every filled table, its differences, the scorecard and the page."""
    mode = os.environ.get("WANDB_MODE", "offline")
    with wandb.init(project=project, job_type="analysis", name=report.title, dir=str(out), mode=mode) as run:  # type: ignore[arg-type]
        run.log({"scorecard": wandb.Table(dataframe=scorecard(report.verdicts).astype(object))})
        for table in report.filled:
            run.log({table.name: wandb.Table(dataframe=frame(table).astype(object))})
            if table.comparisons:
                run.log({f"{table.name} differences": wandb.Table(dataframe=differences(table).astype(object))})
        run.log({"report": wandb.Html(html(report), inject=False)})
