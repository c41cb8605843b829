"""Records of causal runs in several sizes, with made-up scores."""

import json
from pathlib import Path
from typing import Any

import yaml
from reporthelpers import write_cell

GPT = {"method": "causal", "embedding": "H", "objective": "none", "depth": 1, "min_layers": 1}
FORM = {"norm": "pre", "lm_head": "plain"}


def entry(task: str, k: int, rules: dict[str, float], half: float = 0.02, **more: Any) -> dict[str, Any]:
    """A record of ``kshot`` with intervals of ``half`` to both sides."""
    shared = {"group": f"{task}{k}", "scoring": "likelihood", "seeds": [], "questions": 100, "chance": 0.5}
    spread: dict[str, Any] = dict.fromkeys(rules)
    accuracies = {rule: [value] for rule, value in rules.items()}
    intervals = {rule: [value - half, value + half] for rule, value in rules.items()}
    scores = {"accuracy": rules, "spread": spread, "accuracies": accuracies, "intervals": intervals}
    return {"task": task, "k": k, **shared, **scores, "majority": 0.5, "k_used": k, "cut": 0, "units": ["gone"]} | more


def causal_cell(root: Path, width: str, seed: int, depth: str = "1", **results: Any) -> Path:
    """A finished run in GPT-2's form with ``results`` in its results.json."""
    terms = GPT | {"width": width, "depth": depth, "model.norm": "pre", "model.lm_head": "plain"}
    folder = write_cell(root, terms, seed)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["model"] |= FORM
    settings["method"] |= {"token_types": False, "pooler": "trained"}  # as method=causal sets them
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    recorded = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(recorded | results))
    return folder
