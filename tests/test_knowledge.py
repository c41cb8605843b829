"""Facts beside a text: what is matched, where it stands, who sees it, and that it never costs a piece of the text."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from knowledgehelpers import COOK, FACTS, SENTENCE, Words, batch_of, sequences, words_of
from runhelpers import ROOT
from torch import Tensor

from albert_ablate.axes import Share
from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.errors import DataError
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.pretraining import initialise
from albert_ablate.tasks.heads import POOLS
from albert_ablate.tasks.knowledge.facts import Fact, read_facts, shuffled
from albert_ablate.tasks.task import Sequences, TaskBatch

SHAPE = Architecture(64, 8, 16, 3, 2, 32, 40, Share.NONE, initializer_range=0.3)
#: The worked example: tokens, soft positions, and by row the tokens that each one sees, counted by hand. The last
#: [SEP] belongs to the sentence.
FLAT = "[CLS] Tim Cook CEO Apple is visiting Beijing capital China is_a City now [SEP]"
POSITIONS = [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 6, 7, 6, 7]
SENTENCE_PLACES = {0, 1, 2, 5, 6, 7, 12, 13}
BRANCHES = {2: [{3, 4}], 7: [{8, 9}, {10, 11}]}


def expected_visible() -> np.ndarray:
    """(14, 14): the rule of the paper, place by place."""
    seen = np.zeros((14, 14), bool)
    for i in SENTENCE_PLACES:
        for j in SENTENCE_PLACES:
            seen[i, j] = True
    for mention, branches in BRANCHES.items():
        for branch in branches:
            for i in branch | {mention}:
                for j in branch:
                    seen[i, j] = seen[j, i] = True
    return seen


def encoder(layers: int = 3, **changed: Any) -> Encoder:
    model = Encoder(replace(SHAPE, layers=layers, hidden_dropout=0.0, attention_dropout=0.0, **changed))
    initialise(model, 0.3, 0)
    return model.eval()


def without_hand_written_layers(model: Encoder) -> Encoder:
    for block in model.modules():
        block.on_cpu = lambda low: None  # type: ignore[assignment]
    return model


def states(model: Encoder, batch: TaskBatch) -> Tensor:
    with torch.no_grad():
        return model(batch.input_ids, batch.type_ids, batch.visible, batch.position_ids)


def test_the_worked_example_in_all_of_its_places() -> None:
    words = Words()
    made = sequences([SENTENCE], COOK, words=words)
    batch = batch_of(made)
    assert words_of(made, words) == FLAT
    assert batch.position_ids is not None
    assert batch.position_ids[0].tolist() == POSITIONS
    visible = batch.visible[0, 0].numpy()
    np.testing.assert_array_equal(visible, expected_visible())
    np.testing.assert_array_equal(visible, visible.T)
    # As counted without [SEP], which the paper's example does not have.
    counts = dict(zip(FLAT.split(), visible[:13, :13].sum(1).tolist(), strict=False))
    of_sentence = dict.fromkeys(["[CLS]", "Tim", "is", "visiting", "now"], 7) | {"Cook": 9, "Beijing": 11}
    assert counts == dict.fromkeys(FLAT.split()[:13], 3) | of_sentence


def test_a_branch_belongs_to_all_pieces_of_its_mention_and_to_its_segment() -> None:
    words = Words()
    made = sequences(["Tim Cook waits"], FACTS, second=["Beijing is large"], words=words)
    assert (
        words_of(made, words) == "[CLS] Tim Cook CEO Apple waits [SEP] Beijing capital China is_a City is large [SEP]"
    )
    batch = batch_of(made)
    assert batch.type_ids[0].tolist() == [0] * 7 + [1] * 8
    assert batch.position_ids is not None
    assert batch.position_ids[0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 6, 7, 6, 7, 8]
    seen = batch.visible[0, 0]
    assert seen[[1, 2], 3].all(), "both pieces of Tim Cook see its fact"
    assert not seen[[5, 8], [3, 10]].any(), "no other word does, and no branch of the same mention"


def test_longest_matches_on_word_boundaries() -> None:
    facts = [
        Fact("New York", "is a", "city"),
        Fact("New York Times", "is a", "newspaper"),
        Fact("York", "is a", "town"),
    ]
    made = sequences(["the New York Times of York"], facts)
    assert made.facts is not None
    assert made.facts.counts == {"mentions": 2, "matched": 2, "injected": 2, "dropped": 0}
    assert made.facts.mention is not None
    assert made.facts.mention.tolist()[2:5] == [1, 1, 1], "one mention, not New York"


def test_facts_in_file_order_at_most_so_many() -> None:
    facts = [Fact("a", f"p{i}", f"o{i}") for i in range(4)]
    words = Words()
    assert words_of(sequences(["a b"], facts, words=words), words) == "[CLS] a p0 o0 p1 o1 b [SEP]"
    made = sequences(["a b"], facts, words=words, max_triples=3, relation_text=False)
    assert words_of(made, words) == "[CLS] a o0 o1 o2 b [SEP]"


def test_facts_as_text_stand_after_the_texts() -> None:
    words = Words()
    single = sequences([f"{SENTENCE} Beijing"], FACTS, words=words, name="text")
    told = "Tim Cook CEO Apple. Beijing capital China. Beijing is_a City. [SEP]"
    assert words_of(single, words) == f"[CLS] {SENTENCE} Beijing [SEP] {told}", "each fact once"
    assert batch_of(single).type_ids[0].tolist() == [0] * 9 + [1] * 11
    pair = sequences(["Beijing"], FACTS, second=["now"], words=words, name="text")
    assert words_of(pair, words) == "[CLS] Beijing [SEP] now [SEP] Beijing capital China. Beijing is_a City. [SEP]"
    batch = batch_of(pair)
    assert batch.visible is batch.mask
    assert batch.position_ids is None


@pytest.mark.parametrize("name", ["inject", "text"])
@pytest.mark.parametrize("room", range(8, 24))
def test_no_piece_of_the_text_is_ever_dropped_for_a_fact(room: int, name: str) -> None:
    """Every length from that of the sentence alone: facts are taken while they fit, the others are counted."""
    words = Words()
    made = sequences([SENTENCE], FACTS, room, words=words, name=name)
    shown = words_of(made, words).split()
    assert len(shown) <= room
    kept = [word for word in shown if word in SENTENCE.split()]
    assert kept[:6] == SENTENCE.split()
    assert shown[-1] == "[SEP]"
    assert made.facts is not None
    counts = made.facts.counts
    assert counts["matched"] == 3 == counts["injected"] + counts["dropped"]
    each, end = (2, 0) if name == "inject" else (4, 1)
    if name == "inject":
        assert counts["injected"] == min(3, (room - 8) // each)
    assert (counts["injected"] == 0) is (room < 8 + 3 + end if name == "text" else room < 10)


@pytest.mark.parametrize("facts", [[], [Fact("London", "is a", "city")], [Fact("visit", "is a", "verb")]])
@pytest.mark.parametrize("name", ["inject", "text"])
def test_without_a_match_a_batch_is_that_without_facts(facts: list[Fact], name: str) -> None:
    words = Words()
    texts = [SENTENCE, "now"]
    made, plain = sequences(texts, facts, words=words, name=name), Sequences.of(words.encode(texts))
    with_facts, without = batch_of(made), batch_of(plain)
    assert with_facts.tensors().keys() == without.tensors().keys()
    for key, value in without.tensors().items():
        assert torch.equal(with_facts.tensors()[key], value), key
    model = encoder()
    assert torch.equal(states(model, with_facts), states(model, without))


def test_a_batch_without_branches_beside_one_with() -> None:
    """Facts of other examples change nothing, neither in another batch nor beside them."""
    words = Words()
    made = sequences([SENTENCE, "now is now"], FACTS, words=words)
    model, alone = encoder(), batch_of(Sequences.of(words.encode(["now is now"])))
    found = states(model, batch_of(made))[1, :5]
    torch.testing.assert_close(found, states(model, alone)[0], rtol=1e-5, atol=1e-5)


def changed_word(batch: TaskBatch, place: int) -> TaskBatch:
    ids = batch.input_ids.clone()
    ids[0, place] = 60
    return replace(batch, input_ids=ids)


@pytest.mark.parametrize(("layers", "reached"), [
    (1, {2, 3, 4}),
    (2, {2, 3, 4} | SENTENCE_PLACES),
    (3, set(range(14))),
])  # fmt: skip
def test_a_fact_reaches_its_mention_then_the_sentence_then_other_branches(layers: int, reached: set[int]) -> None:
    batch, model = batch_of(sequences([SENTENCE], COOK)), encoder(layers)
    moved = (states(model, batch) != states(model, changed_word(batch, 4))).any(-1)[0]  # Apple
    assert {place for place, differs in enumerate(moved.tolist()) if differs} == reached
    open_to_all = batch_of(sequences([SENTENCE], COOK, visible_matrix=False))
    moved = (states(model, open_to_all) != states(model, changed_word(open_to_all, 4))).any(-1)[0]
    assert moved.all(), "without the matrix everything sees it at once"


@pytest.mark.parametrize("matrix", [True, False])
@pytest.mark.parametrize("soft", [True, False])
def test_branches_of_a_mention_may_stand_in_any_order(matrix: bool, soft: bool) -> None:
    """With soft positions the sentence reads the same; with positions one after another it does not."""
    model, outputs = encoder(), []
    words = Words(*dict.fromkeys(word for f in COOK for word in (f.subject, f.predicate, f.object)), *SENTENCE.split())
    for facts in (COOK, [COOK[0], COOK[2], COOK[1]]):
        made = sequences([SENTENCE], facts, words=words, visible_matrix=matrix, soft_positions=soft)
        batch = batch_of(made)
        outputs.append(states(model, batch)[0][batch.sentence[0]])
    difference = float((outputs[0] - outputs[1]).abs().max())
    assert difference < 1e-5 if soft else difference > 1e-3


@pytest.mark.parametrize("low", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("plain", [True, False])
def test_padding_changes_nothing_and_stays_finite(low: torch.dtype, plain: bool) -> None:
    """Also with gradients, in the hand-written layers and in the plain modules."""
    narrow = batch_of(sequences([SENTENCE, "Beijing"], COOK))
    model, wide = without_hand_written_layers(encoder()) if plain else encoder(), narrow.widened(32, 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=low is torch.bfloat16):
        padded, exact = (model(b.input_ids, b.type_ids, b.visible, b.position_ids) for b in (wide, narrow))
        POOLS["mean"](model, wide).sum().backward()
    assert padded.isfinite().all()
    bound = 1e-4 if low is torch.float32 else 0.1
    torch.testing.assert_close(padded[wide.mask], exact[narrow.mask], rtol=bound, atol=bound)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_hand_written_and_plain_layers_agree() -> None:
    batch = batch_of(sequences([SENTENCE, "Beijing now"], COOK))
    by_hand, plain = encoder(), without_hand_written_layers(encoder())
    results = []
    for model in (by_hand, plain):
        out = model(batch.input_ids, batch.type_ids, batch.visible, batch.position_ids)[batch.mask]
        out.square().sum().backward()
        results.append((out.detach(), [p.grad for p in model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    for mine, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_heads_read_the_sentence_alone() -> None:
    batch, model = batch_of(sequences([SENTENCE, "Beijing"], COOK)), encoder()
    found = {name: pool(model, batch) for name, pool in POOLS.items()}
    last = states(model, batch)
    for row in range(2):
        places = batch.sentence[row].nonzero().flatten().tolist()
        torch.testing.assert_close(found["mean"][row], last[row][places].mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["last"][row], last[row][places[-1]], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["first"][row], last[row][0], rtol=1e-4, atol=1e-5)
        assert batch.input_ids[row, places[-1]] == SEP
        assert batch.input_ids[row, 0] == CLS


def test_parts_of_a_batch_keep_its_branches() -> None:
    batch = batch_of(sequences([SENTENCE, "Beijing", "now"], COOK))
    model = encoder()
    whole = states(model, batch)
    for row, part in enumerate(batch.micro(1)):
        width = part.input_ids.shape[1]
        torch.testing.assert_close(states(model, part)[0], whole[row, :width], rtol=1e-4, atol=1e-5)


def objects_of(facts: list[Fact]) -> dict[str, set[str]]:
    own: dict[str, set[str]] = {}
    for fact in facts:
        own.setdefault(fact.subject, set()).add(fact.object)
    return own


@pytest.mark.parametrize("seed", range(5))
def test_exchanged_objects_are_the_same_ones_at_other_subjects(seed: int) -> None:
    facts = [Fact(f"s{i % 37}", f"p{i % 3}", f"o{(i * 7) % 11}") for i in range(120)]
    made = shuffled(facts, seed)
    assert [(f.subject, f.predicate) for f in made] == [(f.subject, f.predicate) for f in facts]
    assert Counter(f.object for f in made) == Counter(f.object for f in facts)
    own = objects_of(facts)
    assert not [f for f in made if f.object in own[f.subject]]
    assert made == shuffled(facts, seed) != shuffled(facts, seed + 1)


def test_the_exchange_is_no_code() -> None:
    """What a subject gets says no more of its own object than that it is another one."""
    facts = [Fact(f"s{i}", "is", f"o{i % 8}") for i in range(800)]
    pairs = Counter((a.object, b.object) for a, b in zip(facts, shuffled(facts, 3), strict=True))
    assert len(pairs) == 8 * 7
    assert max(pairs.values()) < 40
    assert min(pairs.values()) > 2


def test_objects_that_cannot_be_exchanged_stay() -> None:
    facts = [Fact(f"s{i}", "is", "x" if i < 8 else f"y{i}") for i in range(11)]
    kept = [f for f, g in zip(facts, shuffled(facts, 0), strict=True) if f == g]
    assert len(kept) == 8 - 3, "three of eight can be exchanged with the other three"


def test_equal_tokens_whatever_the_hash_seed(tmp_path: Path) -> None:
    """Two processes; Python's sets and hashes differ between them."""
    code = (
        "from knowledgehelpers import *; from albert_ablate.tasks.knowledge.facts import shuffled;"
        "facts=[Fact(f's{i%9}',f'p{i}',f'o{i%5}') for i in range(40)];"
        "made=sequences(['s1 s4 b s8','s3'],shuffled(facts,1));"
        "print(made.tokens.tolist(), made.facts.mention.tolist(), made.facts.branch.tolist())"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(shown) == 1
    assert "[" in shown.pop()


@pytest.mark.parametrize(("content", "message"), [
    ("a\tb\n", "line 1: 2 fields, but subject, predicate, object are expected"),
    ("subject\tpredicate\tobject\nx\tis a\ty\nx\t \ty\n", "line 3: column 'predicate' is empty"),
    ("a\tb\tc\td\n", "line 1: 4 fields"),
])  # fmt: skip
def test_wrong_lines_of_a_table_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "facts.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_facts(path)


def test_a_table_with_and_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "facts.tsv"
    for header in ("", "Subject\tPredicate\tObject\n", "\ufeff"):
        path.write_text(f"{header}a  b\tis\tc\n\nd\tis\te\na b\tis\tc\n", encoding="utf-8")
        assert read_facts(path) == [Fact("a b", "is", "c"), Fact("d", "is", "e")]
