"""The sample report of the README: it is what the present code writes, and small enough to be passed on."""

import importlib.util
import re
from pathlib import Path

import pytest
from runhelpers import ROOT

KEPT = ROOT / "docs" / "results" / "cpu"


def text(page: Path) -> str:
    """The page without drawings and files within it: those differ in the last digits from machine to machine."""
    whole = page.read_text(encoding="utf-8")
    return re.sub(r"<svg.*?</svg>|base64,[\w+/=]*", "", whole, flags=re.S)


def test_page_and_pictures_are_small() -> None:
    assert (KEPT / "index.html").stat().st_size < 800_000
    for scheme in ("light", "dark"):
        assert (KEPT / f"screen-{scheme}.png").stat().st_size < 200_000


@pytest.mark.slow
def test_the_page_is_what_the_present_code_writes(tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("remake", ROOT / "docs" / "results" / "remake.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    made = module.remake(tmp_path / "out")
    remedy = "PYTHONPATH=. python docs/results/remake.py --pictures writes it again"
    assert text(made) == text(KEPT / "index.html"), remedy
    assert (made.parent / "report.md").read_text() == (KEPT / "report.md").read_text(), remedy
