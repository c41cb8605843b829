"""Named entities: files, schemes of tags, words and their pieces, scores."""

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqeval.metrics
from languages import WORDS, sentences
from seqeval.scheme import IOB2
from taskhelpers import task_config, tokenizer_of
from test_import_tokenizers import trained

from albert_ablate.data.tokenizer import FIRST_PIECE, UNK, Tokenizer
from albert_ablate.data.vocabulary import open_tokenizer
from albert_ablate.data.vocabulary_training import KEPT_AS
from albert_ablate.errors import DataError
from albert_ablate.tasks.ner import scores
from albert_ablate.tasks.ner.alignment import word_pieces
from albert_ablate.tasks.ner.data import TaggedSets, read_file, read_ner
from albert_ablate.tasks.ner.generated import generated_sentences
from albert_ablate.tasks.ner.sentences import Sentence, of_words, word_spans
from albert_ablate.tasks.ner.tags import entities, scheme_of, tag_names, to_iob2
from albert_ablate.tasks.ner.task import NerTask, WordSet
from analysis.recount import entities as again

COLUMNS = """-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
official NN I-NP O
Ekeus NNP I-NP I-PER
heads VBZ I-VP O
for IN I-PP O
Baghdad NNP I-NP I-LOC
. . O O

Peter NNP I-NP I-PER
Anna NNP I-NP B-PER
Blackburn NNP I-NP I-PER


"""
LABELS = ("LOC", "ORG", "PER")
TAGS = tag_names(LABELS)


def columns(folder: Path, text: str, name: str = "a.txt") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def rows(folder: Path, *values: Any, name: str = "a.jsonl") -> Path:
    return columns(folder, "".join(json.dumps(value) + "\n" for value in values), name)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_columns_of_conll(ending: str, tmp_path: Path) -> None:
    file = tmp_path / "eng.train"
    file.write_bytes(COLUMNS.replace("\n", ending).encode())
    found = read_file(file)
    assert [s.written for s in found.sentences] == [
        ["U.N.", "official", "Ekeus", "heads", "for", "Baghdad", "."], ["Peter", "Anna", "Blackburn"],
    ]  # fmt: skip
    assert [s.tags for s in found.sentences] == [
        ("B-ORG", "O", "B-PER", "O", "O", "B-LOC", "O"), ("B-PER", "B-PER", "I-PER"),
    ]  # fmt: skip
    assert (found.scheme, found.sentences[1].id, found.sentences[0].text) == (
        "IOB1", "11", "U.N. official Ekeus heads for Baghdad .",
    )  # fmt: skip


def test_both_schemes_give_equal_entities() -> None:
    draw = random.Random(1)
    for _ in range(200):
        two = to_iob2([draw.choice(TAGS) for _ in range(draw.randint(0, 12))])
        one = [
            f"I-{tag[2:]}" if tag[0] == "B" and (k == 0 or two[k - 1][2:] != tag[2:]) else tag
            for k, tag in enumerate(two)
        ]
        assert to_iob2(one) == to_iob2(two) == two
        assert entities(one) == entities(two) == entities(two, strict=True)
    assert scheme_of([["B-PER", "I-PER", "B-PER"]]) == "IOB2"
    assert scheme_of([["I-PER", "B-PER"]]) == "IOB1"
    assert scheme_of([["O", "I-PER"], ["B-PER"]]) == "mixed"
    assert scheme_of([["O"], []]) == "none"


def test_spans_of_json_lines(tmp_path: Path) -> None:
    text = "Dr. Anna Lincoln-Ross, of New York."
    spans = [{"start": 26, "end": 34, "label": "LOC"}, {"start": 4, "end": 21, "label": "PER"}]
    file = rows(tmp_path, {"text": text, "entities": spans}, {"text": "", "spans": []}, {"text": " ", "spans": []})
    first, *empty = read_file(file).sentences
    assert list(zip(first.written, first.tags or (), strict=True)) == [
        ("Dr", "O"), (".", "O"), ("Anna", "B-PER"), ("Lincoln", "I-PER"), ("-", "I-PER"), ("Ross", "I-PER"), (",", "O"),
        ("of", "O"), ("New", "B-LOC"), ("York", "I-LOC"), (".", "O"),
    ]  # fmt: skip
    assert first.spans(first.tags or ()) == [(4, 21, "PER"), (26, 34, "LOC")]
    assert [s.words for s in empty] == [(), ()]


@pytest.mark.parametrize(
    ("text", "words"),
    [("a  b\tc", ["a", "b", "c"]), ("don't!", ["don", "'", "t", "!"]), ("東京 is", ["東", "京", "is"]),
     ("หนี้", ["ห", "นี้"]), ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
     ("e\u0301a \U0001f44d\ufe0f", ["e\u0301a", "\U0001f44d\ufe0f"]),
     ("5,000 €", ["5", ",", "000", "€"]), ("", [])],
)  # fmt: skip
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert [text[a:b] for a, b in word_spans(text)] == words


def test_a_span_inside_of_a_word_covers_the_word_and_is_counted(tmp_path: Path) -> None:
    file = rows(tmp_path, {"text": "Parisian streets", "entities": [{"start": 0, "end": 5, "label": "LOC"}]})
    found = read_file(file)
    assert (found.sentences[0].tags, found.split_words) == (("B-LOC", "O"), 1)


SPAN = {"start": 0, "end": 1, "label": "X"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a O\nb B-X\n\nc O O\n", "line 4: 3 columns, but 2 before it"),
        ("a O\nb\n", "line 2: 1 columns, but 2 before it"),
        ("a\nb\n", "line 1: 'a' has no tag; the last column is the tag"),
        ("a O\nb S-PER\n", "line 2: 'S-PER' is no tag. Tags are O, B-LABEL and I-LABEL"),
        ("a O\nb PER\n", "'PER' is no tag"),
        ("a O\nb B-\n", "'B-' is no tag"),
        ("a\tO\n\tO\n", "line 2: column 1 is empty"),
        ("\n-DOCSTART- O\n", "no sentences"),
    ],
)
def test_malformed_columns_are_refused_by_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_file(columns(tmp_path, text))
    assert said in str(error.value)
    assert str(tmp_path / "a.txt") in str(error.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"entities": []}, "a text is expected under 'text', NoneType found"),
        ({"text": "a"}, "a list under 'entities' or 'spans' is expected; there are text"),
        ({"text": "a", "entities": [], "spans": []}, "both are there"),
        ({"text": "a", "entities": {}}, "'entities' holds dict; a list is expected"),
        ({"text": "a", "entities": [["X", 0, 1]]}, '{"start": 0, "end": 5, "label": "PER"} is expected'),
        ({"text": "a", "entities": [SPAN | {"start": True}]}, "is expected"),
        ({"text": "a", "entities": [SPAN | {"end": 2}]}, "is not in its text of 1 characters"),
        ({"text": "a", "entities": [SPAN | {"end": 0}]}, "is not in its text"),
        ({"text": "a", "entities": [SPAN | {"label": "a b"}]}, "white space in it. Join its words, as in 'a_b'"),
        ({"text": " a", "entities": [SPAN]}, "covers only white space"),
        ({"text": "ab c", "entities": [SPAN, SPAN | {"start": 1, "end": 4}]}, "shares a word with another one"),
    ],
)
def test_malformed_spans_are_refused_by_line(row: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_file(rows(tmp_path, {"text": "fine", "entities": []}, row))
    assert f"{tmp_path / 'a.jsonl'}, line 2: " in str(error.value)
    assert said in str(error.value)


def read(folder: Path, train: str, dev: str | None = None, *words: str) -> TaggedSets:
    files = {"train": columns(folder, train, "train.txt")}
    if dev is not None:
        files["dev"] = columns(folder, dev, "dev.txt")
    return read_ner(task_config("ner", *words), files)


def test_labels_are_those_of_the_training_file_or_the_users(tmp_path: Path) -> None:
    sets = read(tmp_path, COLUMNS, "a X X I-LOC\n")
    assert sets.labels == LABELS
    assert sets.counts["tag_schemes"] == {"train": "IOB1", "dev": "IOB1"}
    assert sets.counts["entities"] == {"train": 5, "dev": 1}
    assert sets.counts["words"] == {"train": 10, "dev": 1}
    assert "no dev entity of 2 of 3 labels: ORG, PER" in " ".join(sets.counts["notes"])
    assert read(tmp_path, COLUMNS, "a X X B-X\n", "tasks.ner.labels=[PER,LOC,ORG,X]").labels == (
        "PER", "LOC", "ORG", "X",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"dev\.txt, from line 1: label 'MISC' is not in the training file"):
        read(tmp_path, COLUMNS, "a X X B-MISC\n")
    with pytest.raises(DataError, match=r"'PER' and 'per', which differ only in how they are written"):
        read(tmp_path, "a B-PER\nb B-per\n", "a O\n")
    assert read(tmp_path, "a B-PER\nb B-per\n", "a O\n", "tasks.ner.labels=[PER,per]").labels == ("PER", "per")
    with pytest.raises(DataError, match="has no entity"):
        read(tmp_path, "a O\n", "a O\n")
    mixed = read(tmp_path, "a B-X\nb O\nc I-X\n", "a O\n")
    assert mixed.counts["tag_schemes"]["train"] == "mixed"
    assert any("both are read as beginnings" in note for note in mixed.counts["notes"])


def test_without_a_dev_file_equal_texts_stay_on_one_side(tmp_path: Path) -> None:
    text = "".join(f"w{k % 60} B-X\n\n" for k in range(180))
    sets = read(tmp_path, text, None, "tasks.ner.dev_fraction=0.3")
    train, dev = ({s.text for s in side} for side in (sets.train, sets.dev["dev"]))
    assert not train & dev
    assert len(sets.train) + len(sets.dev["dev"]) == 180
    assert 20 < len(sets.dev["dev"]) < 100
    with pytest.raises(DataError, match=r"1 training and 0 dev sentences; name a file with tasks\.ner\.dev_file"):
        read(tmp_path, "a B-X\n")


# --- words and pieces -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_of(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("cleaning", [("true", "true"), ("false", "false")])
@pytest.mark.parametrize("kind", ["unigram", "bpe", "wordpiece"])
def test_the_pieces_of_each_word_join_to_the_word(kind: str, cleaning: tuple[str, str], tmp_path: Path) -> None:
    """Words of many scripts; a text's pieces are those of its words one by one, which tells where each begins."""
    config, content = trained(kind, *cleaning)
    (tmp_path / KEPT_AS[kind]).write_bytes(content)
    own = open_tokenizer(tmp_path / KEPT_AS[kind], config.tokenizer)
    made = [of_words(text.split(), None, "") for language in WORDS for text in sentences(language, 8)]
    made += [of_words(s.written, None, "") for s in generated_sentences(20)["train"]]
    joined = 0
    for sentence, pieces in zip(made, word_pieces(made, own), strict=True):
        assert pieces.ids.tolist() == own.encode([sentence.text])[0]
        alone = own.encode(sentence.written)
        expected = np.repeat(np.arange(len(alone)), [len(ids) for ids in alone])
        if len(expected) == len(pieces.ids):  # not where a word's last and the next one's first pieces are one
            assert pieces.word.tolist() == expected.tolist()
        for number, word in enumerate(sentence.written):
            ids = pieces.ids[pieces.word == number].tolist()
            assert pieces.first[number] == (np.flatnonzero(pieces.word == number)[0] if ids else -1)
            if ids and UNK not in ids and word.isascii():
                text = "".join(own.characters(i)[1] for i in ids)
                assert text == (word.lower() if config.tokenizer.lowercase else word)
                joined += 1
    assert joined > 100


def task_of(
    tokenizer: Tokenizer, *words: str, sentences_of: Any = None, length: int = 32, pieces: Any = "first"
) -> NerTask:
    config = task_config("ner_generated", *words)
    made = generated_sentences(40)
    sets = TaggedSets(LABELS, made["train"], sentences_of or {"dev": made["dev"]})
    return NerTask(config, sets, tokenizer, length, pieces)


def test_the_first_piece_of_a_word_has_its_label(tokenizer: Tokenizer) -> None:
    sentence = of_words(["bade", "Washington", "."], ["O", "B-PER", "O"], "")
    (first,), (every,) = (
        task_of(tokenizer, pieces=pieces).features([sentence]).targets.tolist() for pieces in ("first", "all")
    )
    lengths = [len(ids) for ids in tokenizer.encode(["bade", "Washington", "."])]
    tag = TAGS.index("B-PER")
    starts = 1 + np.cumsum([0, *lengths])[:3]
    expected = np.full(sum(lengths) + 2, -100)
    expected[starts] = [0, tag, 0]
    assert first == expected.tolist()
    assert lengths[1] > 1
    expected[1 : 1 + lengths[0]] = 0
    expected[starts[1] + 1 : starts[1] + lengths[1]] = TAGS.index("I-PER")
    expected[starts[2] :][: lengths[2]] = 0
    assert every == expected.tolist()


def test_words_that_are_cut_are_counted_and_predicted_outside(tokenizer: Tokenizer) -> None:
    words = ["bade"] * 30
    sentence = of_words(words, ["B-PER"] * 30, "")
    task = task_of(tokenizer, sentences_of={"dev": [sentence]}, length=16)
    features = task.dev["dev"]
    assert isinstance(features, WordSet)
    kept = int((features.positions[0] > 0).sum())
    assert 0 < kept < 30
    assert features.cut == 30 - kept
    assert task.counts["words_cut"]["dev"] == 30 - kept
    assert task.counts["share_of_words_cut"]["dev"] == pytest.approx(1 - kept / 30)
    assert any("predicted as O" in note for note in task.counts["notes"])
    outputs = {"tags": np.full((1, 16), TAGS.index("B-PER")), "probability": np.ones((1, 16), np.float32)}
    tags = [tag for tag, _ in task.word_tags(features, outputs)[0]]
    assert tags == ["B-PER"] * kept + ["O"] * (30 - kept)
    found = task.scores("dev", outputs)
    assert found.score == pytest.approx(seqeval.metrics.f1_score([list(sentence.tags or ())], [tags]))
    assert found.metrics["recall"]["value"] == pytest.approx(kept / 30)


def test_a_piece_of_several_words_continues_the_first(tokenizer: Tokenizer) -> None:
    """Characters of a script without spaces are words; a piece may hold several of them."""
    marked = [tokenizer.characters(number) for number in range(FIRST_PIECE, tokenizer.vocab_size)]
    text = max((letters for opens, letters in marked if opens), key=len)
    spans = tuple((place, place + 1) for place in range(len(text)))
    halves = Sentence(text, spans, ("B-PER",) + ("I-PER",) * (len(text) - 1), "")
    (pieces,) = word_pieces([halves], tokenizer)
    assert pieces.shared.any()
    task = task_of(tokenizer)
    features = task.features([halves])
    outputs = {"tags": np.full((1, 32), TAGS.index("B-PER")), "probability": np.ones((1, 32), np.float32)}
    tags = [tag for tag, _ in task.word_tags(features, outputs)[0]]
    assert [tag[0] == "I" for tag in tags] == pieces.shared.tolist()


def test_a_word_of_which_nothing_is_left_is_outside(tokenizer: Tokenizer) -> None:
    sentence = of_words(["bade", "\u200b\u0301", "bade"], ["O", "B-PER", "O"], "")
    task = task_of(tokenizer, sentences_of={"dev": [sentence, of_words([], [], "")]})
    features = task.dev["dev"]
    assert isinstance(features, WordSet)
    outputs = {"tags": np.full((2, 32), 1), "probability": np.ones((2, 32), np.float32)}
    tags = task.word_tags(features, outputs)
    assert [len(row) for row in tags] == [3, 0]
    assert (tags[0][1][0] == "O") == (features.without_piece == 1)
    assert task.counts["words_without_a_piece"]["dev"] == features.without_piece


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_f1_is_that_of_seqeval_and_of_the_second_count(strict: bool) -> None:
    """On changed tags, some of which begin with I-; some sentences are empty."""
    draw = random.Random(3)
    gold = [to_iob2([draw.choice(TAGS) for _ in range(draw.randint(0, 15))]) for _ in range(150)]
    gold += [(), ("O",)]
    guess = [tuple(draw.choice(TAGS) if draw.random() < 0.3 else tag for tag in tags) for tags in gold]
    table = scores.counts(guess, gold, LABELS, strict)
    how: dict[str, Any] = {"mode": "strict", "scheme": IOB2} if strict else {}
    lists = [list(tags) for tags in gold], [list(tags) for tags in guess]
    found = scores.resampled(table)
    for name, measure in (("f1", "f1_score"), ("precision", "precision_score"), ("recall", "recall_score")):
        assert found[name]["value"] == pytest.approx(getattr(seqeval.metrics, measure)(*lists, **how))
        low, high = found[name]["interval"]
        assert low < found[name]["value"] < high
    assert scores.score(guess, gold, strict) == pytest.approx(found["f1"]["value"])
    report = seqeval.metrics.classification_report(*lists, output_dict=True, **how)
    for label, of_label in scores.by_label(table, LABELS).items():
        assert of_label["f1"] == pytest.approx(report[label]["f1-score"])
        assert of_label["entities"] == report[label]["support"]
    pairs = [(again.found(a, strict), again.found(b)) for a, b in zip(guess, gold, strict=True)]
    assert again.scores(pairs)["f1"]["value"] == pytest.approx(found["f1"]["value"])
    if not strict:
        assert scores.score(guess, gold, True) != pytest.approx(found["f1"]["value"])


def test_nothing_found_and_nothing_there_is_zero_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for gold, guess in (([["O"]], [["O"]]), ([["B-PER"]], [["O"]]), ([["O"]], [["B-PER"]]), ([[]], [[]])):
            assert scores.score(guess, gold, False) == scores.score(guess, gold, True) == 0.0
            table = scores.counts(guess, gold, LABELS, False)
            assert scores.resampled(table)["f1"]["value"] == 0.0


def test_labels_with_dashes_are_whole() -> None:
    assert entities(["B-creative-work", "I-creative-work"]) == [("creative-work", 0, 2)]
    assert entities(["B-creative-work", "I-creative-work"], strict=True) == [("creative-work", 0, 2)]


def test_the_second_count_reads_the_files(tmp_path: Path) -> None:
    assert [words for words, _ in again.columns(COLUMNS)] == [
        tuple(s.written) for s in read_file(columns(tmp_path, COLUMNS)).sentences
    ]
    for (_, tags), sentence in zip(again.columns(COLUMNS), read_file(tmp_path / "a.txt").sentences, strict=True):
        assert again.found(tags) == set(entities(sentence.tags or ()))
