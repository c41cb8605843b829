"""The figure of causal LM in several sizes: one point for each arm, lines of equal depth, seeds and intervals."""

from pathlib import Path
from typing import Any

import pytest
from causalhelpers import causal_cell

from analysis.draw.causal import sizes
from analysis.draw.findings import finding
from analysis.draw.plotting import NothingToDraw
from analysis.figures import draw_all, main
from analysis.read.runs import load_runs

LADDER = {("1/3", "1"): 2.30, ("1", "1"): 2.15, ("4/3", "1"): 2.12, ("1", "1/12"): 2.28}


def causal(bits: float, left: bool = True) -> dict[str, Any]:
    interval = [bits - 0.01, bits + 0.01]
    return {"bits_per_byte": bits, "bits_per_byte_interval": interval, "left_baseline": left}


def ladder(root: Path, seeds: int = 3, left: bool = True) -> Path:
    for (width, depth), bits in LADDER.items():
        for seed in range(seeds):
            record = causal(bits + 0.004 * seed, left or width != "1/3")
            causal_cell(root / "runs", width, seed, depth, causal_lm=record)
    return root / "runs"


def test_every_arm_is_a_point_and_equal_depths_a_line(tmp_path: Path) -> None:
    drawing = sizes(load_runs(ladder(tmp_path)))
    data = drawing.data
    assert list(data["line"]) == ["3 layers", "3 layers", "3 layers", "1 layer"]
    assert list(data["hidden"]) == [64, 192, 256, 192]
    assert list(data["mean"]) == pytest.approx([2.304, 2.154, 2.124, 2.284])
    assert (data["n"] == 3).all()
    assert (data["low"] < data["mean"]).all()
    assert data["parameters_M"].iloc[:3].is_monotonic_increasing
    texts = {text.get_text() for text in drawing.figure.axes[0].texts}
    assert texts == {"192×1", "64×3", "192×3", "256×3"}
    assert finding(drawing).startswith("3 layers: 2.304 bits per byte with ")
    assert "Hollow" not in drawing.caption


def test_a_model_on_its_plateau_is_marked(tmp_path: Path) -> None:
    drawing = sizes(load_runs(ladder(tmp_path, left=False)))
    marks = drawing.data.set_index("hidden")["mark"]
    assert "unigram baseline" in marks[64]
    assert "Hollow" in drawing.caption


def test_it_is_drawn_among_the_figures_where_two_sizes_are(tmp_path: Path) -> None:
    assert main([str(ladder(tmp_path, seeds=1)), "--out", str(tmp_path / "out"), "--only", "sizes"]) == 0
    assert {file.suffix for file in (tmp_path / "out").iterdir()} == {".png", ".svg", ".pdf", ".csv"}
    causal_cell(tmp_path / "one", "1", 0, causal_lm=causal(2.2))
    _, undrawn = draw_all(load_runs(tmp_path / "one"), ["sizes"])
    assert undrawn == {"sizes": "no two sizes of causal LM in one sweep"}
    with pytest.raises(NothingToDraw):
        sizes(load_runs(tmp_path / "one"))
