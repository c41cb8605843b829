"""Counts parameters again: from the shapes of kept weights, and by the formula of the architecture."""

from math import prod
from typing import Any

from . import layers
from .arms import model_file, shape, width_of
from .checks import Check, compare, unknown
from .files import at, shapes
from .runs import Run

_SECTION = "parameter counts"
#: Sizes of the released vocabulary, position table and segment table.
_VOCABULARY, _POSITIONS, _TYPES = 30_000, 512, 2
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
    checks = [compare(_SECTION, f"{where}.{rule}", recorded.get(rule), counted[rule], source) for rule in _RULES[:2]]
    reason = "no weights are kept; parameters of heads are not counted by formula"
    return [*checks, unknown(_SECTION, f"{where}.{_RULES[2]}", recorded.get(_RULES[2]), reason)]


def check_flops(run: Run) -> list[Check]:
    """The check of ``flops_per_step`` in manifest.json by formula, for masked LM with full attention; else none."""
    recorded, counted = at(run.manifest, "flops_per_step"), layers.step_flops(run)
    if recorded is None or counted is None:
        return []
    source = f"{run.folder / 'config.yaml'} (by formula)"
    return [compare("FLOPs", f"{run.name} · flops_per_step", recorded, counted, source)]


def from_shapes(tensors: dict[str, list[int]]) -> dict[str, int]:
    """The three parameter counts of a weights file (tensor -> shape); each tensor counts once."""
    parts = {"encoder": 0, "pooler": 0, "heads": 0}
    for name, size in tensors.items():
        first = name.split(".")[0]
        parts[first if first in parts else "heads"] += prod(size)
    pooled = parts["encoder"] + parts["pooler"]
    return {"encoder": parts["encoder"], "with_pooler": pooled, "with_heads": pooled + parts["heads"]}


def _by_formula(run: Run) -> dict[str, int] | None:
    """Parameters without and with pooler by formula; None where a setting is missing or has a value not covered."""
    model, vocabulary = run.config.get("model", {}), at(run.manifest, "data.tokenizer.vocab_size")
    sizes, e = layers.sizes(run), at(run.config, "embed.size")
    usual = (
        model.get("projection", "auto") == "auto"
        and at(run.config, "share.groups") in (None, 1)
        and at(run.config, "share.inner") in (None, 1)
    )
    share = {"all": (True, True), "none": (False, False), "attention": (True, False), "ffn": (False, True)}
    strategy = at(run.config, "share.strategy")
    depth, positions = model.get("layers"), model.get("max_positions")
    if not usual or None in (vocabulary, depth, positions, e) or sizes is None or strategy not in share:
        return None
    h, trigram = sizes.h, bool(model.get("trigram"))
    types = 0 if at(run.config, "method.token_types") is False else model.get("type_vocab", _TYPES)
    width = h if model.get("table_width") == "hidden" else e
    tables = vocabulary * e + (positions + types) * width
    tables += 0 if model.get("embedding_norm") is False else 2 * width
    projection = (3 if trigram else 1) * e * h + h if trigram or e != h else 0
    last = 2 * h if model.get("norm") == "pre" else 0
    trained = at(run.config, "objective.name") != "none"
    pooled = trained or at(run.config, "method.pooler") != "trained"
    pooler = h * h + h if pooled and model.get("pooler", "tanh") == "tanh" else 0
    blocks = zip(layers.parameters(sizes), share[strategy], strict=True)
    encoder = tables + projection + last + sum(int(part) * (1 if shared else depth) for part, shared in blocks)
    return {"encoder": encoder, "with_pooler": encoder + pooler}
