"""Logs a report to Weights & Biases; offline unless WANDB_MODE is set."""

import os
from pathlib import Path

import wandb

from albert_ablate.training.trackers import wandb_folder, wandb_mode, wandb_project

from ..judge.claims import scorecard
from . import own
from .content import Report
from .page import html
from .render import differences, frame


def upload(report: Report, out: Path, project: str | None) -> None:
    """Logs one run of type ``analysis``: every filled table, its differences, the sweeps, the scorecard and the page.

    ``project``: None takes the project in WANDB_PROJECT.
    """
    with wandb.init(
        project=wandb_project(project),
        job_type="analysis",
        name=os.environ.get("WANDB_NAME") or report.title,
        dir=wandb_folder(out),
        mode=wandb_mode(None),  # type: ignore[arg-type]
    ) as run:
        run.log({"scorecard": wandb.Table(dataframe=scorecard(report.verdicts).astype(object))})
        for table in report.filled:
            run.log({table.name: wandb.Table(dataframe=frame(table).astype(object))})
            if table.comparisons:
                run.log({f"{table.name} differences": wandb.Table(dataframe=differences(table).astype(object))})
        for file, numbers in own.frames(report.sweeps).items():
            run.log({Path(file).stem: wandb.Table(dataframe=numbers.astype(object))})
        run.log({"report": wandb.Html(html(report), inject=False)})
