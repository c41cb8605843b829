"""Names and order of arms, and the settings that distinguish them where no terms name them."""

import pandas as pd

from albert_ablate.axes import ATTENTION, AXES, METHOD
from albert_ablate.config.labels import PARENT, flatten, shown_value

from .setups import BEFORE, SHAPE, Settings, under

#: Axes with further settings in their group, which only some of their values read.
DETAILED = (METHOD, ATTENTION)
#: Settings that the axes, with the others of these groups, and the sizes of the paper's tables stand for.
APART = (*(axis.path for axis in AXES), *(axis.group for axis in DETAILED), "warm_start", PARENT, "model.base", *SHAPE)


def settings_of_arms(runs: pd.DataFrame) -> list[Settings]:
    """The nested settings of each run that may distinguish arms: those of the text only where tokens differ.

    A text may lie in another folder on another machine; its tokens say whether it is the same.
    """
    left_out = ("data", "tokenizer") if runs["tokens_fingerprint"].nunique() < 2 else ()
    return [{group: values for group, values in config.items() if group not in left_out} for config in runs["config"]]


def full_names(runs: pd.DataFrame) -> list[str]:
    """``arm_names``; arms that would share a name also get the settings in which they differ."""
    names = arm_names(runs)
    whole = [flatten(config) for config in runs["config"]]
    axes = [{k: v for k, v in settings.items() if under(k, APART)} for settings in whole]
    full = []
    for name, settings, every in zip(names, axes, whole, strict=True):
        alike = [alternative for other_name, alternative in zip(names, axes, strict=True) if other_name == name]
        apart = sorted(
            {
                k
                for alternative in alike
                for k in settings.keys() | alternative.keys()
                if _unlike(k, settings, alternative)
            }
        )
        values = {key: settings.get(key, BEFORE.get(key)) for key in apart}
        said = [f"from {shown_value(k, every)}" if k == PARENT else f"{k}={value}" for k, value in values.items()]
        full.append(", ".join([name, *said]))
    return full


def _unlike(key: str, first: Settings, second: Settings) -> bool:
    return bool(first.get(key, BEFORE.get(key)) != second.get(key, BEFORE.get(key)))


def arm_names(runs: pd.DataFrame) -> list[str]:
    """``E=32, all shared, SOP`` for each run; with H×L where the runs have several shapes."""
    shapes = runs[["hidden", "layers"]].drop_duplicates()
    names = []
    for run in runs.to_dict("records"):
        shape = f"{run['hidden']}×{run['layers']}, " if len(shapes) > 1 else ""
        values = [(axis, run[axis.name]) for axis in AXES]
        names.append(shape + ", ".join(axis.label_of(value) for axis, value in values if axis.shown(value)))
    return names


def in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs sorted by shape, by each axis in its order, and by seed."""
    by_axes = runs.assign(**{f"_{axis.name}": runs[axis.name].map(axis.rank) for axis in AXES})
    keys = ["hidden", "layers", *(f"_{axis.name}" for axis in AXES), "seed"]
    return runs.loc[by_axes.sort_values(keys, kind="stable").index]
