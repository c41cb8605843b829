"""A report against its raw files: nothing disagrees, and no changed number stays unseen."""

import copy
import csv
import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
from reporthelpers import cells, write_cell
from runhelpers import start
from sourcehelpers import imports
from taskhelpers import pretrained, tokenizer_of, with_tasks, write_race, write_squad, write_sst2

from albert_ablate.door.compose import compose
from albert_ablate.evaluation.intervals import proportion
from albert_ablate.tasks import metrics
from albert_ablate.tasks.load import locate, read
from albert_ablate.tasks.squad import metrics as squad_metrics
from albert_ablate.tasks.texts import generated
from analysis import audit as command
from analysis.audit import Reported, audit, summary
from analysis.judge import statistics
from analysis.judge.claims import load_claims
from analysis.judge.tables import REFERENCES, arms_of
from analysis.read.runs import load_runs
from analysis.recount import gold, measures, rules, student, tables
from analysis.recount.arms import cells as recounted_cells
from analysis.recount.checks import DISAGREES, OPEN, Check
from analysis.recount.held_out import wilson
from analysis.recount.predictions import count
from analysis.report import frames, gather
from analysis.write.page import markdown

ROOT = Path(__file__).resolve().parent.parent


def reported(root: Path, survivors: bool = False) -> Reported:
    return Reported.made(gather(load_runs(root), load_claims(), survivors=survivors, draw=False))


def checked(report: Reported, root: Path, survivors: bool = False) -> list[Check]:
    return audit(report, report.runs_of([root]), command._claims([]), survivors=survivors)


def wrong(checks: Iterable[Check]) -> list[Check]:
    return [check for check in checks if check.state == DISAGREES]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reported]:
    """Tables 4 and 5 with three seeds, one cell failed, one on its baseline; and their report."""
    root = tmp_path_factory.mktemp("audit") / "runs"
    for terms in cells("table4", "table5"):
        for seed in range(3):
            write_cell(root, terms, seed, noise=0.0005, tasks=("sst2", "era", "squad11", "squad20", "mnli", "race"))
    failed = write_cell(root, cells("table4")[1], 3)
    (failed / "status.json").write_text(json.dumps({"state": "failed", "reason": "why"}))
    write_cell(root, cells("table5")[1], 3, left=False)
    return root, reported(root)


def test_nothing_of_a_report_disagrees(simulated: tuple[Path, Reported]) -> None:
    root, report = simulated
    checks = checked(report, root)
    assert not wrong(checks)
    counts = summary(checks)
    assert counts["table4"][1] > 500
    assert counts["table4 differences"][1] > 300
    assert counts["scorecard"][1] > 150
    assert {row["verdict"] for row in report.files["scorecard.csv"]} >= {"reproduced", "inconclusive", "not tested"}
    assert {row["verdict"] for row in report.files["tables/table4-differences.csv"]} >= {"differs", "within noise"}
    assert any(row["mark"] for row in report.files["tables/table5.csv"])
    assert any(row["score"] == "Avg" and row["mean"] for row in report.files["tables/table4.csv"])
    assert any(row["seeds_needed"] for row in report.files["scorecard.csv"])


def test_every_changed_cell_is_found(simulated: tuple[Path, Reported]) -> None:
    """Each number of the CSV files is moved by a hundred-thousandth; each of them is then said to disagree."""
    root, report = simulated
    changed = copy.deepcopy(report)
    moved = 0
    for name, rows in changed.files.items():
        for row in rows:
            for column, cell in row.items():
                number = _number(cell)
                names = name.startswith("tables") and column in (
                    "L",
                    "H",
                    "embedding",
                    "steps, thousands",
                    "hours",
                    "there",
                )
                names |= name.startswith("sweeps") and column in ("paper", "planned")  # not derived
                if number is None or column == "identity" or names:
                    continue
                row[column] = repr(number * 1.00001 + 1e-9)
                moved += 1
    assert moved > 2500
    found = [check for check in wrong(checked(changed, root)) if not check.where.endswith("seeds in the reason")]
    assert len(found) == moved


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("file", "column", "new"),
    [
        ("tables/table4-differences.csv", "verdict", "within noise"),
        ("tables/table4.csv", "missing", "no run of this cell"),
        ("tables/table5.csv", "mark", "not trained"),
        ("tables/table4.csv", "runs", "another"),
        ("tables/table4.csv", "E", "190 [768]"),
        ("tables/table1.csv", "L", "11"),
        ("scorecard.csv", "verdict", "contradicted"),
        ("scorecard.csv", "reason", "about 9999 seeds would settle this effect"),
        ("runs.csv", "state", "running"),
        ("runs.csv", "sop_interval", "[0.1, 0.2]"),
    ],
)
def test_a_changed_word_is_found(simulated: tuple[Path, Reported], file: str, column: str, new: str) -> None:
    root, report = simulated
    changed = copy.deepcopy(report)
    changed.files[file][0][column] = new
    assert [check.reported for check in wrong(checked(changed, root))] != []


@pytest.mark.parametrize(
    ("heading", "row", "old", "new"),
    [
        ("### Table 1. ", 3, "11.68", "11.69"),
        ("### Table 4. ", 2, r"± 0\.(\d)", "± 9.9"),
        ("### Table 4. ", 2, r"\[83\]", "[84]"),
        ("### Table 4. ", 2, r"\| 3 of 4 \|", "| 4 |"),
        ("### Table 4. ", 2, r"\| (\d\.\d+) \[", "| 7.77 ["),
        ("Differences, paired", 1, r"[+−]\d+\.\d+ to", "−99.00 to"),
        ("Differences, paired", 1, r"\| ([01]\.\d\d\d|<0\.001) \|", "| 0.777 |"),
        ("## What the paper claims", 1, r"\| [+−]\d+\.\d+ \|", "| +77.00 |"),
        ("## What the paper claims", 1, r"\| 3 \|", "| 4 |"),
    ],
)  # fmt: skip
def test_a_changed_number_of_the_page_is_found(
    simulated: tuple[Path, Reported], heading: str, row: int, old: str, new: str
) -> None:
    root, report = simulated
    lines = report.page.split("\n")
    start = next(k for k, line in enumerate(lines) if line.startswith(heading))
    head = next(k for k in range(start, len(lines)) if lines[k].startswith("|"))
    changed = re.sub(old, new, lines[head + 1 + row], count=1)
    assert changed != lines[head + 1 + row]
    lines[head + 1 + row] = changed
    found = wrong(checked(Reported(report.files, "\n".join(lines)), root))
    assert [check.section for check in found] == ["report.md"]


def test_a_row_too_many_or_too_few_is_found(simulated: tuple[Path, Reported]) -> None:
    root, report = simulated
    for file in ("tables/table4-differences.csv", "scorecard.csv", "tables/table4.csv"):
        changed = copy.deepcopy(report)
        changed.files[file].pop()
        assert wrong(checked(changed, root)), file
    changed = copy.deepcopy(report)
    rows = changed.files["tables/table4-differences.csv"]
    rows.append(dict(rows[0]))
    assert len(wrong(checked(changed, root))) == 1


def edit(file: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """A change of a JSON file in a run folder."""

    def made(run: Path) -> None:
        values = json.loads((run / file).read_text())
        change(values)
        (run / file).write_text(json.dumps(values))

    return made


def add(*path: Any, by: float = 1e-4) -> Callable[[Any], None]:
    def made(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] += by

    return made


def last_line(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    line = json.loads(lines[-1])
    (run / "metrics.jsonl").write_text(
        "\n".join([*lines[:-1], json.dumps(line | {"tokens": line["tokens"] + 1})]) + "\n"
    )


@pytest.mark.parametrize(
    ("change", "source"),
    [
        (edit("results.json", add("masked_lm", "accuracy")), "results.json"),
        (edit("results.json", add("masked_lm", "loss")), "results.json"),
        (edit("results.json", add("sop", "accuracy")), "results.json"),
        (edit("results.json", add("nsp", "interval", 0)), "results.json"),
        (edit("results.json", add("tasks", 0, "sets", "dev", "accuracy", "value")), "results.json"),
        (edit("results.json", add("tasks", 1, "score")), "results.json"),
        (edit("results.json", add("tasks", 2, "average")), "results.json"),
        (edit("results.json", add("training", "tokens_per_second")), "metrics.jsonl"),
        (edit("similarity.json", add("l2", 1)), "similarity.json"),
        (edit("manifest.json", add("parameters", "with_pooler", by=1)), "manifest.json"),
        (edit("manifest.json", add("flops_per_step", by=1)), "manifest.json"),
        (last_line, "metrics.jsonl"),
    ],
)
def test_a_changed_raw_number_is_found(
    simulated: tuple[Path, Reported], tmp_path: Path, change: Callable[[Path], None], source: str
) -> None:
    root, report = simulated
    copied = tmp_path / "runs"
    shutil.copytree(root, copied)
    run = next(path for path in sorted(copied.iterdir()) if "e32-all-sop" in path.name)
    change(run)
    found = wrong(checked(report, copied))
    assert any(source in check.source and run.name in check.where + check.source for check in found)


def test_a_muddle_of_folders_is_read_as_the_report_reads_it(tmp_path: Path) -> None:
    """Two set-ups, copies with other numbers, unfinished runs, and folders that lack a file or a value."""
    for seed in range(3):
        for terms in cells("table5", "table7", "table8", "table11"):
            write_cell(tmp_path, terms, seed, tasks=("sst2", "cola") if seed else ("sst2",))
    for terms in cells("table5"):
        write_cell(tmp_path, terms, seed=7, steps=1200)
    runs = sorted(tmp_path.iterdir())
    for place in (3, 9):
        copied = tmp_path / f"copy-{runs[place].name}"
        shutil.copytree(runs[place], copied)
        edit("status.json", lambda values: values.update(updated="2026-11-22T10:00:00+00:00"))(copied)
        edit("results.json", add("masked_lm", "accuracy", by=0.01))(copied)
    edit("status.json", lambda values: values.update(state="running"))(runs[4])
    edit("status.json", lambda values: values.update(state="diverged", reason="not finite"))(runs[10])
    edit("results.json", lambda values: values.update(nsp=None, tasks=[]))(runs[12])
    edit("results.json", lambda values: values["masked_lm"].update(loss=None))(runs[13])
    (runs[14] / "similarity.json").unlink()
    (runs[15] / "manifest.json").write_text("{")
    with (runs[16] / "metrics.jsonl").open("a") as lines:
        lines.write('{"ste')
    imported = (runs[17] / "config.yaml").read_text().replace("name: cpu", "name: imported")
    (runs[17] / "config.yaml").write_text(imported)
    (runs[18] / "config.yaml").unlink()
    (early,) = [path for path in tmp_path.iterdir() if "nsp-nano-s2" in path.name]
    edit("status.json", lambda values: values.update(state="failed", reason="out of memory"))(early)
    (early / "manifest.json").unlink()
    report = reported(tmp_path)
    assert {row["state"] for row in report.files["runs.csv"]} == {"finished", "copy", "preempted", "diverged", "failed"}
    assert "seed 2 failed (out of memory)" in report.page
    assert not wrong(checked(report, tmp_path))


def test_a_diverged_seed_takes_the_verdict_here_too(tmp_path: Path) -> None:
    for seed in range(3):
        for terms in cells("table5"):
            write_cell(tmp_path, terms, seed)
    (lost,) = [path for path in tmp_path.iterdir() if "nsp-nano-s2" in path.name]
    edit("status.json", lambda values: values.update(state="diverged", reason="not finite"))(lost)
    report, told = reported(tmp_path), "1 of 3 seeds diverged"
    assert any(row["verdict"] == told for row in report.files["tables/table5-differences.csv"])
    assert any(row["reason"] == told and not row["p"] for row in report.files["scorecard.csv"])
    assert not wrong(checked(report, tmp_path))
    assert wrong(checked(report, tmp_path, survivors=True))
    left = reported(tmp_path, survivors=True)
    assert not any(row["verdict"] == told for row in left.files["tables/table5-differences.csv"])
    assert not wrong(checked(left, tmp_path, survivors=True))


@pytest.mark.parametrize("recorded", [True, False])
def test_equal_seeds_are_judged_by_the_same_floor(tmp_path: Path, recorded: bool) -> None:
    """Differences that are alike in every seed, with intervals over examples and without."""
    for seed in range(3):
        for terms in cells("table5"):
            run = write_cell(tmp_path, terms, seed, noise=0.0)
            if not recorded:
                edit("results.json", lambda values: _without_intervals(values["masked_lm"]))(run)
    report = reported(tmp_path)
    rows = [row for row in report.files["tables/table5-differences.csv"] if row["score"] == "MLM"]
    assert all(float(row["p"]) == 1.0 and bool(row["low"]) == recorded for row in rows)
    assert not wrong(checked(report, tmp_path))


def _without_intervals(values: dict[str, Any]) -> None:
    for name in [name for name in values if name.endswith("interval")]:
        del values[name]


# --- a real run ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with three kinds of fine-tuned tasks."""
    place = tmp_path_factory.mktemp("real")
    data = write_race(write_squad(write_squad(write_sst2(place / "data")), "2.0"))
    words = [f"task.data_dir={data}", "embed.size=8", "task.bag_of_words=false"]
    assert start(with_tasks(place, "task=[sst2,squad11,squad20,race]", *words)) == 0
    return place / "runs"


def test_a_real_run_is_counted_again_from_predictions_and_weights(real: Path) -> None:
    checks = checked(reported(real), real)
    assert not wrong(checks)
    sources = {check.source for check in checks if check.state != OPEN}
    for file in ("SST-2.tsv", "predictions.json", "model.safetensors", "metrics.jsonl"):
        assert any(source.endswith(file) for source in sources), file
    tasks = [check for check in checks if check.section == "fine-tuned tasks"]
    assert sum(check.state == OPEN for check in tasks) == 0
    assert sum("sst2" in check.where and check.source.endswith("SST-2.tsv") for check in tasks) == 2
    held_out = [check for check in checks if check.section == "held-out scores" and check.state != OPEN]
    assert sum("hits of" in check.where for check in held_out) >= 3
    assert any("its predictions are not kept" in check.reason for check in checks)


def _line(run: Path, pattern: str, number: int, change: Callable[[str], str]) -> None:
    (file,) = sorted(run.glob(pattern))
    lines = file.read_text().splitlines()
    lines[number] = change(lines[number])
    file.write_text("\n".join(lines) + "\n")


def _lines(run: Path, pattern: str, numbers: Iterable[int], change: Callable[[str], str]) -> None:
    for number in numbers:
        _line(run, pattern, number, change)


def _other_letter(text: str) -> str:
    return text.replace('"A"', '"X"').replace('"B"', '"X"').replace('"C"', '"X"').replace('"D"', '"X"')


RAW = {
    "prediction of a class": lambda run: _line(
        run, "tasks/sst2-*/predictions/SST-2.tsv", 1, lambda s: s[:-1] + str(1 - int(s[-1]))
    ),
    "prediction of an answer": lambda run: _lines(
        run, "tasks/squad20-*/predictions/predictions.json", range(1, 8), lambda s: s.split(": ")[0] + ': "Anna lives",'
    ),
    "predicted letters": lambda run: _lines(
        run, "tasks/race-*/predictions/predictions.json", range(1, 17), _other_letter
    ),
    "speed of a log line": lambda run: _line(
        run, "metrics.jsonl", 0, lambda s: json.dumps((v := json.loads(s)) | {"tokens": v["tokens"] + 1})
    ),
    "hits that are not whole": edit("results.json", add("sop", "accuracy")),
    "an interval": edit("results.json", add("masked_lm", "binomial_interval", 1)),
    "a gain": edit("results.json", add("masked_lm", "gain_over_unigram")),
    "a count": edit("manifest.json", add("parameters", "encoder", by=1)),
    "a score gathered": edit("results.json", add("tasks", 0, "average")),
}  # fmt: skip


@pytest.mark.parametrize("kind", RAW)
def test_what_a_run_says_twice_is_compared_without_a_written_report(real: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(real, tmp_path / "runs")
    (run,) = [path for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".")]
    RAW[kind](run)
    found = wrong(checked(reported(tmp_path / "runs"), tmp_path / "runs"))
    assert any(str(run) in check.source or run.name in check.where for check in found)


def test_without_the_right_answers_it_says_so(real: Path, tmp_path: Path) -> None:
    shutil.copytree(real, tmp_path / "runs")
    for file in (tmp_path / "runs").glob("*/tasks/*/manifest.json"):
        values = json.loads(file.read_text())
        values["settings"]["common"]["data_dir"] = str(tmp_path / "elsewhere")
        file.write_text(json.dumps(values))
    report = reported(tmp_path / "runs")
    checks = checked(report, tmp_path / "runs")
    assert not wrong(checks)
    reasons = {check.reason for check in checks if check.section == "fine-tuned tasks" and check.state == OPEN}
    assert all(reason.startswith("no gold at hand") and "--data" in reason for reason in reasons)
    assert len(reasons) == 4
    again = audit(report, report.runs_of([tmp_path / "runs"]), command._claims([]), data=real.parent / "data")
    assert not [check for check in again if "no gold" in check.reason]


# --- predictions of every kind of task ------------------------------------------------------------


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny run, whose tokenizer is used."""
    place = tmp_path_factory.mktemp("kinds")
    pretrained(place)
    return place


def _write(file: Path, *rows: Iterable[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    mark = "," if file.suffix == ".csv" else "\t"
    file.write_text("".join(mark.join(map(str, row)) + "\n" for row in rows))
    return file


def _own(name: str, place: Path, targets: list[str], rows: list[list[Any]], *more: str) -> list[str]:
    """Words of a user's task with these target columns, its dev file beside its training file."""
    files = {}
    for side in ("train", "dev"):
        body = [[f"{side} {k}", *row] for k, row in enumerate(rows)]
        files[side] = _write(place / f"{side}.csv", ["text", *targets], *body)
    start = f"tasks.{name}"
    return [
        f"{start}.train_file={files['train']}", f"{start}.dev_file={files['dev']}",
        f"{start}.target_columns=[{','.join(targets)}]", f"{start}.text_columns=[text]", *more,
    ]  # fmt: skip


def _glue(place: Path, folder: str, header: list[str], rows: list[list[Any]], dev: str = "dev") -> list[str]:
    for side in ("train", dev):
        _write(place / folder / f"{side}.tsv", *([header] if header else []), *rows)
    return [f"task.data_dir={place}"]


_YES_NO = [[k * k % 3 % 2] for k in range(30)]
KINDS: dict[str, Callable[[Path], tuple[str, list[str]]]] = {
    "mrpc": lambda p: ("mrpc", _glue(
        p, "MRPC", ["Quality", "#1 String", "#2 String"], [[y[0], f"a {k}", f"b {k}"] for k, y in enumerate(_YES_NO)]
    )),
    "cola": lambda p: ("cola", _glue(p, "CoLA", [], [["x", y[0], "", f"a word {k}"] for k, y in enumerate(_YES_NO)])),
    "stsb": lambda p: ("stsb", _glue(
        p, "STS-B", ["sentence1", "sentence2", "score"], [[f"a {k}", f"b {k}", k * 7 % 11 / 2] for k in range(30)]
    )),
    "mnli": lambda p: ("mnli", _glue(
        p, "MNLI", ["sentence1", "sentence2", "gold_label"],
        [[f"a {k}", f"b {k}", ("neutral", "entailment", "contradiction", "-")[k % 4]] for k in range(30)],
        "dev_matched",
    )),
    "part of the dev set": lambda p: ("mrpc", [*_glue(
        p, "MRPC", ["Quality", "#1 String", "#2 String"], [[y[0], f"a {k}", f"b {k}"] for k, y in enumerate(_YES_NO)]
    ), "tasks.mrpc.max_dev=11"]),
    "classes": lambda p: ("text_classification", _own(
        "text_classification", p, ["label"], [[("x", "y", "1.0")[k * k % 7 % 3]] for k in range(30)]
    )),
    "labels": lambda p: ("text_classification", _own(
        "text_classification", p, ["a", "b"], [[k % 2, k % 3 % 2] for k in range(30)]
    )),
    "numbers": lambda p: ("text_regression", _own(
        "text_regression", p, ["a", "b"], [[k * 7 % 11, -k * 3 % 5 / 2] for k in range(30)]
    )),
    "race": lambda p: ("race", [f"task.data_dir={write_race(p)}"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_of_every_kind_give_the_recorded_scores(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Random outputs, written and scored as a fine-tuning does."""
    monkeypatch.setattr(metrics, "_RESAMPLES", 5)  # their intervals are not counted again
    name, settings = KINDS[kind](tmp_path / "data")
    config = compose([f"task={name}", *settings])
    task = read(locate(config.task, config.tasks[name]))(tokenizer_of(words), 32)
    draw = np.random.default_rng(1)
    sets = {}
    for part, features in task.dev.items():
        columns = {"mnli": 3, "text_classification": 3 if kind == "classes" else 2, "race": 4}.get(name, 2)
        width = 1 if name == "stsb" else columns
        outputs = {"logits": draw.standard_normal((len(features), width)).astype(np.float32)}
        sets[part] = task.scores(part, outputs).metrics
        for file, text in task.files(part, outputs).items():
            (tmp_path / "predictions").mkdir(exist_ok=True)
            (tmp_path / "predictions" / file).write_text(text)
    settings_of = {"common": json.loads(json.dumps(_plain(config.task))), "task": _plain(config.tasks[name])}
    found = count(tmp_path, {"settings": settings_of}, sets, None)
    assert not found.open
    for part, record in sets.items():
        ours = found.scores[part]
        named = [metric for metric, value in record.items() if isinstance(value, dict) and "value" in value]
        assert sorted(ours) >= sorted(named)
        for metric in named:
            assert ours[metric]["value"] == pytest.approx(record[metric]["value"], rel=found.relative, abs=1e-12)
            if "interval" in ours[metric]:
                assert ours[metric]["interval"] == pytest.approx(record[metric]["interval"], rel=1e-9, abs=1e-12)


def _plain(settings: Any) -> Any:
    return json.loads(json.dumps(asdict(settings)))


def test_the_id_of_a_generated_example_says_its_class() -> None:
    sentences = [f"The members of the house number {k} spoke at some length today" for k in range(40)]
    for address in ("1790-Washington-1", "1850-Fillmore-1", "1949-Truman-1", "2001-Bush-2"):
        for example in generated._eras(address, sentences):
            assert isinstance(example.target, int)
            assert list(generated.ERAS)[example.target] == gold.generated("era", example.id)
        for example in generated._word_orders(address, sentences):
            assert isinstance(example.target, int)
            assert ("intact", "swapped")[example.target] == gold.generated("word_order", example.id)


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_answers_are_scored_as_the_official_scripts_do(version: str) -> None:
    texts = ["The cat, a dog!", "cat dog dog", "", "the", "dog", "An  answer\tto it", "answer to"]
    for predicted in texts:
        for answers in ([texts[0]], [texts[1], texts[5]], [texts[3], texts[4]], *([[]] if version == "2.0" else [])):
            golds = {"q": answers}
            official = (squad_metrics.scores_20 if version == "2.0" else squad_metrics.scores_11)(
                golds, {"q": predicted}
            )
            assert measures.squad(predicted, answers, version) == pytest.approx((official.exact["q"], official.f1["q"]))


# --- arithmetic ----------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [1, 2, 4, 30, 999])
def test_the_t_distribution_is_scipys(freedom: int) -> None:
    for t in (-3.0, -0.1, 0.0, 0.5, 2.0, 14.0):
        assert student.upper_tail(t, freedom) == pytest.approx(scipy.stats.t.sf(t, freedom), rel=1e-9)
    for share in (0.6, 0.975, 0.9995):
        assert student.quantile(share, freedom) == pytest.approx(scipy.stats.t.ppf(share, freedom), rel=1e-9)


def test_seeds_and_corrections_are_those_of_the_report() -> None:
    draw = np.random.default_rng(0)
    for _ in range(12):
        distance, spread, alpha = draw.uniform(0.1, 3), draw.uniform(0.05, 3), float(draw.choice([0.05, 0.002]))
        assert rules.seeds_needed(distance, spread, alpha) == statistics.seeds_needed(distance, spread, alpha)
    for _ in range(8):
        centre, spread, alpha = draw.uniform(-4, 4), draw.uniform(0.05, 9), float(draw.choice([0.05, 0.002]))
        theirs = statistics.seeds_for_band(centre, spread, (-3.0, 3.0), alpha)
        assert rules.seeds_for_band(centre, spread, -3.0, 3.0, alpha) == theirs
    assert rules.seeds_needed(0.001, 3.0, 0.05) is statistics.seeds_needed(0.001, 3.0, 0.05) is None
    for size in (0, 1, 2, 9):
        values = draw.uniform(0, 0.2, size).tolist()
        assert student.holm(values) == pytest.approx(statistics.holm(values))


def test_intervals_and_metrics_are_those_of_the_libraries() -> None:
    for hits, n in ((0, 5), (3, 7), (512, 1024), (9, 9)):
        assert wilson(hits / n, n) == pytest.approx(proportion(hits, n)["interval"], abs=1e-9)
    draw = np.random.default_rng(2)
    predicted, right = draw.integers(0, 4, 60), draw.integers(0, 4, 60)
    clusters = draw.integers(0, 9, 60)
    hits = (predicted == right).astype(float)
    ours, theirs = measures.clustered(hits.tolist(), clusters.tolist()), metrics.clustered(hits, clusters)
    assert ours[0] == pytest.approx(theirs["value"])
    assert ours[1] == pytest.approx(theirs["interval"])
    for name in ("macro_f1", "spearman", "pearson", "mean_squared_error"):
        theirs = getattr(metrics, name)(predicted.astype(float), right.astype(float))
        assert measures.MEASURES[name](predicted.tolist(), right.tolist()) == pytest.approx(theirs)
    yes, no = predicted % 2, right % 2
    for name in ("f1", "matthews"):
        assert measures.MEASURES[name](yes.tolist(), no.tolist()) == pytest.approx(getattr(metrics, name)(yes, no))


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_both_paths_know_the_same_arms(name: str) -> None:
    assert recounted_cells(name) == list(arms_of(name).values())
    assert tables.AGAINST[name] == REFERENCES[name]


def test_the_second_path_uses_nothing_of_the_first() -> None:
    for file in (ROOT / "analysis" / "recount").glob("*.py"):
        for name in imports(file, ROOT):
            assert name.split(".")[0] not in ("pandas", "numpy", "scipy", "statsmodels", "sklearn"), file
            assert not name.startswith("analysis.") or name.startswith("analysis.recount."), file


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(simulated: tuple[Path, Reported]) -> Path:
    """The simulated report as files."""
    root, _ = simulated
    out = root.parent / "report"
    report = gather(load_runs(root), load_claims(), draw=False)
    for name, numbers in frames(report).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        numbers.to_csv(out / name, index=False)
    (out / "report.md").write_text(markdown(report))
    return out


def test_the_command_tells_what_agrees(
    simulated: tuple[Path, Reported], written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cells.csv"
    assert command.main([str(simulated[0]), "--report", str(written), "--csv", str(file)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"No cell of [\d,]+ disagrees", out)
    assert re.search(r"of fine-tuned tasks: its fine-tuning folders are not kept", out)
    assert all(len(line) <= 80 for line in out.splitlines())
    with file.open(newline="") as source:
        rows = list(csv.DictReader(source))
    assert {row["state"] for row in rows} == {"agrees", "not re-derived"}
    assert all(row["why"] for row in rows if row["state"] == "not re-derived")
    assert command.main([str(simulated[0]), "--report", str(written), "--csv", str(file)]) == 0  # its own file


def test_the_command_names_cell_and_file_of_a_disagreement(
    simulated: tuple[Path, Reported], written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(written, tmp_path / "report")
    file = tmp_path / "report" / "tables" / "table4.csv"
    first = next(row for row in csv.DictReader(file.read_text().splitlines()) if row["score"] == "MLM")["mean"]
    file.write_text(file.read_text().replace(first, "12.5"))
    assert command.main([str(simulated[0]), "--report", str(tmp_path / "report")]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "reported" in line]
    assert line.startswith("table4 · 192 [768], all shared · MLM · mean: reported 12.5, re-derived ")
    assert "(from results.json of e192-all-sop-nano-s0-" in line
    assert re.match(r"1 of [\d,]+ cells disagree with the raw files", out.splitlines()[-1])


REFUSED = [
    (["{runs}", "--report", "nowhere"], 2, "--report nowhere: no report: there is no such folder"),
    (["{runs}", "--report", "{runs}"], 2, "it has no runs.csv and no scorecard.csv"),
    (["nowhere"], 2, "nowhere: no run folders there"),
    (["{cpu}"], 1, "a report, not the runs that it was made from: it holds no run folders"),
    (["{runs}", "--report", "{cpu}"], 1, "42 of the report's 42 runs have no folder there"),
    (["{runs}", "--report", "{out}", "--where", "seed=1"], 2, "Leave out --where or --report"),
    (["{runs}", "--where", "seed=99"], 2, "--where seed=99: no run has that"),
    (["{runs}", "--data", "nowhere"], 2, "--data nowhere: no such folder"),
    (["{runs}", "--claims", "nowhere.yaml"], 2, "nowhere.yaml: no such file"),
    (["{runs}", "--csv", "{own}"], 2, "it exists and is not a table of this command"),
]


@pytest.mark.parametrize(("words_", "code", "said"), REFUSED, ids=[said[:30] for _, _, said in REFUSED])
def test_wrong_arguments_are_refused_in_words(
    simulated: tuple[Path, Reported], written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words_: list[str], code: int, said: str,
) -> None:  # fmt: skip
    (tmp_path / "own.csv").write_text("mine\n")
    places = {
        "runs": simulated[0], "out": written, "cpu": ROOT / "docs" / "results" / "cpu", "own": tmp_path / "own.csv",
    }  # fmt: skip
    assert command.main([word.format(**places) for word in words_]) == code
    assert said in capsys.readouterr().err
    assert (tmp_path / "own.csv").read_text() == "mine\n"


def test_only_the_runs_of_the_report_are_read(
    simulated: tuple[Path, Reported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(simulated[0]), str(simulated[0]), "--where", "seed=1"]) == 0
    out = capsys.readouterr().out
    assert "No cell of" in out
    assert "disagrees" in out
