"""Fifty losses of every cell stay what they were when they were recorded (``tests/golden/record.py``)."""

from pathlib import Path

import pandas as pd
import pytest
from golden.record import BLOCKS, CAUSAL, CELLS, DROPOUT, ELECTRA, MOBILEBERT, PRECISIONS, STUDENTS, losses

GOLDEN = Path(__file__).resolve().parent / "golden"
#: Processors sum bf16 in orders of their own: 1.03e-3 at most between one with AMX and one without.
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-3}
#: A sample that falls on another piece by rounding changes a loss more than rounding itself.
SAMPLED = {"fp32": 5e-3, "bf16": 5e-2}
#: The sum of a student's losses has the rounding of two networks: 1.0e-2 between the formats after 50 steps.
TAUGHT = {"fp32": 5e-5, "bf16": 2e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", [*CELLS, DROPOUT])
def test_losses_have_not_changed(cell: str, precision: str, folder: Path) -> None:
    recorded = pd.read_csv(GOLDEN / f"{precision}.csv", index_col="step")
    assert losses(folder, cell, precision) == pytest.approx(recorded[cell].tolist(), abs=TOLERANCE[precision])
    assert recorded[cell].iloc[-1] < recorded[cell].iloc[0] - 0.5  # the model has learned


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", ELECTRA)
def test_losses_of_electra_have_not_changed(cell: str, precision: str, folder: Path) -> None:
    recorded = pd.read_csv(GOLDEN / f"{precision}.csv", index_col="step")
    assert losses(folder, cell, precision) == pytest.approx(recorded[cell].tolist(), abs=SAMPLED[precision])
    assert recorded[cell].iloc[-1] < recorded[cell].iloc[0] - 0.2


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", STUDENTS)
def test_losses_of_students_have_not_changed(cell: str, precision: str, folder: Path) -> None:
    recorded = pd.read_csv(GOLDEN / f"{precision}.csv", index_col="step")
    assert losses(folder, cell, precision) == pytest.approx(recorded[cell].tolist(), abs=TAUGHT[precision])
    assert recorded[cell].iloc[-1] < 0.9 * recorded[cell].iloc[0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", BLOCKS)
def test_losses_of_attention_in_blocks_have_not_changed(cell: str, precision: str, folder: Path) -> None:
    recorded = pd.read_csv(GOLDEN / f"{precision}.csv", index_col="step")
    assert losses(folder, cell, precision) == pytest.approx(recorded[cell].tolist(), abs=TOLERANCE[precision])
    assert recorded[cell].iloc[-1] < recorded[cell].iloc[0] - 0.5


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CAUSAL)
def test_losses_of_causal_lm_have_not_changed(cell: str, precision: str, folder: Path) -> None:
    recorded = pd.read_csv(GOLDEN / f"{precision}.csv", index_col="step")
    assert losses(folder, cell, precision) == pytest.approx(recorded[cell].tolist(), abs=TOLERANCE[precision])
    assert recorded[cell].iloc[-1] < recorded[cell].iloc[0] - 0.5


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", MOBILEBERT)
def test_losses_of_mobilebert_have_not_changed(cell: str, precision: str, folder: Path) -> None:
    recorded = pd.read_csv(GOLDEN / f"{precision}.csv", index_col="step")
    assert losses(folder, cell, precision) == pytest.approx(recorded[cell].tolist(), rel=TAUGHT[precision])
    first = 21 if cell.startswith("mobilebert") else 0  # distillation begins at step 17
    assert recorded[cell].iloc[-1] < recorded[cell].iloc[first]
