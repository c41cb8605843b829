"""What holds for every value: identity, conversion of settings, cleaning of text, packing, masking."""

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datahelpers import make_store, mask_settings, pair_settings
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from albert_ablate import streams
from albert_ablate.axes import Objective
from albert_ablate.config.identity import identity, readable_name, settings_digest
from albert_ablate.config.parse import parse
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import assemble
from albert_ablate.data.corpora import Corpus
from albert_ablate.data.masking import mask_batch
from albert_ablate.data.segments import build_pairs
from albert_ablate.data.text import LONGEST, divided, prepare_text, split_sentences, text_info, without_control
from albert_ablate.data.tokenizer import CLS, FIRST_PIECE, MASK, PAD, SEP, UNK
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError

#: Every setting there is, with no word of a preset in it.
BASE = json.dumps(compose(["data=text", "data.path=corpus.txt", "task=sst2"]).as_dict())

#: Another value of one setting often contradicts the rest; such examples are left out.
_UNFIT = (HealthCheck.filter_too_much, HealthCheck.too_slow)
shares = st.floats(0, 0.99)
rates = st.floats(1e-8, 10)
sizes = st.integers(1, 500)


@st.composite
def values(draw: st.DrawFn) -> dict[str, Any]:
    """The values of some valid configuration."""
    found: dict[str, Any] = json.loads(BASE)
    heads, layers, steps = draw(st.integers(1, 16)), draw(st.integers(1, 24)), draw(st.integers(2, 10**7))
    hidden = heads * draw(st.integers(1, 64))
    share = draw(st.sampled_from(["all", "attention", "ffn", "none"]))
    length = draw(st.integers(8, 512))
    batch = draw(st.integers(1, 4096))
    unit = draw(st.sampled_from(["steps", "tokens", "flops", "seconds"]))
    amounts = {"tokens": draw(st.integers(1, 10**12)), "flops": draw(st.floats(1, 1e22)), "seconds": draw(rates)}
    changes: dict[str, dict[str, Any]] = {
        "embed": {"size": draw(st.integers(1, hidden))},
        "share": {"strategy": share, "groups": 1 if share == "none" else draw(st.integers(1, layers))},
        "objective": {"name": draw(st.sampled_from([objective.value for objective in Objective]))},
        "model": {
            "hidden": hidden, "heads": heads, "layers": layers, "intermediate": draw(sizes),
            "max_positions": length + draw(st.integers(0, 100)), "hidden_dropout": draw(shares),
            "attention_dropout": draw(shares), "layer_norm_eps": draw(rates),
            "activation": draw(st.sampled_from(["gelu_tanh", "gelu_erf"])), "initializer_range": draw(rates),
        },
        "pairs": {"max_length": length, "short_probability": draw(st.floats(0, 1))},
        "masking": {
            "probability": draw(st.floats(0.01, 0.99)), "max_ngram": draw(st.integers(1, 10)),
            "max_predictions": draw(st.none() | sizes), "copies": draw(st.none() | sizes),
        },
        "optimizer": {
            "learning_rate": draw(rates), "weight_decay": draw(st.floats(0, 1)), "beta1": draw(shares),
            "clip_norm": draw(st.none() | rates), "bias_correction": draw(st.booleans()),
        },
        "budget": {
            "unit": unit, "steps": steps, "warmup_steps": draw(st.integers(0, steps - 1)),
            **{name: amount if name == unit else None for name, amount in amounts.items()},
        },
        "batch": {"size": batch, "micro_size": draw(st.integers(1, batch))},
        "data": {"path": draw(st.text(st.characters(codec="utf-8", categories=["L", "N", "S"]), min_size=1))},
    }  # fmt: skip
    for group, change in changes.items():
        found[group] |= change
    found["seed"] = draw(st.integers(0, 2**63 - 1))
    return found


def name_of(config: RunConfig) -> str:
    return identity(config, "0123456789abcdef", "fp32")


# --- conversion and identity ---------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(values())
def test_settings_survive_yaml_and_json(found: dict[str, Any]) -> None:
    config = parse(found)
    plain = config.as_dict()
    for again in (
        yaml.safe_load(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)),
        json.loads(json.dumps(plain)),
    ):
        assert parse(again) == config
        assert parse(again).as_dict() == plain
        assert name_of(parse(again)) == name_of(config)
    assert readable_name(config) == Path(readable_name(config)).name


def respelled(value: Any, draw: random.Random) -> Any:
    """The same values with the keys in another order, and whole numbers written as the other kind."""
    if isinstance(value, dict):
        keys = list(value)
        draw.shuffle(keys)
        return {key: respelled(value[key], draw) for key in keys}
    if isinstance(value, list):
        return [respelled(inner, draw) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value) if draw.random() < 0.5 else str(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else repr(value)
    return value


@settings(max_examples=100, deadline=None)
@given(values(), st.integers())
def test_order_and_spelling_do_not_change_the_identity(found: dict[str, Any], seed: int) -> None:
    config, other = parse(found), parse(respelled(found, random.Random(seed)))
    assert other == config
    assert name_of(other) == name_of(config)
    assert settings_digest(other) == settings_digest(config)


#: Settings that change the numbers of a run whatever the others are.
RELEVANT = [
    "seed", "embed.size", "share.strategy", "share.groups", "objective.name", "model.hidden", "model.layers",
    "model.heads", "model.intermediate", "model.max_positions", "model.type_vocab", "model.projection",
    "model.hidden_dropout", "model.attention_dropout", "model.activation", "model.initializer_range",
    "model.layer_norm_eps", "pairs.max_length", "pairs.short_probability", "pairs.single_sentence", "pairs.nsp_tail",
    "masking.probability", "masking.max_ngram", "masking.max_predictions", "masking.copies", "optimizer.name",
    "optimizer.learning_rate", "optimizer.weight_decay", "optimizer.beta1", "optimizer.beta2", "optimizer.epsilon",
    "optimizer.bias_correction", "optimizer.clip_norm", "optimizer.decay_from", "budget.warmup_steps", "batch.size",
    "evaluation.max_pairs", "evaluation.probe_pairs", "warm_start.layers",
]  # fmt: skip
INCIDENTAL = [
    "model.name", "data.name", "data.path", "data.fraction", "tokenizer.name", "tokenizer.model_path", "scale.name",
    "runtime.threads", "runtime.workers", "runtime.log_every", "runtime.checkpoint_every", "runtime.keep_checkpoints",
    "runtime.retries", "paths.runs", "paths.cache", "tracker.project", "tracker.wandb", "task.start", "task.seeds",
    "tasks.sst2.epochs", "rerun", "sweep", "runtime.backend",
]  # fmt: skip
CHOICES: dict[str, list[Any]] = {
    "share.strategy": ["all", "attention", "ffn", "none"], "objective.name": ["sop", "nsp", "none"],
    "model.projection": ["auto", "always"], "model.activation": ["gelu_tanh", "gelu_erf"],
    "pairs.single_sentence": ["extend", "skip", "released"], "pairs.nsp_tail": ["put_back", "drop"],
    "optimizer.name": ["lamb", "adamw"], "optimizer.decay_from": ["start", "warmup_end"],
    "task.start": ["pretrained", "random"], "rerun": ["missing", "failed", "all"],
    "tasks.sst2.epochs": [0.5, 3.0], "task.seeds": [[0], [1, 2]], "sweep": [None, "table4"],
    "warm_start.layers": [[], [1]], "masking.copies": [None, 3, 40], "masking.max_predictions": [None, 3, 20],
    "optimizer.clip_norm": [None, 0.5, 1.5], "runtime.threads": [None, 1, 3], "runtime.workers": [None, 0, 2],
    "runtime.backend": ["auto", "eager", "compiled", "graph"], "tokenizer.model_path": [None, "a.model"],
    "tokenizer.name": ["unigram", "bpe", "wordpiece"],
}  # fmt: skip


def changed(draw: Any, found: dict[str, Any], field: str) -> dict[str, Any]:
    """``found`` with another value of ``field``."""
    copy = json.loads(json.dumps(found))
    *groups, last = field.split(".")
    place = copy
    for group in groups:
        place = place[group]
    old = place[last]
    if field in CHOICES:
        place[last] = draw(st.sampled_from([value for value in CHOICES[field] if value != old]))
    elif isinstance(old, bool):
        place[last] = not old
    elif isinstance(old, str) or field == "tracker.project":  # which is null: the environment's, or the default
        place[last] = f"{old}-other"
    elif isinstance(old, int):
        place[last] = draw(st.integers(max(0, old - 50), old + 50).filter(lambda value: value != old))
    else:
        place[last] = old / 2 if old else 0.25
    return copy


def parsed_with(draw: Any, found: dict[str, Any], field: str) -> RunConfig:
    """``found`` with another value of ``field``; one that contradicts the rest is drawn again."""
    try:
        return parse(changed(draw, found, field))
    except ConfigError:
        reject()


@pytest.mark.parametrize("field", RELEVANT)
def test_what_changes_the_numbers_changes_the_identity(field: str) -> None:
    @settings(max_examples=12, deadline=None, suppress_health_check=_UNFIT)
    @given(values(), st.data())
    def check(found: dict[str, Any], data: st.DataObject) -> None:
        other = parsed_with(data.draw, found, field)
        assert name_of(other) != name_of(parse(found))

    check()


@pytest.mark.parametrize("field", INCIDENTAL)
def test_where_and_how_do_not_change_the_identity(field: str) -> None:
    @settings(max_examples=6, deadline=None, suppress_health_check=_UNFIT)
    @given(values(), st.data())
    def check(found: dict[str, Any], data: st.DataObject) -> None:
        other = parsed_with(data.draw, found, field)
        assert other != parse(found)
        assert name_of(other) == name_of(parse(found))

    check()


# --- text ----------------------------------------------------------------------------------------

#: Any characters, white space, control characters and sentence ends more often than by chance.
texts = st.text(st.characters() | st.sampled_from(" \n\t\r\0\x1b.!?。\u2028\u202e\ufeffAb"), max_size=120)


def visible(text: str) -> str:
    return "".join(text.split())


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=12), st.booleans())
def test_no_document_and_no_character_is_lost(documents: list[str], per_line: bool) -> None:
    held_out = ["Held out here. And more."]
    corpus = Corpus("any", "x", lambda: iter(documents), lambda: iter(held_out), per_line, {})
    with tempfile.TemporaryDirectory() as place:
        try:
            folder = prepare_text(corpus, "en", 0.5, Path(place))
        except DataError:
            assert not any(visible(without_control(text)[0]) not in ("", visible(held_out[0])) for text in documents)
            return
        info = text_info(folder)
        with (folder / "train.txt").open(encoding="utf-8", newline="") as source:
            kept = source.read()
    left_out = info["source"].get("left_out", {})
    counted = info["train"]["documents"] + info["duplicates_dropped"] + left_out.get("documents_without_text", 0)
    assert counted == len(documents)
    seen: dict[str, None] = dict.fromkeys([held_out[0]])
    for text in documents:
        seen.setdefault(without_control(text)[0])
    assert visible(kept) == "".join(visible(text) for text in list(seen)[1:])
    assert left_out.get("control_characters", 0) == sum(without_control(text)[1] for text in documents)


@settings(max_examples=150, deadline=None)
@given(texts)
def test_splitting_into_sentences_keeps_every_character(text: str) -> None:
    text = without_control(text)[0]
    sentences = list(split_sentences(text, "en"))
    assert visible("".join(sentences)) == visible(text)
    assert all(sentence == " ".join(sentence.split()) != "" for sentence in sentences)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 3)), max_size=6))
def test_a_long_sentence_is_divided_into_parts_that_make_it_up(pieces: list[tuple[int, int]]) -> None:
    sentence = "".join("x" * letters + " " * spaces for letters, spaces in pieces).strip()
    parts = list(divided(sentence))
    assert all(len(part) <= LONGEST for part in parts)
    assert visible("".join(parts)) == visible(sentence)
    assert len(parts) <= 2 * len(sentence) // LONGEST + 1 + len(pieces)


# --- packing -------------------------------------------------------------------------------------

stores = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=10), min_size=2, max_size=6).map(make_store)


@settings(max_examples=80, deadline=None)
@given(stores, st.sampled_from(list(Objective)), st.integers(8, 64), st.integers(0, 2**31), st.integers(0, 3))
def test_a_batch_holds_tokens_of_its_documents_in_their_order(
    store: Any, objective: Objective, length: int, seed: int, epoch: int
) -> None:
    pairs = build_pairs(store, objective, pair_settings(max_length=length), seed, epoch)
    assume(len(pairs))
    vocabulary = int(store.tokens.max()) + 1
    keys = streams.hashed(seed, np.arange(len(pairs)))
    batch = assemble(store, pairs, np.ones(vocabulary, dtype=bool), keys, length, mask_settings())
    ids = batch.input_ids.numpy().copy()
    ids.reshape(-1)[batch.positions.numpy()] = batch.targets.numpy()  # as it was before masking
    bounds = store.sentences[store.documents]
    for row in range(len(pairs)):
        a = slice(pairs.a_start[row], pairs.a_start[row] + pairs.a_length[row])
        b = slice(pairs.b_start[row], pairs.b_start[row] + pairs.b_length[row])
        whole = [CLS, *store.tokens[a], SEP, *store.tokens[b], SEP]
        assert len(whole) <= length
        assert ids[row].tolist() == whole + [PAD] * (length - len(whole))
        assert batch.mask[row].sum() == len(whole)
        assert batch.type_ids[row].tolist() == (
            [0] * (pairs.a_length[row] + 2) + [1] * (pairs.b_length[row] + 1) + [0] * (length - len(whole))
        )
        for part, document in ((a, pairs.document[row]), (b, pairs.b_document[row])):
            assert bounds[document] <= part.start < part.stop <= bounds[document + 1]
        label, swapped = int(batch.labels[row]), pairs.b_start[row] < pairs.a_start[row]
        assert label in (0, 1)
        if objective is Objective.NSP:
            assert (label == 1) == (pairs.document[row] != pairs.b_document[row])
        else:
            assert (label == 1) == swapped == (swapped and objective is Objective.SOP)


@settings(max_examples=60, deadline=None)
@given(stores, st.integers(0, 2**31))
def test_without_truncation_every_token_of_a_paired_run_is_in_exactly_one_pair(store: Any, seed: int) -> None:
    for objective in (Objective.SOP, Objective.NONE):
        pairs = build_pairs(store, objective, pair_settings(max_length=10_000, short_probability=0.0), seed, 0)
        found = [
            token
            for start, size in ((pairs.a_start, pairs.a_length), (pairs.b_start, pairs.b_length))
            for begin, count in zip(start.tolist(), size.tolist(), strict=True)
            for token in range(begin, begin + count)
        ]
        alone = {d for d in range(store.document_count) if store.documents[d + 1] - store.documents[d] == 1}
        expected = [
            token
            for d in range(store.document_count)
            if d not in alone
            for token in range(store.sentences[store.documents[d]], store.sentences[store.documents[d + 1]])
        ]
        assert sorted(found) == expected


# --- masking -------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
    probability=st.floats(0.01, 0.99),
    ngram=st.integers(1, 10),
    cap=st.none() | st.integers(1, 20),
    vocabulary=st.integers(FIRST_PIECE + 2, 300),
)
def test_masking_stays_within_its_limits(
    lengths: list[tuple[int, int]], seed: int, probability: float, ngram: int, cap: int | None, vocabulary: int
) -> None:
    draw = np.random.default_rng(seed)
    ids = np.full((len(lengths), 63), PAD, dtype=np.int32)
    starts = []
    for row, (a, b) in enumerate(lengths):
        body = np.where(draw.random(a + b) < 0.1, UNK, draw.integers(FIRST_PIECE, vocabulary, a + b))
        ids[row, : a + b + 3] = [CLS, *body[:a], SEP, *body[a:], SEP]
        starts.append([1, a + 2])
    real = np.array([a + b + 3 for a, b in lengths])
    word_starts = draw.random(vocabulary) < 0.6
    keys = streams.hashed(seed, np.arange(len(lengths)))
    chosen = mask_settings(probability=probability, max_ngram=ngram, max_predictions=cap)
    result = mask_batch(ids, real, np.array(starts), word_starts, keys, chosen)
    flat, masked = ids.reshape(-1), result.input_ids.reshape(-1)
    assert (np.diff(result.positions) > 0).all()
    assert result.targets.tolist() == flat[result.positions].tolist()
    assert not np.isin(result.targets, (PAD, CLS, SEP, MASK)).any(), "specials are never predicted"
    untouched = np.delete(np.arange(ids.size), result.positions)
    assert (masked[untouched] == flat[untouched]).all()
    now = masked[result.positions]
    assert ((now == MASK) | (now == result.targets) | ((now >= FIRST_PIECE) & (now < vocabulary))).all()
    count = np.bincount(result.positions // ids.shape[1], minlength=len(lengths))
    budget = np.maximum(1, np.rint(real * probability)).astype(int)
    assert (count <= np.minimum(budget, cap or budget)).all()
    again = mask_batch(ids[::-1], real[::-1], np.array(starts)[::-1], word_starts, keys[::-1], chosen)
    assert (again.input_ids[::-1] == result.input_ids).all(), "a row does not depend on its place"
