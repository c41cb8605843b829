"""Turns the terms of a sweep file that follow the scale into settings.

A sweep file says "a third of the base width" where the paper says 256, so one file serves every
scale. At ``scale=paper`` the terms give the paper's numbers. ``H`` and ``L`` are the width and
depth of the scale's base model:

| term | values | becomes |
|---|---|---|
| ``size`` | base, large, xlarge, xxlarge | H x 1, 4/3, 8/3, 16/3 and L x 1, 2, 2, 1, as in Table 1 |
| ``min_layers`` | a number | the size has at least so many layers, before ``depth`` |
| ``depth`` | a multiple of the size's layers | ``model.layers``, rounded up |
| ``after`` | depths, as ``depth`` | ``warm_start.layers``: networks trained first, each from the one before |
| ``width`` | a multiple of the size's hidden width | ``model.hidden``, heads and intermediate with it |
| ``embedding`` | H/12, H/6, H/3 of the base model; H | ``embed``; H is E = the model's own width |
| ``dropout`` | a rate | both dropout rates of the encoder |
| ``length`` | a multiple of the scale's steps | ``budget.steps`` |
| ``compute`` | a multiple of the scale's | ``budget.flops``: what masked LM with E = H takes for the scale's steps |
| ``corpus`` | base, more | Wikipedia and books without and with more; elsewhere half of the text and all |
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from albert_ablate.axes import EMBED, MethodName
from albert_ablate.config.schema import CONF, ModelConfig, RunConfig
from albert_ablate.errors import ConfigError
from albert_ablate.methods.parents import as_word
from albert_ablate.training.budget import step_flops

#: The setting that the term ``embedding`` sets.
EMBEDDING = EMBED.path

TERMS = ("size", "min_layers", "depth", "after", "width", "embedding", "dropout", "length", "compute", "corpus")

#: Hidden width and layers of Table 1, as multiples of base.
SIZES = {
    "base": (Fraction(1), Fraction(1)),
    "large": (Fraction(4, 3), Fraction(2)),
    "xlarge": (Fraction(8, 3), Fraction(2)),
    "xxlarge": (Fraction(16, 3), Fraction(1)),
}


def settings_of(cell: dict[str, Any], base: RunConfig) -> dict[str, str]:
    """One cell's terms and settings -> override key -> value, for the scale of ``base``."""
    settings = _model(cell, base.model)
    for key, value in cell.items():
        if key == "embedding":
            settings |= _embedding(str(value), base.model.hidden)
        elif key == "dropout":
            settings |= {"model.hidden_dropout": str(value), "model.attention_dropout": str(value)}
        elif key == "length":
            settings["budget.steps"] = str(round(base.budget.steps * _multiple(cell, "length")))
        elif key == "compute":
            settings["budget.flops"] = f"{_compute(base) * _multiple(cell, 'compute'):.6g}"
        elif key == "corpus":
            settings |= _corpus(value, base)
        elif key not in TERMS:
            settings[key] = _as_text(value)
    return settings


def _as_text(value: Any) -> str:
    """A value of a YAML file in the syntax of the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_as_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_as_text(inner)}' for key, inner in value.items())}}}"
    return as_word(value)


@dataclass(frozen=True)
class Shape:
    """The shape that a cell's terms give to a base model."""

    hidden: int
    layers: int
    after: tuple[int, ...]  # depths of the networks trained first
    changed: bool  # by min_layers, depth or width, so that the shape is not that of the size


def shape_of(cell: dict[str, Any], hidden: int, layers: int, head: int) -> Shape:
    """The shape of a cell for a base of ``hidden`` x ``layers`` with heads of ``head``.

    Raises ConfigError for an unknown size or an invalid multiple.
    """
    width, depth = _choice("size", cell.get("size", "base"), SIZES)
    full_hidden, full_layers = round(hidden * width / head) * head, math.ceil(layers * depth)
    deep = max(full_layers, math.ceil(_multiple(cell, "min_layers")))
    hidden = round(full_hidden * _multiple(cell, "width"))
    layers = math.ceil(deep * _multiple(cell, "depth"))
    after = tuple(sorted({math.ceil(deep * part) for part in _depths(cell)} - {layers}))
    # With a warm start it is another model of the same shape; deeper models start from it by name.
    changed = deep != full_layers or (hidden, layers) != (full_hidden, full_layers) or bool(after)
    return Shape(hidden, layers, after, changed)


def embedding_of(value: str, base_hidden: int, hidden: int) -> int:
    """E of ``H`` (the model's own width) or ``H/12`` (of the base model's, in eights). Raises ConfigError."""
    if value == "H":
        return hidden
    part = value.removeprefix("H/")
    if part == value or not part.isdecimal() or int(part) == 0:
        raise ConfigError(f"embedding={value} in a sweep file: say H, or H/12, H/6, H/3 of the base model's width.")
    return round(base_hidden / int(part) / 8) * 8


def base_name(model: str) -> str:
    """The base model in a model's name: base for large, nano for nano-large-1x256."""
    name = model.split("-")[0]
    return "base" if name in SIZES else name


def _model(cell: dict[str, Any], base: ModelConfig) -> dict[str, str]:
    """Settings of the model's shape; the paper's sizes by name."""
    reshaped = any(term in cell for term in ("min_layers", "depth", "after", "width"))
    if "size" not in cell and not reshaped:
        return {}
    size = cell.get("size", "base")
    shape = shape_of(cell, base.hidden, base.layers, base.hidden // base.heads)
    in_paper = base.name == "base"  # the paper's sizes are files in conf/model
    if in_paper and not reshaped:
        return {"model": size}
    if size == "base" and not reshaped:
        return {}
    name = size if in_paper else base.name if size == "base" else f"{base.name}-{size}"
    name = f"{name}-{shape.layers}x{shape.hidden}" if shape.changed else name
    heads = shape.hidden // (base.hidden // base.heads)
    numbers = {"hidden": shape.hidden, "layers": shape.layers, "heads": heads, "intermediate": 4 * shape.hidden}
    prefix = {"model": size} if in_paper else {}
    warm = {"warm_start.layers": f"[{','.join(map(str, shape.after))}]"} if shape.after else {}
    return prefix | {"model.name": name} | {f"model.{key}": str(value) for key, value in numbers.items()} | warm


def _embedding(value: str, hidden: int) -> dict[str, str]:
    if value == "H":
        return {"embed": "full"}
    size = embedding_of(value, hidden, hidden)
    known = (CONF / "embed" / f"e{size}.yaml").is_file()
    return {"embed": f"e{size}"} if known else {EMBEDDING: str(size)}


def _compute(base: RunConfig) -> float:
    """FLOPs of the scale's steps of masked LM: what arms of other methods may use in an equal comparison."""
    masked_lm = replace(base, method=replace(base.method, name=MethodName.MLM))
    return float(step_flops(masked_lm) * base.budget.steps)


def _corpus(value: str, base: RunConfig) -> dict[str, str]:
    if base.scale.name == "paper":
        return {"data": _choice("corpus", value, {"base": "wiki_books", "more": "wiki_books_more"})}
    return {"data.fraction": _choice("corpus", value, {"base": "0.5", "more": "1.0"})}


def _choice(term: str, value: Any, known: dict[str, Any]) -> Any:
    if value not in known:
        raise ConfigError(f"{term}={value} in a sweep file: there are {', '.join(known)}.")
    return known[value]


def _depths(cell: dict[str, Any]) -> list[Fraction]:
    parts = [part.strip() for part in str(cell.get("after", "")).split(",")]
    return [_multiple({"after": part}, "after") for part in parts if part]


def _multiple(cell: dict[str, Any], term: str) -> Fraction:
    try:
        value = Fraction(str(cell.get(term, 1)))
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise ConfigError(f"{term}={cell[term]} in a sweep file: say a positive multiple, such as 2, 0.5 or 1/8.")
    return value
