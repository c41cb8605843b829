"""Looks of arms: which setting colours show, which dashes show, and the legend of both."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from albert_ablate.config.labels import joined, rank, settings_of, varying
from albert_ablate.drawing_library import Line2D

from ..read.arms import settings_of_arms
from .style import COLOURED, DASHED, DASHES, MUTED, look, look_of


def arm_styles(chosen: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """A look of its own for each arm: colours by the first setting that varies, dashes by the second.

    The axes that every figure colours and dashes come first. An arm whose further settings differ from the commonest
    ones has an extra colour.
    """
    first, second, _ = _shown_keys(chosen)
    runs = {str(run["arm"]): run for run in chosen.drop_duplicates("arm").to_dict("records")}
    values_of_second = {arm: settings_of(run["config"]).get(second) for arm, run in runs.items()}
    dashed = sorted({rank(second, value) for value in values_of_second.values()})
    fixed = {arm: first == COLOURED.path and not _further(run, chosen) for arm, run in runs.items()}
    hues = list(dict.fromkeys(_coloured(run, chosen) for arm, run in runs.items() if not fixed[arm]))
    offset = len(COLOURED.labels) if first == COLOURED.path else 0
    styles = {}
    for arm, run in runs.items():
        dash = dashed.index(rank(second, values_of_second[arm]))
        style = (
            look_of(COLOURED, run[COLOURED.name]) if fixed[arm] else look(offset + hues.index(_coloured(run, chosen)))
        )
        styles[arm] = style | {"linestyle": DASHES[dash % len(DASHES)], "markersize": 3.5}
    return styles


def _shown_keys(chosen: pd.DataFrame) -> tuple[str, str, tuple[str, ...]]:
    """The settings that colours and dashes show, and the further ones that vary."""
    keys = varying(settings_of_arms(chosen))
    ranked = sorted(keys, key=lambda name: (name != COLOURED.path, name != DASHED.path))
    first, second, *further = list(dict.fromkeys((*ranked, COLOURED.path, DASHED.path)))[: max(2, len(ranked))]
    return first, second, tuple(further)


def _further(run: Mapping[Any, Any], chosen: pd.DataFrame) -> str:
    """The further settings, as text; empty where all of them have their commonest values."""
    further = _shown_keys(chosen)[2]
    label = joined(run["config"], further)
    commonest = ", ".join(
        Counter(joined(config, (key,)) for config in chosen["config"]).most_common(1)[0][0] for key in further
    )
    return "" if label == commonest else label


def _coloured(run: Mapping[Any, Any], chosen: pd.DataFrame) -> str:
    """The legend text of a colour."""
    return ", ".join(filter(None, (joined(run["config"], _shown_keys(chosen)[:1]), _further(run, chosen))))


def legend(chosen: pd.DataFrame, styles: Mapping[str, Mapping[str, Any]]) -> tuple[list[Line2D], list[str]]:
    """A legend with an entry for each colour and each dash, instead of one for every arm."""
    runs = chosen.drop_duplicates("arm").to_dict("records")
    second = _shown_keys(chosen)[1]
    colours = {_coloured(run, chosen): {**styles[run["arm"]], "linestyle": "-"} for run in runs}
    dashes = {
        joined(run["config"], (second,)): {"color": MUTED, "linestyle": styles[run["arm"]]["linestyle"]} for run in runs
    }
    entries = {**colours, **dashes}
    return [Line2D([], [], **style) for style in entries.values()], list(entries)
