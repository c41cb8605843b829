"""The terminal summary of a finished run: measurements, baselines and folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from albert_ablate.axes import CAUSAL_LM, HELD_OUT_SCORES, REPLACED_TOKENS, SENTENCE_TASKS
from albert_ablate.console import duration, packed
from albert_ablate.record import formats
from albert_ablate.record.causal_summary import causal_rows, causal_verdict
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.kshot import KShotEntry
from albert_ablate.record.prompted_summary import prompted_table
from albert_ablate.record.score_table import ScoreRow, ScoreTable
from albert_ablate.record.tasks import form

#: Columns of the label of a fact.
_LABEL = 14
_COUNTS = {"encoder": "encoder", "with_pooler": "with pooler", "with_heads": "with heads"}


def summary(folder: RunFolder) -> RenderableType:
    """The main facts of ``results.json`` and ``manifest.json``, for a terminal of 80 columns."""
    results, manifest = folder.read("results.json"), folder.read("manifest.json")
    return Group(
        Text(f"\n{folder.name}", style="bold"),
        *_facts(manifest, results.get("training")),
        *held_out(results),
        *_tasks(results),
        *_prompted(results),
        Text(f"  {folder.path}\n", style="cyan"),
    )


@dataclass(frozen=True)
class _Fact:
    """A line of facts after its label; a fact is not broken."""

    label: str
    facts: Sequence[str]
    joint: str = " · "

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The lines at this width."""
        lines = packed(self.facts, options.max_width - _LABEL, self.joint)
        for label, line in zip([f"  {self.label}", *[""] * len(lines)], lines, strict=False):
            yield Text(f"{label:<{_LABEL}}{line}")


def _facts(manifest: dict[str, Any], training: dict[str, Any] | None) -> list[RenderableType]:
    millions = [f"{manifest['parameters'][key] / 1e6:.2f} M {label}" for key, label in _COUNTS.items()]
    parameters = _Fact("parameters", millions)
    if training is None:
        return [parameters, Text(f"  imported    from {manifest['imported']['from']}\n")]
    amount = f"{training['steps']:,} steps, {training['tokens'] / 1e6:.1f} M tokens in {duration(training['seconds'])}"
    speed = f"({training['tokens_per_second']:,.0f} tokens/s, {manifest['precision']})"
    return [parameters, _Fact("trained", [amount, speed], joint=" "), *_both_budgets(manifest, training), Text("")]


def _both_budgets(manifest: dict[str, Any], training: dict[str, Any]) -> list[RenderableType]:
    """A student's FLOPs without and with what its teacher cost; nothing for other runs."""
    teacher = manifest.get("teacher")
    if teacher is None:
        return []
    all_passes = training["flops"]
    alone = all_passes * (1 - teacher["flops_per_step"] / manifest["flops_per_step"])
    if teacher["training_flops"] is None:
        with_teacher = f"{all_passes:.3g} with its teacher's passes; its training is unknown"
    else:
        with_teacher = f"{all_passes + teacher['training_flops']:.3g} with its teacher"
    return [_Fact("FLOPs", [f"{alone:.3g} student alone", with_teacher])]


def held_out(results: dict[str, Any]) -> list[RenderableType]:
    """Scores on held-out documents and the verdict; empty for a run that was not evaluated."""
    return [_scores(results), _notes(results), _verdict(results)] if "masked_lm" in results else []


def _scores(results: dict[str, Any]) -> ScoreTable:
    best = results.get("achievable")
    m = results["masked_lm"]
    causal = results.get(CAUSAL_LM)
    if m is not None:
        rows = _masked_lm_rows(results, m)
    elif causal is not None:
        rows = causal_rows(causal, _foreign(results))
    else:
        rows = [ScoreRow(("  masked LM", "—", "—"), results["left_out"]["masked_lm"])]
    for key, kind in SENTENCE_TASKS.items():
        task = results[key]
        if task is None:
            why = results.get("left_out", {}).get(key, "needs two documents on each side")
            rows.append(ScoreRow((f"  {kind.title}", "—", "—"), why))
            continue
        mark = "" if task["head"] == "trained" else " *"
        bar = f"{task['majority_class']:.1%} majority class"
        if best:
            bar = f"{best[key]['accuracy']:.1%} achievable, {task['majority_class']:.1%} chance"
        rows.append(ScoreRow((f"  {kind.title}{mark}", f"{task['accuracy']:.1%}", _percent(task["interval"])), bar))
    rows += [*_replaced_rows(results), *_generated_rows(results)]
    documents = "scored documents" if _foreign(results) else "held-out documents"
    return ScoreTable(
        (f"  {documents}", "result", "95% interval"), "achievable, and chance" if best else "to beat", rows,
        least=23 if best else 24, below="" if best else "to beat: ",
    )  # fmt: skip


def _generated_rows(results: dict[str, Any]) -> list[ScoreRow]:
    """Rows of the text that the run's own generator corrupts; none for a method without one."""
    rows = []
    if d := results.get("discriminator"):
        bar = f"{d['token_auc']:.1%} without context"
        rows.append(ScoreRow(("  own fakes, AUC", f"{d['auc']:.1%}", _percent(d["auc_interval"])), bar))
        bar = f"{d['base_accuracy']:.1%} all original"
        rows.append(ScoreRow(("  own fakes, accuracy", f"{d['accuracy']:.1%}", _percent(d["interval"])), bar))
    if g := results.get("generator"):
        low, high = g["loss_interval"]
        bar = f"{g['unigram_loss']:.3f} unigram"
        rows.append(ScoreRow(("  generator loss, nats", f"{g['loss']:.3f}", f"{low:.3f} to {high:.3f}"), bar))
    return rows


def _replaced_rows(results: dict[str, Any]) -> list[ScoreRow]:
    """The row of the replaced-token probe; none for an older run, which lacks it."""
    if REPLACED_TOKENS not in results:
        return []
    scores = results[REPLACED_TOKENS]
    if scores is None:
        return [ScoreRow(("  replaced-token AUC", "—", "—"), results["left_out"][REPLACED_TOKENS])]
    cells = ("  replaced-token AUC *", f"{scores['auc']:.1%}", _percent(scores["interval"]))
    return [ScoreRow(cells, f"{scores['token_auc']:.1%} without context")]


def _masked_lm_rows(results: dict[str, Any], m: dict[str, Any]) -> list[ScoreRow]:
    best = results.get("achievable")
    low, high = m["loss_interval"]
    bars, *more = _loss_bars(results)
    if best:
        bars = f"{best['masked_lm']['loss']:.3f} achievable, {best['masked_lm']['chance_loss']:.3f} chance"
    loss = ScoreRow(("  masked-LM loss, nats", f"{m['loss']:.3f}", f"{low:.3f} to {high:.3f}"), bars)
    piece = "most frequent, this text" if _foreign(results) else "most frequent piece"
    most = f"{m['unigram_accuracy']:.1%} {piece}" if "unigram_accuracy" in m else "—"
    if best:
        most = f"{best['masked_lm']['accuracy']:.1%} achievable, {m.get('unigram_accuracy', float('nan')):.1%} chance"
    accuracy = ScoreRow(("  masked-LM accuracy", f"{m['accuracy']:.1%}", _percent(m["interval"])), most)
    return [loss, *(ScoreRow(("", "", ""), bar) for bar in more), *_position_rows(m), accuracy]


def _position_rows(m: dict[str, Any]) -> list[ScoreRow]:
    """The loss of early and of late positions; none where no sequence is long."""
    if not (apart := m.get("by_position")):
        return []
    names = {"early": f"first {apart['split']} positions", "late": "positions after them"}
    return [
        ScoreRow((f"  {name}", f"{apart[part]:.3f}", "{:.3f} to {:.3f}".format(*apart[f"{part}_interval"])), "")
        for part, name in names.items()
    ]


def _foreign(results: dict[str, Any]) -> bool:
    """Whether the scores are on a text that the run was not trained on; always true for an imported model."""
    foreign = ("bars", "above_majority")  # only an evaluation on another text has these
    scores = [results.get(name) or {} for name in (*HELD_OUT_SCORES, CAUSAL_LM)]
    return "imported" in results or any(entry in score for score in scores for entry in foreign)


def _loss_bars(results: dict[str, Any]) -> list[str]:
    """Baselines of the masked-LM loss, one line each."""
    m = results["masked_lm"]
    known = {name: f"{m[f'{name}_loss']:.3f} {name}" for name in ("unigram", "bigram") if f"{name}_loss" in m}
    if not _foreign(results):
        return [" · ".join(known.values())]
    training_text_loss = m.get("bars", {}).get("run_unigram_loss")
    lines = [f"{bar}, this text" for bar in known.values()]
    if training_text_loss is not None:
        lines.append(f"{training_text_loss:.3f} unigram, run's own text")
    return lines or ["—"]


def _tasks(results: dict[str, Any]) -> list[RenderableType]:
    """Fine-tuned tasks: the best and the last evaluation on dev of the median seed."""
    entries = results.get("tasks", [])
    if not entries:
        return []
    names = [(entry["task"], entry["start"]) for entry in entries]
    rows = []
    for entry in entries:
        several = names.count((entry["task"], entry["start"])) > 1
        rows += _task_rows(entry, f" {entry['group'][:4]}" if several else "")
    table = ScoreTable(
        ("  fine-tuned", "metric", "best\non dev", "95% interval", "last"), "to beat: majority\n· bag of words", rows,
        names=2, least=18, below="to beat: ", legend="to beat: majority · bag of words",
    )  # fmt: skip
    notes = "  the checkpoint is chosen on dev itself; intervals cover examples, not seeds\n"
    parts: list[RenderableType] = [table, Text(notes, style="dim"), *_target_tables(entries)]
    parts += _label_tables(entries)
    average = results.get("average")
    if average:
        line = f"  Avg of the paper's five tasks: {average['value']:.1%} (F1 and EM averaged first)\n"
        parts.append(Text(line, style="bold"))
    return parts


def _prompted(results: dict[str, Any]) -> list[RenderableType]:
    """Zero-, one- and few-shot scores."""
    entries = [KShotEntry.read(entry) for entry in results.get("kshot", [])]
    if not entries:
        return []
    notes = "  asked by prompts: accuracy in %, mean ± standard deviation over seeds of the demonstrations\n"
    return [prompted_table(entries), Text(notes, style="dim")]


def _target_tables(entries: list[dict[str, Any]]) -> list[RenderableType]:
    """For each task with several numbers, a table by target, of the first set and the median seed."""
    tables: list[RenderableType] = []
    for entry in entries:
        first: dict[str, Any] = next(iter(entry["sets"].values()), {})
        of_targets = first.get("by_target")
        if of_targets is None:
            continue
        rows = []
        for target, scores in of_targets.items():
            error, of_mean, r2 = (scores[key] for key in ("mean_squared_error", "mean_squared_error_of_the_mean", "r2"))
            ranks = "—" if scores["spearman"] is None else f"{scores['spearman']:.1%}"
            cells = (f"  {target.replace('_', ' ')}", f"{error:.4f}", f"{r2:.1%}", ranks)
            rows.append(ScoreRow(cells, f"{of_mean:.4f}"))
        head = (f"  {entry['task']}, by target", "squared\nerror", "R²", "Spearman")
        tables += [ScoreTable(head, "error of\nthe mean", rows, below="error of the mean: "), Text("")]
    return tables


def _label_tables(entries: list[dict[str, Any]]) -> list[RenderableType]:
    """For each task with entities, a table by label, of the first set and the median seed."""
    tables: list[RenderableType] = []
    for entry in entries:
        first: dict[str, Any] = next(iter(entry["sets"].values()), {})
        of_labels = first.get("by_label")
        if of_labels is None:
            continue
        rows = []
        for label, scores in of_labels.items():
            shares = (f"{scores[key]:.1%}" for key in ("f1", "precision", "recall"))
            rows.append(ScoreRow((f"  {label}", *shares), f"{scores['entities']:,}"))
        head = (f"  {entry['task']}, by label", "F1", "precision", "recall")
        tables += [ScoreTable(head, "entities", rows, below="entities: "), Text("")]
    return tables


def _task_rows(entry: dict[str, Any], mark: str) -> list[ScoreRow]:
    """Rows of a task: one for each metric, and one for the score if it is a mean of several metrics.

    All values are of the median seed. ``mark`` distinguishes settings of one task by digits of their group.
    """
    start = mark + ("" if entry["start"] == "pretrained" else ", random start") + _heads(entry)
    main, seed = entry["metric"], entry["seeds"].index(entry["sets_of_seed"])
    rows: list[ScoreRow] = []
    for name, scores in entry["sets"].items():
        first = not rows
        metrics = {k: v for k, v in scores.items() if isinstance(v, dict) and "interval" in v}
        lasts = entry.get("last_sets", {}).get(name, {})  # older folders have only that of the score
        floors = entry.get("to_beat_each", {}).get(name, {})
        own = form(main)
        last_score, bars_of_score = (
            own.format(entry["last_scores"][seed]) if first else "",
            _bars(entry["to_beat"].get(name, {}), own),
        )
        set_name = f" {name}" if len(entry["sets"]) > 1 else ""
        title = f"  {entry['task']}{set_name}{start}"
        if first and main not in metrics:
            mean = "mean of both" if main.count(" and ") == 1 else "mean"
            cells = (title, mean, own.format(entry["scores"][seed]), "—", last_score)
            rows.append(ScoreRow(cells, bars_of_score, _seeds(entry)))
            title = ""
        for metric, score in metrics.items():
            printed = form(metric)
            value, low, high = (printed.format(v) for v in (score["value"], *score["interval"]))
            last, bars = (last_score, bars_of_score) if metric == main else ("", "")
            if metric in lasts:
                last = printed.format(lasts[metric]["value"])
            if metric in floors:
                bars = _bars(floors[metric], printed)
            part = f" ({score['classes']} of {score['of']})" if score.get("classes", 0) < score.get("of", 0) else ""
            cells = (title, metric.replace("_", " ") + part, value, f"{low} to {high}", last)
            rows.append(ScoreRow(cells, bars, _seeds(entry) if metric == main and first else ""))
            title = ""
    return rows


def _bars(floor: dict[str, float], printed: str) -> str:
    return " · ".join(printed.format(value) for value in floor.values())


def _seeds(entry: dict[str, Any]) -> str:
    """Median and range over several seeds; empty for one."""
    if len(entry["seeds"]) == 1:
        return ""
    middle, low, high = (form(entry["metric"]).format(value) for value in (entry["score"], *entry["spread"]))
    return f"{len(entry['seeds'])} seeds: {middle} median, {low} to {high}"


def _heads(entry: dict[str, Any]) -> str:
    """Note on a score whose head was not trained in fp32."""
    return formats.suffix((entry.get("recipe") or {}).get("heads", formats.HEADS))


def _percent(interval: list[float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _notes(results: dict[str, Any]) -> Text:
    tasks = [results[key] for key in SENTENCE_TASKS if results[key] is not None]
    pairs = " and ".join(dict.fromkeys(f"{task['examples']:,}" for task in tasks)) or "no"
    fitted = any(task["head"] != "trained" for task in tasks) or results.get(REPLACED_TOKENS) is not None
    star = "* head fitted on the frozen encoder · " if fitted else ""
    masked = results["masked_lm"] or results.get(CAUSAL_LM)
    pieces = f"{masked['examples']:,} pieces, " if masked else ""
    text = f"  {star}{pieces}{pairs} pairs\n"
    return Text(text + "".join(f"  {line}\n" for line in _coverage(results)), style="dim")


def _coverage(results: dict[str, Any]) -> list[str]:
    """Lines on how much of a text ``evaluate`` scored."""
    scored = results.get("scored")
    if scored is None:
        return []
    documents, of = scored["documents"], scored["of_documents"]
    lines = [f"scored: {documents:,} of {of:,} documents, {scored['tokens']:,} of {scored['of_tokens']:,} pieces"]
    if documents < of and scored["held_out_by"] not in (None, 1):
        advice = "; 1 scores the whole text" if _foreign(results) else ""
        lines.append(f"held out by data.validation_fraction={scored['held_out_by']:g}{advice}")
    if scored["stopped"]:
        lines.append("evaluation.max_pairs ends there; raise it to score more")
    elif documents == of and scored["tokens"] < scored["of_tokens"]:
        lines.append(f"the rest is cut off where a sequence is full (pairs.max_length={scored['max_length']})")
    return lines


def _verdict(results: dict[str, Any]) -> Text:
    """Whether the run can be compared; for another text, how it compares with that text's baselines."""
    if _foreign(results):
        return _verdict_on_foreign_text(results)
    m = results["masked_lm"]
    if m is None:
        return Text("\n").join(
            [
                *(causal_verdict(results[CAUSAL_LM], foreign=False) if results.get(CAUSAL_LM) else []),
                *_above_tokens(results),
                *_own_text(results),
                *_above_chance(results, "above chance", "not above chance yet"),
            ]
        )
    gain = m["gain_over_unigram"]
    if not m["left_baseline"]:
        return Text(
            f"  ! Still on its plateau: masked LM is {abs(gain):.3f} nats {'better' if gain > 0 else 'worse'} than\n"
            "    the unigram baseline. Comparing runs at this point is meaningless;\n    train longer.",
            style="bold yellow",
        )
    lines = Text(f"  ✓ Masked LM is {gain:.2f} nats better than the unigram baseline.", style="green")
    if m["loss"] > m["bigram_loss"]:
        lines.append("\n  ! It is not better than the bigram baseline yet.", style="yellow")
    return Text("\n").join([lines, *_above_chance(results, "above chance", "not above chance yet")])


def _above_tokens(results: dict[str, Any]) -> list[Text]:
    """A line on the replaced-token probe: the verdict on a model without masked LM; none if there is no probe."""
    scores = results.get(REPLACED_TOKENS)
    if scores is None:
        return []
    mark, verdict, style = ("✓", "better", "green") if scores["left_baseline"] else ("!", "no better yet", "yellow")
    return [Text(f"  {mark} Replaced tokens are told apart {verdict} than without context.", style=style)]


def _above_chance(results: dict[str, Any], yes: str, no: str) -> list[Text]:
    """A line for each sentence task with a trained head, which ends with ``yes`` or ``no``."""
    lines = []
    for key, kind in SENTENCE_TASKS.items():
        task = results[key]
        if task is not None and task["head"] == "trained":
            above = task.get("above_majority", task.get("left_baseline"))
            mark, verdict, style = ("✓", yes, "green") if above else ("!", no, "yellow")
            lines.append(Text(f"  {mark} {kind.title[0].upper()}{kind.title[1:]} is {verdict}.", style=style))
    return lines


def _own_text(results: dict[str, Any]) -> list[Text]:
    """Lines on the run's own generator and on how well the encoder finds its samples."""
    lines = []
    if (g := results.get("generator")) and not g["left_baseline"]:
        text = "  ! The generator is no better than the unigram model yet: its samples are easy\n    to find."
        lines.append(Text(text, style="bold yellow"))
    if d := results.get("discriminator"):
        above = d["left_baseline"]
        mark, verdict = ("✓", "better") if above else ("!", "no better yet")
        text = f"  {mark} Its generator's samples are found {verdict} than without context."
        lines.append(Text(text, style="green" if above else "yellow"))
    return lines


def _verdict_on_foreign_text(results: dict[str, Any]) -> Text:
    """The verdict on a text that the run was not trained on; it does not judge the training."""
    m = results["masked_lm"] or {}
    bars = m.get("bars", {})
    lines = Text()
    if results.get(CAUSAL_LM):
        lines.append_text(Text("\n").join(causal_verdict(results[CAUSAL_LM], foreign=True)))
    if "gain_over_unigram" in m:
        (low, high), gain = m["gain_interval"], m["gain_over_unigram"]
        how = f"{abs(gain):.3f} nats {'better' if gain > 0 else 'worse'} than the piece frequencies of this text"
        if low <= 0 <= high:
            how += ",\n    less than its interval tells apart"
        mark, style = ("✓", "green") if low > 0 else ("!", "yellow")
        lines.append(f"  {mark} Masked LM is {how}.", style=style)
    elif m:
        lines.append(f"  ! No bar of this text: {bars.get('left_out', 'none was recorded')}.", style="yellow")
    if "run_unigram_loss" in bars:
        gain_over_training_text = bars["run_unigram_loss"] - m["loss"]
        how = "better" if gain_over_training_text > 0 else "worse"
        mark, style = ("✓", "green") if gain_over_training_text > 0 else ("!", "yellow")
        text = f"\n  {mark} It is {abs(gain_over_training_text):.3f} nats {how} than those of the run's own text."
        lines.append(text, style=style)
    elif "run_left_out" in bars:
        lines.append(f"\n    No bar of the run's own text: {bars['run_left_out']}.", style="dim")
    if seen := results.get("scored", {}).get("seen_in_training"):
        text = f"\n  ! {seen:,} of the scored documents are among those that the run was trained on."
        lines.append(text, style="bold yellow")
    verdict = "above chance on this text"
    return Text("\n").join([lines, *_above_chance(results, verdict, f"not {verdict}")])
