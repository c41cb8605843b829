"""Counts parameters again: from the shapes of kept weights, and by the formula of the architecture."""

from math import prod
from typing import Any

from .arms import model_file, shape, width_of
from .checks import Check, compare, unknown
from .files import at, shapes
from .runs import Run

_SECTION = "parameter counts"
#: Sizes of the released vocabulary, position table and segment table.
_VOCABULARY, _POSITIONS, _TYPES = 30_000, 512, 2
#: Settings of parts that the formula does not cover, with the value that they have without these parts.
_PLAIN = {"trigram": False, "table_width": "embedding", "pooler": "tanh"}
_RULES = ("encoder", "with_pooler", "with_heads")


def of_paper_cell(terms: dict[str, Any]) -> int:
    """Parameters with pooler, without heads, of a cell of Table 1 (all shared or not shared) at the paper's sizes."""
    base = model_file("base")
    hidden, layers, _ = shape(terms, base["hidden"], base["layers"], 64)
    embedding = width_of(terms["embedding"], base["hidden"], hidden)
    blocks = 1 if terms["share"] == "all" else layers
    return _counted(_VOCABULARY, _POSITIONS, _TYPES, embedding, hidden, 4 * hidden, blocks)


def _counted(vocabulary: int, positions: int, types: int, e: int, h: int, inner: int, blocks: int) -> int:
    tables = (vocabulary + positions + types) * e + 2 * e  # with its norm
    projection = 0 if e == h else e * h + h
    attention, feed_forward = 4 * (h * h + h) + 2 * h, (h * inner + inner) + (inner * h + h) + 2 * h
    return tables + projection + blocks * (attention + feed_forward) + h * h + h


def check(run: Run) -> list[Check]:
    """Checks of ``parameters`` in manifest.json against the newest kept weights, or the formula without weights."""
    recorded = at(run.manifest, "parameters")
    if not recorded:
        return []
    weights = sorted((run.folder / "checkpoints").glob("step_*/model.safetensors"))
    where = f"{run.name} · parameters"
    if weights:
        counts = from_shapes(shapes(weights[-1]))
        source = str(weights[-1])
        return [compare(_SECTION, f"{where}.{rule}", recorded.get(rule), counts[rule], source) for rule in _RULES]
    counted = _by_formula(run)
    if counted is None:
        return [
            unknown(_SECTION, f"{where}.{rule}", recorded.get(rule), "no weights are kept to count the parameters of")
            for rule in _RULES
        ]
    source = f"{run.folder / 'config.yaml'} (by formula)"
    checks = [compare(_SECTION, f"{where}.with_pooler", recorded.get("with_pooler"), counted, source)]
    reason = "no weights are kept; only the count with pooler is checked, by formula"
    return checks + [unknown(_SECTION, f"{where}.{rule}", recorded.get(rule), reason) for rule in _RULES[::2]]


def from_shapes(tensors: dict[str, list[int]]) -> dict[str, int]:
    """The three parameter counts of a weights file (tensor -> shape); each tensor counts once."""
    parts = {"encoder": 0, "pooler": 0, "heads": 0}
    for name, size in tensors.items():
        first = name.split(".")[0]
        parts[first if first in parts else "heads"] += prod(size)
    pooled = parts["encoder"] + parts["pooler"]
    return {"encoder": parts["encoder"], "with_pooler": pooled, "with_heads": pooled + parts["heads"]}


def _by_formula(run: Run) -> int | None:
    """Parameters with pooler by formula; None where a needed setting is missing or has a value it does not cover."""
    model, vocabulary = run.config.get("model", {}), at(run.manifest, "data.tokenizer.vocab_size")
    needed = ("hidden", "layers", "intermediate", "max_positions")
    known = {name: model.get(name) for name in needed}
    usual = (
        model.get("projection", "auto") == "auto"
        and at(run.config, "share.groups") in (None, 1)
        and at(run.config, "share.inner") in (None, 1)
    )
    share = {"all": (True, True), "none": (False, False), "attention": (True, False), "ffn": (False, True)}
    strategy = at(run.config, "share.strategy")
    if not usual or vocabulary is None or None in known.values() or strategy not in share:
        return None
    h, inner, layers = known["hidden"], known["intermediate"], known["layers"]
    types, e = model.get("type_vocab", _TYPES), at(run.config, "embed.size")
    types = 0 if at(run.config, "method.token_types") is False else types
    trained = at(run.config, "objective.name") != "none"
    pooler = 0 if at(run.config, "method.pooler") == "trained" and not trained else h * h + h
    attention, feed_forward = ((1 if shared else layers) for shared in share[strategy])
    whole = _counted(vocabulary, known["max_positions"], types, e, h, inner, 0) - (h * h + h) + pooler
    whole -= 2 * e if model.get("embedding_norm") is False else 0
    whole += 2 * h if model.get("norm") == "pre" else 0
    if at(run.config, "block.type") == "mobilebert" or any(model.get(k, v) != v for k, v in _PLAIN.items()):
        return None
    return whole + attention * (4 * (h * h + h) + 2 * h) + feed_forward * (2 * h * inner + inner + h + 2 * h)
