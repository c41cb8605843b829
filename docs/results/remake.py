"""Remakes ``docs/results/cpu`` with the present code: ``PYTHONPATH=. python docs/results/remake.py``.

A repository keeps the report of a sweep, not its 42 run folders. ``runs.csv`` and the numbers of the figures hold
everything that a report reads, so the folders are made again from them, without checkpoints and logs. The report and
its page, ``index.html``, are then written as for any runs. ``--pictures`` also takes the two pictures of the page's
first screen for the README; it needs selenium, chromium and chromedriver.
"""

import argparse
import ast
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from albert_ablate.config.deviations import deviations
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import compose, paper_setup
from albert_ablate.files import write_text
from analysis.report import report_on
from analysis.write.page import html

KEPT = Path(__file__).parent / "cpu"
TITLE = "Tables 3, 4 and 5 on a laptop: 14 arms, three seeds"
#: Size of the pictures, in pixels.
_SCREEN = (1280, 800)
#: Scale of the kept runs, and the parts of their budget that have other defaults today.
_SCALE = ("scale=cpu", "budget.steps=3500", "budget.warmup_steps=175")


def remake(out: Path) -> Path:
    """Writes the report and the page of the kept runs to ``out``; returns the page."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        restore(KEPT, runs)
        report, _ = report_on([runs], out, title=TITLE, compact=True)
        write_text(out / "index.html", html(report))
    return out / "index.html"


def restore(kept: Path, out: Path) -> list[Path]:
    """The run folders in ``out`` of the report ``kept``; raises FileNotFoundError if it has no ``runs.csv``."""
    curves = pd.read_csv(kept / "figures" / "curves.csv")
    arms = pd.read_csv(kept / "figures" / "seeds.csv").set_index("run")["arm"]
    folders = []
    for run in pd.read_csv(kept / "runs.csv").to_dict("records"):
        points = curves[(curves["arm"] == arms[run["run"]]) & (curves["seed"] == run["seed"])]
        folders.append(_write(out / str(run["run"]), run, points))
    return folders


def _write(folder: Path, run: Mapping[Any, Any], points: pd.DataFrame) -> Path:
    folder.mkdir(parents=True)
    config = _config(run)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.as_dict(), sort_keys=False))
    _json(folder / "status.json", {"state": "finished", "reason": None, "exit_code": 0, "updated": run["updated"]})
    _json(folder / "manifest.json", _manifest(run, config))
    _json(folder / "results.json", _results(run))
    _json(folder / "similarity.json", {name: ast.literal_eval(run[name]) for name in ("l2", "degrees")})
    lines = [json.dumps(line) + "\n" for line in [*_speeds(run), *_points(points)]]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def _config(run: Mapping[Any, Any]) -> RunConfig:
    embed = "full" if run["E"] == run["hidden"] else f"e{run['E']}"
    axes = (f"embed={embed}", f"share={run['share']}", f"objective={run['objective']}")
    return compose([*_SCALE, *axes, f"seed={run['seed']}"])


def _manifest(run: Mapping[Any, Any], config: RunConfig) -> dict[str, Any]:
    return {
        "identity": run["identity"], "precision": run["precision"], "flops_per_step": run["flops_per_step"],
        "parameters": {rule: run[f"params_{rule}"] for rule in ("encoder", "with_pooler", "with_heads")},
        "source": {"commit": run["commit"], "dirty": run["dirty"]}, "hardware": {"device": run["device"]},
        "packages": {"torch": run["torch"]},
        "data": {"corpus": config.data.name, "tokens": {"fingerprint": run["tokens_fingerprint"]}},
        "deviations_from_paper": deviations(config, paper_setup(config)),
    }  # fmt: skip


def _results(run: Mapping[Any, Any]) -> dict[str, Any]:
    training = ("steps", "tokens", "flops", "seconds", "tokens_per_second")
    masked = {
        "loss": run["mlm_loss"], "accuracy": run["mlm"], "binomial_interval": ast.literal_eval(run["mlm_interval"]),
        "unigram_loss": run["unigram_loss"], "bigram_loss": run["bigram_loss"],
        "left_baseline": run["mlm_left_baseline"],
    }  # fmt: skip
    return _replaced(run) | {
        "masked_lm": masked, "nsp": _sentences(run, "nsp"), "sop": _sentences(run, "sop"),
        "training": {name: run[name] for name in training}, "evaluation": {"seconds": run["evaluation_seconds"]},
    }  # fmt: skip


def _replaced(run: Mapping[Any, Any]) -> dict[str, Any]:
    """The replaced-token probe; nothing for a table of older runs, which lack it."""
    if pd.isna(run.get("replaced_auc")):
        return {}
    scores = {
        "auc": run["replaced_auc"], "interval": ast.literal_eval(run["replaced_interval"]),
        "loss": run["replaced_loss"], "token_auc": run["replaced_token_auc"],
        "left_baseline": run["replaced_left_baseline"],
    }  # fmt: skip
    return {"replaced_tokens": scores}


def _sentences(run: Mapping[Any, Any], task: str) -> dict[str, Any]:
    scores = {
        "accuracy": run[task], "interval": ast.literal_eval(run[f"{task}_interval"]), "head": run[f"{task}_head"],
        "left_baseline": run[f"{task}_left_baseline"],
    }  # fmt: skip
    if pd.isna(run[f"{task}_own_head"]):
        return scores
    interval = ast.literal_eval(run[f"{task}_own_head_interval"])
    return scores | {"own_head": {"accuracy": run[f"{task}_own_head"], "interval": interval}}


def _speeds(run: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Five log lines with the recorded median speed and ratio of the quartiles."""
    middle, ratio = run["tokens_per_second"], run["speed_spread"] ** 0.5
    speeds = (middle / ratio, middle / ratio, middle, middle * ratio, middle * ratio)
    return [{"step": step, "tokens": 0, "tokens_per_second": speed} for step, speed in enumerate(speeds, 1)]


def _points(points: pd.DataFrame) -> list[dict[str, Any]]:
    """The recorded points of the held-out curve."""
    return [
        {
            "step": point["step"], "tokens": point["tokens"], "held_out_mlm_loss": point["mlm_loss"],
            "held_out_mlm_accuracy": point["mlm"],
            "held_out_sentence_accuracy": None if pd.isna(point["sentence"]) else point["sentence"],
        }
        for point in points.to_dict("records")
    ]  # fmt: skip


def _json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values))


def take_pictures(page: Path) -> None:
    """The first screen of ``page``, as ``screen-light.png`` and ``screen-dark.png`` beside it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options)
    width, height = _SCREEN
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        driver.get(page.resolve().as_uri())
        driver.save_screenshot(str(page.with_name(f"screen-{scheme}.png")))
    driver.quit()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Remakes docs/results/cpu with the present code.")
    parser.add_argument("--pictures", action="store_true", help="also take the pictures of the first screen")
    options = parser.parse_args()
    made = remake(KEPT)
    if options.pictures:
        take_pictures(made)
    print(made)
