"""A finished run on the terminal: what was measured, what it has to beat, where it lies."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from albert_ablate.console import duration
from albert_ablate.runs import RunFolder

_TASKS = {"nsp": "next sentence (NSP)", "sop": "sentence order (SOP)"}
_COUNTS = {"encoder": "encoder", "with_pooler": "with pooler", "with_heads": "with heads"}


def summary(folder: RunFolder) -> RenderableType:
    """What a person asks first of ``results.json`` and ``manifest.json``; fits 80 columns."""
    results, manifest = folder.read("results.json"), folder.read("manifest.json")
    return Group(
        Text(f"\n{folder.name}", style="bold"),
        _facts(manifest, results["training"]),
        _scores(results),
        _notes(results),
        _verdict(results),
        Text(f"  {folder.path}\n", style="cyan"),
    )


def _facts(manifest: dict[str, Any], training: dict[str, Any]) -> Text:
    millions = [f"{manifest['parameters'][key] / 1e6:.2f} M {label}" for key, label in _COUNTS.items()]
    return Text(
        f"  parameters  {' · '.join(millions)}\n"
        f"  trained     {training['steps']:,} steps, {training['tokens'] / 1e6:.1f} M tokens in "
        f"{duration(training['seconds'])} ({training['tokens_per_second']:,.0f} tokens/s, {manifest['precision']})\n"
    )


def _scores(results: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("  held-out documents", min_width=24)
    table.add_column("result", justify="right", style="bold")
    table.add_column("95% interval", justify="right")
    table.add_column("to beat")
    m = results["masked_lm"]
    low, high = m["loss_interval"]
    bars = f"{m['unigram_loss']:.3f} unigram · {m['bigram_loss']:.3f} bigram"
    table.add_row("  masked-LM loss, nats", f"{m['loss']:.3f}", f"{low:.3f} to {high:.3f}", bars)
    most = f"{m['unigram_accuracy']:.1%} most frequent piece"
    table.add_row("  masked-LM accuracy", f"{m['accuracy']:.1%}", _percent(m["interval"]), most)
    for key, label in _TASKS.items():
        task = results[key]
        if task is None:
            table.add_row(f"  {label}", "—", "—", "needs two documents on each side")
            continue
        mark = "" if task["head"] == "trained" else " *"
        bar = f"{task['majority_class']:.1%} majority class"
        table.add_row(f"  {label}{mark}", f"{task['accuracy']:.1%}", _percent(task["interval"]), bar)
    return table


def _percent(interval: list[float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _notes(results: dict[str, Any]) -> Text:
    tasks = [results[key] for key in _TASKS if results[key] is not None]
    pairs = " and ".join(dict.fromkeys(f"{task['examples']:,}" for task in tasks)) or "no"
    fitted = any(task["head"] != "trained" for task in tasks)
    star = "* head fitted on the frozen encoder · " if fitted else ""
    return Text(f"  {star}{results['masked_lm']['examples']:,} pieces, {pairs} pairs\n", style="dim")


def _verdict(results: dict[str, Any]) -> Text:
    """Whether the run may be compared at all."""
    m = results["masked_lm"]
    gain = m["gain_over_unigram"]
    if not m["left_baseline"]:
        return Text(
            f"  ! Still on its plateau: masked LM is {abs(gain):.3f} nats {'better' if gain > 0 else 'worse'} than\n"
            "    the unigram baseline. Arms compared here compare nothing; train longer.",
            style="bold yellow",
        )
    lines = Text(f"  ✓ Masked LM is {gain:.2f} nats better than the unigram baseline.", style="green")
    if m["loss"] > m["bigram_loss"]:
        lines.append("\n  ! It is not better than the bigram baseline yet.", style="yellow")
    for key, label in _TASKS.items():
        task = results[key]
        if task is not None and task["head"] == "trained":
            name = label[0].upper() + label[1:]
            above = task["left_baseline"]
            text = f"\n  ✓ {name} is above chance." if above else f"\n  ! {name} is not above chance yet."
            lines.append(text, style="green" if above else "yellow")
    return lines
