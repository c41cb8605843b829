"""The notebook: its cells run one after another, and the outputs that are kept are small and whole."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from runhelpers import ROOT, one_thread
from test_readme import SHORT

TOUR = ROOT / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def tour() -> Any:
    return nbformat.read(TOUR, as_version=4)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_the_outputs_are_kept(tour: Any) -> None:
    numbers = [cell.execution_count for cell in tour.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert not any(output.output_type == "error" for output in outputs(tour))
    assert len(TOUR.read_bytes()) < 120_000
    (figure,) = [output.data["image/svg+xml"] for output in outputs(tour) if "image/svg+xml" in output.get("data", {})]
    assert len("".join(figure)) < 60_000


@pytest.mark.slow
def test_every_cell_runs(tour: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings,) = [cell for cell in tour.cells if cell.cell_type == "code" and "SMALL = [" in cell.source]
    settings.source += f"\nSMALL += {[*SHORT, 'tokenizer.vocab_size=300']!r}"
    for name, value in (one_thread() | {"PYTHONPATH": str(ROOT)}).items():
        monkeypatch.setenv(name, value)
    done = NotebookClient(tour, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    done.execute()
    said = json.dumps(outputs(tour))
    assert "e24-none-sop-pico-s0" in said
    assert "not tested" in said
    assert "image/svg+xml" in said
