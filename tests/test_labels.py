"""Labels and classes: spellings, what is said of rare and missing ones, hold-out, weights, lengths."""

import json
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from taskhelpers import task_config, tokenizer_of, with_tasks, write_sst2
from torch.nn import functional as F

from albert_ablate.config.tasks import TextConfig
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.tasks import metrics
from albert_ablate.tasks.load import locate, read
from albert_ablate.tasks.material import _length_notes
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.task import Task, TaskBatch
from albert_ablate.tasks.texts.balance import class_notes, weigh
from albert_ablate.tasks.texts.examples import limit_sets, read_glue, read_text
from albert_ablate.tasks.texts.labels import close, same
from albert_ablate.tasks.texts.sets import ExampleSets
from albert_ablate.tasks.texts.task import SentenceTask
from albert_ablate.tasks.unit_settings import LATER, task_settings

OWN, REGRESSION = "tasks.text_classification", "tasks.text_regression."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny run lies."""
    return tmp_path_factory.mktemp("labels")


def own(*words: str) -> TextConfig:
    found = task_config("text_classification", *words)
    assert isinstance(found, TextConfig)
    return found


def rows(file: Path, found: list[tuple[str, Any]]) -> Path:
    file.write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in found), encoding="utf-8")
    return file


def imbalanced(file: Path, rare: int) -> Path:
    return rows(file, [(f"a text {i}", "a") for i in range(300)] + [(f"other {i}", "rare") for i in range(rare)])


def classes_of(sets: ExampleSets, examples: list[Any]) -> Counter[str]:
    return Counter(sets.names[e.target] for e in examples)


# --- spellings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("0", "0.0", True), ("1", "１", True), ("1e3", "1000", True), ("9007199254740993", "9007199254740992", False),
        ("é", unicodedata.normalize("NFD", "é"), True), ("Pos", "pos", False), ("1", "true", False),
        ("nan", "0", False), ("1_000", "1000", False), ("1,5", "1.5", False),
    ],
)  # fmt: skip
def test_equal_numbers_and_equal_letters_are_one_class(a: str, b: str, equal: bool) -> None:
    assert (same(a) == same(b)) is equal


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Pos", "POS"),
        ("a b", "a\u00a0b"),
        ("straße", "STRASSE"),
        ("ａ", "a"),
        ("x\ufeff", "x"),
        ("−1", "-1"),
        ('"p"', "p"),
    ],
)
def test_spellings_that_nobody_means_to_keep_apart(a: str, b: str) -> None:
    assert close(a) == close(b)
    assert same(a) != same(b)


def test_labels_that_are_named_are_kept_apart(tmp_path: Path) -> None:
    file = rows(tmp_path / "a.jsonl", [("x", "Co"), ("y", "CO"), ("z", "None")])
    with pytest.raises(DataError, match=r"line 3: column 'label' holds 'None', which stands for a missing value"):
        read_text(own(), {"train": file, "dev": file})
    with pytest.raises(DataError, match=r"line 2: label 'CO' and 'Co' of line 1 differ only in how they are written"):
        read_text(own(), {"train": rows(tmp_path / "b.jsonl", [("x", "Co"), ("y", "CO")]), "dev": file})
    sets = read_text(own(f"{OWN}.labels=[Co,CO,None]"), {"train": file, "dev": file})
    assert classes_of(sets, sets.train) == {"Co": 1, "CO": 1, "None": 1}


def test_dev_spells_numbers_as_it_likes_and_words_as_training_does(tmp_path: Path) -> None:
    train = rows(tmp_path / "a.jsonl", [("x", 0), ("y", 1)])
    sets = read_text(own(), {"train": train, "dev": rows(tmp_path / "b.jsonl", [("x", 0.0), ("y", "1.0")])})
    assert [e.target for e in sets.dev["dev"]] == [0, 1]
    train = rows(tmp_path / "a.jsonl", [("x", "pos"), ("y", "neg")])
    with pytest.raises(DataError, match=r"line 1: unknown label 'Pos'.*one of neg, pos. It differs from 'pos' only"):
        read_text(own(), {"train": train, "dev": rows(tmp_path / "b.jsonl", [("x", "Pos")])})


def test_what_was_taken_for_one_class_is_said(tmp_path: Path) -> None:
    file = rows(tmp_path / "a.jsonl", [("x", "0"), ("y", 0.0), ("z", "b")])
    assert read_text(own(), {"train": file, "dev": file}).notes == ["column 'label': 0, 0.0 are one class, '0'"]


@pytest.mark.parametrize(
    ("labels", "words"),
    [("[a]", "two labels are needed"), ("[a,a]", "occurs twice"), ("[1,1.0]", "occurs twice"),
     ("[a,'']", "a label is empty")],
)  # fmt: skip
def test_labels_that_the_user_names_are_checked(labels: str, words: str, tmp_path: Path) -> None:
    file = rows(tmp_path / "a.jsonl", [("x", "a")])
    with pytest.raises(DataError, match=words):
        read_text(own(f"{OWN}.labels={labels}"), {"train": file, "dev": file})


def test_numbers_may_be_named_as_labels_and_truth_needs_quotes() -> None:
    assert own(f"{OWN}.labels=[0,1.5]").labels == ("0", "1.5")
    with pytest.raises(ConfigError, match="Put it in quotes"):
        own(f"{OWN}.labels=[true,false]")
    assert own(f'{OWN}.labels=["positiv","négatif","中立"]').labels == ("positiv", "négatif", "中立")


def test_glue_and_several_labels_take_equal_numbers(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("sentence\tlabel\nfine\t1.0\nbad\t0\n", encoding="utf-8")
    sets = read_glue(compose(["task=sst2"]).tasks["sst2"], {"train": file, "dev": file})  # type: ignore[arg-type]
    assert [e.target for e in sets.train] == [1, 0]
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "x", "p": 1.0, "q": "0"}\n', encoding="utf-8")
    assert read_text(own(f"{OWN}.target_columns=[p,q]"), {"train": file, "dev": file}).train[0].target == (1.0, 0.0)


@pytest.mark.parametrize("value", ["true", '"1_0"', "null", "[1]"])
def test_numbers_that_are_none(value: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "x", "score": {value}}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: .* in column 'score' is not a number"):
        read_text(task_config("text_regression"), {"train": file, "dev": file})


@pytest.mark.parametrize("value", ["null", '" "', '["a"]', '"a\\tb"'])
def test_ids_that_are_none(value: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        f'{{"text": "x", "label": "a", "key": {value}}}\n{{"text": "x", "label": "b", "key": 1}}\n', encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"line 1: column 'key'"):
        read_text(own(f"{OWN}.id_column=key"), {"train": file, "dev": file})


# --- how classes are spread ------------------------------------------------------------------------


def notes(task: TextConfig, files: dict[str, Path], split: str | None = "SPLIT") -> list[str]:
    sets = read_text(task, files)
    limit_sets(sets, task)
    return class_notes(sets, split)


def test_classes_that_can_hardly_be_measured_are_said(tmp_path: Path) -> None:
    single, dev = notes(own(), {"train": imbalanced(tmp_path / "a.jsonl", 1)})
    assert single == "a single training example of 1 of 2 classes: rare"
    assert dev.startswith("dev has no example of 1 of 2 classes: rare")
    assert "SPLIT" not in dev, "one row cannot stand on both sides"
    file = rows(tmp_path / "b.jsonl", [(f"text {i}", f"class {i}") for i in range(200)])
    (first, *_) = notes(own(), {"train": file, "dev": file})
    assert first == "200 classes for 200 training examples: is the column of labels the right one?"
    train = rows(tmp_path / "c.jsonl", [("x", "a"), ("y", "b"), ("z", "a"), ("w", "b")] * 5)
    (missing,) = notes(own(f"{OWN}.labels=[a,b,c]"), {"train": train, "dev": rows(tmp_path / "d.jsonl", [
        ("x", "a"), ("y", "b"), ("z", "c")])})  # fmt: skip
    assert missing == "no training example of 1 of 3 classes: c; it cannot be learned"
    assert notes(own(), {"train": train, "dev": train}) == []


def test_a_label_of_several_that_dev_never_has_is_said(tmp_path: Path) -> None:
    train, dev = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    train.write_text("".join(json.dumps({"text": f"t{i}", "p": i % 2, "q": i % 3 // 2}) + "\n" for i in range(12)))
    dev.write_text(json.dumps({"text": "t", "p": 1, "q": 0}) + "\n")
    (said,) = notes(own(f"{OWN}.target_columns=[p,q]"), {"train": train, "dev": dev})
    assert said.startswith("dev has no example of 1 of 2 labels: q")


def test_a_class_of_which_the_hash_holds_out_nothing_leads_to_the_other_split(tmp_path: Path) -> None:
    file = imbalanced(tmp_path / "a.jsonl", 4)
    drawn = read_text(own(), {"train": file})
    assert classes_of(drawn, drawn.dev["dev"]) == {"a": 28}, "as before there was a choice"
    (said,) = notes(own(), {"train": file})
    assert said.endswith("unless it is predicted. SPLIT holds out a share of every class")
    each = read_text(own(f"{OWN}.dev_split=label"), {"train": file})
    assert classes_of(each, each.dev["dev"]) == {"a": 30, "rare": 1}
    assert classes_of(each, each.train) == {"a": 270, "rare": 3}


def test_equal_texts_stay_together_in_a_split_by_label(tmp_path: Path) -> None:
    file = rows(
        tmp_path / "a.jsonl", [(f"t{i % 20}", "ab"[i % 2]) for i in range(100)] + [("both", "a"), ("both", "b")]
    )
    sets = read_text(own(f"{OWN}.dev_split=label"), {"train": file})
    assert not {e.first for e in sets.train} & {e.first for e in sets.dev["dev"]}
    assert len(sets.train) + len(sets.dev["dev"]) == 102
    assert set(classes_of(sets, sets.dev["dev"])) == {"a", "b"}


def weighted(file: Path, *words: str) -> ExampleSets:
    task = own(*words)
    sets = read_text(task, {"train": file, "dev": file})
    limit_sets(sets, task)
    weigh(sets, task)
    return sets


def test_balanced_weights_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    sets = weighted(imbalanced(tmp_path / "a.jsonl", 7), f"{OWN}.class_weights=balanced")
    gold = np.array([e.target for e in sets.train])
    assert sets.weights == pytest.approx(compute_class_weight("balanced", classes=np.array([0, 1]), y=gold))
    assert sets.counts["class_weights"] == {"a": pytest.approx(307 / 600), "rare": pytest.approx(307 / 14)}
    own_weights = weighted(tmp_path / "a.jsonl", f"{OWN}.labels=[rare,a]", f"{OWN}.class_weights=[10,1]")
    assert own_weights.weights == (10.0, 1.0)
    with pytest.raises(DataError, match="has 3 weights for 2 classes"):
        weighted(tmp_path / "a.jsonl", f"{OWN}.labels=[rare,a]", f"{OWN}.class_weights=[1,2,3]")
    with pytest.raises(DataError, match="no training example of b, so it can have no weight"):
        weighted(tmp_path / "a.jsonl", f"{OWN}.labels=[rare,a,b]", f"{OWN}.class_weights=balanced")


class Fixed(torch.nn.Module):
    """A model that always says the same."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, _: TaskBatch) -> torch.Tensor:
        return self.logits


def test_the_loss_counts_errors_by_their_class(place: Path, tmp_path: Path) -> None:
    pretrained = tokenizer_of(place)
    file = imbalanced(tmp_path / "a.jsonl", 7)
    sets = weighted(file, f"{OWN}.class_weights=balanced")
    plain = SentenceTask("text_classification", replace(sets, weights=None), pretrained, 16)
    task = SentenceTask("text_classification", sets, pretrained, 16)
    batch = task.train.batch(np.array([0, 1, 305]))
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    each = F.cross_entropy(logits, batch.targets, reduction="none")
    weights = torch.tensor(sets.weights)[batch.targets]
    torch.testing.assert_close(task.loss(Fixed(logits), batch), (each * weights).sum())
    torch.testing.assert_close(plain.loss(Fixed(logits), batch), each.sum())


def test_macro_f1_says_of_how_many_classes_and_may_choose(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_RESAMPLES", 5)
    pretrained = tokenizer_of(place)
    sets = weighted(imbalanced(tmp_path / "a.jsonl", 1))
    sets.dev["dev"] = sets.dev["dev"][:50]
    task = SentenceTask("text_classification", sets, pretrained, 16)
    logits = np.zeros((50, 2), np.float32)
    logits[:, 0] = 1
    found = task.scores("dev", {"logits": logits}).metrics["macro_f1"]
    assert (found["value"], found["classes"], found["of"]) == (1.0, 1, 2)
    logits[0] = 0, 1
    scores = task.scores("dev", {"logits": logits})
    assert scores.metrics["macro_f1"]["classes"] == 2
    assert scores.score == scores.metrics["accuracy"]["value"] == 0.98
    by_f1 = SentenceTask("text_classification", replace(sets, chosen_by="macro_f1"), pretrained, 16)
    assert by_f1.metric == "macro_f1"
    assert (
        by_f1.scores("dev", {"logits": logits}).score
        == scores.metrics["macro_f1"]["value"]
        == pytest.approx(0.495, 1e-2)
    )


WRONG = {
    "weights of numbers": (["task=text_regression", REGRESSION + "class_weights=balanced"], "it needs classes"),
    "a split of several labels": (
        ["task=text_classification", f"{OWN}.target_columns=[p,q]", f"{OWN}.dev_split=label"], "it needs classes",
    ),
    "a split beside a dev file": (
        ["task=text_classification", f"{OWN}.dev_file=x.csv", f"{OWN}.dev_split=label"], "no effect with dev_file",
    ),
    "weights of unnamed classes": (["task=text_classification", f"{OWN}.class_weights=[1,2]"], "which weight is whose"),
    "F1 of numbers": (["task=text_regression", REGRESSION + "choose_by=macro_f1"], "numbers have no F1"),
    "an unknown weighting": (["task=text_classification", f"{OWN}.class_weights=even"], "class_weights"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_settings_of_classes_that_mean_nothing(what: str) -> None:
    words, expected = WRONG[what]
    with pytest.raises(ConfigError, match=expected):
        compose(words)


def test_later_settings_leave_the_names_of_older_fine_tunings_alone() -> None:
    for name in ("text_classification", "text_regression", "squad11", "sst2"):
        assert not LATER.keys() & task_settings(task_config(name)).keys()
    assert task_settings(own(f"{OWN}.dev_split=label"))["dev_split"] == "label"
    assert task_settings(task_config("squad11", "tasks.squad11.f1_unit=words"))["f1_unit"] == "words"


# --- lengths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["mnli", "squad11", "squad20", "race", "text_classification", "text_regression", "era"]
)
def test_a_length_above_the_positions_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([f"task={name}", f"tasks.{name}.max_length=600"])
    words = f"tasks.{name}.max_length=600 exceeds model.max_positions=512: later tokens would have no position. Set "
    assert words + f"tasks.{name}.max_length=512 or less." in str(caught.value)
    assert compose([f"task={name}", f"tasks.{name}.max_length=512"]).tasks[name].max_length == 512


def length_notes(folder: Path, *words: str) -> list[str]:
    config = with_tasks(folder, "task=sst2", f"task.data_dir={folder}", "model.max_positions=64", *words)
    task: Task = read(locate(config.task, config.tasks["sst2"]))(tokenizer_of(folder), 64)
    return _length_notes(config, config.tasks["sst2"], task, config.tasks["sst2"].max_length or 64)


def test_positions_that_pretraining_never_used_are_said(place: Path) -> None:
    write_sst2(place)
    (said,) = length_notes(place, "tasks.sst2.max_length=64")
    assert said.startswith("up to 64 tokens, but pretraining ended at 32: positions 33 to 64 start untrained; ")
    assert said.endswith("of 64 training sequences reach them. tasks.sst2.max_length=32 does without")
    assert length_notes(place, "tasks.sst2.max_length=32") == []
    assert length_notes(place, "tasks.sst2.max_length=64", "task.start=random") == []
    cut, _ = length_notes(place, "task.scaling.max_length=400")
    assert cut == "400 tokens, by its recipe and the scale, are cut to the model's 64 positions"


def test_chinese_questions_are_another_fine_tuning_by_words(place: Path, tmp_path: Path) -> None:
    """By characters the scores differ, so a fine-tuning of before must not stand for it; English ones keep theirs."""
    from taskhelpers import pretrained

    _, run = pretrained(place)
    context = {
        "context": "今天天氣很好。",
        "qas": [{"id": "q", "question": "？", "answers": [{"text": "很好", "answer_start": 4}]}],
    }
    (tmp_path / "zh").mkdir()
    for side in ("train", "dev"):
        (tmp_path / "zh" / f"{side}-v1.1.json").write_text(json.dumps({"data": [{"paragraphs": [context]}]}))
    units = [
        plan_units(with_tasks(place, "task=squad11", f"task.data_dir={tmp_path / 'zh'}", *words), run, "fp32")[0]
        for words in ([], ["tasks.squad11.f1_unit=words"])
    ]
    assert units[0].source.fingerprint != units[1].source.fingerprint
