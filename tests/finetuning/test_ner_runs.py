"""Named entities fine-tuned: learned, stopped and continued, recorded, counted again, predicted and exported."""

import json
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from finetunehelpers import assert_equal_when_stopped, entries, run_of, tuner
from runhelpers import ROOT, only_folder, read_json, start, write_corpus
from taskhelpers import TINY, pretrained, with_tasks
from transformers import pipeline

import albert_ablate as aa
from albert_ablate.commands import export, finetune, predict
from albert_ablate.commands.unit import load_unit
from albert_ablate.tasks.ner.data import read_file
from albert_ablate.tasks.ner.generated import generated_sentences
from albert_ablate.tasks.ner.task import NerTask
from albert_ablate.tasks.planning import plan_units
from analysis.compare import compare_tasks
from analysis.judge.metrics import metric, unfit, values
from analysis.read.runs import load_runs
from analysis.recount.checks import AGREES, DISAGREES
from analysis.recount.fine_tunings import check
from analysis.recount.runs import Run

NAME = "ner_generated"
SHORT = [f"tasks.{NAME}.sentences=60", f"tasks.{NAME}.steps=8"]
SPANS = (("train", "train"), ("dev", "testa"))
ON_CPU = ["runtime.precision=fp32", "runtime.device=cpu", "runtime.threads=1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose pieces are those of the generated sentences."""
    folder = tmp_path_factory.mktemp("entities")
    corpus = write_corpus(folder / "corpus.txt")
    texts = [sentence.text for sentence in generated_sentences(400)["train"]]
    blocks = ["\n".join(texts[i : i + 8]) for i in range(0, 400, 8)]
    corpus.write_text("\n\n".join([corpus.read_text(encoding="utf-8").strip(), *blocks]) + "\n", encoding="utf-8")
    pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(place: Path) -> Path:
    """Training, dev and test sentences as columns in IOB1, and as JSON lines with spans."""
    data = place / "data"
    (data / "spans").mkdir(parents=True)
    made = generated_sentences(200)
    parts = {"eng.train": made["train"], "eng.testa": made["dev"][:25], "eng.testb": made["dev"][25:]}
    for name, sentences in parts.items():
        blocks = []
        for sentence in sentences:
            tags = sentence.tags or ()
            first = [k == 0 or tags[k - 1][2:] != tag[2:] for k, tag in enumerate(tags)]
            older = [f"I-{t[2:]}" if t[0] == "B" and new else t for t, new in zip(tags, first, strict=True)]
            blocks.append("".join(f"{w} X {t}\n" for w, t in zip(sentence.written, older, strict=True)))
        (data / name).write_text("-DOCSTART- -X- O\n\n" + "\n".join(blocks), encoding="utf-8")
        rows = [
            {"text": s.text, "entities": [{"start": a, "end": b, "label": c} for a, b, c in s.spans(s.tags or ())]}
            for s in sentences
        ]
        file = data / "spans" / f"{name.removeprefix('eng.')}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return data


def test_the_generated_entities_are_learned(place: Path, tmp_path: Path) -> None:
    """Better than each word's most frequent tag, by the interval."""
    t = tuner(
        place, NAME, tmp_path, f"tasks.{NAME}.sentences=500", f"tasks.{NAME}.learning_rate=0.003",
        f"tasks.{NAME}.epochs=12", f"tasks.{NAME}.dropout=0",
    )  # fmt: skip
    record = t.fit()
    scores, bars = record["best"]["sets"]["dev"], t.task.baselines(True)["dev"]["f1"]
    assert record["metric"] == "f1"
    assert bars["majority"] == 0.0 < bars["bag_of_words"]
    assert scores["f1"]["interval"][0] > bars["bag_of_words"]
    assert set(scores["by_label"]) == {"LOC", "ORG", "PER"}
    assert sum(of["entities"] for of in scores["by_label"].values()) == t.task.counts["entities"]["dev"]


@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_stopped_fine_tuning_continues_to_equal_numbers(place: Path, tmp_path: Path, stop_at: int) -> None:
    words = [*SHORT, "task.evaluate_every=3", "task.label_pieces=all"]
    assert_equal_when_stopped(place, NAME, tmp_path, words, stop_at)


def test_the_loss_is_that_of_the_labelled_pieces(place: Path, tmp_path: Path) -> None:
    """Micro-batches and padding change nothing."""
    for pieces in ("first", "all"):
        t = tuner(place, NAME, tmp_path / pieces, *SHORT, f"task.label_pieces={pieces}")
        task, model = cast(NerTask, t.task), t.model.eval()
        batch = task.train.batch(np.arange(6))
        logits = model(batch).log_softmax(-1)
        targets = task.train.targets[:6]
        rows, places = np.nonzero(targets >= 0)
        by_hand = -logits[rows, places, targets[rows, places].astype(np.int64)].sum().detach()
        labelled = (task.train.targets >= 0).sum() / len(task.train)
        loss = task.loss(model, batch)
        assert loss.detach().item() == pytest.approx(float(by_hand) / labelled, rel=1e-5)
        parts = sum(task.loss(model, part) for part in batch.micro(2))
        torch.testing.assert_close(parts, loss)
        torch.testing.assert_close(task.loss(model, batch.widened(32, 32)), loss)


def test_recorded_fine_tunings(place: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results, files, tables and the second count of the audit, for columns, spans and generated sentences."""

    def fine_tuned(*words: str) -> dict[str, Any]:
        assert start(with_tasks(place, *words)) == 0
        return entries(run_of(place))

    entry = fine_tuned("task=ner", f"task.data_dir={files}", "task.seeds=[0,1]", "tasks.ner.steps=150",
                       "tasks.ner.learning_rate=0.003")["ner"]  # fmt: skip
    shown = capsys.readouterr().out
    assert entry["metric"] == "f1"
    assert list(entry["sets"]) == ["dev", "test"]
    assert entry["sets"]["dev"]["f1"]["value"] == entry["scores"][entry["seeds"].index(entry["sets_of_seed"])] > 0.1
    assert "ner dev" in shown
    assert "ner, by label" in shown
    unit = run_of(place).path / "tasks" / entry["units"][0]
    data = read_json(unit / "manifest.json")["data"]
    assert data["tag_schemes"] == {"train": "IOB1", "dev": "IOB1", "test": "IOB1"}
    assert data["files"]["test"] == ["eng.testb"]
    assert set(data["share_of_words_cut"]) == {"train", "dev", "test"}
    written = (unit / "predictions" / "dev.tsv").read_text().split("\n\n")
    assert len(written) == 25
    assert all(len(line.split("\t")) == 3 for line in written[0].split("\n"))
    assert (unit / "predictions" / "test.tsv").is_file()

    spans = [f"tasks.ner.{side}_file={files / 'spans' / name}.jsonl" for side, name in SPANS]
    fine_tuned("task=ner", *spans, "tasks.ner.steps=150", "tasks.ner.strict=true", "tasks.ner.learning_rate=0.003")
    fine_tuned(f"task={NAME}", *SHORT)
    runs = load_runs(place / "runs")
    assert metric("task:ner").label == "NER F1"
    assert values(runs, "task:ner").iloc[0] in {e["score"] for e in run_of(place).read("results.json")["tasks"]}
    assert any(f"{100 * entry['score']:.1f}" in cell for cell in compare_tasks(runs)["best"])
    assert unfit(runs, f"task:{NAME}") is not None  # eight steps find nothing
    checks = [c for c in check(Run(run_of(place).path), files) if "ner" in c.where]
    assert [(c.where, c.reported, c.derived) for c in checks if c.state == DISAGREES] == []
    for unit in run_of(place).path.glob("tasks/ner*"):
        again = {c.where.rpartition("·")[2].strip(): c.state for c in checks if unit.name in c.where}
        assert {again[f"dev.{name}.value"] for name in ("f1", "precision", "recall")} == {AGREES}, unit


def test_pieces_with_labels_identify_only_tasks_on_words(place: Path, files: Path) -> None:
    def name(task: str, *words: str) -> str:
        config = with_tasks(place, f"task={task}", f"task.data_dir={files}", *words)
        return plan_units(config, run_of(place), "fp32")[0].folder.name

    assert name("era") == name("era", "task.label_pieces=all")
    assert name("ner") != name("ner", "task.label_pieces=all")
    assert name("ner") == name("ner", "task.pool=mean", "task.head=bare")
    assert name("ner") != name("ner", "tasks.ner.strict=true")
    assert name(NAME) != name(NAME, f"tasks.{NAME}.sentences=10")


@pytest.mark.parametrize(
    "words",
    [["share=none", "objective=none", "embed=full"], ["method=electra", "method.generator_width=1"],
     ["method=causal", "objective=none"], ["attention=bigbird", "attention.block=4", "attention.random=1"],
     ["block=mobilebert"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_every_kind_of_encoder_is_fine_tuned(
    words: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pretrained and fine-tuned by one command; what no class of transformers computes is refused with a remedy."""
    corpus = ["data=text", f"data.path={place / 'corpus.txt'}", "budget.steps=4", f"paths.runs={tmp_path / 'runs'}"]
    config = with_tasks(place, f"task={NAME}", *SHORT, "task.evaluations=1", *corpus, *words)
    assert start(config) == 0
    run = only_folder(config)
    (entry,) = run.read("results.json")["tasks"]
    assert entry["metric"] == "f1"
    unit = run.path / "tasks" / entry["units"][0]
    computed = words[0].startswith(("share", "method=electra"))
    if computed:
        assert export.main([str(unit), str(tmp_path / "out")]) == 0
        assert read_json(tmp_path / "out" / "config.json")["architectures"][0].endswith("ForTokenClassification")
    else:
        refused(capsys, export.main, unit, tmp_path / "out")


# --- predictions and export -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def unit(place: Path, files: Path) -> Path:
    run = run_of(place).path
    before = set(run.glob("tasks/ner-s0-*"))
    words = ["task=ner", f"task.data_dir={files}", "tasks.ner.steps=160", "tasks.ner.learning_rate=0.003"]
    assert finetune.main([str(run), *TINY, *ON_CPU, *words]) == 0
    (made,) = set(run.glob("tasks/ner-s0-*")) - before
    return made


def refused(capsys: pytest.CaptureFixture[str], main: Any, *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_words_and_texts_are_tagged(
    unit: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.testa"
    assert predict.main([str(unit), str(files / "eng.testa"), "--out", str(out)]) == 0
    ours = [[line.split("\t") for line in block.split("\n") if line] for block in out.read_text().split("\n\n")]
    theirs = (unit / "predictions" / "dev.tsv").read_text().split("\n\n")
    assert [[(c[0], c[3]) for c in block] for block in ours] == [
        [(c[0], c[2]) for c in (line.split("\t") for line in block.split("\n") if line)] for block in theirs
    ]
    assert predict.main([str(unit), str(files / "spans" / "testa.jsonl")]) == 2  # it has entities already
    rows = [json.loads(line) for line in (files / "spans" / "testa.jsonl").read_text().splitlines()]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"text": row["text"], "n": k}) + "\n" for k, row in enumerate(rows)))
    assert predict.main([str(unit), str(source)]) == 0
    made = [json.loads(line) for line in (tmp_path / "a.predicted.jsonl").read_text().splitlines()]
    assert [row["n"] for row in made] == list(range(len(rows)))
    assert sum(len(row["entities"]) for row in made) > 10
    for row in made:
        for entity in row["entities"]:
            assert row["text"][entity["start"] : entity["end"]].strip()
            assert 0 < entity["probability"] <= 1
    run = unit.parent.parent
    from_python = aa.load(run).predict(unit.name, [row["text"] for row in rows])
    assert [[e.start for e in cast(Any, of_text)] for of_text in from_python] == [
        [e["start"] for e in row["entities"]] for row in made
    ]
    for name, content, said in (
        ("a.csv", "text\na\n", "reads a .jsonl with a text in each line"), ("empty.txt", "\n\n", "no words"),
        ("b.jsonl", '{"x": "a"}\n', "no column 'text'"),
    ):  # fmt: skip
        (tmp_path / name).write_text(content)
        assert said in refused(capsys, predict.main, unit, tmp_path / name)
    assert "exists already" in refused(capsys, predict.main, unit, source)
    recorded = read_json(unit / "manifest.json")["answers"]
    assert recorded == {"kind": "tags", "names": ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]}
    assert not len(load_unit(unit, []).answerer.task.train)


def test_a_pipeline_gives_equal_tags(unit: Path, tmp_path: Path) -> None:
    """Each piece's label and probability; some texts are longer than the model reads."""
    assert export.main([str(unit), str(tmp_path / "out")]) == 0
    config = read_json(tmp_path / "out" / "config.json")
    assert config["architectures"] == ["AlbertForTokenClassification"]
    names = ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
    assert config["id2label"] == {str(k): name for k, name in enumerate(names)}
    model: Any = pipeline("token-classification", str(tmp_path / "out"), device="cpu", ignore_labels=[])
    texts = [s.text for s in generated_sentences(150)["train"]]
    texts[3] = " ".join(texts[:9])
    opened = load_unit(unit, [], on_cpu=True)
    task = opened.answerer.task
    assert isinstance(task, NerTask)
    features = task.of_words([text.split() for text in texts])
    outputs = opened.answerer.predict(features)
    seen = set()
    for row, (tags, positions, found) in enumerate(
        zip(task.word_tags(features, outputs), features.positions, model(texts), strict=True)
    ):
        by_place = {piece["index"]: piece for piece in found}
        assert sorted(by_place) == list(range(1, features.sequences.lengths[row] - 1))
        for (tag, chance), position in zip(tags, positions.tolist(), strict=True):
            if position:
                assert by_place[position]["entity"] == tag
                assert float(by_place[position]["score"]) == pytest.approx(chance, abs=1e-5)
                seen.add(tag)
    assert len(seen) > 3
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    exec(re.findall(r"```python\n(.*?)```", card, re.S)[0].replace("FOLDER", str(tmp_path / "out")), {})


def test_the_commands_and_files_of_the_page(unit: Path, place: Path, files: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    section = page.split("### Named entities\n")[1].split("\n### ")[0]
    lines = re.findall(r"^    python -m albert_ablate\.finetune runs/\.\.\. (.*)$", section, re.M)
    assert len(lines) == 3
    named = {
        "DATA": files,
        "train.jsonl": files / "spans" / "train.jsonl",
        "dev.jsonl": files / "spans" / "testa.jsonl",
    }
    for line in lines:
        words = [f"{key}={named.get(value, value)}" for key, _, value in (word.partition("=") for word in line.split())]
        name = words[0].removeprefix("task=")
        assert finetune.main([str(run_of(place).path), *TINY, *ON_CPU, *words, f"tasks.{name}.steps=2"]) == 0, line
    (rest,) = re.findall(r"^    python -m albert_ablate\.predict runs/NAME/tasks/ner-s0-\.\.\. (.*)$", page, re.M)
    (tmp_path / rest).write_text("Anna\nlives\n")
    assert predict.main([str(unit), str(tmp_path / rest)]) == 0
    blocks = re.findall(r"\n\n((?:    (?!python).*\n)+)", section)
    assert len(blocks) == 2
    for block, ending, labels in zip(blocks, (".txt", ".jsonl"), (["ORG", "PER"], ["LOC"]), strict=True):
        file = tmp_path / f"page{ending}"
        file.write_text(re.sub("^    ", "", block, flags=re.M))
        (sentence,) = read_file(file).sentences
        assert [label for _, _, label in sentence.spans(sentence.tags or ())] == labels
