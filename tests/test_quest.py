"""Google QUEST: its columns, its file with everything that can be wrong with it, folds, and scores by hand."""

import csv
import io
import re
import shlex
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runhelpers import ROOT
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from taskhelpers import pretrained, task_config, tokenizer_of
from torch.nn import functional as F

from albert_ablate.config.tasks import QuestConfig
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.tasks.load import locate, read
from albert_ablate.tasks.quest import scores
from albert_ablate.tasks.quest.columns import ANSWER, HEADER, INPUTS, QUESTION, TARGETS
from albert_ablate.tasks.quest.data import QuestExample, folds_of, read_quest
from albert_ablate.tasks.quest.generated import EMPTY, quest_table
from albert_ablate.tasks.quest.task import QuestTask
from albert_ablate.tasks.task import TaskBatch

NAMES = TARGETS["paper"]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def written(file: Path, rows: list[dict[str, str]], header: tuple[str, ...] = HEADER) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as lines:
        table = csv.DictWriter(lines, header, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return file


def load(folder: Path, *more: str) -> Any:
    """The examples of ``folder/train.csv``."""
    config = compose(["task=quest", f"task.data_dir={folder}", *more])
    source = locate(config.task, config.tasks["quest"])
    assert source.files is not None
    return read_quest(config.tasks["quest"], {name: paths[0] for name, paths in source.files.items()})  # type: ignore[arg-type]


def made(folder: Path, *more: str, name: str = "quest_generated") -> QuestTask:
    """The generated task as model inputs."""
    pretrained(folder)
    config = compose([f"task={name}", f"tasks.{name}.questions=30", *more])
    task = read(locate(config.task, config.tasks[name]))(tokenizer_of(folder), 32)
    assert isinstance(task, QuestTask)
    return task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quest")


# --- columns and files ------------------------------------------------------------------------------------------------


def test_the_columns_of_the_file() -> None:
    assert len(HEADER) == 41
    assert (len(INPUTS), len(QUESTION), len(ANSWER)) == (11, 21, 9)
    assert tuple(rows_of(quest_table(1))[0]) == HEADER
    of_question = list(HEADER[11:32])
    del of_question[1]
    assert list(NAMES) == of_question
    assert len(NAMES) == 20
    assert "question_body_critical" not in NAMES
    assert TARGETS["all"] == HEADER[11:]
    assert TARGETS["question"] == HEADER[11:32]


def test_difficult_texts_survive(tmp_path: Path) -> None:
    rows = rows_of(quest_table(12))
    body = 'He said "no",\nthen &quot;yes&quot; &amp; left.\n\n    x = 1\n' + "word " * 1400
    rows[3]["question_body"] = body.strip()
    written(tmp_path / "train.csv", rows)
    sets = load(tmp_path)
    found = {example.id: example for example in (*sets.train, *sets.dev["dev"])}
    assert len(found) == len(rows)
    for row in rows:
        example = found[row["qa_id"]]
        assert isinstance(example, QuestExample)
        assert example.first == f"{row['question_title']} {row['question_body']}"
        assert example.second is None
        assert example.title == row["question_title"]
        assert example.target == pytest.approx([float(row[name]) for name in NAMES], abs=1e-9)
    assert b"\r" not in (tmp_path / "train.csv").read_bytes()


@pytest.mark.parametrize(("chosen", "count"), [("paper", 20), ("question", 21), ("all", 30)])
def test_targets(tmp_path: Path, chosen: str, count: int) -> None:
    written(tmp_path / "train.csv", rows_of(quest_table(25)))
    sets = load(tmp_path, f"tasks.quest.targets={chosen}")
    assert len(sets.names) == count == len(sets.train[0].target)


def test_inputs(tmp_path: Path) -> None:
    rows = {row["qa_id"]: row for row in rows_of(quest_table(25))}
    written(tmp_path / "train.csv", list(rows.values()))
    for example in load(tmp_path, "tasks.quest.input=pair").train:
        row = rows[example.id]
        assert (example.first, example.second) == (row["question_title"], row["question_body"])
    for example in load(tmp_path, "tasks.quest.input=question_answer").train:
        row = rows[example.id]
        assert (example.first, example.second) == (f"{row['question_title']} {row['question_body']}", row["answer"])


def test_both_spellings_of_two_thirds_are_one_value(tmp_path: Path) -> None:
    rows = rows_of(quest_table(25))
    for place, row in enumerate(rows):
        row["question_fact_seeking"] = ("0.6666666666666666", "0.6666666666666667")[place % 2]
    written(tmp_path / "train.csv", rows)
    sets = load(tmp_path)
    place = NAMES.index("question_fact_seeking")
    assert {example.target[place] for example in sets.train} == {0.666666667}


Change = Callable[[list[dict[str, str]]], Any]
_FAULTS: dict[str, tuple[Change, list[str]]] = {
    "above 1": (lambda rows: rows[2].update(question_type_choice="1.5"), ["'1.5'", "question_type_choice", "line"]),
    "below 0": (lambda rows: rows[2].update(question_type_choice="-0.1"), ["'-0.1'", "question_type_choice"]),
    "no number": (lambda rows: rows[0].update(question_well_written="high"), ["'high'", "question_well_written"]),
    "empty target": (lambda rows: rows[0].update(question_well_written=""), ["''", "question_well_written"]),
    "not a number": (lambda rows: rows[0].update(question_conversational="nan"), ["'nan'", "question_conversational"]),
    "empty body": (lambda rows: rows[1].update(question_body=" "), ["question_body", "empty"]),
    "an id twice": (lambda rows: rows[4].update(qa_id=rows[1]["qa_id"]), ["qa_id", "already on line"]),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_faulty_rows_are_refused(tmp_path: Path, fault: str) -> None:
    change, words = _FAULTS[fault]
    rows = rows_of(quest_table(8))
    change(rows)
    file = written(tmp_path / "train.csv", rows)
    with pytest.raises(DataError) as refused:
        load(tmp_path)
    for word in (str(file), *words):
        assert word in str(refused.value)


def test_a_fault_names_the_last_line_of_its_row(tmp_path: Path) -> None:
    rows = rows_of(quest_table(3))[:2]
    rows[0]["question_body"], rows[1]["question_body"] = "one\ntwo\nthree", "four"
    rows[1]["question_type_choice"] = "2"
    written(tmp_path / "train.csv", rows)
    with pytest.raises(DataError, match="line 5: '2' in column 'question_type_choice'"):
        load(tmp_path)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    rows = rows_of(quest_table(4))
    lacking = tuple(name for name in HEADER if name != "question_type_spelling")
    swapped = (HEADER[1], HEADER[0], *HEADER[2:])
    for header, words in (
        (lacking, ["column 31", "'question_well_written'", "'question_type_spelling' belongs there"]),
        (swapped, ["column 1 is 'question_title'", "'qa_id' belongs there"]),
        (HEADER[:-1], ["40 columns", "'answer_well_written' is the first that is missing"]),
        (INPUTS, ["11 columns", "looks like test.csv"]),
        ((*HEADER, "more"), ["42 columns", "'more' is one too many"]),
    ):
        written(tmp_path / "train.csv", rows, header)
        with pytest.raises(DataError) as refused:
            load(tmp_path)
        for word in words:
            assert word in str(refused.value)


def test_without_the_file_the_message_says_where_it_is_from() -> None:
    config = compose(["task=quest"])
    with pytest.raises(DataError) as refused:
        locate(config.task, config.tasks["quest"])
    for word in ("google-quest-challenge", "train.csv", "task.data_dir=FOLDER", "task=quest_generated"):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tasks.quest.fold=5"], "tasks.quest.fold=5: tasks.quest.folds=5"),
        (["tasks.quest.folds=1"], "folds"),
        (["tasks.quest.source=generated", "tasks.quest.dev_file=x.csv"], "tasks.quest.dev_file=x.csv: no effect"),
        (["tasks.quest.targets=answer"], "targets"),
        (["task.augment.copies=2", "task.augment.masked_lm=pretraining"], "quest"),
    ],
)
def test_settings_are_refused(words: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(["task=quest", *words])
    assert named in str(refused.value)


# --- folds ------------------------------------------------------------------------------------------------------------


def test_a_question_is_on_one_side(tmp_path: Path) -> None:
    rows = rows_of(quest_table(60))
    written(tmp_path / "train.csv", rows)
    held_out = []
    for fold in range(3):
        sets = load(tmp_path, "tasks.quest.folds=3", f"tasks.quest.fold={fold}")
        train, dev = ({e.question for e in side} for side in (sets.train, sets.dev["dev"]))
        assert not train & dev
        assert len(sets.train) + len(sets.dev["dev"]) == len(rows)
        assert sets.counts["questions"] == {"train": len(train), "dev": len(dev)}
        held_out += [e.id for e in sets.dev["dev"]]
    assert sorted(held_out) == sorted(row["qa_id"] for row in rows), "every row is in one fold"
    assert max(defaultdict(int, dict.fromkeys(train, 0)).values()) == 0
    assert len({row["question_body"] for row in rows}) < len(rows), "questions repeat"


def test_folds_depend_on_the_text_alone() -> None:
    texts = [f"body {n}" for n in range(500)]
    folds = folds_of(texts, 5)
    assert (folds_of(texts[::-1], 5)[::-1] == folds).all()
    assert (np.bincount(folds, minlength=5) > 60).all()


def test_a_fold_without_rows_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", rows_of(quest_table(1)))
    with pytest.raises(DataError, match=r"tasks\.quest\.folds=5 leaves"):
        load(tmp_path)


def test_a_dev_file_of_the_user(tmp_path: Path) -> None:
    rows = rows_of(quest_table(20))
    written(tmp_path / "train.csv", rows[:30])
    dev = written(tmp_path / "mine.csv", rows[30:])
    sets = load(tmp_path, f"tasks.quest.dev_file={dev}")
    assert [e.id for e in sets.train] == [row["qa_id"] for row in rows[:30]]
    assert [e.id for e in sets.dev["dev"]] == [row["qa_id"] for row in rows[30:]]


def test_test_csv_is_read_where_it_lies_beside(tmp_path: Path) -> None:
    rows = rows_of(quest_table(20))
    written(tmp_path / "train.csv", rows[:-5])
    written(tmp_path / "test.csv", rows[-5:], INPUTS)
    sets = load(tmp_path)
    assert [e.id for e in sets.test["test"]] == [row["qa_id"] for row in rows[-5:]]
    assert all(e.target is None for e in sets.test["test"])


# --- the generated table ----------------------------------------------------------------------------------------------


def test_the_generated_table() -> None:
    text = quest_table(200)
    rows = rows_of(text)
    assert "\r" not in text
    assert text == quest_table(200)
    ids = [int(row["qa_id"]) for row in rows]
    assert ids == sorted(set(ids))
    assert ids[-1] > len(ids), "with gaps"
    answers = defaultdict(set)
    for row in rows:
        answers[row["url"]].add(row["answer_user_page"])
    assert {len(pages) for pages in answers.values()} == {1, 2, 3, 4}
    assert any("\n" in row["question_body"] for row in rows)
    assert any("&quot;" in row["question_body"] for row in rows)
    assert {row[EMPTY] for row in rows} == {"0.0"}
    values = {row[name] for row in rows for name in QUESTION}
    assert {"0.6666666666666666", "0.6666666666666667", "0.3333333333333333", "0.5", "0.0", "1.0"} <= values
    assert all(0 <= float(value) <= 1 for value in values)
    assert min(float(row["answer_helpful"]) for row in rows) >= 1 / 3
    assert {round(float(row["answer_satisfaction"]) * 30, 6) % 1 for row in rows} == {0.0}


# --- scores -----------------------------------------------------------------------------------------------------------


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_ranks_by_hand() -> None:
    gold, predicted = column(0, 0, 0, 0.5, 1), column(0.1, 0.2, 0.3, 0.4, 0.5)
    assert scores.spearman_by_column(predicted, gold)[0] == pytest.approx(0.8944, abs=5e-5)
    assert scores.spearman_by_column(np.exp(5 * predicted), gold)[0] == pytest.approx(0.8944, abs=5e-5)
    moved = scores.discretised(predicted[:, 0], gold[:, 0])
    assert moved.tolist() == gold[:, 0].tolist()
    assert scores.spearman_by_column(moved[:, None], gold)[0] == pytest.approx(1.0)


def test_scores_are_those_of_the_libraries() -> None:
    draw = np.random.default_rng(0)
    gold, predicted = draw.integers(0, 4, (80, 6)) / 3, draw.random((80, 6))
    predicted[:, :3] = 0.7 * gold[:, :3] + 0.3 * predicted[:, :3]
    ours = scores.spearman_by_column(predicted, gold)
    assert ours == pytest.approx([stats.spearmanr(predicted[:, k], gold[:, k]).statistic for k in range(6)])
    gold[:, 5] = 0.5
    assert scores.mean_r2(predicted, gold) == pytest.approx(r2_score(gold, predicted))
    assert scores.squared_errors(predicted, gold).mean() == pytest.approx(mean_squared_error(gold, predicted))
    assert abs(predicted - gold).mean() == pytest.approx(mean_absolute_error(gold, predicted))
    predicted[:, 5] = 0.5
    assert scores.mean_r2(predicted, gold) == pytest.approx(r2_score(gold, predicted))


def test_copies_of_rows_count_as_rows() -> None:
    draw = np.random.default_rng(5)
    gold, predicted = draw.integers(0, 3, (30, 4)) / 2, draw.random((30, 4)).round(1)
    gold[:25, 3] = 0
    copies = draw.integers(0, 3, 30)
    copies[25:] = 0
    rows = np.repeat(np.arange(30), copies)
    ours = scores.correlations(scores.Ranks(predicted), scores.Ranks(gold), copies.astype(float))
    by_rows = [stats.spearmanr(predicted[rows, k], gold[rows, k]).statistic for k in range(3)]
    assert ours[:3] == pytest.approx(by_rows)
    assert np.isnan(ours[3]), "without variation among the rows that are drawn"


def test_the_rule_for_targets_without_variation() -> None:
    gold = np.array([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]])
    predicted = np.array([[0.1, 0.3], [0.2, 0.1], [0.9, 0.2]])
    assert scores.mean_spearman(predicted, gold, "skip") == pytest.approx(1.0)
    assert scores.mean_spearman(predicted, gold, "zero") == pytest.approx(0.5)
    assert np.isnan(scores.mean_spearman(predicted, gold, "nan"))
    assert np.isnan(scores.mean_spearman(predicted, gold[:, 1:].repeat(2, 1), "skip"))
    same = np.full_like(predicted, 0.4)
    assert scores.mean_spearman(same, gold, "skip") == 0, "to predict one value is no reason to be left out"


def test_discretising_keeps_the_training_proportions_and_ties() -> None:
    train = np.repeat([0.0, 1 / 3, 0.5, 1.0], [70, 20, 9, 1])
    predicted = np.random.default_rng(1).permutation(np.linspace(0.2, 0.8, 20))
    moved = scores.discretised(predicted, train)
    values, counts = np.unique(moved, return_counts=True)
    assert values == pytest.approx([0, 1 / 3, 0.5, 1])
    assert counts.tolist() == [14, 4, 1, 1], "a rare value is given once"
    assert (np.diff(moved[np.argsort(predicted)]) >= 0).all()
    assert len(set(scores.discretised(np.full(9, 0.3), train))) == 1, "equal predictions stay equal"
    assert len(scores.discretised(predicted[:2], train)) == 2, "fewer predictions than values"


def test_the_error_of_the_training_mean_is_the_variance(folder: Path) -> None:
    task = made(folder)
    train = np.array([e.target for e in task.sets.train])
    error = scores.squared_errors(np.broadcast_to(train.mean(0), train.shape), train).mean()
    assert error == pytest.approx(train.var(0).mean())
    assert scores.mean_r2(np.broadcast_to(train.mean(0), train.shape), train) == pytest.approx(
        1 / 20 if (train[:, NAMES.index(EMPTY)] == 0).all() else 0, abs=1e-9
    )


class Fixed(torch.nn.Module):
    """A model with given logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, batch: TaskBatch) -> torch.Tensor:
        return self.logits[: len(batch)]


def test_the_least_cross_entropy_is_the_entropy_of_the_labels(folder: Path) -> None:
    task = made(folder)
    batch = task.train.batch(np.arange(4))
    p = batch.targets.double().clamp(1e-9, 1 - 1e-9)
    least = task.loss(Fixed(torch.logit(p)), batch)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean(1).sum()
    assert float(least) == pytest.approx(float(entropy), rel=1e-5)
    worse = task.loss(Fixed(torch.logit(p) + 0.3), batch)
    assert float(worse) > float(least)
    by_hand = F.binary_cross_entropy((torch.logit(p) + 0.3).sigmoid(), batch.targets.double(), reduction="sum") / 20
    assert float(worse) == pytest.approx(float(by_hand), rel=1e-5)


def test_squared_error_as_loss(folder: Path) -> None:
    task = made(folder, "tasks.quest_generated.loss=mse")
    batch = task.train.batch(np.arange(3))
    logits = torch.zeros(3, 20)
    assert float(task.loss(Fixed(logits), batch)) == pytest.approx(float(((0.5 - batch.targets) ** 2).mean(1).sum()))


# --- predictions ------------------------------------------------------------------------------------------------------


def test_the_submission_file_and_the_table_by_target(folder: Path) -> None:
    task = made(folder, "tasks.quest_generated.targets=all")
    count = len(task.dev["dev"])
    logits = np.random.default_rng(3).normal(0, 4, (count, 30)).astype(np.float32)
    files = task.files("dev", {"logits": logits})
    rows = rows_of(files["dev.csv"])
    assert tuple(rows[0]) == ("qa_id", *HEADER[11:])
    assert [row["qa_id"] for row in rows] == [e.id for e in task.sets.dev["dev"]]
    given = np.array([[float(row[name]) for name in HEADER[11:]] for row in rows])
    assert given == pytest.approx(1 / (1 + np.exp(-logits.astype(float))), abs=1e-6)
    assert ((given >= 0) & (given <= 1)).all()
    gold = np.array([e.target for e in task.sets.dev["dev"]])
    by_target = rows_of(files["dev_by_target.csv"])
    assert [row["target"] for row in by_target] == list(HEADER[11:])
    errors = [float(row["mean_squared_error"]) for row in by_target]
    assert errors == pytest.approx(((given - gold) ** 2).mean(0), rel=1e-3)
    record = task.scores("dev", {"logits": logits}).metrics
    assert record["mean_squared_error"]["value"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert record["targets_scored_by_spearman"] == sum(row["spearman"] != "" for row in by_target) < 30
    for metric in ("mean_squared_error", "mean_absolute_error", "r2", "spearman"):
        low, high = record[metric]["interval"]
        assert low <= record[metric]["value"] <= high
    mean = np.array([e.target for e in task.sets.train]).mean(0)
    assert [float(row["mean_squared_error_of_the_mean"]) for row in by_target] == pytest.approx(
        ((gold - mean) ** 2).mean(0), rel=1e-4, abs=1e-9
    )
    assert task.baselines(False)["dev"]["score"]["majority"] == pytest.approx(((gold - mean) ** 2).mean())


def test_discretising_changes_no_error(folder: Path) -> None:
    logits = np.random.default_rng(4).normal(0, 2, (len(made(folder).dev["dev"]), 20)).astype(np.float32)
    records = {
        value: made(folder, f"tasks.quest_generated.discretise={value}").scores("dev", {"logits": logits}).metrics
        for value in ("none", "ranks", "first_place")
    }
    for metric in ("mean_squared_error", "mean_absolute_error", "r2", "spearman", "by_target"):
        assert records["none"][metric] == records["ranks"][metric] == records["first_place"][metric]
    assert "spearman_discretised" not in records["none"]
    whole = records["ranks"]
    gain = whole["spearman_discretised"]["value"] - whole["spearman"]["value"]
    assert whole["discretising_gain"]["value"] == pytest.approx(gain)
    assert records["first_place"]["discretising_gain"]["value"] != pytest.approx(gain)


def test_passes(folder: Path) -> None:
    """The second sequence of an example is [CLS] title [SEP]."""
    task, single = made(folder), made(folder, "tasks.quest_generated.title_pass=false")
    assert (task.train.choices, single.train.choices) == (2, 1)
    tokenizer = tokenizer_of(folder)
    batch = task.train.batch(np.array([0, 3]))
    whole, titles = batch.passes()
    alone = single.train.batch(np.array([0, 3]))
    for name, tensor in alone.tensors().items():
        assert torch.equal(getattr(whole, name), tensor), name
    for row, place in enumerate((0, 3)):
        example = task.sets.train[place]
        assert isinstance(example, QuestExample)
        ids = titles.input_ids[row][titles.mask[row]].tolist()[1:-1]
        assert ids == tokenizer.encode([example.title])[0][:30]
    assert not titles.type_ids.any()


def test_questions_from_outside(folder: Path) -> None:
    task = made(folder)
    example = task.sets.train[0]
    assert isinstance(example, QuestExample)
    given = task.unlabelled([(example.title, example.question)])
    assert given.sequences.tokens.tolist() == task.features([example]).sequences.tokens.tolist()
    with pytest.raises(DataError, match="tuple"):
        task.unlabelled([("a title", None)])
    with pytest.raises(DataError, match="answer"):
        made(folder, "tasks.quest_generated.input=question_answer").unlabelled([("a", "b")])


def test_the_presets() -> None:
    assert (task_config("quest").input, task_config("quest").title_pass) == ("title_body", True)
    assert (task_config("quest_single").input, task_config("quest_single").title_pass) == ("title_body", False)
    assert (task_config("quest_pair").input, task_config("quest_pair").title_pass) == ("pair", False)
    recipe = task_config("quest").recipe
    assert (recipe.batch_size, recipe.epochs, recipe.max_length, recipe.classifier_dropout) == (6, 3, 512, 0.2)


def test_the_commands_of_the_page_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "quest.md").read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in re.findall(r"^    python (.*)$", page, re.M)]
    assert len(lines) == 5
    for program, *words in lines:
        if program == "run.py":
            found = expand(read_command_line([word for word in words if word != "-m"]))
            assert all("quest" in name for cell in found for name in cell.config.tasks)
        else:
            assert words[0] == "albert_ablate.finetune"
            assert set(compose(words[2:]).tasks) == {"quest", "quest_pair"}
    for setting in set(re.findall(r"`tasks\.quest\.(\w+)=?[\w]*`", page)):
        assert setting in {field.name for field in fields(QuestConfig)}, setting
