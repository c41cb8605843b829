"""Parameters and FLOPs of a layer by formula, from the settings of a run: standard ones, and those of MobileBERT.

Letters: H width between layers, W inside, I inner width of a feed-forward network, F networks of a layer, T tokens, V
pieces, E width of the word table. A multiply-add is two FLOPs.
"""

from typing import NamedTuple

from .files import at
from .runs import Run


class Layer(NamedTuple):
    """Both parts of a layer that a sharing strategy speaks of."""

    attention: float
    feed_forward: float


class Sizes(NamedTuple):
    """The letters above, and where queries, keys and values of bottlenecks come from."""

    h: int
    w: int
    i: int
    f: int
    source: str  # body, shared, bottleneck; empty in standard layers


def sizes(run: Run) -> Sizes | None:
    """Those of a run; None where a needed setting is missing or has a value that the formulas do not cover."""
    model = run.config.get("model", {})
    h, i = model.get("hidden"), model.get("intermediate")
    kind = at(run.config, "block.type") or "standard"
    if None in (h, i) or kind not in ("standard", "mobilebert"):
        return None
    if kind == "standard":
        return Sizes(h, h, i, 1, "")
    source = model.get("attention_input")
    if source not in ("body", "shared", "bottleneck"):
        return None
    return Sizes(h, model.get("block_width") or h // 4, i, model.get("feed_forwards", 1), source)


def parameters(s: Sizes) -> Layer:
    """Weights, biases and norms of a layer."""
    h, w, i, f, source = s
    if not source:
        return Layer(4 * (h * h + h) + 2 * h, 2 * h * i + i + h + 2 * h)
    reduction = h * w + 3 * w  # with its norm
    read = {
        "body": 3 * (h * w + w),
        "shared": reduction + 2 * (w * w + w) + (h * w + w),
        "bottleneck": 3 * (w * w + w),
    }[source]
    return Layer(reduction + read + w * w + 3 * w, f * (2 * w * i + i + 3 * w) + h * w + 3 * h)


def flops(s: Sizes, tokens: int) -> float:
    """FLOPs of a layer in a forward pass over ``tokens`` with full attention."""
    h, w, i, f, source = s
    pairs = 2 * tokens * w  # scores and contexts, for a token
    if not source:
        return 2 * tokens * (4 * h * h + pairs + 2 * h * i)
    read = {"body": 3 * h * w, "shared": 2 * h * w + 2 * w * w, "bottleneck": 3 * w * w}[source]
    return 2 * tokens * (h * w + read + pairs + w * w + 2 * f * w * i + h * w)


def step_flops(run: Run) -> int | None:
    """FLOPs of an optimizer step of masked LM with full attention: three forward passes over full sequences.

    None where the run is another, or a needed setting is missing.
    """
    c, s, vocabulary = run.config, sizes(run), at(run.manifest, "data.tokenizer.vocab_size")
    model, e, head = c.get("model", {}), at(c, "embed.size"), at(c, "model.lm_head") or "transform"
    tokens, batch, share = at(c, "pairs.max_length"), at(c, "batch.size"), at(c, "masking.probability")
    plain = (at(c, "method.name") or "mlm") == "mlm" and (at(c, "attention.name") or "full") == "full"
    if (
        not plain
        or s is None
        or None in (vocabulary, e, tokens, batch, share, model.get("layers"))
        or head not in ("transform", "extended")
        or (at(c, "budget.lookups") or "free") != "free"
        or model.get("projection", "auto") != "auto"
    ):
        return None
    h, trigram = s.h, bool(model.get("trigram"))
    masked = share * tokens
    most = at(c, "masking.max_predictions")
    masked = min(masked, most) if most else masked
    projection = tokens * 2 * (3 if trigram else 1) * e * h if trigram or e != h else 0
    of_head = 2 * masked * (h * (h + vocabulary) if head == "extended" else h * e + e * vocabulary)
    pooled = at(c, "method.pooler") != "trained" or at(c, "objective.name") != "none"
    pooler = 2 * h * h if pooled and model.get("pooler", "tanh") == "tanh" else 0
    return round(3 * (projection + model["layers"] * flops(s, tokens) + of_head + pooler)) * int(batch)
