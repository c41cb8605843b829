"""A finished run on the terminal: what was measured, what it has to beat, where it lies."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from albert_ablate.console import duration
from albert_ablate.runs import RunFolder

_TASKS = {"nsp": "next sentence (NSP)", "sop": "sentence order (SOP)"}


def summary(folder: RunFolder) -> RenderableType:
    """Everything ``results.json`` and ``manifest.json`` say that a person asks first."""
    results, manifest = folder.read("results.json"), folder.read("manifest.json")
    parts: list[RenderableType] = [Text(""), Text(folder.name, style="bold"), _facts(manifest, results["training"])]
    parts += [_scores(results), _verdict(results), Text(f"  {folder.path}", style="cyan"), Text("")]
    return Group(*parts)


def _facts(manifest: dict[str, Any], training: dict[str, Any]) -> Text:
    counts = manifest["parameters"]
    millions = [f"{counts[k] / 1e6:.2f} M {label}" for k, label in _COUNTS.items()]
    return Text(
        f"  parameters  {' · '.join(millions)}\n"
        f"  trained     {training['steps']:,} steps, {training['tokens'] / 1e6:.1f} M tokens in "
        f"{duration(training['seconds'])} ({training['tokens_per_second']:,.0f} tokens/s, {manifest['precision']})"
    )


_COUNTS = {"encoder": "encoder", "with_pooler": "with pooler", "with_heads": "with heads"}


def _scores(results: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=True)
    for name, side in (("held-out documents", "left"), ("result", "right"), ("95% interval", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    table.add_column("to beat", justify="left")
    table.add_column("n", justify="right")
    table.add_column("head", justify="left")
    m = results["masked_lm"]
    low, high = m["loss_interval"]
    table.add_row(
        "masked-LM loss, nats", f"{m['loss']:.3f}", f"{low:.3f} to {high:.3f}",
        f"{m['unigram_loss']:.3f} unigram, {m['bigram_loss']:.3f} bigram", f"{m['examples']:,}", "trained",
    )  # fmt: skip
    table.add_row(
        "masked-LM accuracy", f"{m['accuracy']:.1%}", _percent(m["interval"]),
        f"{m['unigram_accuracy']:.1%} most frequent", f"{m['examples']:,}", "trained",
    )  # fmt: skip
    for key, label in _TASKS.items():
        task = results[key]
        if task is None:
            table.add_row(label, "—", "", "needs two held-out documents", "", "")
            continue
        bar = f"{task['majority_class']:.1%} majority class"
        table.add_row(
            label, f"{task['accuracy']:.1%}", _percent(task["interval"]), bar, f"{task['examples']:,}", task["head"]
        )
    return table


def _percent(interval: list[float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _verdict(results: dict[str, Any]) -> Text:
    """Whether the run may be compared at all."""
    m = results["masked_lm"]
    if not m["left_baseline"]:
        return Text(
            f"  ! still on its plateau: masked LM is {m['gain_over_unigram']:+.3f} nats from the unigram baseline. "
            "Arms compared here compare nothing; train longer.",
            style="bold yellow",
        )
    lines = [f"  ✓ masked LM is {m['gain_over_unigram']:.2f} nats below the unigram baseline"]
    for key, label in _TASKS.items():
        task = results[key]
        if task is not None and task["head"] == "trained":
            lines.append(
                f"  ✓ {label} is above chance" if task["left_baseline"] else f"  ! {label} is not above chance"
            )
    return Text("\n".join(lines), style="green" if "!" not in "".join(lines) else "yellow")
