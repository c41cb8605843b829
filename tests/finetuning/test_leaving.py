"""Fine-tunings that leave the house: as models of transformers, and as answers to the rows of a table."""

import csv
import importlib
import importlib.util
import json
import random
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers
from finetunehelpers import run_of
from runhelpers import ROOT, read_json
from safetensors.torch import save_file
from taskhelpers import TINY, pretrained, sentiment, write_tsv
from test_huggingface_parity import VOCABULARY, architecture
from transformers import AutoModel, AutoTokenizer, pipeline

import albert_ablate as aa
from albert_ablate.axes import Share
from albert_ablate.commands import export, finetune, predict
from albert_ablate.commands.finetune import tokenizer_of
from albert_ablate.commands.unit import load_unit
from albert_ablate.errors import ForeignCheckpointError, UserError
from albert_ablate.interop.finetuned import to_finetuned
from albert_ablate.model.pretraining import initialise
from albert_ablate.tasks.heads import PooledModel, SpanModel, TokenModel
from albert_ablate.tasks.leaving import head_of
from albert_ablate.tasks.reread import tuner_of
from albert_ablate.tasks.task import AnswersTexts, HeadSettings, Meaning, Task, TaskBatch

NAMES = ("red", "green", "blue")
#: share, width of the embedding, token types, head, answers, pretrained as ELECTRA's -> class of transformers.
CLASSES = [
    (Share.ALL, 16, 2, "pooled", "classes", False, "AlbertForSequenceClassification"),
    (Share.NONE, 48, 2, "pooled", "labels", False, "BertForSequenceClassification"),
    (Share.NONE, 48, 0, "pooled", "values", False, "BertForSequenceClassification"),
    (Share.NONE, 48, 2, "pooled", "classes", True, "BertForSequenceClassification"),
    (Share.FFN, 16, 2, "pooled", "choices", False, "AlbertForMultipleChoice"),
    (Share.NONE, 48, 2, "pooled", "choices", False, "BertForMultipleChoice"),
    (Share.NONE, 48, 0, "bare", "labels", False, "DistilBertForSequenceClassification"),
    (Share.ALL, 16, 2, "bare", "values", False, "ElectraForSequenceClassification"),
    (Share.NONE, 48, 2, "bare", "classes", True, "ElectraForSequenceClassification"),
    (Share.NONE, 16, 2, "bare", "choices", False, "ElectraForMultipleChoice"),
    (Share.ALL, 16, 2, "", "spans", False, "AlbertForQuestionAnswering"),
    (Share.NONE, 48, 2, "", "spans", False, "BertForQuestionAnswering"),
    (Share.NONE, 48, 0, "", "spans", False, "DistilBertForQuestionAnswering"),
    (Share.NONE, 16, 2, "", "spans", True, "ElectraForQuestionAnswering"),
    (Share.ALL, 16, 2, "", "tags", False, "AlbertForTokenClassification"),
    (Share.FFN, 48, 2, "", "tags", False, "AlbertForTokenClassification"),
    (Share.NONE, 48, 2, "", "tags", False, "BertForTokenClassification"),
    (Share.NONE, 48, 0, "", "tags", False, "DistilBertForTokenClassification"),
    (Share.NONE, 16, 2, "", "tags", True, "ElectraForTokenClassification"),
]  # fmt: skip


def batch_of(types: int, choices: int = 1) -> TaskBatch:
    """Six sequences of several lengths, with a second text if the model has token types."""
    draw = np.random.default_rng(1)
    lengths = np.array([33, 20, 9, 33, 4, 17])
    real = torch.from_numpy(np.arange(33) < lengths[:, None])
    ids = torch.from_numpy(draw.integers(5, VOCABULARY, real.shape).astype(np.int32)) * real
    second = torch.from_numpy(np.arange(33) >= lengths[:, None] // 2) & real
    return TaskBatch(ids, second.int() * min(1, types), real, torch.zeros(6 // choices, 0), choices)


@pytest.mark.parametrize(("share", "width", "types", "kind", "answers", "electra", "named"), CLASSES)
def test_every_head_answers_as_before(
    share: Share, width: int, types: int, kind: Any, answers: Any, electra: bool, named: str, tmp_path: Path
) -> None:
    """Every parameter is away from its initial value: zero biases would hide a missing one."""
    shape = architecture(share, width, type_vocab_size=types)
    names = NAMES if answers in ("classes", "labels", "values", "tags") else ()
    scale = {"mean": np.array([1.0, -2.0, 3.0]), "deviation": np.array([0.5, 2.0, 1.5])} if answers == "values" else {}
    task = cast(Task, SimpleNamespace(name="colours", meaning=Meaning(answers, names, **scale)))
    model: Any = PooledModel(shape, len(names) or 1, HeadSettings(0.1, "first", kind or "bare"))
    if answers in ("spans", "tags"):
        model = SpanModel(shape) if answers == "spans" else TokenModel(shape, len(names), 0.1)
    initialise(model, 0.05, 3)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    found = to_finetuned(*head_of(task, model.eval(), False), electra)
    assert found.architecture == named
    assert found.unrolled == (share is not Share.NONE and not (named.startswith("Albert") and share is Share.ALL))
    save_file(found.tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [named], **found.config}))
    theirs, info = getattr(transformers, named).from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    batch = batch_of(types, 3 if answers == "choices" else 1)
    words = {"input_ids": batch.input_ids.long(), "attention_mask": batch.mask.long()}
    if types:
        words["token_type_ids"] = batch.type_ids.long()
    if answers == "choices":
        words = {name: grid.view(2, 3, -1) for name, grid in words.items()}
    with torch.no_grad():
        mine, other = model(batch), theirs.eval()(**words)
    if answers == "spans":
        for ours, logits in zip(mine, (other.start_logits, other.end_logits), strict=True):
            torch.testing.assert_close(ours[batch.mask], logits[batch.mask], atol=1e-5, rtol=0)
        return
    if answers == "values":
        mine = mine * torch.tensor([0.5, 2.0, 1.5]) + torch.tensor([1.0, -2.0, 3.0])
    real = batch.mask if answers == "tags" else slice(None)
    torch.testing.assert_close(mine[real], other.logits[real], atol=1e-5, rtol=0)
    assert mine.std() > 0.05
    if names:
        assert theirs.config.id2label == dict(enumerate(NAMES))
        assert theirs.config.num_labels == 3


def test_a_projection_that_electra_lacks_is_refused() -> None:
    model = PooledModel(architecture(Share.NONE, 48, projection=True), 3, HeadSettings(0.1, "first", "bare"))
    initialise(model, 0.05, 3)
    task = cast(Task, SimpleNamespace(name="colours", meaning=Meaning("classes", NAMES)))
    with pytest.raises(ForeignCheckpointError, match=r"Fine-tune with task\.head=pooled"):
        to_finetuned(*head_of(task, model, False))


# --- fine-tuned units -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def units(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fine-tunings of one run, by task; ``mean`` has another pooling."""
    place = tmp_path_factory.mktemp("leaving")
    run = pretrained(place, "model.initializer_range=0.4")[1].path  # so that answers differ from row to row
    rows = [[t, u, 2 * a + b + 0.5, a, b] for (t, a), (u, b) in zip(sentiment(80, 3), sentiment(80, 4), strict=True)]
    file = write_tsv(place / "pairs.tsv", ["left", "right", "stars", "good", "other good"], rows)
    shared = [f"task.data_dir={folder / 'data'}", *TINY]
    shared += ["runtime.precision=fp32", "runtime.device=cpu", "runtime.threads=1"]
    words = ["task=[sst2,squad11,squad20,race,text_regression,text_classification]"]
    words += [f"tasks.text_regression.train_file={file}", "tasks.text_regression.text_columns=[left,right]"]
    # An odd room for two texts that are both cut goes to the first text here, and to the longer one in transformers.
    words += ["tasks.text_regression.max_length=31"]
    words += ["tasks.text_regression.target_columns=[stars]", f"tasks.text_classification.train_file={file}"]
    words += ["tasks.text_classification.text_columns=[left]"]
    words += ["tasks.text_classification.target_columns=[good,other good]"]
    assert finetune.main([str(run), *shared, *words]) == 0
    found = {read_json(unit / "manifest.json")["task"]: unit for unit in run.glob("tasks/*-s0-*")}
    assert finetune.main([str(run), *shared, "task=sst2", "task.pool=mean", "task.head=bare"]) == 0
    (found["mean"],) = set(run.glob("tasks/sst2-s0-*")) - {found["sst2"]}
    return found


def exported(unit: Path, out: Path) -> Path:
    assert export.main([str(unit), str(out)]) == 0
    return out


def answers_of(unit: Path, rows: list[tuple[str, ...]]) -> dict[str, list[Any]]:
    """Our own cells for rows of texts."""
    ours = load_unit(unit, []).answerer
    assert isinstance(ours.task, AnswersTexts)
    return ours.task.cells(ours.predict(ours.task.from_columns(rows)))


@pytest.mark.parametrize(
    ("name", "problem"),
    [("sst2", "single_label_classification"), ("text_classification", "multi_label_classification"),
     ("text_regression", "regression")],
)  # fmt: skip
def test_a_pipeline_answers_200_rows_as_we_do(name: str, problem: str, units: dict[str, Path], tmp_path: Path) -> None:
    """Some texts are longer than the model reads."""
    out = exported(units[name], tmp_path / "out")
    pairs = name == "text_regression"
    lefts, rights = ([text for text, _ in sentiment(200, seed)] for seed in (8, 9))
    lefts[7] = " ".join(lefts[:20])
    rows = list(zip(lefts, rights, strict=True)) if pairs else [(text,) for text in lefts]
    mine = answers_of(units[name], cast(list[tuple[str, ...]], rows))
    given: Any = [{"text": a, "text_pair": b} for a, b in zip(lefts, rights, strict=True)] if pairs else lefts
    model: Any = pipeline("text-classification", str(out), device="cpu")
    theirs = [{entry["label"]: entry["score"] for entry in row} for row in model(given, truncation=True, top_k=None)]
    config = read_json(out / "config.json")
    labels = [config["id2label"][str(number)] for number in range(config["num_labels"])]
    assert (config["problem_type"], config["label2id"]) == (problem, {label: n for n, label in enumerate(labels)})
    columns = {"regression": ["prediction"]}.get(problem, [f"p({label})" for label in labels])
    for label, column in zip(labels, columns, strict=True):
        np.testing.assert_allclose(mine[column], [row[label] for row in theirs], atol=1e-5, rtol=0)
    if problem == "single_label_classification":
        assert mine["prediction"] == [max(row, key=row.__getitem__) for row in theirs]
    assert np.std(mine[columns[0]]) > 1e-3
    card = (out / "README.md").read_text()
    assert ("text_pair" in card) == pairs
    assert "| dev | " in card
    code = re.findall(r"```python\n(.*?)```", card, re.S)[0].replace("FOLDER", str(out))
    exec(code, {})


def test_spans_and_choices_are_ours(units: dict[str, Path], tmp_path: Path) -> None:
    for name, named in (("squad11", "AlbertForQuestionAnswering"), ("race", "AlbertForMultipleChoice")):
        out = exported(units[name], tmp_path / name)
        theirs = getattr(transformers, named).from_pretrained(out).eval()
        opened = load_unit(units[name], [])
        tokenizer = tokenizer_of(opened.run, opened.config)
        tuner = tuner_of(opened.config, opened.unit, lambda setting: False, tokenizer, opened.answerer.machine)
        features = next(iter(tuner.task.dev.values()))
        batch = features.batch(np.arange(len(features)))
        words = {
            "input_ids": batch.input_ids.long(), "attention_mask": batch.mask.long(),
            "token_type_ids": batch.type_ids.long(),
        }  # fmt: skip
        if batch.choices > 1:
            words = {key: grid.view(len(batch), batch.choices, -1) for key, grid in words.items()}
        with torch.no_grad():
            mine, other = opened.answerer.model.eval()(batch), theirs(**words)
        if name == "race":
            torch.testing.assert_close(mine, other.logits, atol=1e-5, rtol=1e-5)
        else:
            for ours, logits in zip(mine, (other.start_logits, other.end_logits), strict=True):
                torch.testing.assert_close(ours[batch.mask], logits[batch.mask], atol=1e-5, rtol=1e-5)
        assert named in (out / "README.md").read_text()


@pytest.mark.parametrize("name", ["sst2", "mean", "text_regression", "text_classification"])
def test_no_file_of_the_task_is_needed(
    name: str, folder: Path, units: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal answers with and without the recorded labels; without them and without files it says what is missing."""
    rows = [(text, "so")[: 2 if name == "text_regression" else 1] for text, _ in sentiment(20, 8)]
    manifest = units[name] / "manifest.json"
    content = manifest.read_text()
    recorded = json.loads(content)["answers"]
    older = {key: value for key, value in json.loads(content).items() if key != "answers"}
    moved = [(folder / "data", folder / "moved"), (units["sst2"].parents[3] / "pairs.tsv", tmp_path / "moved.tsv")]
    mine = answers_of(units[name], cast(list[tuple[str, ...]], rows))
    try:
        manifest.write_text(json.dumps(older))
        assert answers_of(units[name], cast(list[tuple[str, ...]], rows)) == mine
        for place, other in moved:
            place.rename(other)
        said = refused(capsys, export.main, units[name], tmp_path / "a")
        assert "no such file" in said or "no file" in said
        manifest.write_text(content)
        assert answers_of(units[name], cast(list[tuple[str, ...]], rows)) == mine
        if name != "mean":  # no class has its pooling
            config = read_json(exported(units[name], tmp_path / "out") / "config.json")
            assert list(config["id2label"].values()) == recorded["names"]
    finally:
        manifest.write_text(content)
        for place, other in moved:
            other.rename(place)
    expected = {"text_regression": ["stars"], "text_classification": ["good", "other good"]}.get(name, ["0", "1"])
    assert recorded["names"] == expected
    if name == "text_regression":
        assert (recorded["kind"], recorded["columns"]) == ("values", [["left"], ["right"]])
        assert len(recorded["mean"]) == len(recorded["deviation"]) == 1


@pytest.mark.parametrize(("name", "kind"), [("squad11", "spans"), ("race", "choices"), ("squad20", "spans")])
def test_models_of_spans_and_choices_need_no_file(name: str, kind: str, units: dict[str, Path]) -> None:
    assert read_json(units[name] / "manifest.json")["answers"] == {"kind": kind, "names": []}
    opened = load_unit(units[name], [])
    assert not len(opened.answerer.task.train)


def test_the_folder_states_its_origin(units: dict[str, Path], tmp_path: Path) -> None:
    out = exported(units["sst2"], tmp_path / "out")
    provenance = read_json(out / "provenance.json")
    assert provenance["fine_tuning"] == units["sst2"].name
    assert provenance["data"] == read_json(units["sst2"] / "manifest.json")["data"]
    assert provenance["pretraining"] == read_json(units["sst2"].parent.parent / "manifest.json")
    best = read_json(units["sst2"] / "results.json")["best"]["sets"]["dev"]["accuracy"]["value"]
    assert f"| dev | accuracy | {best:.4f} |" in (out / "README.md").read_text()
    assert AutoTokenizer.from_pretrained(out).model_max_length == 32
    assert export.main([str(units["sst2"]), str(out)]) == 2


def refused(capsys: pytest.CaptureFixture[str], main: Any, *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_what_no_class_computes_is_refused_with_the_remedy(
    units: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "task.pool=mean" in (said := refused(capsys, export.main, units["mean"], out))
    assert "fine-tune with task.pool=first" in said
    assert "tasks.squad20.version=2.0" in (said := refused(capsys, export.main, units["squad20"], out))
    assert "fine-tune on task=squad11" in said
    run = units["sst2"].parent.parent
    assert "no effect on a run" in refused(capsys, export.main, run, out, "task.data_dir=x")
    assert "are recorded" in refused(capsys, export.main, units["sst2"], out, "task.pool=mean")
    for model, words in (
        (PooledModel(architecture(Share.ALL, 16), 2, HeadSettings(0.1, "first", "relu")), "task.head=relu"),
        (PooledModel(architecture(Share.ALL, 16, pattern="causal"), 2, HeadSettings(0.1, "last", "bare")), "causal"),
    ):
        task = cast(Task, SimpleNamespace(name="x", meaning=Meaning("classes", ("a", "b"))))
        with pytest.raises(ForeignCheckpointError, match=words):
            head_of(task, model, False)
    with pytest.raises(ForeignCheckpointError, match="fine-tune with knowledge=none"):
        head_of(task, model, True)
    assert not out.exists()


@pytest.mark.parametrize("main", [export.main, predict.main])
def test_a_fine_tuning_without_weights_or_run(
    main: Any, units: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write_tsv(tmp_path / "a.tsv", ["sentence"], [["a"]]), tmp_path / "out"
    other = source if main is predict.main else target
    unit = Path(shutil.copytree(units["sst2"], tmp_path / "alone"))
    assert "outside of its run" in refused(capsys, main, unit, other)
    kept = units["sst2"] / "best.safetensors"
    moved = kept.rename(tmp_path / "best.safetensors")
    try:
        said = refused(capsys, main, units["sst2"], other)
    finally:
        moved.rename(kept)
    assert "task.keep_weights=false" in said
    assert "fine-tune again with task=sst2 task.keep_weights=true" in said
    run = units["sst2"].parent.parent
    if main is predict.main:
        assert f"Give one of its fine-tunings: tasks/{units['race'].name}" in refused(capsys, main, run, other)


# --- predictions ----------------------------------------------------------------------------------


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",", quoting=csv.QUOTE_MINIMAL))


@pytest.mark.parametrize("name", ["sst2", "mean"])
def test_predictions_are_those_on_dev(name: str, folder: Path, units: dict[str, Path], tmp_path: Path) -> None:
    dev = folder / "data" / "SST-2" / "dev.tsv"
    assert predict.main([str(units[name]), str(dev), "--out", str(tmp_path / "out.tsv")]) == 0
    made = table(tmp_path / "out.tsv")
    written = table(units[name] / "predictions" / "SST-2.tsv")
    assert [row["prediction"] for row in made] == [row["prediction"] for row in written]
    assert list(made[0]) == ["sentence", "label", "prediction", "probability", "p(0)", "p(1)"]
    assert [row["label"] for row in made] == [row["label"] for row in table(dev)]
    for row in made:
        assert float(row["probability"]) == max(float(row["p(0)"]), float(row["p(1)"]))
        assert float(row["p(0)"]) + float(row["p(1)"]) == pytest.approx(1, abs=1e-6)


def test_numbers_and_labels_of_a_users_table(units: dict[str, Path], tmp_path: Path) -> None:
    rows = table(units["sst2"].parents[3] / "pairs.tsv")
    for name, columns in (("text_regression", ["stars"]), ("text_classification", ["good", "other good"])):
        written = table(units[name] / "predictions" / "dev.tsv")
        asked = [rows[int(row["id"]) - 2] for row in written]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"left": r["left"], "right": r["right"], "n": 0.1}) + "\n" for r in asked))
        assert predict.main([str(units[name]), str(file)]) == 0
        made = [json.loads(line) for line in (tmp_path / f"{name}.predicted.jsonl").read_text().splitlines()]
        assert [row["n"] for row in made] == [0.1] * len(made)
        for column in columns:
            key = "prediction" if name == "text_regression" else f"prediction({column})"
            assert [row[key] for row in made] == pytest.approx([float(row[column]) for row in written], abs=1e-4)
    assert {row["prediction(good)"] for row in made} <= {0, 1}
    assert all((row["p(good)"] > 0.5) == row["prediction(good)"] for row in made)


def test_the_order_of_rows_does_not_matter(units: dict[str, Path], tmp_path: Path) -> None:
    """Quotes, commas and line breaks in cells stay; columns may be called otherwise; numbers have enough digits."""
    rows = [[f'{text}, "so"\nit is', str(n)] for n, (text, _) in enumerate(sentiment(90, 6))]
    answers = []
    for turn in range(2):
        random.Random(turn).shuffle(rows)
        file = tmp_path / f"{turn}.csv"
        with file.open("w", newline="") as out:
            csv.writer(out).writerows([["review", "n"], *rows])
        words = [str(units["sst2"]), str(file), "--text", "review", "--out", str(tmp_path / f"out{turn}.csv")]
        assert predict.main(words) == 0
        made = table(tmp_path / f"out{turn}.csv")
        assert [[row["review"], row["n"]] for row in made] == rows
        answers.append({row["n"]: (row["prediction"], row["p(0)"]) for row in made})
    assert answers[0] == answers[1]
    assert len({chance for _, chance in answers[0].values()}) > 20


def test_mistakes_name_row_and_column(
    units: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(header: list[str], rows: list[list[Any]], *words: str, unit: str = "sst2", name: str = "a.tsv") -> str:
        return refused(capsys, predict.main, units[unit], write_tsv(tmp_path / name, header, rows), *words)

    empty = said(["sentence"], [["fine"], ["  "]])
    assert "a.tsv, line 3: column 'sentence' is empty; a text is expected" in empty
    assert "no column 'sentence'; there are review. --text COLUMN names another" in said(["review"], [["fine"]])
    assert "no column 'right'" in said(["left"], [["a"]], unit="text_regression")
    assert "line 2: there is a column 'p(0)' already" in said(["sentence", "p(0)"], [["a", "b"]])
    assert "a.tsv, line 2: 2 fields, but 1 columns" in said(["sentence"], [["a", "b"]])
    assert "no rows" in said(["sentence"], [])
    assert "--second x: sst2 takes one text" in said(["sentence"], [["a"]], "--second", "x")
    assert "must end in .tsv" in said(["sentence"], [["a"]], "--out", str(tmp_path / "out.csv"))
    assert "exists already" in said(["sentence"], [["a"]], "--out", str(tmp_path / "a.tsv"))
    assert "a name that ends in .csv, .tsv, .jsonl" in said(["sentence"], [["a"]], name="a.txt")
    assert "its examples are more than the texts of a row" in said(["sentence"], [["a"]], unit="race")
    assert "no such file" in refused(capsys, predict.main, units["sst2"], tmp_path / "none.csv")
    assert not list(tmp_path.glob("*predicted*"))


def test_a_causal_run_predicts_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, run = pretrained(tmp_path, "method=causal", "objective=none")
    rows = sentiment(60, 3)
    file = write_tsv(tmp_path / "reviews.tsv", ["text", "label"], rows)
    words = ["task=text_classification", f"tasks.text_classification.train_file={file}", "task.pool=last", *TINY]
    assert finetune.main([str(run.path), *words]) == 0
    (unit,) = run.path.glob("tasks/text_classification-s0-*")
    assert predict.main([str(unit), str(file)]) == 0
    made = table(tmp_path / "reviews.predicted.tsv")
    for row in table(unit / "predictions" / "dev.tsv"):
        mine = made[int(row["id"]) - 2]
        assert mine["prediction"] == row["prediction"]
        assert float(mine["p(1)"]) == pytest.approx(float(row["p(1)"]), abs=1e-4)
    assert "a fine-tuned causal model cannot be exported" in refused(capsys, export.main, unit, tmp_path / "out")
    assert "a causal run" in refused(capsys, export.main, run.path, tmp_path / "out", "--sentence-transformers")
    with pytest.raises(UserError):
        load_unit(run.path, [])


def test_the_commands_of_the_pages_run(units: dict[str, Path], folder: Path, tmp_path: Path) -> None:
    page = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("interop.md", "tasks.md"))
    lines = re.findall(r"^    python -m albert_ablate\.(export|predict) (runs/NAME/tasks/\S+ .*)$", page, re.M)
    lines = [(name, rest) for name, rest in lines if "/ner-" not in rest]  # test_ner_runs.py has words to tag
    assert {name for name, _ in lines} == {"export", "predict"}
    shutil.copy(folder / "data" / "SST-2" / "dev.tsv", tmp_path / "reviews.tsv")
    for number, (name, rest) in enumerate(lines):
        (unit, *words) = shlex.split(rest)
        task = unit.rpartition("/")[2].partition("-")[0]
        named: dict[str, object] = {"out": tmp_path / f"out{number}", "reviews.tsv": tmp_path / "reviews.tsv"}
        named |= {"answers.tsv": tmp_path / "answers.tsv", "task.data_dir=DATA": f"task.data_dir={folder / 'data'}"}
        main: Any = {"export": export.main, "predict": predict.main}[name]
        assert main([str(units[task]), *(str(named.get(word, word)) for word in words)]) == 0, rest
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "interop.md").read_text(encoding="utf-8"), re.S)
    first = next(number for number, (name, rest) in enumerate(lines) if name == "export" and "/sst2-" in rest)
    for block in code:
        exec(block.replace('"out"', repr(str(tmp_path / f"out{first}"))), {})


# --- sentence embeddings --------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_sentence_transformers_embeds_as_we_do(
    pool: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the package itself where it is installed; else its files, read as it reads them."""
    run, out = run_of(folder).path, tmp_path / "out"
    words = ["--sentence-transformers", *([] if pool == "mean" else [pool])]
    assert export.main([str(run), str(out), *words]) == 0
    modules = read_json(out / "modules.json")
    assert [(part["path"], part["type"].rpartition(".")[2]) for part in modules] == [
        ("", "Transformer"), ("1_Pooling", "Pooling"),
    ]  # fmt: skip
    settings = read_json(out / "1_Pooling" / "config.json")
    assert settings.pop("word_embedding_dimension") == 32
    assert [name for name, chosen in settings.items() if chosen] == [
        {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}[pool]
    ]
    assert read_json(out / "sentence_bert_config.json") == {"max_seq_length": 32, "do_lower_case": False}
    texts = ["Bada bede bodo.", " ".join(["bada"] * 60), "Be."]
    if importlib.util.find_spec("sentence_transformers") is not None:
        theirs = importlib.import_module("sentence_transformers").SentenceTransformer(str(out), device="cpu")
        vectors = torch.from_numpy(theirs.encode(texts))
    else:
        tokens = AutoTokenizer.from_pretrained(out)(
            texts, truncation=True, max_length=32, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            states = AutoModel.from_pretrained(out).eval()(**tokens).last_hidden_state
        real = tokens["attention_mask"][:, :, None]
        vectors = states[:, 0] if pool == "cls" else (states * real).sum(1) / real.sum(1)
    torch.testing.assert_close(aa.load(run).embed(texts, pool), vectors, atol=1e-5, rtol=0)
    assert "SentenceTransformer" in (out / "README.md").read_text()


def test_sentence_embeddings_of_a_fine_tuning_are_refused(
    units: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, export.main, units["sst2"], tmp_path / "out", "--sentence-transformers")
    assert "no effect on a fine-tuning" in said
