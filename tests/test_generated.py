"""The text that a method's own generator corrupts: scores, baselines, records."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runhelpers import held_out_of, run, tiny_config

from albert_ablate.evaluation.baselines import NgramBaselines
from albert_ablate.evaluation.generated import GeneratedText, _discriminator, _Tokens
from albert_ablate.methods import method_of
from albert_ablate.training.machine import Machine


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated")


def made(shared: Path, *settings: str) -> tuple[GeneratedText, Any]:
    config = tiny_config(shared, "method=electra", *settings)
    method, (prepared, held_out) = method_of(config), held_out_of(config)
    model: Any = method.build({})
    baselines = NgramBaselines(prepared.train, config.tokenizer.vocab_size)
    machine = Machine(torch.device("cpu"), "fp32")
    return GeneratedText(method, model, held_out.plain, prepared.train, baselines, machine), model  # type: ignore[arg-type]


def test_the_scores_are_those_of_the_terms_on_the_same_noise(shared: Path) -> None:
    text, model = made(shared, "method.generator_width=0.5", "objective=none")
    found = text.results()
    sums: dict[str, float] = {}
    with torch.no_grad():
        for (_, batch, *_), _ in text._passes(None):
            for term in text.method.terms(model, batch):
                sums[term.name] = sums.get(term.name, 0) + float(term.loss_sum)
    assert found["generator"]["loss"] * found["generator"]["examples"] == pytest.approx(sums["generator"], rel=1e-5)
    d = found["discriminator"]
    assert d["loss"] * d["examples"] == pytest.approx(sums["replaced"], rel=1e-5)
    assert d["base_accuracy"] == pytest.approx(1 - d["fake_rate"])
    masked = found["generator"]["examples"]
    assert d["fake_rate"] * d["examples"] == pytest.approx((1 - found["generator"]["sample_accuracy"]) * masked)


def test_a_model_that_knows_the_answer_beats_the_baselines_and_one_that_guesses_does_not() -> None:
    draw = np.random.default_rng(0)
    replaced = (draw.random(20_000) < 0.1).astype(np.int64)
    piece, sequence = draw.integers(0, 50, 20_000), np.arange(20_000) // 50
    masked = replaced == 1
    sure = _discriminator(_Tokens(np.where(masked, 4.0, -4.0), replaced, piece, sequence, masked))
    assert (sure.auc, sure.recall, sure.precision, sure.left_baseline) == (1.0, 1.0, 1.0, True)
    blind = _discriminator(_Tokens(np.full(20_000, -2.2), replaced, piece, sequence, masked))
    assert (blind.auc, blind.recall, blind.precision, blind.left_baseline) == (0.5, 0.0, None, False)
    by_piece = np.where(piece == 3, 1.0, 0.1)
    of_piece = (draw.random(20_000) < 0.5 * by_piece).astype(np.int64)
    alone = _discriminator(_Tokens(np.where(piece == 3, 0.0, -3.0), of_piece, piece, sequence, of_piece == 1))
    assert alone.token_auc == pytest.approx(alone.auc, abs=0.02)
    assert alone.left_baseline is False  # what the piece alone tells is no knowledge of the context


@pytest.mark.parametrize("source", ["uniform", "unigram"])
def test_a_source_that_is_no_network_has_no_scores_of_its_own(shared: Path, source: str) -> None:
    text, _ = made(shared, f"method.generator={source}")
    assert "generator" not in text.results()
    assert {"fake_rate", "replaced_auc"} <= text.curve_point(20).keys()


def test_the_text_is_the_same_for_every_size_of_batch_and_seed(shared: Path) -> None:
    whole, model = made(shared, "method.generator_width=0.5")
    parts, other = made(shared, "method.generator_width=0.5", "batch.micro_size=3", "seed=4")
    other.load_state_dict(model.state_dict())
    ours, theirs = whole.results(), parts.results()
    for kind, field in (("generator", "loss"), ("discriminator", "auc"), ("discriminator", "loss")):
        assert ours[kind][field] == pytest.approx(theirs[kind][field], rel=1e-5)
    assert ours["discriminator"]["fake_rate"] == theirs["discriminator"]["fake_rate"]


def test_runs_record_and_log_them(shared: Path, tmp_path: Path) -> None:
    folder = run(
        tiny_config(shared, "method=electra", "method.generator_width=0.5", f"paths.runs={tmp_path / 'electra'}")
    )
    results = folder.read("results.json")
    line = folder.metrics()[-1]
    assert 0 < results["discriminator"]["auc"] < 1
    assert line["held_out_replaced_auc"] == pytest.approx(results["discriminator"]["auc"], abs=0.2)
    assert {"held_out_generator_loss", "held_out_fake_rate", "held_out_replaced_recall"} <= line.keys()
    plain = run(tiny_config(shared, f"paths.runs={tmp_path / 'plain'}"))
    assert not {"discriminator", "generator"} & plain.read("results.json").keys()


def test_the_fill_of_the_text_is_that_of_training(shared: Path) -> None:
    text, _ = made(shared, "method.generator_width=0.5", "masking.probability=0.4")
    for batch in text.pairs.batches():
        shown = batch.input_ids.flatten()[batch.positions]
        assert ((shown == 4) | (shown == batch.targets)).all()
    other = replace(text.method.config.masking, fill="bert")
    assert other != text.method.masking
