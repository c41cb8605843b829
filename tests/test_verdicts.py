"""Verdicts that cannot be wrong by construction: equal differences, lost seeds, repeated seeds, unlike settings."""

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from reporthelpers import simulated, write_cell
from scipy import stats

from albert_ablate.config.identity import UNSAID
from albert_ablate.config.labels import flatten
from albert_ablate.door.compose import compose
from analysis.compare import changes
from analysis.judge.claims import Claim, judge
from analysis.judge.metrics import resolution, summarised
from analysis.judge.statistics import estimate, holm, p_two_sided, paired, seeds_for_band
from analysis.judge.tables import arms_of, build, compare_arms
from analysis.read.cautions import of_runs
from analysis.read.cells import main_selection, select
from analysis.read.runs import load_runs
from analysis.recount import arms as recounted
from analysis.recount.runs import Run
from analysis.report import gather
from analysis.write import content, page, render, scorecard

UNSHARED, SHARED = arms_of("table4")["table4.8"], arms_of("table4")["table4.5"]
CLAIM = Claim("c", "Sharing costs.", {"none": "table4.8", "all": "table4.5"}, {"none": 1, "all": -1}, ["MLM"], above=0)


# Equal differences decide nothing.


def test_equal_differences_of_two_seeds_decide_nothing() -> None:
    found = paired(pd.Series([0.653, 0.700]), pd.Series([0.648, 0.695]))
    assert found is not None
    assert p_two_sided(found) == 1
    assert math.isnan(found.low)
    floored = paired(pd.Series([0.653, 0.700]), pd.Series([0.648, 0.695]), floor=0.02)
    assert floored is not None
    assert floored.low < 0 < floored.high
    assert p_two_sided(floored) > 0.5
    assert holm([p_two_sided(floored)] + [0.5] * 24)[0] == 1


def test_a_spread_above_the_floor_is_the_spread() -> None:
    plain, floored = estimate([1.0, 2.0, 4.0]), estimate([1.0, 2.0, 4.0], floor=0.1)
    assert plain is not None
    assert floored is not None
    assert (plain.low, plain.high) == (floored.low, floored.high)
    assert p_two_sided(plain) == p_two_sided(floored)


def test_counts_need_no_spread() -> None:
    found = estimate([12.0, 12.0], exact=True)
    assert found is not None
    assert (found.low, found.high) == (12, 12)
    assert p_two_sided(found) == 0


def test_two_equal_differences_on_run_folders_are_inconclusive(tmp_path: Path) -> None:
    for seed, (unshared, shared) in enumerate(((0.201, 0.200), (0.203, 0.202))):
        for terms, accuracy in ((UNSHARED, unshared), (SHARED, shared)):
            _score(write_cell(tmp_path, terms, seed), accuracy, 20_466)
    (verdict,) = judge(load_runs(tmp_path), [CLAIM])
    assert verdict.verdict == "inconclusive"
    assert verdict.p > 0.5
    assert verdict.effect is not None
    assert verdict.effect.low < -2


def _score(folder: Path, accuracy: float, examples: int) -> None:
    file = folder / "results.json"
    results = json.loads(file.read_text())
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / examples)
    results["masked_lm"] |= {"accuracy": accuracy, "binomial_interval": [accuracy - half, accuracy + half]}
    file.write_text(json.dumps(results))


@pytest.mark.parametrize("key", ["MLM", "MLM loss", "NSP", "SOP", "task:sst2", "Avg", "SQuAD1.1_F1"])
def test_every_score_of_examples_has_a_resolution(key: str, tmp_path: Path) -> None:
    write_cell(tmp_path, SHARED, 0, tasks=("squad11", "squad20", "mnli", "sst2", "race"))
    runs = load_runs(tmp_path)
    half = {"MLM": 0.05, "MLM loss": 0.002, "NSP": 2.0, "SOP": 2.0, "Avg": 0.1 / math.sqrt(5)}.get(key, 0.1)
    assert resolution(runs, key) == pytest.approx(half / 1.959964)
    for counted in ("params", "L2 roughness", "tokens/s"):
        assert resolution(runs, counted) == 0


EXAMPLES = (50, 277, 872, 1_500, 5_000, 20_000)


def family_wise_error(seeds: int, examples: int, agree: float, nulls: int = 10, families: int = 1500) -> float:
    """Share of families of ``nulls`` comparisons of equal arms in which Holm lets one differ.

    Two arms are right on 60% of the examples; of a share ``agree`` of them both are right or both wrong.
    """
    draw = np.random.default_rng([seeds, examples, round(100 * agree)])
    size = (families, nulls, seeds)
    common = draw.binomial(examples, agree, size)
    both = draw.binomial(common, 0.6)
    right = [(both + draw.binomial(examples - common, 0.6)) / examples for _ in range(2)]
    differences = right[0] - right[1]
    error = np.sqrt(np.mean([p * (1 - p) / examples for p in right], axis=(0, 3)))
    return _wrong(differences, error, seeds) / families


def _wrong(differences: np.ndarray, error: np.ndarray, seeds: int) -> int:
    """Families with a comparison that Holm lets differ; p values as the report's, all at once."""
    spread = np.maximum(differences.std(axis=2, ddof=1), error)
    p = 2 * stats.t.sf(np.abs(differences.mean(axis=2)) / (spread / math.sqrt(seeds)), seeds - 1)
    return int((p.min(axis=1) * p.shape[1] < 0.05).sum())


@pytest.mark.parametrize("agree", [0.0, 0.85])
@pytest.mark.parametrize("seeds", [2, 3])
def test_ten_true_nulls_are_let_differ_in_at_most_6_of_100_families(seeds: int, agree: float) -> None:
    for examples in EXAMPLES:
        assert family_wise_error(seeds, examples, agree) <= 0.06, examples


def test_the_simulation_uses_the_reports_p_values() -> None:
    draw = np.random.default_rng(0)
    differences, error = draw.normal(0, 0.01, (5, 1, 3)), np.full((5, 1), 0.008)
    for family, floor in zip(differences, error, strict=True):
        found = estimate(family[0], floor=float(floor[0]))
        assert found is not None
        spread = max(family[0].std(ddof=1), floor[0])
        expected = 2 * stats.t.sf(abs(family[0].mean()) / (spread / math.sqrt(3)), 2)
        assert p_two_sided(found) == pytest.approx(expected)


def test_a_real_difference_is_still_found(tmp_path: Path) -> None:
    """At 20,466 pieces three seeds see eight points, corrected for 16 comparisons."""
    for seed in range(3):
        for terms, accuracy in ((UNSHARED, 0.254), (SHARED, 0.170)):
            _score(write_cell(tmp_path, terms, seed), accuracy + 0.002 * seed, 20_466)
    (verdict,) = judge(load_runs(tmp_path), [CLAIM])
    assert verdict.verdict == "reproduced"
    assert 16 * verdict.p < 0.05


# A seed that gave no number is said beside the number and the verdict.


def three_seeds(root: Path) -> Path:
    for seed in range(3):
        for terms in (UNSHARED, SHARED):
            write_cell(root, terms, seed, noise=0.0002)
    return root


def end(root: Path, seed: int, state: str, reason: str, share: str = "none") -> Path:
    (folder,) = root.glob(f"e32-{share}-*-s{seed}-*")
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": state, "reason": reason}))
    return folder


def test_a_seed_that_diverged_leaves_no_verdict(tmp_path: Path) -> None:
    end(three_seeds(tmp_path), 1, "diverged", "loss is NaN at step 1234")
    runs = load_runs(tmp_path)
    (verdict,) = judge(runs, [CLAIM])
    assert verdict.verdict == "inconclusive"
    assert verdict.reason == "1 of 3 seeds diverged"
    assert "seed 1 diverged (loss is NaN at step 1234)" in verdict.lost
    (asked,) = judge(runs, [CLAIM], survivors=True)
    assert asked.effect is not None
    assert (asked.verdict, asked.effect.n, asked.planned) == ("reproduced", 2, 3)
    table = build(runs, "table4")
    row = table.rows[7]
    assert row.counted == "2 of 3"
    assert {entry.mark for cell in row.cells for entry in cell if entry.ours and entry.metric == "MLM"} == {
        "1 of 3 seeds diverged"
    }
    assert {c.verdict for c in table.comparisons} == {"1 of 3 seeds diverged"}
    text = render.markdown(table)
    assert "| 2 of 3 |" in text
    assert "seed 1 diverged (loss is NaN at step 1234)" in text
    assert {c.verdict for c in build(runs, "table4", survivors=True).comparisons} != {"1 of 3 seeds diverged"}


@pytest.mark.parametrize(
    ("state", "words"),
    [("failed", "seed 1 failed (out of memory)"), ("preempted", "seed 1 stopped (out of memory)"), (None, "missing")],
)
def test_a_seed_that_failed_or_is_missing_is_said(state: str | None, words: str, tmp_path: Path) -> None:
    folder = end(three_seeds(tmp_path), 1, state or "failed", "out of memory")
    if state is None:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    report = gather(load_runs(tmp_path), [CLAIM])
    (verdict,) = report.verdicts
    assert verdict.effect is not None
    assert (verdict.effect.n, verdict.planned) == (2, 3)
    shown = page.markdown(report)
    (line,) = [line for line in shown.splitlines() if line.startswith("| Sharing costs.")]
    assert "| 2 of 3 |" in line
    assert words in line
    assert any(words in sentence for sentence in content.cautions(report))


def test_results_that_are_no_numbers_count_as_a_lost_seed(tmp_path: Path) -> None:
    (folder,) = three_seeds(tmp_path).glob("e32-none-*-s1-*")
    text = (folder / "results.json").read_text()
    accuracy = json.loads(text)["masked_lm"]["accuracy"]
    (folder / "results.json").write_text(text.replace(str(accuracy), "NaN"))
    (verdict,) = judge(load_runs(tmp_path), [CLAIM])
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "1 of 3 seeds gave no numbers")


def test_a_number_that_one_run_lacks_says_its_own_seeds(tmp_path: Path) -> None:
    (folder,) = three_seeds(tmp_path).glob("e32-none-*-s1-*")
    results = json.loads((folder / "results.json").read_text())
    results["masked_lm"]["accuracy"] = None
    (folder / "results.json").write_text(json.dumps(results))
    report = gather(load_runs(tmp_path), [CLAIM])
    assert "(n = 2)" in render.markdown(report.tables[3])
    assert scorecard.score_row(report.verdicts[0])["n"] == "2 of 3"


def test_a_seed_that_a_sweep_planned_and_nothing_began_is_said(tmp_path: Path) -> None:
    folders = [folder.name for folder in three_seeds(tmp_path).iterdir()]
    (tmp_path / ".sweeps").mkdir()
    for started, more in ((1.0, ["e8-all-sop-nano-s9-0123456789ab"]), (2.0, ["e32-none-sop-nano-s3-0123456789ab"])):
        cells = [{"folder": name} for name in [*folders, *more]] + [{"folder": None}]
        record = {"name": "mine", "started": started, "cells": cells}
        (tmp_path / ".sweeps" / f"mine-{started:g}.json").write_text(json.dumps(record))
    (tmp_path / ".sweeps" / "broken.json").write_text("{")
    said = [sentence for sentence in of_runs(load_runs(tmp_path)) if sentence.startswith("Of sweep")]
    assert said == ["Of sweep mine 1 of 7 cells have no run: e32-none-sop-nano-s3."]


# Runs of one seed are not independent.


def test_a_seed_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="seed 0 occurs more than once"):
        paired(pd.Series([1, 2, 3], index=[0, 0, 1]), pd.Series([0, 0], index=[0, 1]))
    runs = simulated({"all": 0.18}, 2, np.random.default_rng(0), 0.01)
    twice = pd.concat([runs, runs])
    with pytest.raises(ValueError, match="more than once"):
        summarised(twice, "MLM")
    with pytest.raises(ValueError, match="more than once"):
        compare_arms(twice, runs, "MLM")


def test_runs_of_one_seed_with_other_heads_are_other_arms(tmp_path: Path) -> None:
    for side, gain in (("a", 0.0), ("b", 0.02)):
        for seed in (0, 1):
            write_cell(tmp_path / side, SHARED, seed, law={("share", "all"): gain})
            for heads in (6, 12):
                folder = write_cell(tmp_path / str(heads), SHARED, seed)
                changed(folder, {"model.heads": heads})
                folder.rename(tmp_path / side / f"{heads}{folder.name}")
    table, words = changes(load_runs(tmp_path / "a"), load_runs(tmp_path / "b"))
    assert {c.difference.n for c in table.comparisons} == {2}
    arms = {c.arm for c in table.comparisons}
    assert arms == {f"E=32, all shared, SOP, model.heads={heads}" for heads in (3, 6, 12)}
    assert words["only in A"] == words["only in B"] == []


# Every setting that changes the numbers is part of the set-up, or tells arms apart.


def changed(folder: Path, settings: Mapping[str, Any]) -> None:
    """The run in ``folder`` with other settings and an identity of its own."""
    values = yaml.safe_load((folder / "config.yaml").read_text())
    for name, value in settings.items():
        node = values
        *groups, last = name.split(".")
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["identity"] = f"{abs(hash(str(sorted(settings.items())))) % 16**12:012x}"
    (folder / "manifest.json").write_text(json.dumps(manifest))


ARMS = {"all": SHARED, "none": UNSHARED}
#: Settings that change no number of a comparison, and of the budget what is not in use.
IDLE = (
    "runtime",
    "paths",
    "tracker",
    "scale",
    "sweep",
    "rerun",
    "task",
    "tasks",
    "knowledge",
    "kshot",
    "seed",
    "model.name",
)
UNUSED = (
    "budget.tokens", "budget.flops", "budget.seconds", "budget.lookups",
    "init.run", "init.tokenizer", "init.weights",  # the identity of the parent says it all
)  # fmt: skip
#: What makes a run another cell than a sweep file's, which trains masked LM, without a warm start and in one group of
#: layers, unless it says otherwise.
CELL = tuple(UNSAID)
VALUES = {"share.strategy": "ffn", "objective.name": "nsp", "budget.unit": "tokens", "seed": 7}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """Every setting of a run, as composed."""
    return compose(["scale=cpu", "embed=e32"]).as_dict()


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory, whole: dict[str, Any]) -> pd.DataFrame:
    """Three seeds of two arms with every setting."""
    root = tmp_path_factory.mktemp("whole")
    for seed in range(3):
        for share, terms in ARMS.items():
            folder = write_cell(root, terms, seed, noise=0.0002, tasks=("sst2",))
            own = whole | {"seed": seed, "share": whole["share"] | {"strategy": share}}
            (folder / "config.yaml").write_text(yaml.safe_dump(own))
    return load_runs(root)


def settings(whole: dict[str, Any]) -> list[str]:
    return list(flatten({k: v for k, v in whole.items() if k != "tasks"}))


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return 2 * value or 1
    if isinstance(value, float):
        return value / 2 or 0.5
    return [*value, 1] if isinstance(value, list) else f"other {value}"


def with_setting(runs: pd.DataFrame, name: str, value: Any, at: str = "all") -> tuple[pd.DataFrame, str]:
    """The runs with one setting of one run changed, and that run; its tokens follow from corpus and tokenizer."""
    place = runs.index[(runs["share"] == at) & (runs["seed"] == 2)][0]
    row = runs.loc[place].to_dict()
    row["config"] = copy.deepcopy(row["config"])
    node = row["config"]
    *groups, last = name.split(".")
    for group in groups:
        node = node[group]
    node[last] = value
    columns = {"embed.size": "E", "share.strategy": "share", "objective.name": "objective", "model.hidden": "hidden",
               "model.layers": "layers", "seed": "seed"}  # fmt: skip
    if name in columns:
        row[columns[name]] = value
    if name in ("model.hidden", "model.layers"):  # no base model has that shape
        row |= {"base_hidden": row["hidden"], "base_layers": row["layers"]}
    if name.split(".")[0] in ("data", "tokenizer"):
        row["tokens_fingerprint"] = "beef"
    rows = [row if index == place else run for index, run in runs.to_dict("index").items()]
    return pd.DataFrame(rows, columns=runs.columns), str(row["run"])


def test_any_setting_of_one_run_makes_it_another_arm_or_leaves_it_out_with_words(
    frame: pd.DataFrame, whole: dict[str, Any]
) -> None:
    told = 0
    for name in settings(whole):
        old = flatten(whole)[name]
        runs, run = with_setting(frame, name, VALUES.get(name, other(old)))
        idle = name.split(".")[0] in IDLE or name in (*IDLE, *UNUSED, "batch.micro_size")
        found, main = select(runs, ARMS), main_selection(runs)
        if name == "seed":
            assert len(found.runs["all"]) == 3
        elif idle:
            assert run in found.names(), name
            assert run in set(main.runs["all"]["run"]), name
        else:
            told += 1
            assert run not in set(found.runs["all"]["run"]), name
            left = bool(found.left_out and found.differs)
            another_cell = name in VALUES or name in ("embed.size", "model.hidden", "model.layers", *CELL)
            assert left or another_cell, (name, found.left_out, found.differs)
            assert found.seeds["all"].of(2) == "2 of 3", name
            arms = main.runs["all"].set_index("run")["arm"]
            assert run not in arms or (arms == arms[run]).sum() == 1, name
            assert run in arms or (main.left_out and main.differs), name
    assert told >= 60


def test_how_a_batch_is_divided_counts_where_dropout_falls(frame: pd.DataFrame) -> None:
    wet = frame.assign(config=frame["config"].map(_with_dropout))
    runs, run = with_setting(wet, "batch.micro_size", 32)
    found = select(runs, ARMS)
    assert run not in found.names()
    assert found.differs == {"batch.micro_size": "64, elsewhere 32"}


def _with_dropout(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"model": values["model"] | {"hidden_dropout": 0.1}}


def test_another_base_model_is_another_set_up(frame: pd.DataFrame) -> None:
    """A cell of "the base size" is one of nano or of mini, never some seeds of either."""
    runs = frame.copy()
    place = runs.index[(runs["share"] == "all") & (runs["seed"] == 2)][0]
    mini: Any = copy.deepcopy(runs.at[place, "config"])
    mini["model"] |= {"name": "mini", "hidden": 256, "layers": 4, "heads": 4, "intermediate": 1024}
    mini["embed"]["size"] = 40
    runs.at[place, "config"] = mini
    for column, value in (("hidden", 256), ("layers", 4), ("base_hidden", 256), ("base_layers", 4), ("E", 40)):
        runs.at[place, column] = value
    found = select(runs, ARMS)
    assert len(found.runs["all"]) == 2
    assert found.differs == {"model.base": "192×3, elsewhere 256×4"}


def test_runs_on_a_gpu_are_another_set_up_than_runs_on_a_cpu(frame: pd.DataFrame) -> None:
    runs = frame.copy()
    place = runs.index[(runs["share"] == "all") & (runs["seed"] == 2)][0]
    runs["device"] = None  # of runs that did not record it: they count as runs on a CPU
    runs.loc[runs["seed"] == 1, "device"] = "cpu"
    assert len(select(runs, ARMS).runs["all"]) == 3
    runs.at[place, "device"] = "NVIDIA H100 80GB HBM3"
    found = select(runs, ARMS)
    assert runs.at[place, "run"] not in found.names()
    assert found.differs == {"device": "cpu, elsewhere cuda"}
    runs["device"] = "NVIDIA A100-SXM4-80GB"
    runs.at[place, "device"] = "NVIDIA H100 80GB HBM3"
    assert len(select(runs, ARMS).runs["all"]) == 3, "cards of one kind are compared"


def test_a_second_count_takes_the_same_runs_of_unlike_devices(tmp_path: Path) -> None:
    folders = {(share, seed): write_cell(tmp_path, ARMS[share], seed) for share in ARMS for seed in range(3)}
    for (share, seed), folder in folders.items():
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["hardware"] = {} if seed == 0 else {"device": "NVIDIA H100" if (share, seed) == ("all", 2) else "cpu"}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    found = select(load_runs(tmp_path), ARMS)
    again = recounted.select([Run(folder) for folder in folders.values()], ARMS.values())
    taken = [[run.name for run in arm.runs] for arm in again]
    assert [sorted(found.runs[share]["run"]) for share in ARMS] == [sorted(names) for names in taken]
    assert [len(names) for names in taken] == [2, 3]


def test_a_setting_that_one_arm_sets_is_not_free_in_the_other(frame: pd.DataFrame) -> None:
    """``spans`` asks for one n-gram length; the other arm's runs still have to be alike in it."""
    runs, run = with_setting(frame, "masking.max_ngram", 1)
    arms = {"words": {**SHARED, "masking.max_ngram": 1}, "as is": SHARED}
    found = select(runs, arms)
    assert list(found.runs["words"]["run"]) == [run]
    assert run not in set(found.runs["as is"]["run"])
    assert len(found.runs["as is"]) == 2


def test_arms_that_name_no_width_are_not_mixed_over_widths(frame: pd.DataFrame, whole: dict[str, Any]) -> None:
    runs, run = with_setting(frame, "embed.size", 64)
    found = select(runs, {"all": {"share": "all"}, "none": {"share": "none"}})
    assert run not in found.names()
    assert found.differs == {"embed.size": "32, elsewhere 64"}


def test_optimizers_are_arms_with_all_that_their_option_brings(frame: pd.DataFrame) -> None:
    half = frame["share"] == "none"
    configs = [
        config | {"optimizer": config["optimizer"] | {"name": "adamw", "learning_rate": 1e-3}} if other else config
        for config, other in zip(frame["config"], half, strict=True)
    ]
    runs = frame.assign(config=configs)
    found = select(runs, {"lamb": {"optimizer.name": "lamb"}, "adamw": {"optimizer.name": "adamw", "share": "none"}})
    assert {name: len(one) for name, one in found.runs.items()} == {"lamb": 3, "adamw": 3}
    changed, run = with_setting(runs, "optimizer.learning_rate", 0.5, at="none")
    found = select(changed, {"lamb": {"optimizer.name": "lamb"}, "adamw": {"optimizer.name": "adamw", "share": "none"}})
    assert run not in found.names()
    assert found.differs == {"optimizer.learning_rate": "0.001, elsewhere 0.5"}


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("recipe", "learning_rate", 2e-5), ("set_up", "class_weights", "balanced"), (None, "seeds", [0, 1])],
)
def test_fine_tunings_in_another_set_up_are_left_out_with_words(
    part: str | None, name: str, value: Any, frame: pd.DataFrame
) -> None:
    """Whichever arm they are of: an arm's own commonest recipe is not what the other arm had."""
    for seeds in ([2], [0, 1, 2]):
        runs = frame.copy()
        for place in runs.index[(runs["share"] == "all") & runs["seed"].isin(seeds)]:
            tasks: Any = copy.deepcopy(runs.at[place, "tasks"])
            (entry,) = tasks
            (entry if part is None else entry.setdefault(part, {}))[name] = value
            runs.at[place, "tasks"] = tasks
        found = select(runs, ARMS)
        left = [len(tasks) for tasks in found.runs["all"]["tasks"]] + [len(t) for t in found.runs["none"]["tasks"]]
        assert sum(left) == (5 if seeds == [2] else 3)
        (sentence,) = found.tasks
        assert sentence.startswith(f"Of the fine-tunings on sst2 {len(seeds)} of another set-up")
        assert name in sentence
        assert sentence in render.markdown(build(runs, "table4"))


# A band takes the seeds that both of its sides need.


@pytest.mark.parametrize(("mean", "alpha"), [(0.0, 0.05), (0.0, 0.002), (1.0, 0.05), (2.0, 0.05), (4.5, 0.05)])
def test_so_many_seeds_decide_a_band(mean: float, alpha: float) -> None:
    n = seeds_for_band(mean, 2.0, (-3, 3), alpha)
    assert n is not None
    assert _decided(mean, n, alpha) >= 0.79
    assert _decided(mean, n - 1, alpha) < 0.81


def _decided(mean: float, n: int, alpha: float) -> float:
    draws = np.random.default_rng(n).normal(mean, 2.0, (20_000, n))
    margin = stats.t.ppf(1 - alpha / 2, n - 1) * draws.std(axis=1, ddof=1) / math.sqrt(n)
    middle = draws.mean(axis=1)
    inside = (middle - margin > -3) & (middle + margin < 3)
    return float((inside if abs(mean) < 3 else middle - margin > 3).mean())
