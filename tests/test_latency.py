"""The machinery of the latency benchmark; no seconds are asserted."""

import csv
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runhelpers import ROOT, read_json, run, tiny_config

sys.path.insert(0, str(ROOT))

from albert_ablate.errors import ConfigError
from albert_ablate.record.latency import LATENCY, Latency
from albert_ablate.record.part import load_record
from benchmarks import forms, intervals, latency
from benchmarks.forms import Arm, Limits, rounds
from benchmarks.latency_page import Page


def ticking(seconds: Mapping[str, float]) -> tuple[dict[str, Callable[[], None]], Callable[[], float], list[str]]:
    """Arms that take so long on a clock that only they move; the clock; and the arms as they were called."""
    now, called = [0.0], list[str]()

    def call(name: str) -> None:
        called.append(name)
        now[0] += seconds[name]

    return {name: (lambda name=name: call(name)) for name in seconds}, lambda: now[0], called  # type: ignore[misc]


def test_arms_take_turns_after_the_warm_up_and_each_round_begins_with_another() -> None:
    calls, clock, called = ticking({"a": 1.0, "b": 2.0, "c": 3.0})
    taken = rounds(calls, Limits(warm_up=2, calls=4, seconds=100), clock)
    assert called[:6] == ["a", "a", "b", "b", "c", "c"]
    assert "".join(called[6:]) == "abcbcacababc"
    assert taken == {"a": [1.0] * 4, "b": [2.0] * 4, "c": [3.0] * 4}
    calls, clock, called = ticking({"a": 1.0, "b": 2.0})
    taken = rounds(calls, Limits(warm_up=50, calls=100, seconds=8, least=3), clock)
    assert len(taken["a"]) == len(taken["b"]) == 6, "until 8 seconds of each have passed"
    assert called.index("b") == 3, "the warm-up of an arm ends after a quarter of its time"
    taken = rounds(calls, Limits(warm_up=1, calls=100, seconds=0, least=3), clock)
    assert len(taken["a"]) == 3


def test_intervals_of_medians_and_their_ratios() -> None:
    draw = np.random.default_rng(1)
    drift = np.repeat(draw.uniform(1, 3, 20), 5)  # what else the machine does lasts for five rounds
    a, b = drift * draw.lognormal(0, 0.02, 100), 1.3 * drift * draw.lognormal(0, 0.02, 100)
    ratio, median = intervals.ratio(b.tolist(), a.tolist()), intervals.median(a.tolist())
    assert ratio.low < 1.3 < ratio.high
    assert ratio.high - ratio.low < 0.15, "the drift is common to both"
    assert ratio.value == pytest.approx(np.median(b) / np.median(a))
    assert median.low < np.median(a) < median.high
    assert median.high - median.low > 0.3
    same = intervals.ratio(a.tolist(), a.tolist())
    assert (same.value, same.low, same.high) == (1, 1, 1)
    assert intervals.median([0.5]).low == intervals.median([0.5]).high == 0.5
    assert intervals.median(a.tolist()) == median, "the same times have the same interval"


def test_intervals_cover_as_often_as_they_say() -> None:
    """Of ratios of independent times, whose true ratio is 1."""
    draw = np.random.default_rng(2)
    found = [intervals.ratio(*draw.lognormal(0, 0.1, (2, 60)).tolist()) for _ in range(120)]
    assert 0.88 <= np.mean([one.low <= 1 <= one.high for one in found]) <= 1.0


def table(names: str = "AB", shown: tuple[str, ...] = ("eager",)) -> list[dict[str, Any]]:
    arms = [Arm(f"{name} {form}", Path(name), form, 512, {}) for form in shown for name in names]
    taken = {
        (threads, batch, length): {arm.name: [0.001 * batch * length * (1 + n)] * 3 for n, arm in enumerate(arms)}
        for threads in (1, 2) for batch in (1, 8) for length in (64, 4096)
    }  # fmt: skip
    return latency.rows(arms, taken, {("A eager", 64): 12.3})


def test_a_row_for_every_arm_with_its_ratio_to_the_first_run() -> None:
    rows = table(shown=("eager", "onnx"))
    assert len(rows) == 2 * 2 * 2 * 4
    first = {row["run"] + row["form"]: row for row in rows[:4]}
    assert [first[name]["ratio"] for name in ("Aeager", "Beager", "Aonnx")] == [1, 2, 1]
    assert first["Bonnx"]["ratio"] == pytest.approx(4 / 3)
    assert first["Aeager"]["median ms"] == pytest.approx(64)
    assert (first["Aeager"]["MB"], first["Beager"]["MB"]) == (12.3, None)
    arms = [Arm("A eager", Path("A"), "eager", 64, {}), Arm("B eager", Path("B"), "eager", 128, {})]
    (alone,) = latency.rows(arms, {(1, 1, 128): {"B eager": [1.0]}}, {})
    assert alone["ratio"] is None, "the first run has no such position"


def test_the_table_is_readable_and_the_figure_has_a_line_for_each_arm(tmp_path: Path) -> None:
    page = Page(table("ABCD", ("eager", "onnx", "int8")), ["A: x"], "a processor; PyTorch 2")
    lines = [line for line in page.markdown().splitlines() if line.startswith("|")]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert 60 <= len(lines[0]) <= 120
    assert "- a processor; PyTorch 2" in page.markdown()
    read = list(csv.DictReader(page.csv().splitlines()))
    assert float(read[0]["median ms"]) == pytest.approx(64)
    from benchmarks.latency_page import figure

    panels = figure(page).axes
    assert [len(panel.get_lines()) for panel in panels] == [12, 12]
    assert {panel.get_xscale() + panel.get_yscale() for panel in panels} == {"loglog"}


def test_settings_that_differ_name_the_runs() -> None:
    configs = [
        {"seed": seed, "paths": {"runs": seed}, "model": {"norm_type": norm, "h": 1}} for seed, norm in enumerate("ab")
    ]
    assert latency.differing(configs) == [{"seed": 0, "model.norm_type": "a"}, {"seed": 1, "model.norm_type": "b"}]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, one whose graphs hold for a length alone."""
    words = ("budget.steps=2", "budget.warmup_steps=1", "model.initializer_range=0.2")
    blocks = ("attention=bigbird", "attention.block=2", "attention.random=1")
    found = []
    for name, more in (("plain", ("share=all",)), ("blocks", blocks)):
        found.append(run(tiny_config(tmp_path_factory.mktemp(name), *dict.fromkeys((*more, *words)))).path)
    return found


def test_two_runs_in_every_form_from_the_command_to_the_record(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "latency.json"
    words = [
        *map(str, two),
        "--lengths",
        "24",
        "--batches",
        "1",
        "2",
        "--threads",
        "1",
        "--calls",
        "2",
        "--warm-up",
        "1",
    ]
    assert latency.main([*words, "--no-memory", "--record", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "onnx: outputs equal PyTorch's to" in said
    assert "largest difference from fp32, in the same measure: A " in said
    assert f"A: {two[0].name}, attention.name=full" in said
    written = read_json(out)
    assert len(written["rows"]) == 2 * 3 * 2
    assert {(row["run"], row["form"]) for row in written["rows"]} == {(r, f) for r in "AB" for f in forms.FORMS}
    assert all(row["low ms"] <= row["median ms"] <= row["high ms"] and row["calls"] == 2 for row in written["rows"])
    assert written["machine"]["cpu"]
    assert out.with_suffix(".svg").stat().st_size > 5000
    assert (out.with_suffix(".md").read_text().strip()) in said
    kept = load_record(two[1] / LATENCY, Latency)
    assert [(one.form, one.sequences) for one in kept.timings] == [(f, b) for b in (1, 2) for f in forms.FORMS]


def test_memory_is_that_of_weights_and_passes(two: list[Path]) -> None:
    arm = Arm("A eager", two[0], "eager", 32, {})
    assert 0 <= forms.in_a_process(forms.peak_mb, arm, 24) < 500


def test_what_cannot_be_measured_is_refused_in_words(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: object) -> str:
        assert latency.main([str(two[0]), "--out", str(tmp_path / "x.json"), *map(str, words)]) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said

    assert "--lengths 33: the runs have positions for at most 32 tokens" in refused("--lengths", 33)
    assert "--lengths 1: the least is 2" in refused("--lengths", 1)
    assert "--batches 0: the least is 1" in refused("--batches", 0)
    assert "--threads 4096: this machine has" in refused("--threads", 4096)
    assert "--calls 0: the least is 1" in refused("--calls", 0)
    assert "there is no such choice" in refused("--forms", "onxx")
    assert latency.main([str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err

    def missing(option: str) -> None:
        raise ConfigError(f"{option} needs the packages onnx.")

    monkeypatch.setattr("albert_ablate.interop.onnx_file.require_packages", missing)
    assert "ONNX Runtime (--forms onnx int8) needs the packages onnx" in refused("--forms", "onnx")
    options = type("Options", (), {"forms": None})
    chosen, lost = latency._chosen(options)
    assert chosen == ["eager"], "without being asked for, they are left out"
    assert latency.notes({}, lost, {})[0].startswith("Not measured: ")
    assert not (tmp_path / "x.json").exists()
