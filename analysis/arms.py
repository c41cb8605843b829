"""What arms are called, in which order they stand, and which settings tell them apart where no terms name them."""

import pandas as pd

from albert_ablate.axes import AXES

from .setups import BEFORE, SHAPE, Settings, flatten, under

#: Settings that the axes of a paper table stand for.
APART = (*(axis.path for axis in AXES), "warm_start", "model.base", *SHAPE)


def full_names(runs: pd.DataFrame) -> list[str]:
    """``arm_names``; arms that would share a name say what tells them apart as well."""
    names = arm_names(runs)
    axes = [{k: v for k, v in flatten(config).items() if under(k, APART)} for config in runs["config"]]
    found = []
    for name, own in zip(names, axes, strict=True):
        alike = [other for other_name, other in zip(names, axes, strict=True) if other_name == name]
        apart = sorted({k for other in alike for k in own.keys() | other.keys() if _unlike(k, own, other)})
        found.append(", ".join([name, *(f"{key}={own.get(key, BEFORE.get(key))}" for key in apart)]))
    return found


def _unlike(key: str, one: Settings, other: Settings) -> bool:
    return bool(one.get(key, BEFORE.get(key)) != other.get(key, BEFORE.get(key)))


def arm_names(runs: pd.DataFrame) -> list[str]:
    """``E=32, all shared, SOP`` of each run, with the model where the runs have several shapes."""
    shapes = runs[["hidden", "layers"]].drop_duplicates()
    words = []
    for run in runs.to_dict("records"):
        shape = f"{run['hidden']}×{run['layers']}, " if len(shapes) > 1 else ""
        values = [(axis, run[axis.name]) for axis in AXES]
        words.append(shape + ", ".join(axis.words(value) for axis, value in values if axis.shown(value)))
    return words


def in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs by shape, by each axis in its own order, and by seed."""
    by_axes = runs.assign(**{f"_{axis.name}": runs[axis.name].map(axis.rank) for axis in AXES})
    keys = ["hidden", "layers", *(f"_{axis.name}" for axis in AXES), "seed"]
    return runs.loc[by_axes.sort_values(keys, kind="stable").index]
