"""The time that the plan estimates for a run, where it has measured the shape on this machine."""

from pathlib import Path

import pandas as pd

from albert_ablate.config.parse import parse
from albert_ablate.errors import ConfigError
from albert_ablate.sweeping.estimate import on_this_machine


def planned_seconds(runs: pd.DataFrame) -> dict[str, float]:
    """Run -> estimated seconds of training and evaluation; runs whose shape was not measured are left out."""
    planned: dict[str, float] = {}
    for run, config in zip(runs["run"], runs["config"], strict=True):
        if not (Path(config.get("paths", {}).get("cache", "cache")) / "calibration").is_dir():
            continue
        from albert_ablate.sweeping.calibration import kept  # torch loads slowly

        try:
            settings = parse(config)
        except ConfigError:  # a run of another version
            continue
        measured = kept(settings)
        seconds = None if measured is None else on_this_machine(settings, measured).seconds
        if seconds is not None:
            planned[str(run)] = seconds
    return planned
