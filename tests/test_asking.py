"""Runs and sweeps that ask their tasks by prompts after the training (``kshot.ask``)."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runhelpers import ROOT, run, start
from taskhelpers import write_sst2

from albert_ablate.commands import kshot
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.errors import ConfigError, DataError, PreemptedError
from albert_ablate.prompting import likelihood, scores
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.kshot import KShotEntry
from albert_ablate.record.results import Results
from albert_ablate.sweeping.cells import assign_folders
from albert_ablate.sweeping.record import single_run, standing, standings, write_record
from albert_ablate.training.trainer import Trainer

PAIRS = ("task=minimal_pairs", "kshot.minimal_pairs.pairs=3", "kshot.minimal_pairs.rules=[swap,replace]")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sst2(tmp_path_factory.mktemp("data"))


def entries(folder: RunFolder) -> list[KShotEntry]:
    return folder.load("results.json", Results).kshot


def sst2(data: Path, *more: str) -> list[str]:
    words = ["task=sst2", f"task.data_dir={data}", "kshot.k=[0,1]", "kshot.seeds=[0,1]", "kshot.examples=12"]
    return [*words, "kshot.rules=[sum,token]", "tasks.sst2.steps=4", "tasks.sst2.warmup_steps=1", *more]


def test_a_run_asks_instead_of_fine_tuning(
    cell: Callable[..., RunConfig], finished: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    config = cell(*PAIRS, "kshot.ask=instead")
    folder = run(config)
    assert folder.name == finished.name  # what is asked is no part of the identity
    (pairs,) = entries(folder)
    assert (pairs.task, pairs.questions, pairs.chance) == ("minimal_pairs", 6, 0.5)
    assert not (folder.path / "tasks").exists()
    assert "minimal_pairs" in capsys.readouterr().out
    before = (folder.path / "results.json").read_bytes()
    start(config)
    assert "nothing to do" in capsys.readouterr().out
    assert (folder.path / "results.json").read_bytes() == before
    assert kshot.main([str(folder.path), *PAIRS, "runtime.device=cpu"]) == 0  # the command finds the same evaluations
    assert "nothing to do" in capsys.readouterr().out
    assert single_run(folder.path.parent, folder.name).state == "finished"


def test_a_run_asks_after_its_fine_tuning(cell: Callable[..., RunConfig], data: Path) -> None:
    folder = run(cell(*sst2(data), "kshot.ask=after"))
    assert [entry["task"] for entry in folder.read("results.json")["tasks"]] == ["sst2"]
    assert [(entry.k, len(entry.units)) for entry in entries(folder)] == [(0, 1), (1, 2)]


def test_a_trained_run_is_only_asked(
    cell: Callable[..., RunConfig], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(cell())
    monkeypatch.setattr(Trainer, "fit", lambda _: pytest.fail("trained again"))
    asking = cell(*sst2(data), "kshot.ask=instead")
    (placed,) = assign_folders(cells_of(asking), lambda _: "fp32")
    assert placed.state() == "missing"
    start(asking)
    assert placed.state() == "finished"
    assert not (folder.path / "tasks").exists()
    assert len(entries(folder)) == 2


def cells_of(config: RunConfig) -> list[Any]:
    from albert_ablate.sweeping.cells import Cell

    return [Cell(config, (), ("here",))]


def test_a_run_that_is_stopped_while_it_asks_continues(
    cell: Callable[..., RunConfig], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "_PART", 4)
    config = cell(*sst2(data), "kshot.ask=instead")
    calls: list[int] = []
    real = likelihood.Likelihood.__call__

    def counted(self: Any, candidates: Any) -> Any:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(len(candidates))
        return real(self, candidates)

    whole = run(cell(*sst2(data), "kshot.ask=instead", runs="whole"))
    with monkeypatch.context() as patched:
        patched.setattr(likelihood.Likelihood, "__call__", counted)
        with pytest.raises(PreemptedError):
            start(config)
    (placed,) = assign_folders(cells_of(config), lambda _: "fp32")
    record = write_record(Path(config.paths.runs), "here", [placed])
    assert placed.state() == standings(record)[0].state == "preempted"
    monkeypatch.setattr(Trainer, "fit", lambda _: pytest.fail("trained again"))
    start(config)
    assert placed.state() == standings(record)[0].state == "finished"
    assert placed.folder is not None
    units = [unit for entry in entries(whole) for unit in entry.units]
    assert len(units) == 3
    for unit in units:
        files = [folder.path / "kshot" / unit / "options.jsonl" for folder in (whole, placed.folder)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kshot.ask=after"], "there is no task to ask"),
        ([*PAIRS, "kshot.ask=after", "method=electra"], "its models predict no tokens"),
        ([*PAIRS, "kshot.ask=after", "kshot.k=[1]"], "has no demonstrations"),
        ([*PAIRS], "Add kshot.ask=after"),
        (["task=squad11", "kshot.ask=instead"], "no template is shipped for task=squad11"),
        (["task=sst2", "kshot.ask=instead", "task.data_dir=/nowhere"], "/nowhere"),
        ([*PAIRS, "kshot.ask=never"], "kshot.ask='never'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_training(
    words: list[str], said: str, cell: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, DataError)) as refused:
        start(cell(*words))
    assert said in str(refused.value)
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


def test_the_command_refuses_the_setting(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert kshot.main([str(finished.path), *PAIRS, "kshot.ask=after"]) == 2
    assert "kshot.ask=after: no effect on a finished run" in " ".join(capsys.readouterr().err.split())


def test_a_causal_model_that_is_only_asked_needs_no_pooling(cell: Callable[..., RunConfig], data: Path) -> None:
    causal = ("method=causal", "objective=none", *sst2(data))
    with pytest.raises(ConfigError, match="pool=first"):
        cell(*causal, "kshot.ask=after")
    assert cell(*causal, "kshot.ask=instead").fine_tuned == {}


def test_a_sweep_asks_in_every_cell() -> None:
    assert (ROOT / "sweeps" / "gpt_sizes.yaml").is_file()
    cells = expand(read_command_line(["sweep=gpt_sizes"]))
    assert len(cells) == 5
    for made in cells:
        asked = made.config.kshot
        assert (asked.ask, asked.k, asked.minimal_pairs is not None) == ("instead", (0, 1, 4), True)
        assert list(made.config.tasks) == ["word_order"]
    listed = expand(read_command_line(["seed=0,1", "kshot.k=0,2", "kshot.ask=after", "task=minimal_pairs"]))
    assert [(made.config.seed, made.config.kshot.k) for made in listed] == [(0, (0, 2)), (1, (0, 2))]


def test_cells_of_one_run_that_ask_different_tasks_stay_apart() -> None:
    words = ["task=minimal_pairs", "kshot.ask=after", "kshot.minimal_pairs.pairs=3,4"]
    assert len(expand(read_command_line(words))) == 2


def test_the_command_of_the_page_runs(cell: Callable[..., RunConfig]) -> None:
    block = re.search(r"^```bash\n(python run.py .*?)^```", (ROOT / "docs" / "kshot.md").read_text(), re.M | re.S)
    assert block is not None
    words = shlex.split(block[1])[2:]
    small = ["kshot.examples=8", "kshot.seeds=[0]", "kshot.minimal_pairs.pairs=2"]
    folder = run(cell(*words, *small, "tasks.word_order.train_examples=100"))
    assert [(entry.task, entry.k) for entry in entries(folder)] == [
        ("minimal_pairs", 0), ("word_order", 0), ("word_order", 1), ("word_order", 4),
    ]  # fmt: skip


def test_units_of_a_recorded_cell_and_of_an_older_one(tmp_path: Path) -> None:
    """Older records have only the names of fine-tunings."""
    for folder in ("run", "run/tasks/sst2-s0-a"):
        RunFolder.at(tmp_path / folder).set_status("finished")
    cell = {"label": "a", "folder": "run", "problem": None}
    for units, state in (
        (["sst2-s0-a"], "finished"),
        (["tasks/sst2-s0-a"], "finished"),
        (["tasks/sst2-s0-a", "kshot/asked-b"], "missing"),
    ):
        assert standing(tmp_path, cell | {"units": units}).state == state
