"""Task files: official forms, packed or not, a user's own; and everything that can be wrong with them."""

import csv
import gzip
import json
import lzma
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from taskhelpers import sentiment, squad_content, task_config, write_race, write_squad, write_sst2, write_tsv

from albert_ablate.door.compose import compose
from albert_ablate.errors import DataError
from albert_ablate.tasks.load import locate, read
from albert_ablate.tasks.race import race_files, read_race
from albert_ablate.tasks.squad.data import read_squad
from albert_ablate.tasks.texts.examples import read_glue, read_text, task_files
from albert_ablate.tasks.texts.generated import ERAS, read_generated
from albert_ablate.tasks.texts.glue import GLUE
from albert_ablate.tasks.texts.sets import ExampleSets

PAIR = ["A plane takes off.", "A jet leaves."]
#: task -> (file, header or None, a good row, target) in the official form of gluebenchmark.com.
OFFICIAL = {
    "cola": ("CoLA/{}.tsv", None, ["gj04", "1", "", "He is here."], 1),
    "sst2": ("SST-2/{}.tsv", ["sentence", "label"], ["a fine film ", "1"], 1),
    "mrpc": ("MRPC/{}.tsv", ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], ["1", "7", "8", *PAIR], 1),
    "stsb": ("STS-B/{}.tsv", ["index", "genre", "sentence1", "sentence2", "score"], ["0", "x", *PAIR, "3.8"], (3.8,)),
    "qqp": (
        "QQP/{}.tsv", ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"], ["0", "1", "2", *PAIR, "0"], 0
    ),
    "qnli": ("QNLI/{}.tsv", ["index", "question", "sentence", "label"], ["0", *PAIR, "not_entailment"], 1),
    "rte": ("RTE/{}.tsv", ["index", "sentence1", "sentence2", "label"], ["0", *PAIR, "entailment"], 0),
    "wnli": ("WNLI/{}.tsv", ["index", "sentence1", "sentence2", "label"], ["0", *PAIR, "1"], 1),
    "mnli": (
        "MNLI/{}.tsv", ["index", "sentence1", "sentence2", "label1", "gold_label"],
        ["0", *PAIR, "neutral", "neutral"], 2,
    ),
}  # fmt: skip


def load_glue(name: str, folder: Path, *more: str) -> ExampleSets:
    config = compose([f"task={name}", f"task.data_dir={folder}", *more])
    task = config.tasks[name]
    return read_glue(task, task_files(config.task, task))  # type: ignore[arg-type]


def write_official(name: str, folder: Path, row: list[str] | None = None) -> None:
    file, header, good, _ = OFFICIAL[name]
    for side in ("train", *GLUE[name].dev.values()):
        write_tsv(folder / file.format(side), header or good, [row or good])


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files(name: str, tmp_path: Path) -> None:
    write_official(name, tmp_path)
    sets = load_glue(name, tmp_path)
    *_, target = OFFICIAL[name]
    (train,) = sets.train[:1]
    assert train.target == target
    assert list(sets.dev) == list(GLUE[name].dev)
    assert (train.second is None) == (GLUE[name].second is None)
    assert train.first in (PAIR[0], "He is here.", "a fine film ")


def test_label_order_is_the_released_one() -> None:
    assert GLUE["mnli"].labels == ("contradiction", "entailment", "neutral")
    assert GLUE["qnli"].labels == GLUE["rte"].labels == ("entailment", "not_entailment")


def test_cola_with_and_without_a_header(tmp_path: Path) -> None:
    rows = [["gj04", "1", "", "He is here."], ["gj04", "0", "*", "He here is."]]
    write_tsv(tmp_path / "CoLA" / "train.tsv", rows[0], rows[1:])
    write_tsv(tmp_path / "CoLA" / "dev.tsv", ["source", "label", "orig_judgement", "sentence"], rows)
    sets = load_glue("cola", tmp_path)
    assert [e.first for e in sets.train] == [e.first for e in sets.dev["dev"]] == ["He is here.", "He here is."]


@pytest.mark.parametrize("packed", [".xz", ".gz"])
def test_packed_files_and_a_lone_subset(tmp_path: Path, packed: str) -> None:
    write_sst2(tmp_path / "plain")
    openers: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
    (tmp_path / "sst2").mkdir()
    for side, name in (("train", "train-subset"), ("dev", "dev")):
        with openers[packed](tmp_path / "sst2" / f"{name}.tsv{packed}", "wt", encoding="utf-8") as out:
            out.write((tmp_path / "plain" / "SST-2" / f"{side}.tsv").read_text())
    found, plain = load_glue("sst2", tmp_path), load_glue("sst2", tmp_path / "plain")
    assert found.train == plain.train
    assert found.dev == plain.dev


def test_quotes_are_letters_in_tsv_and_quotes_in_csv(tmp_path: Path) -> None:
    write_tsv(tmp_path / "a.tsv", ["text", "label"], [['"Quoted" and 3" wide', "x"], ['"', "y"]])
    with (tmp_path / "b.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["text", "label"], ['one, "two"\nthree', "x"], ["four", "y"]])
    task = task_config(
        "text_classification", f"tasks.text_classification.train_file={tmp_path / 'a.tsv'}",
        f"tasks.text_classification.dev_file={tmp_path / 'b.csv'}",
    )  # fmt: skip
    sets = read_text(task, {"train": tmp_path / "a.tsv", "dev": tmp_path / "b.csv"})
    assert [e.first for e in sets.train] == ['"Quoted" and 3" wide', '"']
    assert [e.first for e in sets.dev["dev"]] == ['one, "two"\nthree', "four"]
    assert sets.names == ("x", "y")


def test_mnli_without_a_gold_label_is_counted(tmp_path: Path) -> None:
    write_official("mnli", tmp_path)
    good, bad = ["0", *PAIR, "neutral", "neutral"], ["1", *PAIR, "neutral", "-"]
    write_tsv(tmp_path / "MNLI" / "train.tsv", OFFICIAL["mnli"][1] or [], [good, bad])
    sets = load_glue("mnli", tmp_path)
    assert len(sets.train) == 1
    assert sets.counts["rows_without_a_gold_label_left_out"] == 1


def test_short_rows_of_qqp_are_counted_and_of_others_refused(tmp_path: Path) -> None:
    write_official("qqp", tmp_path)
    with (tmp_path / "QQP" / "train.tsv").open("a") as out:
        out.write("5\t6\t7\tonly one question\n")
    sets = load_glue("qqp", tmp_path)
    assert sets.counts["rows_with_missing_fields_left_out"] == 1
    write_official("rte", tmp_path)
    with (tmp_path / "RTE" / "train.tsv").open("a") as out:
        out.write("5\tonly one sentence\n")
    with pytest.raises(DataError, match=r"RTE/train.tsv, line 3: 2 fields, but 4 columns are expected"):
        load_glue("rte", tmp_path)


def own(folder: Path, kind: str, train: str, *more: str) -> ExampleSets:
    path = folder / "train.jsonl"
    path.write_text(train, encoding="utf-8")
    config = compose([f"task={kind}", f"tasks.{kind}.train_file={path}", *more])
    task = config.tasks[kind]
    return read_text(task, task_files(config.task, task))  # type: ignore[arg-type]


def json_lines(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_many_labels_and_many_targets(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"title": f"t{i}", "body": f"b{i}", "a": i % 2, "b": 1, "x": i / 10, "y": -i} for i in range(100)
    ]
    columns = "text_columns=[title,body]"
    labels = own(
        tmp_path, "text_classification", json_lines(rows), f"tasks.text_classification.{columns}",
        "tasks.text_classification.target_columns=[a,b]",
    )  # fmt: skip
    assert labels.kind == "labels"
    assert {e.target for e in labels.train} == {(0.0, 1.0), (1.0, 1.0)}
    values = own(
        tmp_path, "text_regression", json_lines(rows), f"tasks.text_regression.{columns}",
        "tasks.text_regression.target_columns=[x,y]",
    )  # fmt: skip
    assert values.kind == "values"
    assert values.train[0].second is not None
    assert 3 <= len(values.dev["dev"]) <= 25, "a tenth is held out by a hash of the text"
    assert not {e.first for e in values.train} & {e.first for e in values.dev["dev"]}


GOOD_ROW = {"text": "a", "label": "x"}
WRONG_OWN: dict[str, tuple[str, list[str], list[str]]] = {
    "not JSON": ('{"text": "a"\n', [], ["line 1", "not JSON"]),
    "not an object": ("[1]\n", [], ["line 1", "a JSON object is expected"]),
    "a missing column": (json_lines([GOOD_ROW, {"text": "b"}]), [], ["line 2", "no column 'label'", "text"]),
    "an empty text": (json_lines([GOOD_ROW, {"text": " ", "label": "y"}]), [], ["line 2", "'text' is empty"]),
    "a single label": (json_lines([GOOD_ROW] * 3), [], ["single label 'x'"]),
    "an unknown label": (
        json_lines([GOOD_ROW, {"text": "b", "label": "z"}]), ["tasks.text_classification.labels=[x,y]"],
        ["line 2", "unknown label 'z'", "x, y"],
    ),
    "a double id": (
        json_lines([GOOD_ROW | {"key": 1}, {"text": "b", "label": "y", "key": 1}]),
        ["tasks.text_classification.id_column=key"], ["line 2", "'1'", "line 1", "ids must differ"],
    ),
    "a label that is neither 0 nor 1": (
        json_lines([{"text": "a", "p": 1, "q": 2}]), ["tasks.text_classification.target_columns=[p,q]"],
        ["line 1", "unknown label '2'"],
    ),
    "no rows": ("", [], ["no rows"]),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_OWN)
def test_wrong_files_of_a_user(what: str, tmp_path: Path) -> None:
    content, more, words = WRONG_OWN[what]
    with pytest.raises(DataError) as caught:
        own(tmp_path, "text_classification", content, *more)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_target_that_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: 'high' in column 'score' is not a number"):
        own(tmp_path, "text_regression", json_lines([{"text": "a", "score": 1}, {"text": "b", "score": "high"}]))


def no_sst2(folder: Path) -> None:
    load_glue("sst2", folder)


def two_candidates(folder: Path) -> None:
    write_tsv(folder / "train-a.tsv", ["sentence", "label"], sentiment(2, 0))
    write_tsv(folder / "train-b.tsv", ["sentence", "label"], sentiment(2, 0))
    load_glue("sst2", folder)


def unknown_glue_label(folder: Path) -> None:
    write_official("rte", folder, ["0", *PAIR, "neutral"])
    load_glue("rte", folder)


def wrong_columns(folder: Path) -> None:
    write_tsv(folder / "SST-2" / "train.tsv", ["text", "label"], sentiment(2, 0))
    write_sst2(folder / "x")
    load_glue("sst2", folder, f"tasks.sst2.dev_file={folder / 'x/SST-2/dev.tsv'}")


def damaged(folder: Path) -> None:
    write_sst2(folder)
    packed = lzma.compress((folder / "SST-2" / "train.tsv").read_bytes())
    (folder / "SST-2" / "train.tsv").unlink()
    (folder / "SST-2" / "train.tsv.xz").write_bytes(packed[:-20])
    load_glue("sst2", folder)


def squad_file(change: Callable[[dict[str, Any]], None], version: str = "1.1") -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        content = squad_content(4, 0)
        change(content["data"][0]["paragraphs"][1])
        (folder / "f.json").write_text(json.dumps(content))
        read_squad(folder / "f.json", version)

    return act


def cut_json(folder: Path) -> None:
    (folder / "f.json").write_text(json.dumps(squad_content(4, 0), indent=1)[:-30])
    read_squad(folder / "f.json", "1.1")


def race_row(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        write_race(folder)
        path = folder / "RACE" / "train" / "middle" / "3.txt"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        config = compose(["task=race", f"task.data_dir={folder}"])
        task = config.tasks["race"]
        read_race(task, race_files(config.task, task), "train")  # type: ignore[arg-type]

    return act


WRONG: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "no folder given": (lambda f: load_glue_without_folder(), ["task.data_dir=FOLDER", "task.source=hub"]),
    "no such file": (no_sst2, ["tasks.sst2.train_file", "train.tsv", ".xz"]),
    "two candidates": (two_candidates, ["train-a.tsv", "train-b.tsv", "Name one"]),
    "an unknown label of GLUE": (unknown_glue_label, ["line 2", "'neutral'", "entailment, not_entailment"]),
    "other columns": (wrong_columns, ["line 2", "no column 'sentence'", "there are text, label"]),
    "a damaged archive": (damaged, ["train.tsv.xz", "damaged .xz file"]),
    "cut JSON": (cut_json, ["f.json, line", "not JSON"]),
    "a question without id": (squad_file(lambda p: p["qas"][0].pop("id")), ["paragraph 2", "question 3", "'id'"]),
    "a double question id": (
        squad_file(lambda p: p["qas"][1].update(id=p["qas"][0]["id"])), ["occurs twice", "0-1-"]
    ),
    "1.1 without an answer": (squad_file(lambda p: p["qas"][0].update(answers=[])), ["no answer", "is it 2.0"]),
    "three options": (race_row(lambda c: c["options"][1].pop()), ["3.txt, line 1", "question 2", "four options"]),
    "answer E": (race_row(lambda c: c.update(answers=["A", "E"])), ["question 2", "answer A to D"]),
    "no article": (race_row(lambda c: c.pop("article")), ["not RACE's layout", "'article'"]),
    "fewer answers": (race_row(lambda c: c.update(answers=["A"])), ["not RACE's layout"]),
}  # fmt: skip


def load_glue_without_folder() -> None:
    config = compose(["task=sst2"])
    locate(config.task, config.tasks["sst2"])


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files(what: str, tmp_path: Path) -> None:
    act, words = WRONG[what]
    with pytest.raises(DataError) as caught:
        act(tmp_path)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_race_in_all_its_forms(tmp_path: Path) -> None:
    """One .txt a passage, all.txt, and .jsonl give the same questions."""
    write_race(tmp_path / "a")
    for side in ("train", "dev"):
        for level in ("middle", "high"):
            texts = [p.read_text() for p in sorted((tmp_path / "a" / "RACE" / side / level).glob("*.txt"))]
            for target in (tmp_path / "b" / side / level / "all.txt", tmp_path / "c" / f"{side}-{level}.jsonl"):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text("\n".join(texts) + "\n")
    found = []
    for folder in "abc":
        config = compose(["task=race", f"task.data_dir={tmp_path / folder}"])
        task = config.tasks["race"]
        found.append(read_race(task, race_files(config.task, task), "dev"))  # type: ignore[arg-type]
    assert found[0] == found[1] == found[2]
    assert {q.level for q in found[0]} == {"middle", "high"}
    assert all(q.article.startswith(f"Anna lives in {q.options[q.answer]}") for q in found[0])


def test_a_squad_answer_that_is_elsewhere_is_counted_and_left_out(tmp_path: Path) -> None:
    from taskhelpers import tokenizer_of

    write_squad(tmp_path)
    content = json.loads((tmp_path / "train-v1.1.json").read_text())
    content["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 3
    (tmp_path / "train-v1.1.json").write_text(json.dumps(content))
    config = compose(["task=squad11", f"task.data_dir={tmp_path}"])
    made = read(locate(config.task, config.tasks["squad11"]))(tokenizer_of(tmp_path), 64)
    assert made.counts["questions_left_out_because_the_answer_is_not_where_the_file_says"] == 1
    assert made.examples == 15


@pytest.mark.parametrize("name", ["era", "word_order"])
def test_generated_tasks(name: str) -> None:
    sets = read_generated(task_config(name, f"tasks.{name}.train_examples=400", f"tasks.{name}.dev_examples=200"))
    again = read_generated(task_config(name, f"tasks.{name}.train_examples=400", f"tasks.{name}.dev_examples=200"))
    assert sets.train == again.train
    classes = len(ERAS) if name == "era" else 2
    for examples, count in ((sets.train, 400), (sets.dev["dev"], 200)):
        assert len(examples) == count
        assert all(sum(e.target == k for e in examples) == count // classes for k in range(classes))
    addresses = [{e.id.rpartition("-")[0] for e in side} for side in (sets.train, sets.dev["dev"])]
    assert not addresses[0] & addresses[1], "an address stands on one side only"


def test_the_hub_through_the_same_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's class numbers become words: its MNLI has another order than the released code."""
    import datasets

    names = ["entailment", "neutral", "contradiction"]
    kinds = datasets.Features(
        {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string"),
         "label": datasets.ClassLabel(names=names), "idx": datasets.Value("int32")}
    )  # fmt: skip
    rows = {"premise": ["p"] * 4, "hypothesis": ["h"] * 4, "label": [0, 1, 2, -1], "idx": [0, 1, 2, 3]}
    asked = []

    def fake(path: str, config: str, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((path, config, split))
        return datasets.Dataset.from_dict(rows, features=kinds)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    config = compose(["task=mnli", "task.source=hub"])
    source = locate(config.task, config.tasks["mnli"])
    assert source.files is None
    sets = read_glue(config.tasks["mnli"], None)  # type: ignore[arg-type]
    words = [GLUE["mnli"].labels[e.target] for e in sets.train]  # type: ignore[index]
    assert words == names
    assert sets.counts["rows_without_a_gold_label_left_out"] == 3
    assert asked == [("nyu-mll/glue", "mnli", s) for s in ("train", "validation_matched", "validation_mismatched")]


def test_limits_take_the_same_examples(tmp_path: Path) -> None:
    write_sst2(tmp_path)
    config = compose(["task=sst2", f"task.data_dir={tmp_path}", "tasks.sst2.max_train=10"])
    from taskhelpers import tokenizer_of

    made = [read(locate(config.task, config.tasks["sst2"]))(tokenizer_of(tmp_path), 32) for _ in range(2)]
    assert made[0].examples == made[1].examples == 10
    assert made[0].counts["dev"] == {"dev": 32}
