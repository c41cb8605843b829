"""Run folders of a simulated sweep: the records of real runs with numbers from a known law."""

import json
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from albert_ablate.axes import METHOD
from albert_ablate.sweeping.relative import Shape, embedding_of, shape_of
from analysis import report
from analysis.judge.tables import arms_of
from analysis.read.runs import COLUMNS, load_runs

#: What a choice adds to masked-LM accuracy, in the direction the paper found.
PAPER_LIKE = {("share", "none"): 0.020, ("share", "attention"): 0.018, ("share", "ffn"): 0.004, ("share", "all"): 0.0}
TABLES = ("table3", "table4", "table5")
_BASE = (192, 3)


def cells(*tables: str) -> list[dict[str, Any]]:
    """The distinct cells of sweep files."""
    found: list[dict[str, Any]] = []
    for table in tables or TABLES:
        found += [terms for terms in arms_of(table).values() if terms not in found]
    return found


def config(terms: Mapping[str, Any], seed: int, steps: int = 3500) -> dict[str, Any]:
    """Resolved settings of a cell, as ``config.yaml`` holds them."""
    shape = shape_of(dict(terms), *_BASE, 64)
    size = str(terms.get("size", "base"))
    dropout = float(terms.get("dropout", 0.0))
    return _method(terms) | {
        "seed": seed,
        "scale": {"name": "cpu"},
        "embed": {"size": embedding_of(str(terms.get("embedding", "H/6")), _BASE[0], shape.hidden)},
        "share": {"strategy": terms.get("share", "all"), "groups": 1},
        "objective": {"name": terms.get("objective", "sop")},
        "model": {
            "name": _name(size, shape, "min_layers" in terms),
            "hidden": shape.hidden,
            "layers": shape.layers,
            "heads": shape.hidden // 64,
            "intermediate": 4 * shape.hidden,
            "hidden_dropout": dropout,
            "attention_dropout": dropout,
        },
        "data": _corpus(terms),
        "tokenizer": {"vocab_size": 2000},
        "pairs": {"max_length": 64},
        "budget": _budget(terms, steps),
        "warm_start": {"layers": list(shape.after)},
        "batch": {"size": 64, "micro_size": 64},
    }


def _name(size: str, shape: Shape, deep: bool) -> str:
    """The name of a model; with its shape if it has another depth than its size, in sweeps that say a least depth."""
    name = "nano" if size == "base" else f"nano-{size}"
    return f"{name}-{shape.layers}x{shape.hidden}" if deep and shape.changed else name


def _method(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The groups ``method`` and ``masking`` of a cell that says a method; older runs have neither."""
    if "method" not in terms:
        return {}
    given = {key.partition(".")[2]: value for key, value in terms.items() if key.startswith("method.")}
    defaults = {path.partition(".")[2]: value for path, value in METHOD.beside.items()}
    return {"method": {"name": terms["method"], **defaults, **given}, "masking": {"max_ngram": 1}}


def _budget(terms: Mapping[str, Any], steps: int) -> dict[str, Any]:
    flops = 1e10 * steps * float(Fraction(str(terms["compute"]))) if "compute" in terms else None
    used = {"unit": terms.get("budget", "steps"), "steps": steps, "warmup_steps": 175, "seconds": 600}
    return used if flops is None else used | {"flops": flops}


def _corpus(terms: Mapping[str, Any]) -> dict[str, Any]:
    strengths = {key.rpartition(".")[2]: value for key, value in terms.items() if key.startswith("data.planted.")}
    name = "planted" if strengths else "embedded"
    found = {"name": name, "fraction": 0.5 if terms.get("corpus") == "base" else 1.0, "planted": strengths or None}
    return found if strengths else {key: found[key] for key in ("name", "fraction")}


def write_cell(
    root: Path, terms: Mapping[str, Any], seed: int, noise: float = 0.002, law: Mapping[Any, float] | None = None,
    left: bool = True, tasks: Iterable[str] = (), steps: int = 3500, layers: int | None = None,
    scores: Mapping[str, Any] | None = None, task_noise: float = 0.004,
) -> Path:  # fmt: skip
    """One finished run folder. Noise is of the seed (common to all arms) and of the cell.

    ``scores`` replaces parts of ``results.json``, a dictionary within it key by key.
    """
    settings = config(terms, seed, steps)
    own, common = np.random.default_rng([seed, abs(hash_of(terms))]), np.random.default_rng([seed, 1])
    gain = sum((PAPER_LIKE if law is None else law).get(pair, 0.0) for pair in terms.items())
    mlm = 0.18 + gain + 0.004 * common.standard_normal() + noise * own.standard_normal()
    share, objective = settings["share"]["strategy"], settings["objective"]["name"]
    layers = layers or settings["model"]["layers"]
    name = f"e{settings['embed']['size']}-{share}-{objective}-{settings['model']['name']}-s{seed}"
    name += f"-{hash_of([terms, steps, seed]) % 16**12:012x}"
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    stamp = f"2026-11-21T10:{seed % 60:02d}:00+00:00"
    _json(folder / "status.json", {"state": "finished", "reason": None, "started": stamp, "updated": stamp})
    blocks = {"all": (1, 1), "attention": (1, 3), "ffn": (3, 1), "none": (3, 3)}[share]
    count = 2000 * settings["embed"]["size"] + 150_000 * blocks[0] + 300_000 * blocks[1]
    _json(
        folder / "manifest.json",
        {
            "identity": name.rpartition("-")[2], "source": {"commit": "a" * 40, "dirty": False},
            "packages": {"torch": "2.13.0"}, "hardware": {"device": "cpu"}, "precision": "bf16",
            "data": {"tokens": {"fingerprint": _tokens(settings)}, "corpus": settings["data"]["name"]},
            "flops_per_step": 1e10,
            "parameters": {"encoder": count, "with_pooler": count + 37_000, "with_heads": count + 70_000},
            "deviations_from_paper": [{"field": "batch.size", "ours": 64, "paper": 4096}],
        },
    )  # fmt: skip
    loss = 6.0 - 4 * (mlm - 0.05)
    accuracy = {"nsp": (0.70, 0.66, 0.55), "sop": (0.51, 0.60, 0.52)}
    results: dict[str, Any] = {
        "masked_lm": {
            "loss": loss, "loss_interval": [loss - 0.002, loss + 0.002], "accuracy": mlm, "unigram_loss": 6.0,
            "binomial_interval": [mlm - 0.0005, mlm + 0.0005], "bigram_loss": 5.42, "left_baseline": left,
        },
        "training": {
            "steps": steps, "tokens": 4000 * steps, "flops": 1e10 * steps, "seconds": 300.0 + 10 * blocks[1] + seed,
            "tokens_per_second": 45_000.0 - 1000 * blocks[1],
        },
        "evaluation": {"seconds": 6.0},
        "tasks": [_task(task, mlm, task_noise * own.standard_normal()) for task in tasks],
    }  # fmt: skip
    for task, by_objective in accuracy.items():
        value = by_objective[("nsp", "sop", "none").index(objective)] + 0.004 * own.standard_normal()
        trained = objective == task
        results[task] = {
            "accuracy": value, "interval": [value - 0.02, value + 0.02], "head": "trained" if trained else "fitted",
            "left_baseline": left if trained else value > 0.53,
        }  # fmt: skip
    if terms.get("method", "mlm") not in ("mlm", "distilbert"):
        results["masked_lm"] = None
    for key, value in (scores or {}).items():
        results[key] = results.get(key, {}) | value
    _json(folder / "results.json", results)
    wobble = {"all": 0.1, "attention": 0.3, "ffn": 0.5, "none": 1.0}[share]
    profile = [6.0 + wobble * (1 if layer % 2 else -1) + 0.02 * own.standard_normal() for layer in range(layers)]
    _json(folder / "similarity.json", {"l2": profile, "degrees": [5 * value for value in profile]})
    points = [
        {
            "step": steps * part // 7, "tokens": 4000 * steps * part // 7, "mlm_loss": loss,
            "held_out_mlm_loss": loss + 1.2 * math.exp(-part), "held_out_mlm_accuracy": mlm * (1 - math.exp(-part)),
            "held_out_sentence_accuracy": None if objective == "none" else 0.5 + 0.02 * part,
        }
        for part in range(1, 8)
    ]  # fmt: skip
    if terms.get("method") == "electra":
        points = [_replaced(point) for point in points]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    return folder


def _replaced(point: Mapping[str, Any]) -> dict[str, Any]:
    """A curve point of ELECTRA: accuracy a little above calling every token real."""
    learned = 1 - point["held_out_mlm_loss"] / 8
    return {
        "step": point["step"], "tokens": point["tokens"], "held_out_fake_rate": 0.14 - 0.1 * learned,
        "held_out_replaced_accuracy": 0.86 + 0.12 * learned, "held_out_replaced_auc": 0.5 + learned,
        "held_out_replaced_recall": learned, "held_out_generator_loss": 6 - 4 * learned,
    }  # fmt: skip


def _tokens(settings: Mapping[str, Any]) -> str:
    planted = settings["data"].get("planted")
    return f"{hash_of(planted) % 16**8:08x}" if planted else "feed"


def write_sweep(root: Path, seeds: int = 3, **more: Any) -> Path:
    """Every cell of Tables 3, 4 and 5 with ``seeds`` seeds."""
    for seed in range(seeds):
        for terms in cells():
            write_cell(root, terms, seed, **more)
    return root


def write_report(root: Path) -> Path:
    """A report of a simulated sweep with one failed cell, one on its plateau and fine-tuned tasks; its folder."""
    write_sweep(root / "runs", noise=0.0005, tasks=("sst2", "era"))
    failed = write_cell(root / "runs", cells("table4")[1], 3)
    _json(failed / "status.json", {"state": "failed", "reason": "<script>alert(1)</script>"})
    write_cell(root / "runs", cells("table5")[1], 3, left=False)
    assert report.main([str(root / "runs"), "--out", str(root / "out"), "--title", "A <b>small</b> sweep"]) == 0
    return root / "out"


def simulated(means: Mapping[str, float], seeds: int, draw: np.random.Generator, noise: float) -> pd.DataFrame:
    """A frame of runs without folders: Table 4's four strategies at E = H/6 with known masked-LM accuracies.

    ``means``: strategy -> accuracy. Noise of a difference between arms has standard deviation ``noise``.
    """
    rows = []
    for seed in range(seeds):
        common = 0.01 * draw.standard_normal()
        for share, mean in means.items():
            terms = {"size": "base", "embedding": "H/6", "share": share, "objective": "sop"}
            settings = config(terms, seed)
            rows.append(
                dict.fromkeys(COLUMNS)
                | {
                    "run": f"{share}-{seed}", "state": "finished", "seed": seed, "model": "nano", "E": 32, "note": "",
                    "share": share, "objective": "sop", "hidden": 192, "layers": 3, "base_hidden": 192,
                    "base_layers": 3, "mlm": mean + common + noise / math.sqrt(2) * draw.standard_normal(),
                    "mlm_left_baseline": True, "tokens_fingerprint": "feed", "precision": "bf16", "tasks": [],
                    "config": settings, "deviations": [], "updated": pd.Timestamp("2026-11-21"),
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def hash_of(value: Any) -> int:
    """A number that follows from the content."""
    return sum(ord(c) * 31**place for place, c in enumerate(json.dumps(value, sort_keys=True, default=str))) % 2**47


def loaded(root: Path, **more: Any) -> pd.DataFrame:
    """A simulated sweep, loaded."""
    return load_runs(write_sweep(root, **more))


def _task(name: str, mlm: float, noise: float) -> dict[str, Any]:
    value = 0.55 + mlm + noise
    metrics = {"cola": ("matthews",), "stsb": ("pearson", "spearman")}.get(name, ("accuracy",))
    metrics = ("f1", "exact") if name.startswith("squad") else metrics
    found: dict[str, dict[str, Any]] = {
        metric: {"value": value - 0.05 * place, "interval": [value - 0.05 * place + end for end in (-0.001, 0.001)]}
        for place, metric in enumerate(metrics)
    }
    return {
        "task": name, "start": "pretrained", "group": name, "metric": metrics[0], "seeds": [0], "score": value,
        "spread": [value, value], "last_score": value,
        "average": sum(entry["value"] for entry in found.values()) / len(found), "recipe": {"steps": 100},
        "set_up": {"task": {"name": name}, "data": "feed"},
        "sets": {"matched" if name == "mnli" else "dev": {"n": 900_000, **found}},
        "to_beat": {"matched" if name == "mnli" else "dev": {"majority": 0.4}},
    }  # fmt: skip


def _json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values))
