"""Alignment, windows, truncation, the gap rule, batches: against plain loops of the released rules."""

import collections
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taskhelpers import squad_content, task_config, tokenizer_of

from albert_ablate.data.tokenizer import CLS, SEP, Tokenizer, clean
from albert_ablate.tasks.batches import TaskBatches, in_order
from albert_ablate.tasks.race import filled
from albert_ablate.tasks.squad.alignment import align, clean_with_origins
from albert_ablate.tasks.squad.data import (  # fmt: skip
    Question,
    SquadSet,
    build_windows,
    document_spans,
    gold_pieces,
    max_context,
    read_squad,
)
from albert_ablate.tasks.task import FeatureSet, Sequences
from albert_ablate.tasks.texts.task import trim

FOLDER = os.environ.get("ALBERT_ABLATE_DATA")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_of(tmp_path_factory.mktemp("tokenizer"))


WILD = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from(list("abc  \t\n\u00a0éİςΣΑΒ½…ﬁ“”1,23 4–-.日本한글\u0301\u200b")),
    ),
    max_size=60,
)


@given(WILD, st.booleans(), st.booleans())
@settings(max_examples=500, deadline=None)
def test_cleaning_with_places_is_cleaning(text: str, lowercase: bool, strip: bool) -> None:
    whole, places = clean_with_origins(text, lowercase, strip)
    assert whole == clean(text, lowercase, strip)
    assert len(places) == len(whole)
    assert places == sorted(places)
    assert all(not text[place].isspace() for c, place in zip(whole, places, strict=True) if not c.isspace())


@given(st.lists(WILD, min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_aligned_pieces_are_the_pieces(tokenizer: Tokenizer, texts: list[str]) -> None:
    for text, found, ids in zip(texts, align(texts, tokenizer), tokenizer.encode(texts), strict=True):
        assert found.ids.tolist() == ids
        assert (np.diff(found.start) >= 0).all()
        assert (np.diff(found.end) >= 0).all()
        assert ((found.start < found.end) & (found.end <= len(text))).all()


def test_a_piece_covers_its_own_characters(tokenizer: Tokenizer) -> None:
    text = "  Anna   said: “Ça va”,\tand left 1,234 homes…"
    (found,) = align([text], tokenizer)
    covered = "".join(text[a:b] for a, b in dict.fromkeys(zip(found.start.tolist(), found.end.tolist(), strict=True)))
    assert "".join(covered.split()) == "".join(text.split())
    mark = tokenizer.pieces.piece_to_id("▁")  # the word mark alone stands for the white space itself
    assert not any(text[a].isspace() for a, piece in zip(found.start, found.ids, strict=True) if piece != mark)


def test_digits_and_commas_keep_their_places(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A piece such as "3," is divided into "3" and ","; each keeps its character."""
    texts = ["it cost 3, or 13, or 1,234, then", "3,", "a3,b"]
    for text, found, ids in zip(texts, align(texts, tokenizer), tokenizer.encode(texts), strict=True):
        assert found.ids.tolist() == ids
        for piece, a, b in zip(found.ids.tolist(), found.start, found.end, strict=True):
            word = tokenizer.pieces.id_to_piece(piece).replace("▁", "")
            if piece > 1 and word:
                assert text[a:b] == word


def reference_spans(pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    spans, start = [], 0
    while start < pieces:
        length = min(pieces - start, room)
        spans.append((start, length))
        if start + length == pieces:
            break
        start += min(length, stride)
    return spans


def reference_is_max_context(spans: list[tuple[int, int]], span: int, position: int) -> bool:
    best_score, best = None, None
    for index, (start, length) in enumerate(spans):
        end = start + length - 1
        if position < start or position > end:
            continue
        score = min(position - start, end - position) + 0.01 * length
        if best_score is None or score > best_score:
            best_score, best = score, index
    return span == best


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 150), st.integers(1, 200))
def test_windows_and_maximal_context(pieces: int, room: int, stride: int) -> None:
    spans = document_spans(pieces, room, stride)
    assert spans == reference_spans(pieces, room, stride)
    first, last = max_context(spans)
    for index, (start, length) in enumerate(spans):
        for position in range(start, start + length):
            assert (first[index] <= position < last[index]) == reference_is_max_context(spans, index, position)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(2, 50))
def test_the_longer_text_loses_its_end(a: int, b: int, room: int) -> None:
    first, second = list(range(a)), list(range(100, 100 + b))
    mine = list(first), list(second)
    trim(*mine, room)
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    assert mine == (first, second)


def test_the_gap_rule() -> None:
    assert filled("We _ it _ .", "see") == "We see it see ."
    assert filled("What is it?", "a cat") == "What is it? a cat"


def squad_set(*, impossible: bool = False) -> SquadSet:
    content = squad_content(6, 5, impossible)
    paragraphs = [p["context"] for p in content["data"][0]["paragraphs"]]
    questions = [
        Question(q["id"], n, q["question"], tuple(a["text"] for a in q["answers"]),
                 q["answers"][0]["answer_start"] if q["answers"] else -1)
        for n, p in enumerate(content["data"][0]["paragraphs"]) for q in p["qas"]
    ]  # fmt: skip
    return SquadSet(paragraphs, questions)


def test_squad_windows_hold_what_they_should(tokenizer: Tokenizer) -> None:
    found = squad_set()
    task = task_config("squad11", "tasks.squad11.stride=120")
    w = build_windows(found, tokenizer, task, 40)
    queries = tokenizer.encode([q.text for q in found.questions])
    seen: dict[int, set[int]] = collections.defaultdict(set)
    for row, number in enumerate(w.question):
        question = found.questions[number]
        batch = w.features.batch(np.array([row]))
        ids, types = batch.input_ids[0].tolist(), batch.type_ids[0].tolist()
        query = queries[number][: 40 // 2 - 3]
        document = w.pieces[question.paragraph]
        part = document.ids[w.offset[row] : w.offset[row] + w.length[row]].tolist()
        assert ids == [CLS, *query, SEP, *part, SEP]
        assert len(ids) <= 40
        assert types == [0] * (len(query) + 2) + [1] * (len(part) + 1)
        seen[number] |= set(range(w.offset[row], w.offset[row] + w.length[row]))
        start, end, none = batch.targets[0].tolist()
        gold = gold_pieces(question, document)
        assert gold is not None
        inside = w.offset[row] <= gold[0] and gold[1] < w.offset[row] + w.length[row]
        assert none == (not inside)
        if inside:
            text = found.paragraphs[question.paragraph]
            a = document.start[start - w.first[row] + w.offset[row]]
            b = document.end[end - w.first[row] + w.offset[row]]
            assert question.answers[0] in text[a:b].strip()
        else:
            assert (start, end) == (0, 0)
    for number, question in enumerate(found.questions):
        assert seen[number] == set(range(len(w.pieces[question.paragraph])))
    assert len(w.features) > len(found.questions), "windows must overlap for this to test anything"


def test_the_first_64_pieces_of_a_question_count(tokenizer: Tokenizer) -> None:
    found = SquadSet(["a b c"], [Question("q", 0, "why " * 300, ("b",), 2)])
    w = build_windows(found, tokenizer, task_config("squad11"), 384)
    assert w.first.tolist() == [64 + 2]


@pytest.mark.data
@pytest.mark.skipif(not FOLDER, reason="ALBERT_ABLATE_DATA is not set")
@pytest.mark.parametrize(("file", "version", "least"), [("dev-v1.1", "1.1", 0.997), ("dev-v2.0", "2.0", 0.997)])
def test_gold_answers_come_back(tokenizer: Tokenizer, file: str, version: str, least: float) -> None:
    """Text -> pieces -> gold positions -> text, for every question; what is lost begins or ends inside a piece."""
    from albert_ablate.tasks.squad import metrics as squad_metrics

    found = read_squad(Path(str(FOLDER)) / "squad" / f"{file}.json.xz", version)
    pieces = align(found.paragraphs, tokenizer)
    asked = [q for q in found.questions if q.answers]
    lost = []
    for q in asked:
        document, text = pieces[q.paragraph], found.paragraphs[q.paragraph]
        gold = gold_pieces(q, document)
        assert gold is not None
        a, b = int(document.start[gold[0]]), int(document.end[gold[1]])
        if squad_metrics.exact(text[a:b].strip(), q.answers[0]) < 1:
            lost.append(q)
            assert a < q.start or b > q.start + len(q.answers[0]), q
    assert 1 - len(lost) / len(asked) > least, f"{len(lost)} of {len(asked)}"


def features(lengths: list[int], choices: int = 1) -> FeatureSet:
    rows = [list(range(10, 10 + n - 2)) for n in lengths]
    return FeatureSet(Sequences.of(rows), np.arange(len(lengths) // choices), choices)


def test_batches_are_a_function_of_the_step() -> None:
    draw = np.random.default_rng(0)
    found = features(draw.integers(3, 60, 500).tolist())
    one = TaskBatches(found, 16, "x", 7, group_by_length=True)
    other = TaskBatches(found, 16, "x", 7, group_by_length=True)
    assert [one.examples(s).tolist() for s in (40, 3, 31)] == [other.examples(s).tolist() for s in (40, 3, 31)]
    assert one.examples(0).tolist() != TaskBatches(found, 16, "x", 8, True).examples(0).tolist()
    epoch = np.concatenate([one.examples(s) for s in range(one.per_epoch)])
    assert len(set(epoch.tolist())) == len(epoch) == 31 * 16, "no example twice in an epoch, the rest left out"
    after = np.concatenate([one.examples(s) for s in range(one.per_epoch, 2 * one.per_epoch)])
    assert sorted(after.tolist()) != epoch.tolist()


def test_grouping_by_length_saves_padding_and_leaves_the_order_random() -> None:
    draw = np.random.default_rng(0)
    found = features(draw.integers(3, 100, 5000).tolist())

    def padding(group: bool) -> float:
        batches = TaskBatches(found, 16, "x", 0, group)
        return float(np.mean([1 - batches[s].mask.float().mean() for s in range(batches.per_epoch)]))

    assert padding(True) < 0.1 < 0.35 < padding(False)
    longest = [int(TaskBatches(found, 16, "x", 0, True)[s].mask.shape[1]) for s in range(300)]
    assert abs(np.corrcoef(np.arange(300), longest)[0, 1]) < 0.2, "short batches must not come first"


def test_every_example_is_predicted_once() -> None:
    draw = np.random.default_rng(0)
    found = features(draw.integers(3, 400, 300).tolist())
    rows = np.concatenate([rows for rows, _ in in_order(found)])
    assert sorted(rows.tolist()) == list(range(300))
    assert all(batch.mask.numel() <= 16_384 for _, batch in in_order(found))


def test_choices_stand_together() -> None:
    found = features([5, 6, 7, 8, 9, 3, 4, 5], choices=4)
    assert len(found) == 2
    assert found.lengths.tolist() == [8, 9]
    batch = found.batch(np.array([1, 0]))
    assert batch.mask.sum(1).tolist() == [9, 3, 4, 5, 5, 6, 7, 8]
    first, second = batch.micro(4)
    assert first.input_ids.shape == (4, 9)
    assert second.input_ids.shape == (4, 8)
    assert second.targets.tolist() == [0]
