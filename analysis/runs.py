"""Run folders as a table: one row a run, nested records flattened to dotted columns."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

_RECORDS = ("status", "manifest", "results", "similarity")


def load_runs(root: Path | str) -> pd.DataFrame:
    """Every run folder under ``root``, sorted by name; unfinished ones have empty results.

    Columns: ``name``, ``path``, ``config.*`` (the resolved settings), ``status.*``,
    ``manifest.*``, ``results.*`` and ``similarity.*``. Raises FileNotFoundError without a run.
    """
    folders = sorted(path.parent for path in Path(root).glob("*/status.json"))
    if not folders:
        raise FileNotFoundError(f"{root}: no run folders there (a run folder holds status.json)")
    return pd.DataFrame([_row(folder) for folder in folders])


def load_metrics(folder: Path | str) -> pd.DataFrame:
    """``metrics.jsonl`` of one run: a row a log line, held-out columns only at curve points."""
    return pd.read_json(Path(folder) / "metrics.jsonl", lines=True)


def _row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": folder.name, "path": str(folder)}
    config = folder / "config.yaml"
    if config.is_file():
        row |= _flat("config", yaml.safe_load(config.read_text(encoding="utf-8")))
    for record in _RECORDS:
        file = folder / f"{record}.json"
        if file.is_file():
            row |= _flat(record, json.loads(file.read_text(encoding="utf-8")))
    return row


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in _flat(f"{prefix}.{key}", inner).items()}
