"""Identities of runs that exist: ``python tests/golden/identities.py`` writes ``identities.csv``.

The 42 published runs (``docs/results/cpu``) and one run of each preset. A row that changes makes finished work be
trained again: that is meant, and said in CHANGELOG.md, or it is a fault. New rows may be added.
"""

from pathlib import Path

import pandas as pd

from albert_ablate.config.identity import identity, readable_name
from albert_ablate.config.schema import CONF
from albert_ablate.door.compose import compose

HERE = Path(__file__).resolve().parent
FILE = HERE / "identities.csv"
_PUBLISHED = HERE.parent.parent / "docs" / "results" / "cpu" / "runs.csv"
#: Groups of which each option is a preset of its own.
_GROUPS = ("scale", "model", "embed", "share", "objective", "optimizer", "budget", "block")


def rows() -> list[dict[str, str]]:
    """Overrides, tokens and precision of every run."""
    found = []
    for run in pd.read_csv(_PUBLISHED).to_dict("records"):
        width = "full" if run["E"] == run["hidden"] else f"e{run['E']}"
        words = f"scale=cpu embed={width} share={run['share']} objective={run['objective']} seed={run['seed']}"
        words += " budget.steps=3500 budget.warmup_steps=175"
        found.append({"overrides": words, "tokens": run["tokens_fingerprint"], "precision": run["precision"]})
    for group in _GROUPS:
        for option in sorted(file.stem for file in (CONF / group).glob("*.yaml")):
            amount = {"tokens": "1000000", "flops": "1e15"}.get(option, "")
            more = f" budget.{option}={amount}" if group == "budget" and amount else ""
            wide = " embed=e16" if group == "model" else " model=base" if group == "embed" else ""
            found.append(
                {"overrides": f"{group}={option}{more}{wide}", "tokens": "0123456789abcdef", "precision": "fp32"}
            )
    return found


def named(row: dict[str, str]) -> dict[str, str]:
    """A row with its name and identity as they are now."""
    config = compose(row["overrides"].split())
    return row | {
        "name": readable_name(config), "identity": identity(config, row["tokens"], row["precision"]),
    }  # fmt: skip


if __name__ == "__main__":
    pd.DataFrame(map(named, rows())).to_csv(FILE, index=False)
