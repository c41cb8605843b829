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
        _facts(manifest, results.get("training")),
        *held_out(results),
        *_tasks(results),
        Text(f"  {folder.path}\n", style="cyan"),
    )


def _facts(manifest: dict[str, Any], training: dict[str, Any] | None) -> Text:
    millions = [f"{manifest['parameters'][key] / 1e6:.2f} M {label}" for key, label in _COUNTS.items()]
    parameters = f"  parameters  {' · '.join(millions)}\n"
    if training is None:
        return Text(f"{parameters}  imported    from {manifest['imported']['from']}\n")
    return Text(
        f"{parameters}"
        f"  trained     {training['steps']:,} steps, {training['tokens'] / 1e6:.1f} M tokens in "
        f"{duration(training['seconds'])} ({training['tokens_per_second']:,.0f} tokens/s, {manifest['precision']})\n"
    )


def held_out(results: dict[str, Any]) -> list[RenderableType]:
    """Scores on held-out documents and what they allow to say; nothing for a run that was not evaluated."""
    return [_scores(results), _notes(results), _verdict(results)] if "masked_lm" in results else []


def _scores(results: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    best = results.get("achievable")
    table.add_column("  held-out documents", min_width=23 if best else 24)
    table.add_column("result", justify="right", style="bold")
    table.add_column("95% interval", justify="right")
    table.add_column("achievable, and chance" if best else "to beat")
    m = results["masked_lm"]
    low, high = m["loss_interval"]
    bars = f"{m['unigram_loss']:.3f} unigram · {m['bigram_loss']:.3f} bigram"
    if best:
        bars = f"{best['masked_lm']['loss']:.3f} achievable, {best['masked_lm']['chance_loss']:.3f} chance"
    table.add_row("  masked-LM loss, nats", f"{m['loss']:.3f}", f"{low:.3f} to {high:.3f}", bars)
    most = f"{m['unigram_accuracy']:.1%} most frequent piece"
    if best:
        most = f"{best['masked_lm']['accuracy']:.1%} achievable, {m['unigram_accuracy']:.1%} chance"
    table.add_row("  masked-LM accuracy", f"{m['accuracy']:.1%}", _percent(m["interval"]), most)
    for key, label in _TASKS.items():
        task = results[key]
        if task is None:
            table.add_row(
                f"  {label}", "—", "—", results.get("left_out", {}).get(key, "needs two documents on each side")
            )
            continue
        mark = "" if task["head"] == "trained" else " *"
        bar = f"{task['majority_class']:.1%} majority class"
        if best:
            bar = f"{best[key]['accuracy']:.1%} achievable, {task['majority_class']:.1%} chance"
        table.add_row(f"  {label}{mark}", f"{task['accuracy']:.1%}", _percent(task["interval"]), bar)
    return table


def _tasks(results: dict[str, Any]) -> list[RenderableType]:
    """Fine-tuned tasks: the best evaluation on dev of the median seed, and the last one."""
    entries = results.get("tasks", [])
    if not entries:
        return []
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("\n  fine-tuned", min_width=18, overflow="fold")
    table.add_column("\nmetric")
    table.add_column("best\non dev", justify="right", style="bold")
    table.add_column("\n95% interval", justify="right")
    table.add_column("\nlast", justify="right")
    table.add_column("to beat: majority\n· bag of words")
    names = [(entry["task"], entry["start"]) for entry in entries]
    for entry in entries:
        several = names.count((entry["task"], entry["start"])) > 1
        for row in _task_rows(entry, f" {entry['group'][:4]}" if several else ""):
            table.add_row(*row)
    notes = "  the checkpoint is chosen on dev itself; intervals cover examples, not seeds\n"
    found: list[RenderableType] = [table, Text(notes, style="dim")]
    average = results.get("average")
    if average:
        words = f"  Avg of the paper's five tasks: {average['value']:.1%} (F1 and EM averaged first)\n"
        found.append(Text(words, style="bold"))
    return found


def _task_rows(entry: dict[str, Any], mark: str) -> list[list[str]]:
    """``mark`` tells settings of one task apart: the first digits of their group."""
    start = mark if entry["start"] == "pretrained" else f"{mark}, random start"
    rows: list[list[str]] = []
    for name, scores in entry["sets"].items():
        first = True
        set_name = f" {name}" if len(entry["sets"]) > 1 else ""
        metrics = {k: v for k, v in scores.items() if isinstance(v, dict) and "interval" in v}
        floor = entry["to_beat"].get(name, {})
        for metric, found in metrics.items():
            plain = "error" in metric
            shown = [f"{v:.3f}" if plain else f"{v:.1%}" for v in (found["value"], *found["interval"])]
            bars = " · ".join(f"{value:.1%}" for value in floor.values()) if first else ""
            last = f"{entry['last_score']:.1%}" if first and not rows else ""
            label = f"  {entry['task']}{set_name}{start}" if first else ""
            part = f" ({found['classes']} of {found['of']})" if found.get("classes", 0) < found.get("of", 0) else ""
            rows.append([label, metric.replace("_", " ") + part, shown[0], f"{shown[1]} to {shown[2]}", last, bars])
            first = False
    if len(entry["seeds"]) > 1:
        low, high = entry["spread"]
        words = f"{len(entry['seeds'])} seeds: {entry['score']:.1%}"
        rows.append(["", "", "", "", "", f"{words} median, {low:.1%} to {high:.1%}"])
    return rows


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
