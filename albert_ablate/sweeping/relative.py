"""The terms of a sweep file that follow the scale, turned into settings.

A sweep says "a third of the base width" where the paper says 256, so that one file serves every
scale. At ``scale=paper`` the terms give the paper's own numbers. With ``H`` and ``L`` those of the
scale's base model:

| term | values | becomes |
|---|---|---|
| ``size`` | base, large, xlarge, xxlarge | H x 1, 4/3, 8/3, 16/3 and L x 1, 2, 2, 1, as in Table 1 |
| ``depth`` | a multiple of the size's layers | ``model.layers``, rounded up |
| ``after`` | depths, as ``depth`` | ``warm_start.layers``: networks trained first, each from the one before |
| ``width`` | a multiple of the size's hidden width | ``model.hidden``, heads and intermediate with it |
| ``embedding`` | H/12, H/6, H/3 of the base model; H | ``embed``; H is E = the model's own width |
| ``dropout`` | a rate | both dropout rates of the encoder |
| ``length`` | a multiple of the scale's steps | ``budget.steps`` |
| ``corpus`` | base, more | Wikipedia and books without and with more; elsewhere half of the text and all |
"""

import math
from fractions import Fraction
from typing import Any

from albert_ablate.config import CONF, ModelConfig, RunConfig
from albert_ablate.errors import ConfigError
from albert_ablate.sweeping.definition import LISTS

TERMS = ("size", "depth", "after", "width", "embedding", "dropout", "length", "corpus")

#: Hidden width and layers of Table 1, as multiples of base.
SIZES = {
    "base": (Fraction(1), Fraction(1)),
    "large": (Fraction(4, 3), Fraction(2)),
    "xlarge": (Fraction(8, 3), Fraction(2)),
    "xxlarge": (Fraction(16, 3), Fraction(1)),
}


def settings_of(cell: dict[str, Any], base: RunConfig) -> dict[str, str]:
    """One cell's terms and settings -> override key -> value, for the scale of ``base``."""
    found = _model(cell, base.model)
    for key, value in cell.items():
        if key == "embedding":
            found |= _embedding(str(value), base.model.hidden)
        elif key == "dropout":
            found |= {"model.hidden_dropout": str(value), "model.attention_dropout": str(value)}
        elif key == "length":
            found["budget.steps"] = str(round(base.budget.steps * _multiple(cell, "length")))
        elif key == "corpus":
            found |= _corpus(value, base)
        elif key in LISTS:
            found[key] = f"[{','.join(value)}]" if isinstance(value, list) else str(value)
        elif key not in TERMS:
            found[key] = str(value)
    return found


def _model(cell: dict[str, Any], base: ModelConfig) -> dict[str, str]:
    """Settings of the model's shape; the paper's own sizes by name."""
    shape = any(term in cell for term in ("depth", "after", "width"))
    if "size" not in cell and not shape:
        return {}
    size = cell.get("size", "base")
    width, depth = _choice("size", size, SIZES)
    in_paper = base.name == "base"  # then the sizes are files of conf/model
    hidden, layers = _width(base, width), math.ceil(base.layers * depth)
    if in_paper and not shape:
        return {"model": size}
    if size == "base" and not shape:
        return {}
    name = size if in_paper else base.name if size == "base" else f"{base.name}-{size}"
    full, after = (hidden, layers), list[int]()
    if shape:
        hidden = round(hidden * _multiple(cell, "width"))
        layers = math.ceil(layers * _multiple(cell, "depth"))
        after = sorted({math.ceil(full[1] * part) for part in _depths(cell)} - {layers})
        # A warm start makes another model of the same shape, which deeper ones name as their start.
        name = name if (hidden, layers) == full and not after else f"{name}-{layers}x{hidden}"
    head = base.hidden // base.heads
    numbers = {"hidden": hidden, "layers": layers, "heads": hidden // head, "intermediate": 4 * hidden}
    prefix = {"model": size} if in_paper else {}
    warm = {"warm_start.layers": f"[{','.join(map(str, after))}]"} if after else {}
    return prefix | {"model.name": name} | {f"model.{key}": str(value) for key, value in numbers.items()} | warm


def _width(base: ModelConfig, factor: Fraction) -> int:
    """The nearest multiple of the base model's head width."""
    head = base.hidden // base.heads
    return round(base.hidden * factor / head) * head


def _embedding(value: str, hidden: int) -> dict[str, str]:
    if value == "H":
        return {"embed": "full"}
    part = value.removeprefix("H/")
    if part == value or not part.isdecimal() or int(part) == 0:
        raise ConfigError(f"embedding={value} in a sweep file: say H, or H/12, H/6, H/3 of the base model's width.")
    size = round(hidden / int(part) / 8) * 8
    known = (CONF / "embed" / f"e{size}.yaml").is_file()
    return {"embed": f"e{size}"} if known else {"embed.size": str(size)}


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
