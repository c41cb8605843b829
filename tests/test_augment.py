"""Data augmentation: which words are replaced, by what, and what stays."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runhelpers import start
from taskhelpers import pretrained, tokenizer_of, with_tasks, write_sst2

from albert_ablate.config.tasks import AugmentConfig
from albert_ablate.data.tokenizer import CLS, MASK, SEP
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.loading import LoadedRun
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.augment import Candidates, Word, augmented, replaceable, variants, words_of
from albert_ablate.tasks.augmenting import locate_augmentation
from albert_ablate.tasks.masked_words import MaskedLMRun, MaskedWord
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.texts.sets import Example
from albert_ablate.tasks.word_vectors import WordVectors
from albert_ablate.training.machine import Machine

CPU = Machine(torch.device("cpu"), "fp32")
SETTINGS = AugmentConfig(copies=20, probability=0.4, candidates=15, masked_lm=None, word_vectors=None, pairs="one")
STOP = frozenset({"the", "it", "is"})


def candidates_of(text: str, names: Sequence[str] = ("red", "blue", "green")) -> Candidates:
    return dict.fromkeys(replaceable(text, STOP), names)


def test_words_with_other_signs_and_stop_words_stay() -> None:
    text = "The film isn't the 3rd well-known one, I'm told: 日本 café"
    assert [word.text for word in words_of(text)][:3] == ["The", "film", "isn't"]
    found = [word.text for word in replaceable(text, STOP).values()]
    assert found == ["film", "well", "known", "one", "told", "café"]


def test_the_rest_of_the_text_keeps_its_form() -> None:
    text = "The  film, (it is) FINE."
    made = variants(text, candidates_of(text), replace(SETTINGS, probability=1.0), 1)
    for copy in made:
        assert copy.startswith("The  ")
        assert ", (it is) " in copy
        assert copy.endswith(".")
        assert "film" not in copy
        assert "FINE" not in copy
    assert 1 < len(made) <= 9, "three candidates in two places"


def test_nothing_is_replaced_with_probability_0() -> None:
    example = Example("7", "a fine film", None, 1)
    assert augmented([example], candidates_of, replace(SETTINGS, probability=0.0)) == [example]


def test_one_candidate_and_probability_1_give_one_copy() -> None:
    example = Example("7", "a fine film", None, 1)
    made = augmented([example], lambda text: {1: ["good"], 2: ["movie"]}, replace(SETTINGS, probability=1.0))
    assert made == [example, Example("7+1", "a good movie", None, 1)]


def test_copies_follow_their_example_and_have_its_target() -> None:
    examples = [Example(str(n), f"some fine film number {'abc'[n]}", None, n) for n in range(3)]
    made = augmented(examples, candidates_of, SETTINGS)
    assert [e for e in made if e in examples] == examples
    for target in range(3):
        own = [e for e in made if e.target == target]
        assert own[0] == examples[target], "the original first"
        assert 10 < len(own) <= 1 + SETTINGS.copies
        assert len({e.first for e in own}) == len(own), "no copy twice"
        assert all(e.id.split("+")[0] == str(target) for e in own)


def test_words_are_replaced_as_often_as_that_is_set() -> None:
    text = " ".join(["word"] * 50)
    settings = replace(SETTINGS, copies=400, probability=0.3)
    made = variants(text, {place: ["red", "blue", "green", "grey"] for place in range(50)}, settings, 5)
    words = np.array([copy.split() for copy in made])
    assert (words != "word").mean() == pytest.approx(0.3, abs=4 * (0.21 / words.size) ** 0.5)
    counts = [(words == name).sum() for name in ("red", "blue", "green", "grey")]
    assert sum((n - np.mean(counts)) ** 2 / np.mean(counts) for n in counts) < 16.3, "chi square, 3 degrees, 0.001"


def test_an_example_is_augmented_in_the_same_way_in_any_company() -> None:
    first, second = Example("1", "one fine film", None, 0), Example("2", "one fine film", None, 0)
    together = augmented([first, second], candidates_of, SETTINGS)
    assert augmented([second], candidates_of, SETTINGS) == [e for e in together if e.id.split("+")[0] == "2"]
    texts = [[e.first for e in together if e.id.split("+")[0] == name] for name in "12"]
    assert texts[0] != texts[1], "but other copies than those of another example"
    more = augmented([first], candidates_of, replace(SETTINGS, copies=30))
    assert {e.first for e in together if e.id.split("+")[0] == "1"} <= {e.first for e in more}


@pytest.mark.parametrize("pairs", ["one", "released"])
def test_of_a_pair_one_text_is_changed_at_a_time(pairs: str) -> None:
    """Or, as in the released code, the second beside the last copy of the first."""
    example = Example("1", "some fine film", "another dull story", 1)
    settings = replace(SETTINGS, pairs=pairs)  # type: ignore[arg-type]
    made = augmented([example], candidates_of, settings)
    assert made[0] == example
    assert len(made) <= 1 + 2 * settings.copies
    rows = [(e.first, e.second) for e in made]
    assert len(set(rows)) == len(rows)
    changed_second = [first for first, second in rows if second != example.second]
    changed_first = [first for first, second in rows[1:] if second == example.second]
    assert len(changed_second) > 5
    assert len(changed_first) > 5
    assert set(changed_second) == {example.first if pairs == "one" else changed_first[-1]}


def test_a_masked_word_has_the_candidates_of_its_model(tmp_path: Path) -> None:
    """Recomputed one by one: masked text and whole text as a pair; whole words in the order of their probability."""
    config, run = pretrained(tmp_path)
    model, tokenizer = MaskedLMRun(run, config, CPU, None), tokenizer_of(tmp_path)
    loaded = LoadedRun(run)
    names = [tokenizer.piece(number) for number in range(tokenizer.vocab_size)]
    whole = [i for i, name in enumerate(names) if i > 4 and name.startswith("▁") and name[1:].isalpha()]
    texts = ["bada bare, do", "ko la bada mo, na fe", "mo"]
    masked = [MaskedWord(text, word) for text in texts for word in words_of(text)]
    found = model.candidates(masked, 4)
    for m, candidates in zip(masked, found, strict=True):
        hidden = m.text[: m.word.start] + "[MASK]" + m.text[m.word.end :]
        (first,), (second,) = tokenizer.encode_masked([hidden]), tokenizer.encode([m.text])
        assert len(first) + 4 < 32, "the pair is cut, but never to nothing"
        second = second[: 32 - len(first) - 3]
        row = [CLS, *first, SEP, *second, SEP]
        ids = torch.tensor([row], dtype=torch.int32)
        types = torch.tensor([[0] * (len(first) + 2) + [1] * (len(second) + 1)], dtype=torch.int32)
        with torch.no_grad():
            states = loaded.model.encoder(ids, types)[0, row.index(MASK)]
            logits = loaded.model.token_logits(states[None])[0]  # type: ignore[operator]
        best = sorted(whole, key=lambda piece: -logits[piece].item())[:4]
        assert candidates == [names[piece][1:] for piece in best]


def test_a_word_behind_the_models_length_stays(tmp_path: Path) -> None:
    config, run = pretrained(tmp_path)
    text = " ".join(["bada"] * 60)
    first, *_, last = words_of(text)
    found = MaskedLMRun(run, config, CPU, None).candidates([MaskedWord(text, first), MaskedWord(text, last)], 3)
    assert [len(candidates) for candidates in found] == [3, 0]


def test_one_piece_words(tmp_path: Path) -> None:
    config, run = pretrained(tmp_path)
    model, tokenizer = MaskedLMRun(run, config, CPU, None), tokenizer_of(tmp_path)
    piece = next(p for p in map(tokenizer.piece, range(5, 200)) if p.startswith("▁") and p[1:].isalpha())
    assert model.one_piece([piece[1:], "bafexikozuly"]) == [True, False]


VECTORS = "red 1 0\nblue 0.9 0.1\ngreen 0 2\nred 5 5\nblack -1 0\n"


def test_the_nearest_words_by_cosine(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(VECTORS)
    vectors = WordVectors(path)
    assert vectors.nearest("red", 4) == ["blue", "red", "green", "black"], "of equal words the first has the vector"
    assert vectors.nearest("RED", 1) == ["blue"]
    assert vectors.nearest("white", 3) == []
    path.write_text(f"5 2\n{VECTORS}")
    assert WordVectors(path).nearest("red", 1) == ["blue"], "the header of word2vec"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("grey 1", "1 numbers, where 2 are expected"),
        ("grey 1 x", "not a number"),
        ("grey 1 nan", "not finite"),
        ("", "0 numbers"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(f"{VECTORS}{line}\nwhite 1 1\n")
    with pytest.raises(DataError, match=rf"task\.augment\.word_vectors=.*vectors\.txt, line 6: .*{what}"):
        WordVectors(path)


def augmentation(folder: Path, *words: str) -> tuple[RunFolder, list[str]]:
    """A run with the fine-tuning, and the first texts of its augmented examples."""
    _, run = pretrained(folder)
    data = write_sst2(folder / "data")
    config = with_tasks(folder, "task=sst2", f"task.data_dir={data}", "task.augment.copies=3", *words)
    found = locate_augmentation(config, run, "fp32")
    assert found is not None
    examples = [Example("0", "a fine film", None, 1), Example("1", "the bada of it", None, 0)]
    return run, [e.first for e in found.examples("sst2", "x", examples, tokenizer_of(folder), CPU)]


def test_words_of_several_pieces_have_neighbours_or_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, plain = augmentation(tmp_path)
    assert not [text for text in plain if "film" not in text and "of it" not in text]
    assert "stay: task.augment.word_vectors names a file" in capsys.readouterr().out
    path = tmp_path / "vectors.txt"
    path.write_text("film 1 0\nmovie 1 0.1\nstory 0 1\n")
    _, with_file = augmentation(
        tmp_path, f"task.augment.word_vectors={path}", "task.augment.candidates=1", "task.augment.probability=1"
    )
    assert any(text.endswith("movie") for text in with_file)
    assert all("of it" in text for text in with_file if "film" not in text and "movie" not in text), "stop words"


def test_what_a_model_proposes_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all copies and probabilities, and every later run of the command."""
    _, first = augmentation(tmp_path)
    (kept,) = (tmp_path / "cache" / "tasks").glob("sst2-words-*.json")
    assert kept.stat().st_size

    def refused(*_: object) -> None:
        raise AssertionError("the model is run again")

    monkeypatch.setattr(MaskedLMRun, "candidates", refused)
    assert augmentation(tmp_path)[1] == first
    augmentation(tmp_path, "task.augment.probability=0.9", "task.augment.copies=9")


def unit_name(folder: Path, *words: str) -> str:
    config = with_tasks(folder, "task=sst2", f"task.data_dir={folder / 'data'}", *words)
    (unit,) = plan_units(config, pretrained(folder)[1], "fp32")
    return unit.folder.name


def test_augmentation_is_part_of_the_identity(tmp_path: Path) -> None:
    _, run = pretrained(tmp_path)
    write_sst2(tmp_path / "data")
    vectors, same = tmp_path / "vectors.txt", tmp_path / "copy.txt"
    vectors.write_text(VECTORS)
    same.write_text(VECTORS)
    plain, on = unit_name(tmp_path), unit_name(tmp_path, "task.augment.copies=3")
    other = unit_name(tmp_path, "task.augment.copies=3", f"task.augment.word_vectors={vectors}")
    assert other == unit_name(tmp_path, "task.augment.copies=3", f"task.augment.word_vectors={same}"), "by content"
    named = unit_name(tmp_path, "task.augment.copies=3", f"task.augment.masked_lm={run.path}")
    probable = unit_name(tmp_path, "task.augment.copies=3", "task.augment.probability=0.1")
    assert len({plain, on, other, named, probable}) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task.augment.masked_lm=nowhere"], r"task\.augment\.masked_lm=nowhere: no run folder"),
        (["task.augment.word_vectors=nowhere.txt"], r"task\.augment\.word_vectors=nowhere\.txt: no such file"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    pretrained(tmp_path)
    write_sst2(tmp_path / "data")
    with pytest.raises((ConfigError, DataError), match=message):
        unit_name(tmp_path, "task.augment.copies=3", *words)


def test_a_run_without_a_masked_lm_head_is_refused(tmp_path: Path) -> None:
    """ELECTRA's encoder never predicts words."""
    pretrained(tmp_path)
    write_sst2(tmp_path / "data")
    electra = ("method=electra", "method.generator_width=1", "task.augment.copies=3")
    with pytest.raises(ConfigError, match=r"task\.augment\.copies=3: .* has no trained masked-LM head .*masked_lm=RUN"):
        unit_name(tmp_path, *electra)


@pytest.mark.parametrize("task", ["squad11", "race"])
def test_other_tasks_are_refused(task: str) -> None:
    with pytest.raises(ConfigError, match=rf"task\.augment\.copies=2 with task={task}: only the words of .* Set it to"):
        compose([f"task={task}", "task.augment.copies=2"])


def test_a_word_is_a_part_of_its_text() -> None:
    text = "a fine  film"
    assert words_of(text) == [Word("a", 0, 1), Word("fine", 2, 6), Word("film", 8, 12)]


def test_a_fine_tuning_trains_on_the_copies_without_a_teacher(tmp_path: Path) -> None:
    """The record says how many there are; the dev set and the baselines are those of the files."""
    _, run = pretrained(tmp_path)
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("film 1 0\nmovie 1 0.1\nstory 0 1\nplot 0.1 1\n")
    words = ["task=sst2", f"task.data_dir={write_sst2(tmp_path / 'data')}", "task.scaling.steps=epochs"]
    words += ["tasks.sst2.epochs=1", "task.augment.copies=3", f"task.augment.word_vectors={vectors}"]
    assert start(with_tasks(tmp_path, *words)) == 0
    (entry,) = run.read("results.json")["tasks"]
    unit = RunFolder(run.path / "tasks", entry["units"][0])
    count = unit.read("manifest.json")["data"]["augmented"]
    assert 64 < count <= 4 * 64
    results = unit.read("results.json")
    assert "teacher" not in results
    assert results["training"]["steps"] == count // 8
    assert entry["sets"]["dev"]["n"] == 32
    assert entry["to_beat"]["dev"]["majority"] == pytest.approx(18 / 32)
