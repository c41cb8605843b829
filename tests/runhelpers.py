"""A corpus and settings that make a run take about two seconds."""

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import Batch
from albert_ablate.data.prepare import Prepared, prepare
from albert_ablate.door.compose import compose, paper_setup
from albert_ablate.errors import PreemptedError
from albert_ablate.evaluation.heldout import build_held_out
from albert_ablate.experiment import run_cell
from albert_ablate.files import sha256_file
from albert_ablate.methods import method_of
from albert_ablate.model.pretraining import build_model
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.status import State
from albert_ablate.training.backend import Backend
from albert_ablate.training.checkpoint import Owner
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import choose_device
from albert_ablate.training.trackers import Trackers
from albert_ablate.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
#: Fields of a metrics line that no two runs have in common.
TIMING = ("seconds", "tokens_per_second", "examples_per_second")

_SYLLABLES = [a + b for a in "bdfgklmnprstvw" for b in "aeo"]
_WORDS = [a + b + c for a in _SYLLABLES for b in _SYLLABLES[::3] for c in ("", *_SYLLABLES[1::11])]


def write_corpus(file: Path, documents: int = 60, seed: int = 0) -> Path:
    """Made-up text, one sentence a line, a blank line between documents."""
    draw = random.Random(seed)

    def sentence() -> str:
        return " ".join(draw.choice(_WORDS) for _ in range(draw.randint(3, 7))).capitalize() + "."

    blocks = ["\n".join(sentence() for _ in range(draw.randint(6, 12))) for _ in range(documents)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return file


def tiny_overrides(folder: Path, *more: str, runs: str = "runs", corpus: Path | None = None) -> list[str]:
    """Overrides for a run of about two seconds; ``corpus`` and cache stand in ``folder`` and are reused."""
    corpus = corpus or folder / "corpus.txt"
    if not corpus.exists():
        write_corpus(corpus)
    return [
        "data=text",
        f"data.path={corpus}",
        "data.validation_fraction=0.2",
        "tokenizer.vocab_size=200",
        "embed.size=16",
        "model.hidden=32",
        "model.heads=2",
        "model.layers=2",
        "model.intermediate=64",
        "model.max_positions=32",
        "model.hidden_dropout=0",
        "model.attention_dropout=0",
        "model.initializer_range=0.05",
        "optimizer.learning_rate=0.002",
        "pairs.max_length=32",
        "batch.size=8",
        "batch.micro_size=8",
        "budget.steps=12",
        "budget.warmup_steps=2",
        "evaluation.max_pairs=32",
        "evaluation.curve_every=5",
        "evaluation.curve_pairs=16",
        "evaluation.probe_pairs=32",
        "evaluation.similarity_pairs=8",
        "runtime.threads=1",
        "runtime.precision=fp32",
        "runtime.device=cpu",
        "runtime.log_every=3",
        "runtime.checkpoint_every=4",
        f"paths.runs={folder / runs}",
        f"paths.cache={folder / 'cache'}",
        *more,
    ]


def tiny_config(folder: Path, *more: str, runs: str = "runs", corpus: Path | None = None) -> RunConfig:
    """``tiny_overrides`` composed."""
    return compose(tiny_overrides(folder, *more, runs=runs, corpus=corpus))


def run(config: RunConfig) -> RunFolder:
    """Run a cell that must succeed, and return its folder (the one under ``paths.runs``)."""
    assert start(config) == 0
    return only_folder(config)


def start(config: RunConfig) -> int:
    """Run a cell as ``run.py`` does: 0, or the error comes out."""
    run_cell(config, paper_setup(config))
    return 0


def stopped_in(step: int, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the cell until a stop signal comes in ``step``."""
    real = Trainer.update

    def signalled(self: Trainer, number: int, *rest: Any) -> Any:
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, number, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", signalled)
        with pytest.raises(PreemptedError):
            start(config)


def only_folder(config: RunConfig) -> RunFolder:
    """The one run folder under ``paths.runs``."""
    found = run_folders(Path(config.paths.runs))
    assert len(found) == 1, found
    return RunFolder(found[0].parent, found[0].name)


def run_folders(runs: Path) -> list[Path]:
    """Run folders, hidden ones left out."""
    return sorted(p for p in runs.iterdir() if p.is_dir() and not p.name.startswith(".")) if runs.is_dir() else []


def weights_of(folder: RunFolder) -> bytes:
    """Bytes of the newest checkpoint's weights."""
    return (newest_checkpoint(folder) / "model.safetensors").read_bytes()


def newest_checkpoint(folder: RunFolder) -> Path:
    """The checkpoint of the latest step."""
    return max(p for p in folder.checkpoints.iterdir() if p.name.startswith("step_"))


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without what a clock gave."""
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def command_line(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """``python run.py WORDS``, run in ``cwd``."""
    return forked.python(str(ROOT / "run.py"), *words, cwd=cwd, environment=one_thread())


def one_thread() -> dict[str, str]:
    """This environment with one CPU thread, and no terminal."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}


def make_batches(config: RunConfig, prepared: Prepared | None = None) -> Any:
    """Training batches of a configuration."""
    prepared = prepared or prepare(config)
    return method_of(config).batches(prepared.train, prepared.tokenizer.word_starts)


def make_trainer(
    config: RunConfig, model: Any = None, precision: str = "fp32", backend: Backend | None = None
) -> tuple[Trainer, Any]:
    """A trainer on CPU, without evaluation."""
    batches = make_batches(config)
    model = model or method_of(config).rehearsal()
    folder = RunFolder(Path(config.paths.runs), "by-hand")
    machine = Machine(choose_device(config.runtime), precision, backend=backend)
    trainer = Trainer(config, Owner("by-hand"), model, batches, folder, machine, dict, Trackers())
    return trainer, batches


def twenty_steps(config: RunConfig, precision: str) -> tuple[list[dict[str, float]], list[Tensor]]:
    """The means of 20 steps by their names, and the weights after them; ``precision`` may be fp64 too."""
    model = build_model(config.architecture(), 0)
    if precision == "fp64":
        model.double()
    trainer, batches = make_trainer(config, model, "fp32" if precision == "fp64" else precision)
    means = []
    for number in range(20):
        batch = batches[number]
        means.append(trainer.update(number, batch).means(batch.counts()))
    return means, list(trainer.model.state_dict().values())


def held_out_of(config: RunConfig) -> tuple[Prepared, Any]:
    """The prepared corpus and its evaluation sets."""
    prepared = prepare(config)
    return prepared, build_held_out(config, prepared.train, prepared.valid, prepared.tokenizer.word_starts)


def batch_arrays(batch: Batch) -> list[list[Any]]:
    """Everything in a batch, as plain lists."""
    return [
        getattr(batch, name).tolist() for name in ("input_ids", "type_ids", "mask", "positions", "targets", "labels")
    ]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether two lists hold the same bits."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def read_json(path: Path) -> Any:
    """Strict JSON: NaN and infinity are refused."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in {path}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def copy_of(folder: RunFolder, target: Path, state: State = "preempted") -> RunFolder:
    """A copy of a run folder under ``target`` that is to be continued."""
    shutil.copytree(folder.path, target / folder.name)
    copied = RunFolder(target, folder.name)
    copied.set_status(state)
    return copied


def status_of(folder: RunFolder) -> dict[str, Any]:
    """Content of ``status.json`` of a run that was started."""
    status = folder.status()
    assert status is not None
    return status


def assert_intact(path: Path) -> None:
    meta = read_json(path / "meta.json")
    assert {name: sha256_file(path / name) for name in meta["sha256"]} == meta["sha256"]
    assert all(torch.isfinite(t).all() for t in load_file(path / "model.safetensors").values())
