"""Run folders as a tidy table: one row for each run (one cell, one seed)."""

import os
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.axes import AXES, CAUSAL_LM, REPLACED_TOKENS, SENTENCE_TASKS
from albert_ablate.config.schema import CONF
from albert_ablate.errors import NoRunsError, UserError
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.latency import LATENCY
from albert_ablate.sweeping.relative import base_name

from . import latency, students
from .copies import without_copies
from .heads import with_format
from .later_epochs import with_gain
from .places import inside as _inside
from .places import no_runs as _no_runs
from .places import run_folders
from .planted import strengths
from .records import parse_yaml, printable, read_line, read_record, reason_of


def _of_each(column: str, text: str) -> dict[str, str]:
    """One column for each sentence task: its name is put into ``column``, its title into ``text``."""
    return {column.format(task): text.format(kind.title) for task, kind in SENTENCE_TASKS.items()}


#: Column -> what it holds. A number that a run does not have (yet) is missing, and ``note`` says why.
COLUMNS = {
    "run": "name of the run folder",
    "path": "the folder",
    "identity": "hash of everything that changes the numbers",
    "state": "queued, running, finished, failed, diverged, preempted; copy: another row is the same run",
    "note": "why it is not finished, or what its records lack",
    "seed": "of pretraining: weights, order of the documents, masks",
    "model": "name of the model",
    **{axis.name: axis.title for axis in AXES},
    "hidden": "H",
    "layers": "L",
    "base_hidden": "H of the base model that the model's size is relative to",
    "base_layers": "L of the base model",
    "steps": "optimizer steps taken",
    "tokens": "real tokens trained on",
    "flops": "matrix-product FLOPs of training",
    "seconds": "of training",
    "tokens_per_second": "in training: median over the log intervals, else over the whole",
    "speed_spread": "upper over lower quartile of the speed: far above 1 where something else used the machine",
    "evaluation_seconds": "of held-out evaluation",
    "params_encoder": "parameters without pooler and heads",
    "params_with_pooler": "parameters with pooler, without heads: how most of the paper's numbers are counted",
    "params_with_heads": "all parameters",
    "flops_per_step": "as planned before training",
    "pairs_seen": "share of all pairs of positions that attention in blocks sees; missing for full attention",
    "continued_from": "folder of the run whose weights it started from; missing for any other run",
    "tokens_in_all": "tokens, with those of the runs that it continues; missing where they are not known",
    "flops_in_all": "flops, with those of the runs that it continues; missing where they are not known",
    **students.COLUMNS,
    **latency.COLUMNS,
    "mlm_loss": "held-out masked-LM loss, nats",
    "mlm": "held-out masked-LM accuracy, 0 to 1",
    **_of_each("{}", "held-out accuracy of {}"),
    **_of_each("{}_head", "head that {} is scored with: trained, or fitted on the frozen encoder"),
    **_of_each("{}_interval", "95% interval of {} over held-out pairs (list)"),
    "mlm_interval": "95% interval of masked-LM accuracy, masked pieces taken as independent (list)",
    "mlm_loss_interval": "95% interval of the masked-LM loss (list)",
    **_of_each("{}_own_head", "accuracy on {} of the head of a model that was trained on another sentence task"),
    **_of_each("{}_own_head_interval", "95% interval of that accuracy on {} over held-out pairs (list)"),
    "unigram_loss": "masked-LM loss to beat: piece frequencies",
    "bigram_loss": "masked-LM loss to beat: neighbours",
    "mlm_left_baseline": "whether the masked LM is better than the unigram baseline, with 95% confidence",
    **_of_each("{}_left_baseline", "whether {} is better than the majority class, with 95% confidence"),
    **_of_each("{}_majority", "share of the more frequent label of {}: chance"),
    "replaced_auc": "area under the ROC curve of the replaced-token probe, 0 to 1",
    "replaced_interval": "95% interval of that area over held-out pairs (list)",
    "replaced_loss": "loss of the replaced-token probe, nats",
    "replaced_token_auc": "area to beat: of a model that knows the shown piece but no context",
    "replaced_left_baseline": "whether the area is above that one, with 95% confidence",
    "bits_per_byte": "of causal LM on held-out documents; no number of masked LM can be compared with it",
    "bits_per_byte_interval": "95% interval of that over held-out documents (list)",
    "causal_loss": "held-out loss of the next piece, nats",
    "causal": "held-out accuracy of the next piece, 0 to 1",
    "causal_unigram_loss": "loss of the next piece to beat: piece frequencies",
    "causal_bigram_loss": "loss of the next piece to beat: neighbours",
    "causal_left_baseline": "whether causal LM is better than the unigram baseline, with 95% confidence",
    "context_gain": "loss of late pieces of a document less that of early ones, nats: below 0 where context helps",
    "context_gain_interval": "95% interval of that over held-out documents (list)",
    "discriminator_auc": "area under the ROC curve of the encoder on its own generator's samples, 0 to 1",
    "discriminator_token_auc": "area to beat there: of a model that knows the shown piece but no context",
    "discriminator_left_baseline": "whether the encoder beats that and the best constant answer, with 95% confidence",
    "generator_loss": "masked-LM loss of the generator, nats; not the arm's",
    "generator_left_baseline": "whether the generator is better than the unigram baseline, with 95% confidence",
    "planted": "strengths of the planted text; missing for any other text",
    "achievable_mlm_loss": "lowest masked-LM loss that is possible on the held-out pairs, where the corpus knows it",
    "achievable_mlm": "highest masked-LM accuracy that is possible on them",
    **_of_each("achievable_{}", "highest accuracy of {} that is possible on them"),
    "chance_mlm_loss": "masked-LM loss without context: from the frequencies of pieces and the piece that is shown",
    "l2": "per layer: mean L2 distance between input and output (list)",
    "degrees": "per layer: mean angle between input and output (list)",
    "tasks": "fine-tuned tasks as in results.json (list)",
    "kshot": "zero-, one- and few-shot scores as in results.json (list)",
    "minimal_pairs": "share of minimal pairs whose good sentence is the more probable one; missing with several sets",
    "commit": "of the code",
    "dirty": "whether the code differed from it",
    "code_unknown": "why commit or dirty is not known",
    "tokens_fingerprint": "of the tokens trained on",
    "precision": "bf16 or fp32",
    "device": "cpu or the GPU's name",
    "torch": "version",
    "updated": "last change of the status",
    "deviations": "settings that differ from the paper's set-up (list)",
    "config": "every setting (nested)",
    "data": "corpus, tokenizer and token fingerprints and counts (nested)",
    "copy_of": "folder of the run that this one is a copy of",
}
#: Column of a curve of replaced tokens -> its name in ``metrics.jsonl``: shares 0 to 1, and a loss in nats.
FINDING = {
    "accuracy": "held_out_replaced_accuracy", "auc": "held_out_replaced_auc", "recall": "held_out_replaced_recall",
    "fake_rate": "held_out_fake_rate", "generator_loss": "held_out_generator_loss",
}  # fmt: skip
_EMPTY: dict[str, Any] = {}
#: Columns of whole numbers that name an arm.
_WHOLE = ("seed", *(axis.name for axis in AXES if not axis.labels), "hidden", "layers", "base_hidden", "base_layers")


def load_runs(*paths: Path | str) -> pd.DataFrame:
    """Every run in ``paths`` (run folders, or folders of them), sorted by name; columns as in ``COLUMNS``.

    Unfinished, failed and older folders are rows, too; ``note`` says what they lack. One identity is one run.
    Of several folders with one identity the finished one counts, else the newest; the others have the state
    ``copy``. Raises NoRunsError where a path has no run.
    """
    return without_copies(read_folders(*paths))


def read_folders(*paths: Path | str) -> pd.DataFrame:
    """``load_runs`` before copies are marked: each folder has its own state. Raises NoRunsError."""
    folders = sorted({folder.resolve() for path in paths for folder in run_folders(Path(path))})
    if not folders:
        raise NoRunsError("no run folders: none were named")
    rows = [_row(folder) for folder in folders]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in _WHOLE:  # a single missing value would turn the whole numbers of all runs into floats
        if table[name].isna().any():
            table[name] = pd.Series([row[name] for row in rows], dtype=object)
    return students.with_teachers(table.sort_values("run", kind="stable").reset_index(drop=True))


def load_metrics(folder: Path | str) -> pd.DataFrame:
    """``metrics.jsonl`` of one run: a row for each log step, held-out columns at curve points; empty before the first.

    Raises NoRunsError where ``folder`` is not a run folder.
    """
    path = Path(folder)
    if not (path / "metrics.jsonl").is_file() and not (path / "status.json").is_file():
        inside = _inside(path)
        if inside:
            raise NoRunsError(
                f"{path}: a folder of {len(inside)} runs; load_metrics reads one of them, such as {inside[0]}. "
                f'All: {{run: load_metrics(path) for run, path in load_runs("{path}")[["run", "path"]].values}}'
            )
        raise NoRunsError(_no_runs(path))
    return _metrics(path)


def _metrics(folder: Path) -> pd.DataFrame:
    return pd.DataFrame([line for line in _lines(folder) if line is not None])


def _lines(folder: Path) -> list[dict[str, Any] | None]:
    """Lines of ``metrics.jsonl``; None for a broken line, such as the last line of a killed run."""
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [read_line(line) for line in text.split("\n") if line.strip()]


def held_out_curves(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Held-out points of each run: seed, step, tokens, loss, accuracy, accuracy of the sentence task."""
    rows = []
    for run in runs.to_dict("records"):
        metrics = _metrics(Path(run["path"]))
        if not {"held_out_mlm_loss", "tokens"} <= set(metrics):
            continue
        for point in metrics.dropna(subset=["held_out_mlm_loss"]).to_dict("records"):
            sentence = point.get("held_out_sentence_accuracy")
            rows.append(
                {
                    "seed": run["seed"], "step": point["step"], "tokens": point["tokens"],
                    "mlm_loss": point["held_out_mlm_loss"], "mlm": point.get("held_out_mlm_accuracy"),
                    "sentence": sentence,
                }
            )  # fmt: skip
    return rows


def replaced_curves(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Held-out points of finding replaced tokens: seed, step, tokens, and ``FINDING``; none of other methods' runs."""
    rows = []
    for run in runs.to_dict("records"):
        metrics = _metrics(Path(run["path"]))
        if not {"held_out_replaced_accuracy", "tokens"} <= set(metrics):
            continue
        for point in metrics.dropna(subset=["held_out_replaced_accuracy"]).to_dict("records"):
            scores = {column: point.get(name) for column, name in FINDING.items()}
            rows.append({"seed": run["seed"], "step": point["step"], "tokens": point["tokens"], **scores})
    return rows


class _Records:
    """A run folder's files. A missing or broken file gives a note, not an exception."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []

    def read(self, name: str, needed: bool = True) -> dict[str, Any]:
        file = self.folder / name
        if not file.is_file():
            if needed:
                self.notes.append(f"no {name}")
            return {}
        try:
            return read_record(file)
        except ValueError as error:
            self.notes.append(f"{name} is broken{reason_of(error)}")
            return {}

    def state(self, status: dict[str, Any]) -> str:
        """The state in ``status.json``; ``unknown`` where it cannot be read."""
        if not status:
            return "unknown"
        try:
            return RunFolder(self.folder.parent, self.folder.name).state()
        except (UserError, OSError, ValueError, LookupError, TypeError) as error:  # a broken lock file, say
            self.notes.append(f"its state is not known: {printable(str(error)).splitlines()[0]}")
            return "unknown"


def _row(folder: Path) -> dict[str, Any]:
    records = _Records(folder)
    status = records.read("status.json")
    state = records.state(status)
    finished = state == "finished"
    config, manifest = records.read("config.yaml"), records.read("manifest.json", needed=finished)
    results, similarity = records.read("results.json", needed=finished), records.read("similarity.json", needed=False)
    timed = records.read(LATENCY, needed=False)
    if not finished:
        results = {}  # any results are those of an earlier attempt
    if not finished and (status.get("reason") or "").strip():
        records.notes.insert(0, status["reason"].strip().splitlines()[0])
    from_name, recorded = folder.name.rpartition("-")[2], manifest.get("identity")
    if recorded and recorded != from_name and re.fullmatch("[0-9a-f]{12}", from_name):
        records.notes.append(f"manifest.json is that of run {recorded}")
    lines = _lines(folder) if finished else []
    broken = lines.count(None)
    if broken:
        records.notes.append(f"metrics.jsonl: {broken} broken lines left out")
    model = config.get("model", _EMPTY)
    base_hidden, base_layers = _base(str(model.get("name")), model.get("hidden"), model.get("layers"))
    training, counts = results.get("training") or _EMPTY, manifest.get("parameters", _EMPTY)
    source, data = manifest.get("source") or _EMPTY, manifest.get("data", _EMPTY)
    return {
        "run": printable(os.fsencode(folder.name).decode("utf-8", "backslashreplace")),
        "path": str(folder),
        "identity": recorded or from_name,
        "state": state,
        "note": "; ".join(records.notes),
        "seed": config.get("seed"),
        "model": model.get("name"),
        **{axis.name: axis.of(config) if config else None for axis in AXES},
        "hidden": model.get("hidden"),
        "layers": model.get("layers"),
        "base_hidden": base_hidden,
        "base_layers": base_layers,
        **{key: training.get(key) for key in ("steps", "tokens", "flops", "seconds", "tokens_per_second")},
        **_speed(lines),
        "evaluation_seconds": setting(results, "evaluation.seconds"),
        **{f"params_{key}": counts.get(key) for key in ("encoder", "with_pooler", "with_heads")},
        "flops_per_step": manifest.get("flops_per_step"),
        "pairs_seen": (manifest.get("blocks") or _EMPTY).get("pairs_seen"),
        "continued_from": (manifest.get("continued_from") or _EMPTY).get("run"),
        **{key: training.get(key) for key in ("tokens_in_all", "flops_in_all")},
        **students.columns(config, manifest, results),
        **latency.columns(timed),
        **_scores(results),
        "planted": strengths(config),
        "l2": similarity.get("l2"),
        "degrees": similarity.get("degrees"),
        "tasks": with_gain(folder, with_format(folder, results.get("tasks", []), manifest.get("precision"))),
        "kshot": results.get("kshot", []),
        "minimal_pairs": _pairs(results),
        "commit": source.get("commit"),
        "dirty": source.get("dirty"),
        "code_unknown": source.get("unknown"),
        "tokens_fingerprint": setting(data, "tokens.fingerprint"),
        "precision": manifest.get("precision"),
        "device": setting(manifest, "hardware.device"),
        "torch": setting(manifest, "packages.torch"),
        "updated": _time(status.get("updated")),
        "deviations": manifest.get("deviations_from_paper", []),
        "config": config,
        "data": data,
        "copy_of": None,
    }


def _pairs(results: dict[str, Any]) -> float | None:
    """Accuracy on the minimal pairs of a run with a single set of them."""
    found = [entry for entry in results.get("kshot", ()) if entry["task"] == "minimal_pairs"]
    return found[0]["accuracy"].get("sum") if len(found) == 1 else None


def _speed(lines: list[dict[str, Any] | None]) -> dict[str, float]:
    """Median speed over log intervals, and its spread; empty without rates.

    A median is not moved by a pause, or by another program that used the machine for a while.
    """
    rates = pd.Series([line["tokens_per_second"] for line in lines if line and line.get("tokens_per_second")])
    if not len(rates):
        return {}
    low, middle, high = rates.quantile([0.25, 0.5, 0.75])
    return {"tokens_per_second": float(middle), "speed_spread": float(high / low)}


def _scores(results: dict[str, Any]) -> dict[str, Any]:
    masked = results.get("masked_lm") or _EMPTY
    trained = "imported" not in results  # an imported model saw other text, which says nothing about a plateau
    columns = {
        "mlm_loss": masked.get("loss"),
        "mlm": masked.get("accuracy"),
        "mlm_interval": masked.get("binomial_interval") or masked.get("interval"),
        "mlm_loss_interval": masked.get("loss_interval"),
        "unigram_loss": masked.get("unigram_loss"),
        "bigram_loss": masked.get("bigram_loss"),
        "mlm_left_baseline": masked.get("left_baseline") if trained else None,
    }
    replaced = results.get(REPLACED_TOKENS) or _EMPTY
    columns |= {
        "replaced_auc": replaced.get("auc"),
        "replaced_interval": replaced.get("interval"),
        "replaced_loss": replaced.get("loss"),
        "replaced_token_auc": replaced.get("token_auc"),
        "replaced_left_baseline": replaced.get("left_baseline") if trained else None,
    }
    causal = results.get(CAUSAL_LM) or _EMPTY
    columns |= {
        "bits_per_byte": causal.get("bits_per_byte"),
        "bits_per_byte_interval": causal.get("bits_per_byte_interval"),
        "causal_loss": causal.get("loss"),
        "causal": causal.get("accuracy"),
        "causal_unigram_loss": causal.get("unigram_loss"),
        "causal_bigram_loss": causal.get("bigram_loss"),
        "causal_left_baseline": causal.get("left_baseline") if trained else None,
        "context_gain": setting(causal, "context.gain"),
        "context_gain_interval": setting(causal, "context.interval"),
    }
    discriminator, generator = results.get("discriminator") or _EMPTY, results.get("generator") or _EMPTY
    columns |= {
        "discriminator_auc": discriminator.get("auc"),
        "discriminator_token_auc": discriminator.get("token_auc"),
        "discriminator_left_baseline": discriminator.get("left_baseline"),
        "generator_loss": generator.get("loss"),
        "generator_left_baseline": generator.get("left_baseline"),
    }
    for task in SENTENCE_TASKS:
        scores = results.get(task) or _EMPTY
        columns[task.value] = scores.get("accuracy")
        columns[f"{task}_head"] = scores.get("head")
        columns[f"{task}_interval"] = scores.get("interval")
        columns[f"{task}_own_head"] = setting(scores, "own_head.accuracy")
        columns[f"{task}_own_head_interval"] = setting(scores, "own_head.interval")
        columns[f"{task}_left_baseline"] = scores.get("left_baseline") if trained else None
        columns[f"{task}_majority"] = scores.get("majority_class")
        columns[f"achievable_{task}"] = setting(results, f"achievable.{task}.accuracy")
    best = {"achievable_mlm_loss": "loss", "achievable_mlm": "accuracy", "chance_mlm_loss": "chance_loss"}
    for column, key in best.items():
        columns[column] = setting(results, f"achievable.masked_lm.{key}")
    return columns


@cache
def _base(model: str, hidden: int | None, layers: int | None) -> tuple[int | None, int | None]:
    """H and L of the base model that a model's size is a multiple of; else the model's own H and L."""
    name = base_name(model)
    file = next((file for file in (CONF / "model").glob("*.yaml") if file.stem == name), None)
    if file is None:
        return hidden, layers
    known = parse_yaml(file.read_text(encoding="utf-8"))
    if name == model and (known["hidden"], known["layers"]) != (hidden, layers):
        return hidden, layers  # its shape was set by hand
    return known["hidden"], known["layers"]


def setting(values: dict[str, Any], path: str) -> Any:
    """The value at a dotted path (``a.b``) of nested values; None where the path does not exist."""
    value: Any = values
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _time(stamp: Any) -> datetime | None:
    """A time with its zone, UTC where ``stamp`` has none, so that all can be compared; None for anything else."""
    try:
        moment = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
