"""Equal budgets: what ends a run, and what its schedule and its record say."""

from pathlib import Path
from typing import Any

import pytest
from runhelpers import only_folder, run, tiny_config

from albert_ablate.config.identity import identity
from albert_ablate.config.schema import BudgetConfig
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError
from albert_ablate.training.budget import position, step_flops


def budget(*words: str) -> BudgetConfig:
    return compose([f"budget={words[0]}", "budget.steps=100", "budget.warmup_steps=10", *words[1:]]).budget


def test_a_budget_of_steps_is_the_schedule_itself() -> None:
    assert [position(budget("steps"), n, 10**9, 1e30, 1e9) for n in (0, 1, 99, 100)] == [0, 1, 99, 100]


@pytest.mark.parametrize("unit", ["tokens", "flops", "seconds"])
def test_another_unit_is_a_share_of_its_own_amount(unit: str) -> None:
    b = budget(unit, f"budget.{unit}=500")
    used: dict[str, Any] = {"tokens": 0, "flops": 0.0, "seconds": 0.0}
    assert position(b, 10**6, **used) == 0
    assert position(b, 10**6, **used | {unit: 250}) == 50
    assert position(b, 10**6, **used | {unit: 500}) == 100


def test_step_flops_are_those_of_the_paper_presets_shape() -> None:
    config = compose(["scale=paper"])
    h, e, length, layers, v = 768, 128, 512, 12, 30000
    layer = 2 * (4 * h * h + 8 * h * h) + 4 * length * h
    masked = 0.15 * length
    forward = length * (2 * e * h + layers * layer) + masked * 2 * (h * e + e * v) + 2 * h * h
    assert step_flops(config) == pytest.approx(3 * forward * 4096, rel=1e-9)


@pytest.mark.parametrize("cap", [20, 76, 77, 200])
def test_step_flops_count_the_positions_that_are_predicted(cap: int) -> None:
    """BERT-base with at most ``cap`` predictions of 512 tokens, by hand: 15% of them are 76.8."""
    words = ["scale=paper", "model=base", "embed=full", "share=none"]
    config = compose([*words, f"masking.max_predictions={cap}"])
    h, length, layers, v = 768, 512, 12, 30000
    encoder = length * layers * (2 * (4 * h * h + 8 * h * h) + 4 * length * h)
    vocabulary = min(cap, 76.8) * (2 * h * h + 2 * h * v)  # the head's own product, then the word table
    assert step_flops(config) == pytest.approx(3 * (encoder + vocabulary + 2 * h * h) * 4096, rel=1e-9)
    if cap == 20:
        assert step_flops(config) == pytest.approx(1.1991e15, rel=1e-4)
    assert (step_flops(config) == step_flops(compose(words))) is (cap > 76)


def test_a_cap_on_predictions_is_in_the_record(tmp_path: Path) -> None:
    """A budget of FLOPs buys more steps where fewer positions are predicted."""
    used, _ = record(tmp_path, "budget=flops", f"budget.flops={7.5 * step_flops(tiny_config(tmp_path))}")
    few = "masking.max_predictions=1"
    capped = step_flops(tiny_config(tmp_path, few))
    more, _ = record(
        tmp_path, few, "budget=flops", f"budget.flops={7.5 * step_flops(tiny_config(tmp_path))}", runs="few"
    )
    assert more["flops"] == more["steps"] * capped
    assert more["steps"] >= used["steps"]
    assert (more["steps"] - 1) * capped < 7.5 * step_flops(tiny_config(tmp_path)) <= more["steps"] * capped


def record(tmp_path: Path, *words: str, runs: str = "runs") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder = run(tiny_config(tmp_path, "runtime.log_every=1", "evaluation.curve_every=10000", *words, runs=runs))
    return folder.read("results.json")["training"], folder.metrics()


def test_tokens_end_the_run_at_the_first_step_that_has_them(tmp_path: Path) -> None:
    used, lines = record(tmp_path, "budget=tokens", "budget.tokens=2000")
    assert used["tokens"] >= 2000
    assert lines[-2]["tokens"] < 2000
    assert used["steps"] == len(lines)
    rates = [line["learning_rate"] for line in lines]
    tokens = [0] + [line["tokens"] for line in lines[:-1]]
    warm, peak = 2 / 12, 0.002  # of the schedule of 12 steps
    for rate, before in zip(rates, tokens, strict=True):
        share = before / 2000
        assert rate == pytest.approx(peak * (share / warm if share < warm else 1 - share), rel=1e-9)


def test_flops_end_the_run_after_the_same_steps_for_everyone(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    amount = 7.5 * step_flops(config)
    used, _ = record(tmp_path, "budget=flops", f"budget.flops={amount}")
    assert used["steps"] == 8
    assert used["flops"] == 8 * step_flops(config)


def test_seconds_end_the_run_in_time(tmp_path: Path) -> None:
    used, lines = record(tmp_path, "budget=seconds", "budget.seconds=1.5", "runtime.log_every=1")
    assert 1.5 <= used["seconds"] < 3
    assert used["steps"] == len(lines) > 5
    assert lines[-1]["learning_rate"] < 0.2 * max(line["learning_rate"] for line in lines)


@pytest.mark.parametrize("unit", ["tokens", "flops"])
def test_an_interrupted_budget_ends_with_the_same_bits(
    tmp_path: Path, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from albert_ablate.errors import PreemptedError
    from albert_ablate.training.trainer import Trainer

    amount = {"tokens": 2000, "flops": 8 * step_flops(tiny_config(tmp_path))}[unit]
    words = [f"budget={unit}", f"budget.{unit}={amount}"]
    straight = run(tiny_config(tmp_path, *words, runs="straight"))
    real = Trainer.update

    def stopped(self: Trainer, step: int, *rest: Any) -> Any:
        if step == 5:
            raise PreemptedError("pulled the plug")
        return real(self, step, *rest)

    broken = tiny_config(tmp_path, *words, runs="broken")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", stopped)
        with pytest.raises(PreemptedError):
            run(broken)
    assert only_folder(broken).state() == "preempted"
    again = run(broken)
    for name in ("steps", "tokens", "flops"):
        assert again.read("results.json")["training"][name] == straight.read("results.json")["training"][name]
    assert again.read("results.json")["masked_lm"] == straight.read("results.json")["masked_lm"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["budget=tokens"], ["budget.tokens is empty"]),
        (["budget=flops"], ["budget.flops is empty"]),
        (["budget.tokens=5"], ["budget.tokens=5", "no effect with budget=steps", "budget=tokens"]),
        (["budget=flops", "budget.flops=1e9", "budget.seconds=3"], ["budget.seconds=3", "budget=seconds"]),
        (["budget=seconds", "budget.seconds=0"], ["budget.seconds"]),
    ],
)
def test_an_amount_of_the_wrong_unit_is_refused(words: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(words)
    for part in said:
        assert part in str(caught.value)


def test_seconds_come_from_the_scale() -> None:
    assert compose(["budget=seconds", "scale=paper"]).budget.amount() == 32 * 3600


def test_only_the_unit_in_use_is_part_of_the_identity() -> None:
    def of(*words: str) -> str:
        return identity(compose(list(words)), "store", "fp32")

    assert of("budget=tokens", "budget.tokens=1000") != of("budget=tokens", "budget.tokens=2000")
    assert of("budget=tokens", "budget.tokens=1000") != of()
    halved = ["budget.steps=600", "budget.warmup_steps=60"]  # the demo's schedule has the same shape
    assert of("budget=tokens", "budget.tokens=1000", *halved) == of("budget=tokens", "budget.tokens=1000")
    assert of(*halved) != of()
