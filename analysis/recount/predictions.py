"""Scores of a fine-tuning, computed from the files in ``predictions/`` and the right answers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from albert_ablate.tasks.texts.glue import GLUE

from . import entities, gold
from .files import mean, open_text, read_json
from .gold import NoGoldError
from .held_out import wilson
from .measures import MEASURES, clustered, f1_of, squad


@dataclass
class Counted:
    """Scores of one fine-tuning: set -> metric -> value, and interval where it follows from the predictions."""

    file: Path
    scores: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    relative: float = 1e-6  # relative precision of the kept predictions
    open: dict[str, str] = field(default_factory=dict)  # set -> why it is not scored


def count(unit: Path, manifest: dict[str, Any], sets: dict[str, Any], data: Path | None) -> Counted:
    """Scores of every set of ``results.json``; ``open`` of the result says why a set is left out."""
    settings = manifest.get("settings") or {}
    task, common = settings.get("task") or {}, settings.get("common") or {}
    counted = Counted(unit / "predictions")
    for name in sets:
        try:
            if not counted.file.is_dir():
                raise NoGoldError("its predictions are not kept")
            _set(counted, name, manifest, task, common, data)
        except NoGoldError as error:
            counted.open[name] = str(error)
        except (OSError, ValueError, KeyError, IndexError, TypeError, StopIteration) as error:
            counted.open[name] = f"predictions or gold cannot be read ({type(error).__name__}: {error})"
    return counted


def _set(
    counted: Counted,
    name: str,
    manifest: dict[str, Any],
    task: dict[str, Any],
    common: dict[str, Any],
    data: Path | None,
) -> None:
    kind, folder = task.get("kind"), counted.file
    if kind == "squad":
        counted.file = folder / "predictions.json"
        counted.scores[name] = _squad(read_json(counted.file), manifest, task, common, data)
    elif kind == "race":
        counted.file = folder / "predictions.json"
        counted.scores[name] = _race(read_json(counted.file), gold.race(task, common, data))
    elif kind == "glue":
        counted.file = folder / f"{GLUE[task['name']].submission[name]}.tsv"
        counted.scores[name] = _glue(counted, name, task, common, data)
    elif kind == "generated":
        counted.file = folder / f"{name}.tsv"
        rows = _tsv(counted.file)
        answers = [gold.generated(task["task"], row["id"]) for row in rows]
        counted.scores[name] = _classes([row["prediction"] for row in rows], answers, ("accuracy", "macro_f1"))
    elif kind in ("text_classification", "text_regression"):
        counted.file = folder / f"{name}.tsv"
        counted.scores[name] = _text(counted, _tsv(counted.file), kind, task, gold.texts(task, data))
    elif kind == "quest":
        counted.file, counted.relative = folder / f"{name}.csv", 1e-6  # predictions are kept to nine digits
        counted.scores[name] = _quest(counted.file, task, gold.quest(task, common, data))
    elif kind == "ner":
        if any(((manifest.get("data") or {}).get("entities_that_split_a_word") or {}).values()):
            raise NoGoldError("some entities begin or end inside of a word, which is not done here")
        spans = (folder / f"{name}.jsonl").is_file()
        counted.file = folder / f"{name}.{'jsonl' if spans else 'tsv'}"
        counted.scores[name] = _entities(open_text(counted.file), spans, task, gold.ner(task, common, data, name))
    else:
        raise NoGoldError("its manifest does not say what kind of task it is")


def _glue(
    counted: Counted, name: str, task: dict[str, Any], common: dict[str, Any], data: Path | None
) -> dict[str, dict[str, Any]]:
    spec = GLUE[task["name"]]
    answers = gold.glue(task["name"], name, common, task, data)
    if task.get("max_dev"):
        from albert_ablate.tasks.texts.examples import limited  # torch loads slowly

        answers = limited(answers, task["max_dev"], "dev")
    rows = _tsv(counted.file)
    if [int(row["index"]) for row in rows] != list(range(len(answers))):
        raise NoGoldError(f"{len(rows)} predictions, but the gold at hand has {len(answers)} examples")
    given = [row["prediction"] for row in rows]
    if spec.labels is None:
        counted.relative = 5e-3  # predictions from 0 to 5 are kept to three decimals
        return {m: {"value": MEASURES[m]([float(p) for p in given], answers)} for m in spec.metrics}
    known = list(spec.labels) if spec.words else [str(k) for k in range(len(spec.labels))]
    return _classes([known.index(word) for word in given], answers, ("accuracy", *spec.metrics))


def _classes(predicted: list[Any], answers: list[Any], metrics: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {m: {"value": MEASURES[m](predicted, answers)} for m in metrics}
    made["accuracy"]["interval"] = wilson(made["accuracy"]["value"], len(answers))
    return made


def _text(
    counted: Counted, rows: list[dict[str, str]], kind: str, task: dict[str, Any], answers: dict[str, list[Any]]
) -> dict[str, dict[str, Any]]:
    lost = [row["id"] for row in rows if row["id"] not in answers]
    if lost:
        raise NoGoldError(f"the gold at hand has no row {lost[0]}")
    cells, columns = [answers[row["id"]] for row in rows], list(task["target_columns"])
    if kind == "text_regression":
        counted.relative = 1e-3  # predictions are kept to six digits
        made: dict[str, dict[str, Any]] = {}
        for metric in ("spearman", "mean_squared_error", "pearson"):
            each = [
                MEASURES[metric]([float(row[c]) for row in rows], [float(cell[k]) for cell in cells])
                for k, c in enumerate(columns)
            ]
            made[metric] = {"value": mean(each)}
        return made
    if len(columns) == 1:
        predicted = [gold.same_class(row["prediction"]) for row in rows]
        return _classes(predicted, [gold.same_class(cell[0]) for cell in cells], ("accuracy", "macro_f1"))
    given = [[float(row[c]) for c in columns] for row in rows]
    right = [[float(gold.same_class(value)) for value in cell] for cell in cells]
    share = mean([float(a == b) for a, b in zip(given, right, strict=True)])
    sums = [_yes([a[k] for a in given], [b[k] for b in right]) for k in range(len(columns))]
    return {
        "accuracy": {"value": share, "interval": wilson(share, len(rows))},
        "micro_f1": {"value": f1_of((sum(s[0] for s in sums), sum(s[1] for s in sums), sum(s[2] for s in sums)))},
        "macro_f1": {"value": mean([f1_of(counts) for counts in sums])},
    }


def _quest(
    file: Path, task: dict[str, Any], answers: dict[str, tuple[str, dict[str, float]]]
) -> dict[str, dict[str, Any]]:
    """Scores of a submission file; ``answers``: qa_id -> its question and its targets."""
    rows = [row for _, row in gold.table(open_text(file), file.name)]
    lost = [row["qa_id"] for row in rows if row["qa_id"] not in answers]
    if lost:
        raise NoGoldError(f"the gold at hand has no row {lost[0]}")
    names = [name for name in rows[0] if name != "qa_id"]
    pairs = {n: [(float(row[n]), answers[row["qa_id"]][1][n]) for row in rows] for n in names}
    questions = [answers[row["qa_id"]][0] for row in rows]
    made: dict[str, dict[str, Any]] = {}
    for metric, error in (("mean_squared_error", lambda p, g: (p - g) ** 2), ("mean_absolute_error", _apart)):
        by_row = [mean([error(*pairs[n][k]) for n in names]) for k in range(len(rows))]
        value, interval = clustered(by_row, questions)
        made[metric] = {"value": value, "interval": interval}
    made["r2"] = {"value": mean([_r2(pairs[n]) for n in names])}
    varied = [n for n in names if len({g for _, g in pairs[n]}) > 1]
    ranked = [MEASURES["spearman"]([p for p, _ in pairs[n]], [g for _, g in pairs[n]]) for n in varied]
    if task["constant"] == "zero" or (task["constant"] == "skip" and varied) or len(varied) == len(names):
        made["spearman"] = {"value": sum(ranked) / len(names if task["constant"] == "zero" else varied)}
    return made


def _entities(predictions: str, spans: bool, task: dict[str, Any], right: str) -> dict[str, dict[str, Any]]:
    """Scores of predicted tags or spans; ``right``: the text of the file with the right ones, which may hold more."""
    if spans:
        return entities.scores(_beside(entities.with_spans(predictions), entities.with_spans(right)))
    pairs = _beside(entities.columns(predictions), entities.columns(right))
    return entities.scores([(entities.found(tags, task["strict"]), entities.found(gold)) for tags, gold in pairs])


def _beside(predicted: Iterator[tuple[Any, Any]], right: Iterator[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(prediction, answer) of each predicted sentence, which are in the order of the file."""
    pairs = []
    for text, answer in predicted:
        gold_answer = next((found for other, found in right if other == text), None)
        if gold_answer is None:
            raise NoGoldError("the gold at hand lacks a sentence of the predictions, or has it at another place")
        pairs.append((answer, gold_answer))
    return pairs


def _apart(predicted: float, right: float) -> float:
    return abs(predicted - right)


def _r2(pairs: list[tuple[float, float]]) -> float:
    centre, left = mean([g for _, g in pairs]), sum((p - g) ** 2 for p, g in pairs)
    if len({g for _, g in pairs}) == 1:
        return float(left == 0)
    return 1 - left / sum((g - centre) ** 2 for _, g in pairs)


def _yes(given: list[float], right: list[float]) -> tuple[int, int, int]:
    pairs = list(zip(given, right, strict=True))
    return pairs.count((1.0, 1.0)), pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))


def _squad(
    given: dict[str, str], manifest: dict[str, Any], task: dict[str, Any], common: dict[str, Any], data: Path | None
) -> dict[str, dict[str, Any]]:
    if (manifest.get("data") or {}).get("dev_questions_scored_by_characters"):
        raise NoGoldError("questions are scored by characters, which is not done here")
    answers = gold.squad(task, common, data)
    lost = [key for key in given if key not in answers]
    if lost or not given:
        raise NoGoldError(f"the gold at hand has no question {lost[0]}" if lost else "its predictions are not kept")
    scored = [squad(text, answers[key][0], task["version"]) for key, text in given.items()]
    clusters = [answers[key][1] for key in given]
    made = {}
    for metric, values in (("exact", [score[0] for score in scored]), ("f1", [score[1] for score in scored])):
        value, interval = clustered(values, clusters)
        made[metric] = {"value": value, "interval": interval}
    return made


def _race(given: dict[str, str], answers: dict[str, str]) -> dict[str, dict[str, Any]]:
    lost = [key for key in given if key not in answers]
    if lost or not given:
        raise NoGoldError(f"the gold at hand has no question {lost[0]}" if lost else "its predictions are not kept")
    levels = sorted({key.split("/")[0] for key in given}, reverse=True)
    made = {}
    for level in ("all", *(levels if len(levels) > 1 else ())):
        keys = [key for key in given if level in ("all", key.split("/")[0])]
        right = [float(given[key] == answers[key]) for key in keys]
        value, interval = clustered(right, [key.rpartition("-")[0] for key in keys])
        made["accuracy" if level == "all" else level] = {"value": value, "interval": interval}
    return made


def _tsv(file: Path) -> list[dict[str, str]]:
    header, *lines = [line.split("\t") for line in open_text(file).split("\n") if line]
    return [dict(zip(header, cells, strict=True)) for cells in lines]
