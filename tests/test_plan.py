"""The plan: what it says of a sweep without training it."""

import json
from pathlib import Path

import pandas as pd
import pytest
from runhelpers import ROOT, tiny_overrides
from test_sweep_files import cells

from albert_ablate.hydra_app import compose
from albert_ablate.plan import main
from albert_ablate.sweeping import calibration
from albert_ablate.sweeping.calibration import Calibration, calibrate, measure
from albert_ablate.sweeping.cells import labels
from albert_ablate.sweeping.estimate import GPU_PEAKS, on_gpu, on_this_machine
from albert_ablate.training.budget import step_flops


def planned(tmp_path: Path, *words: str) -> pd.DataFrame:
    file = tmp_path / "plan.csv"
    assert main([*words, "--csv", str(file)]) == 0
    return pd.read_csv(file)


def test_the_papers_sweep_on_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = planned(tmp_path, "sweep=paper", "scale=paper", "--gpu", "h100", "--utilisation", "0.5")
    output = capsys.readouterr().out
    assert len(table) == 37
    steps = table[table.overrides.str.contains("budget=seconds") == False]  # noqa: E712
    assert steps.seconds.sum() == pytest.approx(steps.flops.sum() / (989e12 * 0.5))
    assert "37 cells" in output
    assert "H100-hours of training at 50% of the bf16 peak" in output
    base = table[table.overrides.str.startswith("scale=paper model=base objective=sop embed=e128 share=all sweep")]
    assert base[["parameters_encoder", "parameters_with_pooler"]].values.tolist() == [[11092992, 11683584]]
    assert base.tables.item() == "table2 table3 table4 table5 table7"
    assert (base.steps.item(), base.tokens.item()) == (125_000, 125_000 * 4096 * 512)


def test_the_readme_quotes_the_plan(tmp_path: Path) -> None:
    table = planned(tmp_path, "sweep=paper", "scale=paper", "--gpu", "h100")
    hours = table.seconds.sum() / 3600
    large = table[table.overrides.str.contains("model=xxlarge")].seconds.sum() / 3600
    base = table[table.overrides.str.contains("model=base")]
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"the paper's {len(table)} cells are {table.flops.sum() / 1e23:.1f} × 10²³ FLOPs" in text
    assert f"some {round(hours, -3):,.0f} H100-hours at 40% of the bf16 peak" in text
    assert f"{large / hours:.0%} of them for the xxlarge runs" in text
    assert (
        f"The {len(base)} base cells of Tables 2 to 5 and 7 take {round(base.seconds.sum() / 3600, -2):,.0f}." in text
    )


def test_counts_alone_need_no_measurement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "calibrate", None)
    table = planned(tmp_path, "sweep=table1", "--no-time", "scale=paper")  # options may stand anywhere
    assert [round(n / 1e6) for n in table.parameters_with_pooler] == [109, 335, 12, 18, 59, 223]
    assert "Configurations of BERT and ALBERT" in capsys.readouterr().out


@pytest.mark.slow
def test_a_plan_here_measures_once_and_knows_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from runhelpers import run

    words = [w for w in tiny_overrides(tmp_path) if not w.startswith("embed.size=")]
    first = planned(tmp_path, *words, "embed.size=8,16")
    assert list(first.state) == ["missing", "missing"]
    assert (first.memory > 1e8).all()
    assert (first.seconds > 0).all()
    assert len(list((tmp_path / "cache" / "calibration").glob("*.json"))) == 2
    monkeypatch.setattr(calibration, "_measured_apart", None)  # would be called for a new measurement
    folder = run(compose([*words, "embed.size=8"]))
    second = planned(tmp_path, *words, "embed.size=8,16")
    assert list(second.state) == ["finished", "missing"]
    assert folder.name.endswith(second.identity[0])
    results = json.loads((folder.path / "results.json").read_text())
    spent = results["training"]["seconds"] + results["evaluation"]["seconds"]
    assert second.took_seconds[0] == pytest.approx(spent)
    assert "the 1 finished took" in capsys.readouterr().out
    assert second.tokens[0] == pytest.approx(results["training"]["tokens"], rel=0.2)


def test_a_wrong_plan_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep=tabel3"]) == 2
    assert "Did you mean sweep=table3?" in capsys.readouterr().err


def test_a_batch_too_large_to_measure_is_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four sequences stand for thirty-two: the same tokens, about the same time."""
    config = compose(tiny_overrides(tmp_path, "batch.size=32", "batch.micro_size=32"))
    whole = measure(config)
    monkeypatch.setattr(calibration, "_STEP_FLOPS", 4.5 * step_flops(config) / 32)
    part = measure(config)
    assert part.tokens_per_step == pytest.approx(whole.tokens_per_step, rel=0.15)
    assert part.step_seconds > whole.step_seconds / 4


def test_estimates_add_up() -> None:
    config = compose(["scale=demo", "objective=none"])
    measured = Calibration(step_seconds=0.5, sequence_seconds=0.001, peak_bytes=7, tokens_per_step=4000.0)
    e = on_this_machine(config, measured)
    assert (e.steps, e.tokens, e.flops, e.memory) == (1200, 4.8e6, 1200 * step_flops(config), 7)
    sequences = 2 * 6 * 512 + 3 * 2048 + 2 * 4096 + 4 * 256
    assert e.seconds == pytest.approx(600 + 0.001 * sequences + 2, rel=0.01)
    weights = config.architecture().parameters().with_heads
    assert e.disk == 2 * 12 * weights


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["budget=tokens", "budget.tokens=100000"], 25),
        (["budget=seconds", "budget.seconds=10"], 20),
        (["budget=flops", "budget.flops=1e12"], None),
    ],
)
def test_other_budgets_give_the_steps(words: list[str], steps: int | None) -> None:
    config = compose(words)
    measured = Calibration(step_seconds=0.5, sequence_seconds=0.0, peak_bytes=7, tokens_per_step=4000.0)
    flops = -(-(10**12) // step_flops(config))
    assert on_this_machine(config, measured).steps == (steps or flops)


def test_gpu_hours_are_flops_over_the_rate() -> None:
    config = compose(["scale=paper"])
    e = on_gpu(config, GPU_PEAKS["h100"] * 0.4)
    assert e.seconds == pytest.approx(125_000 * step_flops(config) / (989e12 * 0.4))
    assert e.memory is None


def test_the_calibration_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def fake(config: object) -> dict[str, float]:
        made.append(config)
        return {"step_seconds": 1.0, "sequence_seconds": 1.0, "peak_bytes": 1, "tokens_per_step": 1.0}

    monkeypatch.setattr(calibration, "_measured_apart", fake)
    first = compose(tiny_overrides(tmp_path))
    assert calibrate(first) == calibrate(compose(tiny_overrides(tmp_path, "seed=5", "budget.steps=99")))
    assert len(made) == 1
    calibrate(compose(tiny_overrides(tmp_path, "share=none")))
    assert len(made) == 2


def test_labels_tell_cells_apart() -> None:
    assert labels(cells("sweep=table8", "scale=cpu", "seed=0,1"))[1].endswith("-s0 hidden_dropout=0.0")
    assert len(set(labels(cells("model.layers=1,2,3")))) == 3
    assert labels(cells("sweep=table12", "scale=cpu"))[1] == "e32-all-sop-nano-large-1x512-s0"
    assert labels(cells("embed=e16,e32")) == ["e16-all-sop-nano-s0", "e32-all-sop-nano-s0"]
