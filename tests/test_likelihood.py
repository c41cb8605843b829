"""Log-probabilities of options: against passes by hand, and where all kinds of models must agree."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from albert_ablate.axes import Share
from albert_ablate.data.tokenizer import CLS, MASK, SEP
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.model.shape import Shape
from albert_ablate.prompting.likelihood import Candidate, Likelihood, NextToken, PseudoLikelihood

V = 40
CPU = torch.device("cpu")
OPENS = np.arange(V) % 3 != 0  # every third token continues a word


def toy(pattern: str = "full", **other: Any) -> PretrainingModel:
    values: dict[str, Any] = {
        "vocab_size": V, "embedding_size": 8, "hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 32,
        "max_positions": 32, "share": Share.ALL, "initializer_range": 0.5, "pattern": pattern,
    }  # fmt: skip
    return build_model(Shape(**(values | other)), seed=0).eval()


def logs(model: PretrainingModel, ids: Iterable[int]) -> torch.Tensor:
    """(T, V) log-probabilities of one sequence, without a mask and without chosen rows."""
    row = torch.tensor([list(ids)])
    with torch.no_grad():
        return model.token_logits(model.encoder(row, torch.zeros_like(row))[0]).log_softmax(-1)


CANDIDATES = [
    Candidate((7, 8, 9), (10, 11)), Candidate((7, 8, 9), (12,)), Candidate((7, 8, 9), (13,)),
    Candidate((), (20, 21, 22)), Candidate((30, 6), (10, 12, 15, 18, 20)),
]  # fmt: skip


def test_the_likelihood_of_a_text_is_minus_its_loss() -> None:
    model = toy("causal")
    found = NextToken(model, CPU, SEP)(CANDIDATES)
    for candidate, tokens in zip(CANDIDATES, found, strict=True):
        whole = [SEP, *candidate.context, *candidate.option]
        loss = torch.nn.functional.cross_entropy(
            model.token_logits(
                model.encoder(torch.tensor([whole[:-1]]), torch.zeros(1, len(whole) - 1, dtype=torch.int64))[0]
            ),
            torch.tensor(whole[1:]),
            reduction="none",
        )[len(candidate.context) :]
        assert tokens == pytest.approx((-loss).tolist(), abs=1e-5)
        assert sum(tokens) == pytest.approx(-loss.mean().item() * len(candidate.option), abs=1e-5)


def test_pseudo_likelihood_of_t_tokens_is_t_passes_masked_by_hand() -> None:
    model = toy()
    found = PseudoLikelihood(model, CPU, OPENS, "plain")(CANDIDATES)
    for candidate, tokens in zip(CANDIDATES, found, strict=True):
        ids = [CLS, *candidate.context, *candidate.option, SEP]
        places = range(1 + len(candidate.context), len(ids) - 1)
        by_hand = [float(logs(model, [*ids[:t], MASK, *ids[t + 1 :]])[t, ids[t]]) for t in places]
        assert tokens == pytest.approx(by_hand, abs=1e-5)


def test_later_tokens_of_the_same_word_are_masked_too() -> None:
    model = toy()
    ids = [CLS, 30, 6, 10, 12, 15, 18, 20, SEP]  # words: 30 6 | 10 12 15 18 | 20
    by_hand = []
    for t, later in ((3, [4, 5, 6]), (4, [5, 6]), (5, [6]), (6, []), (7, [])):
        masked = [MASK if place in (t, *later) else token for place, token in enumerate(ids)]
        by_hand.append(float(logs(model, masked)[t, ids[t]]))
    assert PseudoLikelihood(model, CPU, OPENS, "word_l2r")(CANDIDATES[-1:])[0] == pytest.approx(by_hand, abs=1e-5)


def test_words_of_one_token_score_the_same_either_way() -> None:
    whole = [Candidate((7, 8), (10, 11, 13)), Candidate((), (22, 23))]
    plain, by_word = (PseudoLikelihood(toy(), CPU, OPENS, pll)(whole) for pll in ("plain", "word_l2r"))
    assert plain == by_word
    continued = PseudoLikelihood(toy(), CPU, OPENS, "plain")(CANDIDATES)
    assert continued != PseudoLikelihood(toy(), CPU, OPENS, "word_l2r")(CANDIDATES)


def test_all_scorers_agree_on_a_model_that_is_only_a_bias() -> None:
    bias = torch.randn(V, generator=torch.Generator().manual_seed(1))
    found = []
    for pattern in ("full", "causal"):
        model = toy(pattern)
        with torch.no_grad():
            model.mlm_head.norm.weight.zero_()  # type: ignore[operator, union-attr]
            model.mlm_head.norm.bias.zero_()  # type: ignore[operator, union-attr]
            model.mlm_head.bias.copy_(bias)  # type: ignore[union-attr]
        scorers: list[Likelihood] = [NextToken(model, CPU, SEP)]
        scorers += [PseudoLikelihood(model, CPU, OPENS, "plain"), PseudoLikelihood(model, CPU, OPENS, "word_l2r")]
        found += [scorer(CANDIDATES) for scorer in scorers]
    expected = [bias.log_softmax(0)[list(candidate.option)].tolist() for candidate in CANDIDATES]
    for one in found:
        assert [pytest.approx(tokens, abs=1e-6) for tokens in expected] == one


@pytest.mark.parametrize("make", [
    lambda: NextToken(toy("causal"), CPU, SEP), lambda: PseudoLikelihood(toy(), CPU, OPENS, "word_l2r")
])  # fmt: skip
def test_scores_depend_on_no_other_candidate(make: Any) -> None:
    together = make()(CANDIDATES)
    backwards = make()(CANDIDATES[::-1])[::-1]
    alone = [make()([candidate])[0] for candidate in CANDIDATES]
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
        assert a == pytest.approx(c, abs=1e-5)


@pytest.mark.parametrize("make", [
    lambda: NextToken(toy("causal"), CPU, SEP), lambda: PseudoLikelihood(toy(), CPU, OPENS, "plain")
])  # fmt: skip
def test_options_of_one_token_share_a_pass(make: Any) -> None:
    scorer = make()
    scorer([Candidate((7, 8, 9), (token,)) for token in (10, 11, 12, 13)])
    assert scorer.passes == 1
