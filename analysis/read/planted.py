"""Which runs are on planted text: they are controls, never arms of the paper."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

#: The group of settings that only runs on planted text have.
_GROUP = "data.planted"


def strengths(config: Mapping[str, Any]) -> str | None:
    """``topic 0.8, order 0.8, local 0.6`` for a run on planted text; None for any other run."""
    data = config.get("data")
    planted = data.get("planted") if isinstance(data, dict) else None
    if not isinstance(planted, dict):
        return None
    return ", ".join(f"{name} {planted.get(name):g}" for name in ("topic", "order", "local"))


def fits(config: Mapping[str, Any], terms: Mapping[str, Any]) -> bool:
    """Whether run and arm are both on planted text, or neither is."""
    return (strengths(config) is not None) == asked_for(terms)


def asked_for(terms: Mapping[str, Any]) -> bool:
    """Whether an arm's terms name a setting of planted text."""
    return any(key.startswith(f"{_GROUP}.") for key in terms)


def natural(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are not on planted text."""
    return runs[[strengths(config) is None for config in runs["config"]]]


def planted(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs on planted text."""
    return runs[[strengths(config) is not None for config in runs["config"]]]
