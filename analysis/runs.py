"""Run folders as a tidy table: one row a run, which is one cell and seed."""

import os
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from albert_ablate.axes import AXES, SENTENCE_TASKS
from albert_ablate.config import CONF
from albert_ablate.errors import NoRunsError, UserError
from albert_ablate.runs import RunFolder
from albert_ablate.sweeping.relative import base_name

from .copies import without_copies
from .heads import with_format
from .places import inside as _inside
from .places import no_runs as _no_runs
from .places import run_folders
from .planted import strengths
from .records import parse_yaml, printable, read_line, read_record, words_of


def _of_each(column: str, text: str) -> dict[str, str]:
    """A column for each sentence task, with its name and its title put in."""
    return {column.format(task): text.format(kind.title) for task, kind in SENTENCE_TASKS.items()}


#: Column -> what it holds. A number that a run does not have (yet) is missing, and ``note`` says why.
COLUMNS = {
    "run": "name of the run folder",
    "path": "the folder",
    "identity": "hash of everything that changes the numbers",
    "state": "queued, running, finished, failed, diverged, preempted; copy: of a run that another row is",
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
    "speed_spread": "upper over lower quartile of that: far above 1 where something else used the machine",
    "evaluation_seconds": "of held-out evaluation",
    "params_encoder": "parameters without pooler and heads",
    "params_with_pooler": "the count that most of the paper's numbers are",
    "params_with_heads": "all of them",
    "flops_per_step": "as planned before training",
    "mlm_loss": "held-out masked-LM loss, nats",
    "mlm": "held-out masked-LM accuracy, 0 to 1",
    **_of_each("{}", "held-out accuracy of {}"),
    **_of_each("{}_head", "head that {} is scored with: trained, or fitted on the frozen encoder"),
    **_of_each("{}_interval", "95% interval of {} over held-out pairs (list)"),
    "mlm_interval": "the same of masked-LM accuracy, its pieces being independent",
    "mlm_loss_interval": "the same of the loss",
    **_of_each("{}_own_head", "accuracy on {} of the head of a model that was trained on another sentence task"),
    **_of_each("{}_own_head_interval", "95% interval of that on {} over held-out pairs (list)"),
    "unigram_loss": "masked-LM loss to beat: piece frequencies",
    "bigram_loss": "masked-LM loss to beat: neighbours",
    "mlm_left_baseline": "whether the masked LM is better than the unigram baseline, with 95% confidence",
    **_of_each("{}_left_baseline", "the same of {} and the majority class"),
    **_of_each("{}_majority", "share of the more frequent label of {}: chance"),
    "planted": "strengths of the planted text; missing where the text is no planted one",
    "achievable_mlm_loss": "lowest masked-LM loss that is possible on the held-out pairs, where the corpus knows it",
    "achievable_mlm": "the same of masked-LM accuracy",
    **_of_each("achievable_{}", "the same of the accuracy of {}"),
    "chance_mlm_loss": "masked-LM loss that needs no context: frequencies of pieces, and the piece that is shown",
    "l2": "per layer: mean L2 distance between input and output (list)",
    "degrees": "per layer: mean angle between input and output (list)",
    "tasks": "fine-tuned tasks as in results.json (list)",
    "commit": "of the code",
    "dirty": "whether the code differed from it",
    "code_unknown": "why one of the two is not known",
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
_EMPTY: dict[str, Any] = {}
#: Columns of whole numbers that name an arm.
_WHOLE = ("seed", *(axis.name for axis in AXES if not axis.labels), "hidden", "layers", "base_hidden", "base_layers")


def load_runs(*places: Path | str) -> pd.DataFrame:
    """Every run under the given folders (or the given run folders), sorted by name; columns as in ``COLUMNS``.

    Unfinished, failed and older folders are rows too, with what they have; ``note`` says what is
    missing. One identity is one run: of several folders with it the finished one counts, else the newest,
    and the others have the state ``copy``. Raises NoRunsError where a place has no run.
    """
    return without_copies(read_folders(*places))


def read_folders(*places: Path | str) -> pd.DataFrame:
    """The same with copies as runs of their own. Raises NoRunsError."""
    folders = sorted({folder.resolve() for place in places for folder in run_folders(Path(place))})
    if not folders:
        raise NoRunsError("no run folders: none were named")
    rows = [_row(folder) for folder in folders]
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in _WHOLE:  # one run without settings must not make 32.0 of the others' 32
        if found[name].isna().any():
            found[name] = pd.Series([row[name] for row in rows], dtype=object)
    return found.sort_values("run", kind="stable").reset_index(drop=True)


def load_metrics(folder: Path | str) -> pd.DataFrame:
    """``metrics.jsonl`` of one run: a row a log step, held-out columns at curve points; empty where it has none yet.

    Raises NoRunsError for what is no run folder.
    """
    place = Path(folder)
    if not (place / "metrics.jsonl").is_file() and not (place / "status.json").is_file():
        inside = _inside(place)
        if inside:
            raise NoRunsError(
                f"{place}: a folder of {len(inside)} runs; load_metrics reads one of them, such as {inside[0]}. "
                f'All: {{run: load_metrics(path) for run, path in load_runs("{place}")[["run", "path"]].values}}'
            )
        raise NoRunsError(_no_runs(place))
    return _metrics(place)


def _metrics(folder: Path) -> pd.DataFrame:
    return pd.DataFrame([line for line in _lines(folder) if line is not None])


def _lines(folder: Path) -> list[dict[str, Any] | None]:
    """Lines of ``metrics.jsonl``; None for a broken one, as the last of a run that was killed."""
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


class _Records:
    """A run folder's files; what is missing or broken is noted instead of raised."""

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
            self.notes.append(f"{name} is broken{words_of(error)}")
            return {}

    def state(self, status: dict[str, Any]) -> str:
        """What ``status.json`` says; ``unknown`` where it says nothing that can be read."""
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
    if not finished:
        results = {}  # of an earlier attempt, if any
    if not finished and (status.get("reason") or "").strip():
        records.notes.insert(0, status["reason"].strip().splitlines()[0])
    own, theirs = folder.name.rpartition("-")[2], manifest.get("identity")
    if theirs and theirs != own and re.fullmatch("[0-9a-f]{12}", own):
        records.notes.append(f"manifest.json is that of run {theirs}")
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
        "identity": theirs or own,
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
        **_scores(results),
        "planted": strengths(config),
        "l2": similarity.get("l2"),
        "degrees": similarity.get("degrees"),
        "tasks": with_format(folder, results.get("tasks", []), manifest.get("precision")),
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


def _speed(lines: list[dict[str, Any] | None]) -> dict[str, float]:
    """What most of training ran at: a pause or a neighbour's hour does not move a median. Nothing without rates."""
    rates = pd.Series([line["tokens_per_second"] for line in lines if line and line.get("tokens_per_second")])
    if not len(rates):
        return {}
    low, middle, high = rates.quantile([0.25, 0.5, 0.75])
    return {"tokens_per_second": float(middle), "speed_spread": float(high / low)}


def _scores(results: dict[str, Any]) -> dict[str, Any]:
    masked = results.get("masked_lm") or _EMPTY
    trained = "imported" not in results  # else every text is a foreign one, and says nothing of a plateau
    found = {
        "mlm_loss": masked.get("loss"),
        "mlm": masked.get("accuracy"),
        "mlm_interval": masked.get("binomial_interval") or masked.get("interval"),
        "mlm_loss_interval": masked.get("loss_interval"),
        "unigram_loss": masked.get("unigram_loss"),
        "bigram_loss": masked.get("bigram_loss"),
        "mlm_left_baseline": masked.get("left_baseline") if trained else None,
    }
    for task in SENTENCE_TASKS:
        scores = results.get(task) or _EMPTY
        found[task.value] = scores.get("accuracy")
        found[f"{task}_head"] = scores.get("head")
        found[f"{task}_interval"] = scores.get("interval")
        found[f"{task}_own_head"] = setting(scores, "own_head.accuracy")
        found[f"{task}_own_head_interval"] = setting(scores, "own_head.interval")
        found[f"{task}_left_baseline"] = scores.get("left_baseline") if trained else None
        found[f"{task}_majority"] = scores.get("majority_class")
        found[f"achievable_{task}"] = setting(results, f"achievable.{task}.accuracy")
    best = {"achievable_mlm_loss": "loss", "achievable_mlm": "accuracy", "chance_mlm_loss": "chance_loss"}
    for column, key in best.items():
        found[column] = setting(results, f"achievable.masked_lm.{key}")
    return found


@cache
def _base(model: str, hidden: int | None, layers: int | None) -> tuple[int | None, int | None]:
    """H and L of the base that a model's size is a multiple of; its own where it is no multiple of one."""
    name = base_name(model)
    file = next((file for file in (CONF / "model").glob("*.yaml") if file.stem == name), None)
    if file is None:
        return hidden, layers
    known = parse_yaml(file.read_text(encoding="utf-8"))
    if name == model and (known["hidden"], known["layers"]) != (hidden, layers):
        return hidden, layers  # its shape was set by hand
    return known["hidden"], known["layers"]


def setting(values: dict[str, Any], path: str) -> Any:
    """``a.b`` of nested values, as a setting is called on the command line; None where there is none."""
    found: Any = values
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _time(stamp: Any) -> datetime | None:
    """None for what is no time; one without a zone is UTC, so that all can be compared."""
    try:
        found = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
