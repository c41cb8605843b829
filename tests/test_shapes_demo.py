"""The demonstration of kinds of layers and of attention, shortened: its runs, and the report on them."""

import json
from pathlib import Path

import pytest
from runhelpers import command_line, run_folders, write_corpus

from analysis import report

_SHORT = (
    "budget.steps=2", "budget.warmup_steps=1", "batch.size=2", "batch.micro_size=2", "evaluation.max_pairs=16",
    "evaluation.curve_pairs=2", "evaluation.curve_every=1", "evaluation.probe_pairs=16", "seed=0",
    "evaluation.similarity_pairs=2", "tokenizer.vocab_size=200", "data.validation_fraction=0.4", "model.heads=2",
    "model.hidden=32", "embed.size=16", "runtime.threads=1",
)  # fmt: skip


@pytest.mark.slow
def test_the_demonstration_runs_and_is_reported(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.txt")
    places = (f"data.path={tmp_path}/corpus.txt", f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache")
    done = command_line("-m", "sweep=shapes_demo", "data=text", *_SHORT, *places, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in run_folders(tmp_path / "runs")]
    assert len(manifests) == 4
    seen = sorted(manifest["blocks"]["pairs_seen"] for manifest in manifests if manifest.get("blocks"))
    assert len(seen) == 2
    assert all(0.3 < share < 0.6 for share in seen), "half of the pairs"
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Layers and attention, a demonstration" in page
    for name in ("full attention", "BigBird", "standard layers", "MobileBERT's layers"):
        assert name in page
