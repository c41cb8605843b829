"""Mirrors of the metrics. The run folder is the record; a tracker's failure never stops a run."""

import warnings
from typing import Any, Protocol

from albert_ablate.config import RunConfig
from albert_ablate.errors import ConfigError
from albert_ablate.runs import RunFolder


class Tracker(Protocol):
    """What the training loop tells a mirror."""

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Numbers of one step."""

    def close(self, summary: dict[str, Any]) -> None:
        """The end of the run and its results."""


class NoTracker:
    """Keeps nothing."""

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Do nothing."""

    def close(self, summary: dict[str, Any]) -> None:
        """Do nothing."""


class WandbTracker:
    """Weights & Biases; offline by default, so no account is needed."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        try:
            import wandb
        except ModuleNotFoundError:
            raise ConfigError("tracker=wandb: wandb is not installed. Run `pip install wandb`.") from None
        self._run = wandb.init(
            project=config.tracker.project,
            id=folder.name,
            name=folder.name,
            job_type="pretrain",
            mode=config.tracker.mode,
            dir=str(folder.path),
            resume="allow",
            config=config.as_dict(),
            settings=wandb.Settings(silent=True),
        )

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Send, or warn and go on."""
        try:
            self._run.log(values, step=step)
        except Exception as error:
            warnings.warn(f"wandb did not take step {step}: {error}", stacklevel=2)

    def close(self, summary: dict[str, Any]) -> None:
        """Send the summary and finish, or warn and go on."""
        try:
            self._run.summary.update(summary)
            self._run.finish()
        except Exception as error:
            warnings.warn(f"wandb did not finish: {error}", stacklevel=2)


def open_tracker(config: RunConfig, folder: RunFolder) -> Tracker:
    """The configured tracker."""
    return WandbTracker(config, folder) if config.tracker.name == "wandb" else NoTracker()
