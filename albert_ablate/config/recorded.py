"""The recorded settings of a run: ``config.yaml``, also of runs older than some settings."""

from pathlib import Path
from typing import Any

import yaml

from albert_ablate.config.identity import BEFORE
from albert_ablate.errors import RunFolderError


def read_recorded(path: Path) -> dict[str, Any]:
    """A run's ``config.yaml`` as nested plain values. Raises RunFolderError if it is damaged."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert isinstance(settings["scale"]["name"], str)
    except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise RunFolderError(
            f"{path} is damaged ({type(error).__name__}); the run's settings cannot be read."
        ) from error
    return dict(settings)


def completed(recorded: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """``recorded`` settings with those that the run is older than, at the value it had implicitly.

    What has no such value, because it does not change numbers, comes from the nested values ``others``.
    """
    before: dict[str, Any] = {}
    for field, value in BEFORE.items():
        group, _, key = field.partition(".")
        before.setdefault(group, {})[key] = value
    return _updated(_updated(others, before), recorded)


def _updated(values: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """``values`` with those of ``newer`` on top, group by group."""
    groups = {k for k, v in newer.items() if isinstance(v, dict) and isinstance(values.get(k), dict)}
    return values | newer | {k: _updated(values[k], newer[k]) for k in groups}
