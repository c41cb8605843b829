"""Planted text: its statistics, and the reference against enumeration of everything that could have been written."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runhelpers import held_out_of, read_json, run, tiny_config, write_corpus

from albert_ablate.commands import evaluate
from albert_ablate.config.schema import PlantedConfig
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.planted import PlantedText
from albert_ablate.data.planted_reference import PlantedReference
from albert_ablate.data.prepare import Prepared, prepare
from albert_ablate.data.reference import Cuts, Seen
from albert_ablate.data.tokenizer import CLS, FIRST_PIECE, MASK, SEP
from albert_ablate.door.compose import compose, compose_for_run
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.evaluation.achievable import achievable
from albert_ablate.evaluation.baselines import NgramBaselines

PLANTED = PlantedConfig(
    topic=0.5,
    order=0.5,
    local=0.5,
    documents=3000,
    sentences=6,
    words=5,
    vocabulary=40,
    topics=4,
    markers=6,
    pieces=80,
    seed=0,
)


def drawn(**settings: Any) -> tuple[PlantedText, np.ndarray, np.ndarray]:
    """The text, its words and the topic of each document."""
    text = PlantedText(replace(PLANTED, **settings))
    documents = np.arange(text.settings.documents)
    return text, text.draw(documents), text.topics_of(documents)


# --- the text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_topic_is_the_share_of_words_of_the_topic(strength: float) -> None:
    text, words, topics = drawn(topic=strength, order=0.0, local=0.0)
    of_topic = (words // 10 == topics[:, None, None]).mean()
    assert of_topic == pytest.approx(strength + (1 - strength) * 10 / text.word_count, abs=0.01)
    counts = np.bincount(words.ravel(), minlength=text.word_count) / words.size
    assert counts[:40] == pytest.approx(strength / 40 + (1 - strength) / 46, abs=0.004)
    assert counts[40:] == pytest.approx((1 - strength) / 46, abs=0.004)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_order_is_the_share_of_sentences_that_begin_with_their_marker(strength: float) -> None:
    text, words, _ = drawn(topic=1.0, order=strength)
    assert (words[:, :, 0] == 40 + np.arange(6)).mean(0) == pytest.approx(strength, abs=0.04)
    assert (words[:, :, 1:] < 40).all()
    assert len(text.occurring) == (46 if strength else 40)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_local_is_the_share_of_words_that_follow_from_their_neighbour(strength: float) -> None:
    text, words, topics = drawn(topic=0.0, order=0.0, local=strength)
    left, right = words[:, :, :-1].ravel(), words[:, :, 1:].ravel()
    left, right = left[left < 40], right[left < 40]
    assert (text.successors[left] == right).mean() == pytest.approx(strength + (1 - strength) / 46, abs=0.01)
    assert sorted(text.successors) == list(range(40))
    assert (text.successors // 10 == np.arange(40) // 10).all()
    assert np.bincount(topics).std() < 40


def test_without_strength_words_are_even_and_independent() -> None:
    text, words, _ = drawn(topic=0.0, order=0.0, local=0.0)
    pairs = np.bincount(words[:, :, 0].ravel() * 46 + words[:, :, 1].ravel(), minlength=46 * 46)
    expected = words[:, :, 0].size / 46**2
    chi_square = ((pairs - expected) ** 2 / expected).sum()
    assert abs(chi_square - 46**2) < 5 * (2 * 46**2) ** 0.5
    assert text.chances == pytest.approx(1 / 46)


def test_the_text_is_a_function_of_its_settings(tmp_path: Path) -> None:
    few = list(PlantedText(replace(PLANTED, documents=30)).documents())
    assert few == list(itertools.islice(PlantedText(PLANTED).documents(), 30))
    assert len(set(few)) == 30
    assert few != list(PlantedText(replace(PLANTED, documents=30, seed=1)).documents())
    assert len(set(PlantedText(PLANTED).words)) == 46
    config = compose(["data=planted", "data.planted.documents=30"])
    corpus, other = open_corpus(config.data), open_corpus(compose(["data=planted", "data.planted.order=0.1"]).data)
    assert corpus.fingerprint != other.fingerprint
    assert corpus.source["planted"]["order"] == 0.6
    assert open_corpus(compose(["data=embedded"]).data).reference is None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.planted.topic=1.5", r"data\.planted\.topic=1\.5: Input should be less than or equal to 1"),
        ("data.planted.vocabulary=65", r"data\.planted\.vocabulary=65 with .*topics=16.*Try .*vocabulary=64"),
        ("data.planted.markers=25", r"markers=25 exceeds data\.planted\.sentences=24.*Use data\.planted\.markers=24"),
        ("data.source=embedded", r"data\.planted: no effect with data=planted"),
        ("data.planted=null", r"data\.planted is empty"),
    ],
)
def test_wrong_settings_are_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(["data=planted", word])


def test_a_tokenizer_that_divides_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"72 of its 172 words, such as '\w+', are not.*tokenizer\.vocab_size=206"):
        prepare(planted_config(tmp_path, "tokenizer.vocab_size=134"))
    with pytest.raises(DataError, match=r"Set it to 206 or less"):
        prepare(planted_config(tmp_path, "tokenizer.vocab_size=300"))


# --- the reference -------------------------------------------------------------------------------

TINY = PlantedConfig(
    topic=0.6,
    order=0.7,
    local=0.4,
    documents=20,
    sentences=3,
    words=3,
    vocabulary=4,
    topics=2,
    markers=2,
    pieces=32,
    seed=0,
)
PIECES = 20  # of a made-up tokenizer: word w is piece 8 + w


def sentence_law(text: PlantedText, topic: int, place: int) -> np.ndarray:
    """Probability of each of the 6 x 6 x 6 sentences, written down from the definition, word by word."""
    s, count = text.settings, text.word_count
    found = np.zeros((count,) * s.words)
    for words in itertools.product(range(count), repeat=s.words):
        chance = 1.0
        for position, word in enumerate(words):
            free = (1 - s.topic) / count + (s.topic / 2 if word // 2 == topic and word < 4 else 0)
            if position == 0:
                chance *= s.order * (word == 4 + place % 2) + (1 - s.order) * free
            elif words[position - 1] < 4:
                chance *= s.local * (text.successors[words[position - 1]] == word) + (1 - s.local) * free
            else:
                chance *= free
        found[words] = chance
    return found


def seen_law(row: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Likelihood of what is seen of a sentence, for each of the 6 x 6 x 6."""
    found = np.ones((6, 6, 6))
    for position, (piece, is_chosen) in enumerate(zip(row, chosen, strict=True)):
        by_word = np.ones(6)
        for word in range(6):
            same = float(piece == 8 + word)
            if piece == -1:  # cut off
                continue
            if is_chosen:
                by_word[word] = 0.8 if piece == MASK else 0.1 * same + 0.1 / (PIECES - FIRST_PIECE)
            else:
                by_word[word] = same
        found *= by_word.reshape([-1 if axis == position else 1 for axis in range(3)])
    return found


CUTS = Cuts(
    label=np.array([0, 0, 0, 1, 1, 1, 1, 0]),
    same=np.array([1, 1, 1, 0, 0, 1, 0, 1], dtype=bool),
    first=np.array([[0, 1], [1, 2], [0, 1], [0, 0], [1, 0], [2, 1], [1, 2], [0, 2]]),
    count=np.array([[1, 1]] * 7 + [[2, 1]]),
)


@pytest.mark.parametrize(
    "strengths", [(0.6, 0.7, 0.4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.9, 0.2, 1.0), (1.0, 0.5, 0.0)]
)
def test_the_reference_is_bayes_rule_over_all_texts(strengths: tuple[float, float, float]) -> None:
    topic, order, local = strengths
    text = PlantedText(replace(TINY, topic=topic, order=order, local=local))
    predictor = PlantedReference(text, 8 + np.arange(6), PIECES).predictor(CUTS)
    laws = np.array([[sentence_law(text, z, place) for place in range(3)] for z in range(2)])
    assert laws.sum((2, 3, 4)) == pytest.approx(1)
    draw = np.random.default_rng(1)
    for _ in range(6):
        z, place = draw.integers(2), draw.integers(2)
        words = np.array(
            [np.unravel_index(draw.choice(216, p=laws[z, p].ravel()), (6, 6, 6)) for p in (place, place + 1)]
        )
        rows = words + 8
        chosen = draw.random((2, 3)) < 0.5
        kind = draw.random((2, 3))
        noise = draw.integers(FIRST_PIECE, PIECES, (2, 3))
        rows = np.where(chosen, np.where(kind < 0.5, MASK, np.where(kind < 0.7, rows, noise)), rows)
        rows[0, 0], chosen[0, 0] = (-1, False) if draw.random() < 0.5 else (rows[0, 0], chosen[0, 0])  # cut in front
        label, by_position = enumerated(laws, rows, chosen)
        seen = as_seen(rows, chosen)
        assert predictor.labels(seen) == pytest.approx([label], abs=1e-12)
        found = predictor.masked(seen)
        assert found.sum(1) == pytest.approx(1)
        assert found[:, 8:14] == pytest.approx(by_position[chosen], abs=1e-12)


def enumerated(laws: np.ndarray, rows: np.ndarray, chosen: np.ndarray) -> tuple[float, np.ndarray]:
    """P(label 1), and (2, 3, words) at each position, summed over labels, cuts, topics and all pairs of sentences."""
    seen = [seen_law(rows[k], chosen[k]).ravel() for k in (0, 1)]
    by_label, joint = np.zeros(2), np.zeros((216, 216))
    for label, same, (first, second) in list(zip(CUTS.label, CUTS.same, CUTS.first, strict=True))[:7]:
        for z in range(2):
            for other in [z] if same else range(2):
                weight = 1 / 7 / (2 if same else 4)
                a, b = laws[z, first].ravel() * seen[0], laws[other, second].ravel() * seen[1]
                both = weight * np.outer(a, b)
                by_label[label] += both.sum()
                joint += both
    joint = joint.reshape((6,) * 6) / joint.sum()
    by_position = [joint.sum(tuple(axis for axis in range(6) if axis != k)) for k in range(6)]
    return by_label[1] / by_label.sum(), np.array(by_position).reshape(2, 3, 6)


def as_seen(rows: np.ndarray, chosen: np.ndarray) -> Seen:
    """One pair of two sentences as a row of the model's input."""
    visible = rows >= 0
    lengths = visible.sum(1)
    ids = [CLS, *rows[0][visible[0]], SEP, *rows[1][visible[1]], SEP]
    segment = [-1, *[0] * lengths[0], -1, *[1] * lengths[1], -1]
    place = [0, *np.flatnonzero(visible[0]), 0, *np.flatnonzero(visible[1]), 0]
    picked = [False, *chosen[0][visible[0]], False, *chosen[1][visible[1]], False]
    columns = (ids, picked, segment, [0] * len(ids), place)
    return Seen(*(np.array([column]) for column in columns))


def planted_config(folder: Path, *more: str) -> Any:
    """A run of seconds on planted text."""
    strengths = {"topic": 0.7, "order": 0.9, "local": 0.5}
    sizes = {
        "documents": 400,
        "sentences": 12,
        "words": 7,
        "vocabulary": 160,
        "topics": 8,
        "markers": 12,
        "pieces": 206,
    }
    text = [f"data.planted.{name}={value}" for name, value in (strengths | sizes).items()]
    return tiny_config(folder, "data=planted", "data.path=null", "tokenizer.vocab_size=206", *text, *more)


@pytest.mark.parametrize("length", [31, 24])  # whole sentences, and cut ones
def test_the_reference_knows_how_good_it_is(tmp_path: Path, length: int) -> None:
    """Its own confidence is right on average, for whole and for cut sentences; loss and hits are of real masks."""
    more = [f"pairs.max_length={length}", "data.planted.order=0.6", "data.planted.topic=0.4"]
    more += ["evaluation.max_pairs=1500", "data.validation_fraction=0.7", "data.planted.documents=1500"]
    prepared, held_out = held_out_of(planted_config(tmp_path, *more))
    found = achieved_at_best(prepared, held_out)
    for task in ("nsp", "sop"):
        low, high = found[task]["realised"]["interval"]
        assert low - 0.01 < found[task]["accuracy"] < high + 0.01
        assert 0.6 < found[task]["accuracy"] < 0.999
    assert found["masked_lm"]["loss"] < 4.6 < np.log(172)


def test_without_strength_nothing_can_be_achieved(tmp_path: Path) -> None:
    strengths = [f"data.planted.{name}=0" for name in ("topic", "order", "local")]
    more = ["evaluation.max_pairs=1000", "data.validation_fraction=0.5", "pairs.max_length=31", *strengths]
    prepared, held_out = held_out_of(planted_config(tmp_path, *more))
    found = achieved_at_best(prepared, held_out)
    masked = found["masked_lm"]
    assert found["sop"]["accuracy"] == pytest.approx(0.5, abs=0.02)
    assert found["nsp"]["accuracy"] < 0.6  # what the lengths of pairs tell
    # Every word is as likely: but for the one chosen position in ten where the word itself is shown, ln 172 nats.
    assert masked["loss"] == pytest.approx(masked["chance_loss"], abs=0.03)  # chance counts frequencies, with noise
    assert np.log(172) * 0.8 < masked["loss"] < np.log(172)


def achieved_at_best(prepared: Prepared, held_out: Any) -> dict[str, Any]:
    """What the corpus says is achievable."""
    assert prepared.reference is not None
    baselines = NgramBaselines(prepared.train, prepared.tokenizer.vocab_size)
    return achievable(prepared.reference, held_out, prepared.train, baselines)


def test_a_run_on_planted_text_is_said_to_be_one(tmp_path: Path) -> None:
    """From the settings to the record: strengths, fingerprint, scores that are achievable, and none beyond them."""
    folder = run(planted_config(tmp_path, "evaluation.max_pairs=64", "budget.steps=20"))
    manifest, results = folder.read("manifest.json"), folder.read("results.json")
    assert manifest["data"]["corpus"] == "planted"
    assert manifest["data"]["source"]["planted"]["topic"] == 0.7
    best = results["achievable"]
    assert results["masked_lm"]["loss"] > best["masked_lm"]["loss_interval"][0]
    for task in ("nsp", "sop"):
        assert results[task]["interval"][0] <= best[task]["accuracy"]
        assert best[task]["realised"]["examples"] == results[task]["examples"]


def test_a_run_on_planted_text_is_scored_and_fine_tuned_later(tmp_path: Path) -> None:
    """Its settings hold a group that other corpora leave empty: on its own text, on another one, and for a task."""
    folder = run(planted_config(tmp_path, "budget.steps=4", "budget.warmup_steps=1"))
    short = ["evaluation.max_pairs=16", "evaluation.probe_pairs=16", "runtime.device=cpu", "runtime.precision=fp32"]
    assert evaluate.main([str(folder.path), *short]) == 0
    other = write_corpus(tmp_path / "other.txt")
    assert evaluate.main([str(folder.path), f"data.path={other}", "data=text", *short]) == 0
    records = [read_json(file)["data"]["corpus"] for file in (folder.path / "evaluations").iterdir()]
    assert sorted(records) == ["planted", "text"]
    config = compose_for_run(folder.path / "config.yaml", ["task=sst2"])
    assert config.data.planted is not None
    assert set(config.tasks) == {"sst2"}
