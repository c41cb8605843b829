"""The plan: what it says of a sweep without training it."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datahelpers import make_store
from runhelpers import ROOT, tiny_overrides
from test_sweep_files import cells

from albert_ablate.commands.plan import main
from albert_ablate.door.compose import compose
from albert_ablate.files import write_json
from albert_ablate.record.provenance import usable_cores
from albert_ablate.sweeping import calibration
from albert_ablate.sweeping.calibration import calibrate, kept, measure
from albert_ablate.sweeping.cells import labels
from albert_ablate.sweeping.estimate import GPU_PEAKS, Calibration, on_gpu, on_this_machine
from albert_ablate.sweeping.real_tokens import estimated, measured
from albert_ablate.training.budget import step_flops


def planned(tmp_path: Path, *words: str) -> pd.DataFrame:
    file = tmp_path / "plan.csv"
    assert main([*words, "--csv", str(file)]) == 0
    return pd.read_csv(file)


def test_the_papers_sweep_on_gpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no cache has a text
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
    assert (base.steps.item(), base.tokens.item()) == (125_000, pytest.approx(0.838 * 125_000 * 4096 * 512, rel=1e-3))
    assert "84% of all positions, estimated from pairs.short_probability, as the text is not prepared" in output


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
    e = on_gpu(config, GPU_PEAKS["h100"] * 0.4, 429.0)
    assert e.seconds == pytest.approx(125_000 * step_flops(config) / (989e12 * 0.4))
    assert e.memory is None
    assert e.tokens == 125_000 * 4096 * 429.0


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


def test_an_old_measurement_and_one_of_a_busy_machine_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = 1.0
    made = []

    def fake(config: object) -> dict[str, float]:
        made.append(config)
        return {"step_seconds": 1.0, "sequence_seconds": 1.0, "peak_bytes": 1, "tokens_per_step": 1.0, "spread": spread}

    monkeypatch.setattr(calibration, "_measured_apart", fake)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.0, 0.0))
    config = compose(tiny_overrides(tmp_path))
    file = calibration._path(config)
    began = time.time()
    assert began <= calibrate(config).made <= time.time()
    assert json.loads(file.read_text())["cores"] == usable_cores()

    def aged(seconds: float) -> int:
        """Measurements so far, after one that was made so long ago is asked for."""
        write_json(file, json.loads(file.read_text()) | {"made": time.time() - seconds})
        calibrate(config)
        return len(made)

    assert aged(29 * 86400) == 1
    spread = 2.0
    assert aged(31 * 86400) == 2
    assert aged(300) == 2, "a busy machine's counts for ten minutes"
    assert aged(700) == 3
    calibrate(config, oldest=time.time())  # --remeasure
    assert len(made) == 4
    assert kept(config) is not None


def test_a_busy_machine_is_known_by_its_load_or_by_unequal_steps() -> None:
    quiet = Calibration(1.0, 1.0, 1, 1.0, spread=1.08, load=3.0, cores=2)
    assert not quiet.busy
    assert replace(quiet, load=3.5).busy
    assert replace(quiet, spread=1.3).busy


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_plan_fits_the_terminal_and_names_what_it_leaves_out(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(tmp_path)
    words = ["model.layers=3,6", "share=all,none", "seed=0,1", "--gpu", "h100"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("cell "))
    start = lines.index(head)
    rows = lines[start + 1 : lines.index("", start)]
    assert all(len(line.rstrip()) <= width for line in [head, *rows])
    assert len({row.split("  ")[0] for row in rows}) == len(rows) == 8, "no two rows are equal"
    assert rows[0].startswith("all shared, layers=3, seed 0 ")
    assert "time" in head.split()
    assert "memory" not in head, "no cell has a number there"
    missing = [name for name in ("FLOPs", "tokens", "disk") if name not in head.split()]
    assert (f"not shown at this width: {', '.join(missing)}" in lines[-1]) == bool(missing)
    assert bool(missing) == (width < 80)


def test_the_plan_warns_of_measurements_that_cannot_be_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spreads = iter([1.0, 1.0, 3.2])
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.0, 0.0))
    monkeypatch.setattr(
        calibration, "_measured_apart",
        lambda config: {"step_seconds": 0.01, "sequence_seconds": 1e-4, "peak_bytes": 1, "tokens_per_step": 256.0,
                        "spread": next(spreads)},
    )  # fmt: skip
    words = tiny_overrides(tmp_path)
    assert main(words) == 0
    assert "busy" not in capsys.readouterr().out
    (file,) = (tmp_path / "cache" / "calibration").glob("*.json")
    write_json(file, json.loads(file.read_text()) | {"made": time.time() - 3.5 * 86400})
    assert main(words) == 0
    assert "times measured up to 3 days ago; --remeasure measures again" in capsys.readouterr().out
    assert main([*words, "--remeasure"]) == 0
    assert "ago" not in capsys.readouterr().out
    assert main([*words, "--remeasure"]) == 0
    text = capsys.readouterr().out
    assert "machine busy: times unreliable (steps of equal size differed by a factor of 3.2" in text


def test_the_plan_names_its_sweep_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep=table1", "--no-time", "scale=paper"]) == 0
    text = capsys.readouterr().out
    assert "sweep table1: " in text
    assert "sweep=table1" not in text


def test_labels_tell_cells_apart() -> None:
    assert labels(cells("sweep=table8", "scale=cpu", "seed=0,1"))[1] == "hidden_dropout=0.0, seed 0"
    assert len(set(labels(cells("model.layers=1,2,3")))) == 3
    assert labels(cells("sweep=table12", "scale=cpu"))[1] == "model=nano-large-1x512"
    assert labels(cells("embed=e16,e32")) == ["E=16", "E=32"]


# --- real tokens ----------------------------------------------------------------------------------

#: Sequences that short documents do not fill, and a hundred steps of them.
_SHORT = ["pairs.max_length=128", "model.max_positions=128", "pairs.short_probability=0.3"]
_BUDGET = ["budget=tokens", "budget.tokens=80000", "budget.steps=100", "budget.warmup_steps=10"]


@pytest.mark.parametrize("objective", ["sop", "nsp"])
def test_a_budget_of_tokens_is_planned_in_real_tokens(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps of the plan, measured here and from FLOPs, are within 2% of those that the run takes."""
    from runhelpers import run

    monkeypatch.setattr(
        calibration,
        "_measured_apart",  # its few steps say little of the padding
        lambda config: {"step_seconds": 0.01, "sequence_seconds": 1e-4, "peak_bytes": 1, "tokens_per_step": 256.0},
    )
    words = [*tiny_overrides(tmp_path, *_SHORT, *_BUDGET), f"objective={objective}"]
    before = planned(tmp_path, *words, "--gpu", "h100")
    assert not before.real_tokens_measured.item(), "nothing is prepared yet"
    assert not (tmp_path / "cache").exists(), "and a plan from FLOPs prepares nothing"
    here = planned(tmp_path, *words)
    gpu = planned(tmp_path, *words, "--gpu", "h100")
    took = run(compose([*words, "evaluation.curve_every=1000", "runtime.checkpoint_every=1000"])).read("results.json")
    steps, tokens = took["training"]["steps"], took["training"]["tokens"]
    assert steps > 1.15 * 80_000 / (8 * 128), "full length would be far off"
    for plan in (here, gpu):
        assert plan.real_tokens_measured.item()
        assert plan.steps.item() == pytest.approx(steps, rel=0.02)
        assert plan.tokens.item() == pytest.approx(tokens, rel=0.02)
        assert plan.real_tokens.item() == pytest.approx(tokens / (steps * 8 * 128), rel=0.02)
    assert gpu.seconds.item() == pytest.approx(gpu.flops.item() / (989e12 * 0.4))
    assert f"{gpu.real_tokens.item():.0%} of all positions, counted on the prepared text" in capsys.readouterr().out


def test_every_budget_counts_real_tokens(tmp_path: Path) -> None:
    from runhelpers import make_batches

    short = tiny_overrides(tmp_path, *_SHORT, "budget.steps=150")
    batches = make_batches(compose(short))
    real = sum(int(batches[step].mask.sum()) for step in range(150))
    steps = planned(tmp_path, *short, "--gpu", "a100")
    assert steps.tokens.item() == pytest.approx(real), "the very sequences that the run reads"
    amount = 150 * step_flops(compose(short))
    flops = planned(tmp_path, *short, "budget=flops", f"budget.flops={amount}", "--gpu", "a100")
    assert flops.steps.item() == 150
    assert flops.tokens.item() == pytest.approx(real)
    seconds = planned(tmp_path, *short, "budget=seconds", "budget.seconds=1", "--gpu", "a100")
    assert seconds.tokens.item() / seconds.steps.item() == pytest.approx(real / 150, rel=0.05)


@pytest.mark.parametrize(("length", "near"), [(64, 0.02), (128, 0.04), (512, 0.05)])
def test_the_estimate_is_near_what_prose_gives(length: int, near: float) -> None:
    """Long documents of sentences with 25 pieces on average."""
    draw = np.random.default_rng(0)
    store = make_store([draw.integers(4, 47, 300).tolist() for _ in range(150)])
    config = compose([f"pairs.max_length={length}", "model.max_positions=512", "budget.steps=20000"])
    counted = measured(store, config)
    assert counted is not None
    assert estimated(config.pairs) == pytest.approx(counted, rel=near)


def test_a_plan_without_its_text_is_an_estimate(tmp_path: Path) -> None:
    """The words are refused where the run is started; a plan from FLOPs needs no text."""
    gone = ["data=text", f"data.path={tmp_path / 'gone.txt'}", f"paths.cache={tmp_path / 'cache'}"]
    assert not planned(tmp_path, *gone, "--gpu", "h100").real_tokens_measured.item()
