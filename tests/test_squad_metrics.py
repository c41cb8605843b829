"""The official SQuAD numbers: against torchmetrics for 1.1, against hand-made cases for 2.0."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import squad as torchmetrics_squad

from albert_ablate.tasks.squad import metrics as m

CASES = json.loads((Path(__file__).parent / "squad" / "oracle_v2.json").read_text(encoding="utf-8"))

TEXTS = [
    "", "the", "The Normans", "Normans", "a Norman", "denver broncos", "Denver Broncos!", "24–10", "24-10", "£ 1,000",
    "1000", "café", "cafe", "Zürich", "İstanbul", "ς Σ", "in the 10th and 11th centuries", "10th century", "an", "A  b",
    "b a", "don't", "dont", "U.S.", "us", "“quoted”", "quoted", "a-b", "ab", "the the cat", "cat", "日本", "日 本",
]  # fmt: skip


def perturbed(text: str, draw: random.Random) -> str:
    """A wrong, half right or differently written answer."""
    words = text.split()
    way = draw.randrange(8)
    if way == 0:
        return ""
    if way == 1:
        return "the " + text.upper() + "!"
    if way == 2 and len(words) > 1:
        return " ".join(words[1:])
    if way == 3:
        return text + " and more of it"
    if way == 4:
        draw.shuffle(words)
        return " ".join(words)
    if way == 5:
        return draw.choice(TEXTS)
    if way == 6:
        return f"  a {text},  "
    return text


def reference_11(golds: dict[str, list[str]], predictions: dict[str, str]) -> dict[str, float]:
    target: list[dict[str, Any]] = [
        {"id": k, "answers": {"text": v, "answer_start": [0] * len(v)}} for k, v in golds.items()
    ]
    given = [{"id": k, "prediction_text": v} for k, v in predictions.items()]
    return {k: float(v) for k, v in torchmetrics_squad(given, target).items()}


@pytest.mark.filterwarnings("ignore:Unanswered question")
@pytest.mark.parametrize("seed", range(4))
def test_squad_11_equals_torchmetrics_on_perturbed_predictions(seed: int) -> None:
    draw = random.Random(seed)
    golds = {
        f"q{i}": draw.choices([t for t in TEXTS if t not in ("", "the", "an")], k=draw.randint(1, 4))
        for i in range(1500)
    }
    predictions = {k: perturbed(draw.choice(v), draw) for k, v in golds.items() if draw.random() < 0.95}
    found = m.scores_11(golds, predictions)
    expected = reference_11(golds, predictions)
    exact, f1 = m.mean(found.exact), m.mean(found.f1)
    assert exact is not None
    assert f1 is not None
    assert 100 * exact == pytest.approx(expected["exact_match"], abs=1e-4)
    assert 100 * f1 == pytest.approx(expected["f1"], abs=1e-4)
    assert 20 < 100 * exact < 70, "the perturbations must leave something to disagree about"
    assert len(found.exact) == len(golds), "a missing prediction stays in the total"


@pytest.mark.filterwarnings("ignore:Unanswered question")
@settings(deadline=None)
@given(gold=st.text(max_size=30), predicted=st.text(max_size=30))
def test_squad_11_equals_torchmetrics_on_any_text(gold: str, predicted: str) -> None:
    expected = reference_11({"q": [gold]}, {"q": predicted})
    assert 100 * m.exact(predicted, gold) == pytest.approx(expected["exact_match"], abs=1e-4)
    if m.normalise(gold) or m.normalise(predicted):  # see the next test
        assert 100 * m.f1(predicted, gold, "1.1") == pytest.approx(expected["f1"], abs=1e-4)


def test_two_empty_texts_have_no_token_in_common_in_11() -> None:
    """evaluate-v1.1 returns 0 where nothing is in common; torchmetrics took the rule of 2.0."""
    assert (m.exact("the", "a"), m.f1("the", "a", "1.1"), m.f1("the", "a", "2.0")) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize("case", CASES["questions"], ids=lambda case: case["why"])
def test_squad_20_of_one_question_by_hand(case: dict[str, object]) -> None:
    found = m.scores_20({"q": case["answers"]}, {"q": case["prediction"]})  # type: ignore[dict-item]
    assert found.exact["q"] == case["exact"]
    assert found.f1["q"] == pytest.approx(case["f1"])


@pytest.mark.parametrize("case", CASES["sets"], ids=lambda case: case["why"])
def test_squad_20_of_a_set_by_hand(case: dict[str, object]) -> None:
    golds, predictions, null = case["golds"], case["predictions"], case["null"]
    raw = m.scores_20(golds, predictions)  # type: ignore[arg-type]
    assert m.mean(raw.exact) == pytest.approx(case["exact"])
    assert m.mean(raw.f1) == pytest.approx(case["f1"])
    best, threshold = m.best_threshold(raw.exact, golds, predictions, null)  # type: ignore[arg-type]
    assert best == pytest.approx(case["best_exact"])
    assert threshold == pytest.approx(case["best_exact_threshold"])
    at = m.with_threshold(raw.exact, golds, null, case["threshold"])  # type: ignore[arg-type]
    assert m.mean(at) == pytest.approx(case["exact_at_threshold"])
    has = [k for k, v in golds.items() if v]  # type: ignore[attr-defined]
    assert m.mean(at, has) == pytest.approx(case["has_answer_exact"])
    assert m.mean(at, [k for k in golds if k not in has]) == pytest.approx(case["no_answer_exact"])  # type: ignore[attr-defined]


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(-5, 5)), min_size=1, max_size=40))
def test_the_best_threshold_is_the_best_of_all(rows: list[tuple[bool, bool, float]]) -> None:
    """Against trying every threshold; an item at the threshold counts as answered.

    Among equal null scores the official search stops in the middle, which no threshold can do.
    """
    golds = {str(i): ["x"] if has else [] for i, (has, _, _) in enumerate(rows)}
    predictions = {str(i): "x" if right else "y" for i, (_, right, _) in enumerate(rows)}
    null = {str(i): score for i, (_, _, score) in enumerate(rows)}
    raw = m.scores_20(golds, predictions).exact
    best, threshold = m.best_threshold(raw, golds, predictions, null)
    tried = [m.mean(m.with_threshold(raw, golds, null, t)) or 0.0 for t in [-1e9, *null.values()]]
    if len(set(null.values())) == len(null):
        assert best == pytest.approx(max(tried))
        if threshold != 0.0:
            assert m.mean(m.with_threshold(raw, golds, null, threshold)) == pytest.approx(best)


#: Prediction, answer, F1 and exact match by characters, by hand.
BY_CHARACTERS = [
    ("天氣很", "天氣很好", 6 / 7, 0.0), ("天氣很好。", "天氣很好", 1.0, 1.0), ("「天氣」很好", "天 氣很好", 1.0, 1.0),
    ("東京都", "東京", 4 / 5, 0.0), ("とうきょう", "東京", 0.0, 0.0), ("2010年", "2010 年", 1.0, 1.0),
    ("2010年", "2011年", 1 / 2, 0.0), ("iPhone手機", "iphone 手機", 1.0, 1.0), ("กรุงเทพ", "กรุงเทพมหานคร", 14 / 20, 0.0),
    ("ຫຼວງ", "ຫຼວງ", 1.0, 1.0), ("ភ្នំ", "ភ្នំ។", 1.0, 1.0), ("ရန်ကုန်", "ရန်\u200bကုန်", 1.0, 1.0), ("서울", "서울시", 4 / 5, 0.0),
    ("ＡＢＣ（株）", "ＡＢＣ株", 1.0, 1.0), ("the 天", "天", 2 / 3, 0.0), ("。", "天", 0.0, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("predicted", "gold", "f1", "exact"), BY_CHARACTERS)
def test_by_characters(predicted: str, gold: str, f1: float, exact: float) -> None:
    assert m.f1(predicted, gold, "1.1", by_characters=True) == pytest.approx(f1)
    assert m.exact(predicted, gold, by_characters=True) == exact


def test_by_words_a_chinese_answer_is_right_or_wrong_as_a_whole() -> None:
    """The official rules, as they stay where nothing else is asked for."""
    assert m.f1("天氣很", "天氣很好", "1.1") == 0.0
    assert m.exact("天氣很好。", "天氣很好") == 0.0


def test_an_answer_of_punctuation_alone_is_none_in_20() -> None:
    found = m.scores_20({"a": ["。"], "b": ["天"]}, {"a": "", "b": "天、"}, {"a", "b"})
    assert found.exact == found.f1 == {"a": 1.0, "b": 1.0}


def cmrc_segments(text: str) -> list[str]:
    """mixed_segmentation of CMRC 2018's cmrc2018_evaluate.py with rm_punc, its tokenizer of the rest by white space."""
    marks = "-:_*^/\\~`+=，。：？！“”；’《》……·、「」（）－～『』"
    segments: list[str] = []
    kept = ""
    for char in text.lower().strip():
        if char in marks:
            continue
        if "\u4e00" <= char <= "\u9fa5":
            segments += [*kept.split(), char]
            kept = ""
        else:
            kept += char
    return segments + kept.split()


@pytest.mark.parametrize(
    "text",
    [
        "天氣很好。",
        "他於1990年在NBA打球，",
        "《紅樓夢》的作者",
        "A B C 三種",
        "（約3.5公里）".replace(".", ""),
        "10～20人",
    ],
)
def test_segments_are_those_of_cmrc_2018(text: str) -> None:
    assert m.normalise(text, by_characters=True).split() == cmrc_segments(text)


@pytest.mark.parametrize(
    ("text", "unspaced"),
    [
        ("今天天氣很好。", True), ("東京は日本の首都です。", True),
        ("กรุงเทพเป็นเมืองหลวง", True), ("ວຽງຈັນ", True), ("ភ្នំពេញ", True),
        ("ရန်ကုန်မြို့", True), ("蘋果公司的 iPhone 12 Pro 於 2020 年推出", True),
        ("The capital is Tokyo (東京) in Japan.", False),
        ("서울은 대한민국의 수도이다.", False), ("Москва — столица.", False),
        ("हिन्दी भाषा", False), ("", False), ("2010", False),
    ],
)  # fmt: skip
def test_which_paragraphs_are_scored_by_characters(text: str, unspaced: bool) -> None:
    from albert_ablate.config.tasks import SquadConfig
    from albert_ablate.tasks.squad.data import Question, SquadSet
    from albert_ablate.tasks.squad.task import by_characters

    assert SquadConfig.__dataclass_fields__["f1_unit"]
    found = SquadSet([text], [Question("q", 0, "?", (), -1)])
    assert by_characters(found, "auto") == ({"q"} if unspaced else set())
    assert by_characters(found, "words") == set()
    assert by_characters(found, "characters") == {"q"}
