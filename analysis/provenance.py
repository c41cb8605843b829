"""Where every number of a report comes from: its runs, their code and data, and what sets them apart."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from albert_ablate.identity import INCIDENTAL

from .metrics import metric, values
from .setups import flatten
from .tables import REFERENCES, Table

#: Settings that do not change numbers; corpus and tokenizer, which an identity knows by their tokens, do.
_INCIDENTAL = (set(INCIDENTAL) | {"seed"}) - {"data", "tokenizer"}


def of_tables(tables: Sequence[Table]) -> dict[str, Any]:
    """``runs`` (name -> facts) and ``arms`` (arm -> its runs, scores by seed, settings unlike the reference arm's)."""
    runs: dict[str, Any] = {}
    arms: dict[str, Any] = {}
    for table in tables:
        references = REFERENCES.get(table.name, ())
        for place, row in enumerate(table.rows):
            frame = table.selection.runs.get(row.arm)
            if frame is None or not len(frame):
                continue
            runs |= {str(run["run"]): facts(run) for run in frame.to_dict("records")}
            keys = [key for column in table.columns for key in column if key != "speedup"]
            scores = {key: _by_seed(frame, key) for key in keys}
            reference = references[place] if place < len(references) else None
            other = None if reference is None else table.selection.runs[table.rows[reference].arm]
            against = None if reference is None else ", ".join(table.rows[reference].labels)
            arms[row.arm] = {
                "name": f"Table {table.number}: {', '.join(row.labels)}",
                "runs": {str(seed): str(run) for seed, run in zip(frame["seed"], frame["run"], strict=True)},
                "scores": {key: found for key, found in scores.items() if found},
                "against": against if other is not None and len(other) else None,
                "differs": [] if other is None or not len(other) else different(frame.iloc[0], other.iloc[0]),
            }
    return {"runs": runs, "arms": arms}


def facts(run: dict[Any, Any]) -> dict[str, Any]:
    """What identifies one run."""
    text = run["data"].get("text", {}).get("fingerprint") if isinstance(run["data"], dict) else None
    return {
        "folder": run["path"], "identity": run["identity"], "finished": str(run["updated"]),
        "commit": _code(run),
        "corpus text": text, "tokens": run["tokens_fingerprint"], "precision": run["precision"],
        "device": run["device"], "torch": run["torch"], "steps": None if pd.isna(run["steps"]) else int(run["steps"]),
    }  # fmt: skip


def _code(run: dict[Any, Any]) -> str:
    why = f" ({run['code_unknown']})" if isinstance(run["code_unknown"], str) else ""
    if not isinstance(run["commit"], str):
        return f"unknown{why}"
    return run["commit"][:10] + (" with uncommitted changes" if run["dirty"] is True else why)


def different(ours: "pd.Series[Any]", theirs: "pd.Series[Any]") -> list[str]:
    """``share.strategy: all, there none`` for every setting in which two runs differ."""
    a, b = (
        {k: v for k, v in flatten(run["config"]).items() if k.split(".")[0] not in _INCIDENTAL}
        for run in (ours, theirs)
    )
    return [f"{key}: {a.get(key)}, there {b.get(key)}" for key in sorted(set(a) | set(b)) if a.get(key) != b.get(key)]


def _by_seed(frame: pd.DataFrame, key: str) -> dict[str, float]:
    found = values(frame, key) * metric(key).scale
    return {str(seed): round(float(value), 4) for seed, value in found.items()}
