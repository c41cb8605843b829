"""Every arm of the shipped claims is a cell of a shipped sweep, so that running the sweep can test the claim."""

from functools import cache
from typing import Any

import pandas as pd
import pytest
from runhelpers import ROOT

from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.sweeping.definition import load, sweep_names
from analysis.judge.claims import _terms, load_claims
from analysis.read.cells import matching
from analysis.read.runs import _base
from analysis.read.tunings import without
from analysis.recount.arms import wanted
from analysis.recount.files import at

FILES = sorted((ROOT / "analysis").glob("*claims.yaml"))
#: Sweeps that need a run of one's own, or have a scale of their own and no claims.
_GIVEN = ("continued", "controls")


@cache
def every_cell() -> pd.DataFrame:
    """The cells of all sweeps at one scale, as finished runs are read."""
    names = [name for name in sweep_names() if name not in _GIVEN and not load(name).counts_only]
    cells = [cell for name in names for cell in expand(read_command_line([f"sweep={name}", "scale=cpu"]))]
    rows = []
    for config in (cell.config.as_dict() for cell in cells):
        model = config["model"]
        hidden, layers = _base(model["name"], model["hidden"], model["layers"])
        rows.append({"config": config, "hidden": model["hidden"], "base_hidden": hidden, "base_layers": layers})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_arm_is_a_cell_of_a_sweep(file: Any) -> None:
    cells = every_cell()
    missing = []
    for claim in load_claims(file):
        for name, arm in claim.arms.items():
            terms = without(_terms(arm))
            found = cells[matching(cells, terms)]
            missing += [f"{claim.id}: {name}"] if found.empty else []
            for config in found["config"][:1]:  # the audit reads the terms in the same way
                assert all(_alike(at(config, path), value) for path, value in wanted(terms, config).items()), claim.id
    assert not missing


def _alike(recorded: Any, value: Any) -> bool:
    return bool(recorded == value) or recorded is None
