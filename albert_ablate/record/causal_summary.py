"""What the terminal says of a model that predicts the next piece."""

from typing import Any

from rich.text import Text

from albert_ablate.record.score_table import ScoreRow


def causal_rows(scores: dict[str, Any], foreign: bool) -> list[ScoreRow]:
    """Loss, bits per byte, accuracy and the gain of context; ``foreign``: on a text that was not trained on."""
    text = ", this text" if foreign else ""
    bars = [f"{scores[f'{name}_loss']:.3f} {name}{text}" for name in ("unigram", "bigram") if f"{name}_loss" in scores]
    run = scores.get("bars", {}).get("run_unigram_loss")
    more = [] if run is None else [f"{run:.3f} unigram, run's own text"]
    lines = [*bars, *more] if foreign else [" · ".join(bars)]
    first, *rest = lines or ["—"]
    rows = [
        ScoreRow(("  next-piece loss, nats", f"{scores['loss']:.3f}", _numbers(scores["loss_interval"])), first),
        *(ScoreRow(("", "", ""), bar) for bar in rest),
    ]
    known = "unigram_loss" in scores
    unigram = f"{scores['bits_per_byte'] * scores['unigram_loss'] / scores['loss']:.3f} unigram" if known else "—"
    interval = _numbers(scores["bits_per_byte_interval"])
    rows.append(ScoreRow(("  bits per byte", f"{scores['bits_per_byte']:.3f}", interval), unigram))
    most = f"{scores['unigram_accuracy']:.1%} most frequent piece" if known else "—"
    low, high = scores["interval"]
    share = f"{low:.1%} to {high:.1%}"
    rows.append(ScoreRow(("  next-piece accuracy", f"{scores['accuracy']:.1%}", share), most))
    if (context := scores.get("context")) is not None:
        cells = ("  late less early, nats", f"{context['gain']:.3f}", _numbers(context["interval"]))
        rows.append(ScoreRow(cells, "0 without context"))
    return rows


def causal_verdict(scores: dict[str, Any], foreign: bool) -> list[Text]:
    """Whether the model has left its plateau; on a foreign text, how it compares with that text's pieces."""
    gain = scores.get("gain_over_unigram")
    if gain is None:
        return [Text("  ! No bar of this text: it has no other document to count pieces in.", style="yellow")]
    how = f"{abs(gain):.3f} nats {'better' if gain > 0 else 'worse'} than"
    if foreign:
        mark, style = ("✓", "green") if scores["gain_interval"][0] > 0 else ("!", "yellow")
        text = f"  {mark} The next piece is predicted {how}\n    by the piece frequencies of this text."
        return [Text(text, style=style)]
    if not scores["left_baseline"]:
        text = (
            f"  ! Still on its plateau: the next piece is predicted {how}\n"
            "    by the unigram baseline. Comparing runs at this point is meaningless;\n    train longer."
        )
        return [Text(text, style="bold yellow")]
    lines = [Text(f"  ✓ The next piece is predicted {how} by the unigram baseline.", style="green")]
    if scores["loss"] > scores["bigram_loss"]:
        lines.append(Text("  ! It is not better than the bigram baseline yet.", style="yellow"))
    return lines


def _numbers(interval: list[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"
