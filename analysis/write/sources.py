"""The provenance of every number of a report: its runs, their code and data, and differing settings."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from albert_ablate.config.identity import INCIDENTAL
from albert_ablate.config.labels import flatten

from ..judge.metrics import metric, values
from ..judge.numbers import DECIMALS
from ..judge.tables import REFERENCES, Table
from ..read.copies import short

#: Settings that do not change numbers. Corpus and tokenizer do: an identity holds the fingerprint of their tokens.
_INCIDENTAL = (set(INCIDENTAL) | {"seed"}) - {"data", "tokenizer"}


def of_tables(tables: Sequence[Table]) -> dict[str, Any]:
    """``runs`` (name -> facts) and ``arms`` (arm -> runs, scores by seed, settings that differ from the reference)."""
    runs: dict[str, Any] = {}
    arms: dict[str, Any] = {}
    for table in tables:
        references = REFERENCES.get(table.name, ())
        for index, row in enumerate(table.rows):
            frame = table.selection.runs.get(row.arm)
            if frame is None or not len(frame):
                continue
            runs |= {str(run["run"]): facts(run) for run in frame.to_dict("records")}
            keys = [key for column in table.columns for key in column if key != "speedup"]
            scores = {key: _by_seed(frame, key) for key in keys}
            reference = references[index] if index < len(references) else None
            reference_runs = None if reference is None else table.selection.runs[table.rows[reference].arm]
            against = None if reference is None else ", ".join(table.rows[reference].labels)
            arms[row.arm] = {
                "name": f"{table.heading}: {', '.join(row.labels)}",
                "runs": {str(seed): str(run) for seed, run in zip(frame["seed"], frame["run"], strict=True)},
                "scores": {key: by_seed for key, by_seed in scores.items() if by_seed},
                "against": against if reference_runs is not None and len(reference_runs) else None,
                "differs": []
                if reference_runs is None or not len(reference_runs)
                else different(frame.iloc[0], reference_runs.iloc[0]),
            }
    return {"runs": runs, "arms": arms}


def facts(run: dict[Any, Any]) -> dict[str, Any]:
    """Facts that identify a run: folder, identity, code, data, device and steps."""
    text = run["data"].get("text", {}).get("fingerprint") if isinstance(run["data"], dict) else None
    return {
        "folder": short(run["path"]), "identity": run["identity"], "finished": str(run["updated"]),
        "commit": _code(run),
        "corpus text": text, "tokens": run["tokens_fingerprint"], "precision": run["precision"],
        "device": run["device"], "torch": run["torch"], "steps": None if pd.isna(run["steps"]) else int(run["steps"]),
    }  # fmt: skip


def _code(run: dict[Any, Any]) -> str:
    why = f" ({run['code_unknown']})" if isinstance(run["code_unknown"], str) else ""
    if not isinstance(run["commit"], str):
        return f"unknown{why}"
    return run["commit"][:10] + (" with uncommitted changes" if run["dirty"] is True else why)


def different(run: "pd.Series[Any]", reference: "pd.Series[Any]") -> list[str]:
    """``share.strategy: all, there none`` for every setting in which ``run`` and ``reference`` differ."""
    a, b = (
        {k: v for k, v in flatten(run["config"]).items() if k.split(".")[0] not in _INCIDENTAL}
        for run in (run, reference)
    )
    unlike = [key for key in sorted(set(a) | set(b)) if a.get(key) != b.get(key)]
    return [f"{key}: {_shown(a.get(key))}, there {_shown(b.get(key))}" for key in unlike]


def _shown(value: Any) -> Any:
    """A setting; of a file its name, as folders of this machine mean nothing elsewhere."""
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def _by_seed(frame: pd.DataFrame, key: str) -> dict[str, str]:
    """Seed -> its score, with one decimal more than a mean over seeds has."""
    scores = values(frame, key) * metric(key).scale
    decimals = DECIMALS[metric(key).unit] + 1
    return {str(seed): f"{value:,.{decimals}f}" for seed, value in scores.items()}
