"""The port for methods: named loss terms, runs that come first, and how a method is added."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from recipes import blocks, copied, inside, touched
from runhelpers import make_trainer, newest_checkpoint, run, run_folders, start, stopped_in, tiny_config, tiny_overrides

from albert_ablate.axes import MethodName
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.methods import METHODS, Parent, Term, method_of
from albert_ablate.methods.mlm import MaskedLM
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.budget import step_flops
from albert_ablate.training.sums import Sums, Totals

RECIPE = "How to add a method"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("methods")


def test_every_name_has_a_method() -> None:
    assert set(METHODS) == set(MethodName)


class Weighted(MaskedLM):
    """Masked LM at double weight, and a second term over the real tokens."""

    def terms(self, model: Any, batch: Any) -> tuple[Term, ...]:
        mlm = replace(super().terms(model, batch)[0], weight=2.0)
        states = model.encoder(batch.input_ids, batch.type_ids, batch.mask)
        return mlm, Term("size", (states * batch.mask[..., None]).square().sum(), "tokens", weight=0.25)

    def shown(self, line: Mapping[str, float]) -> str:
        return f"size {line['size_loss']:.3f}"


@pytest.fixture
def weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, MethodName.MLM, Weighted)


@pytest.mark.usefixtures("weighted")
@pytest.mark.parametrize("micro", [8, 3, 1])
def test_the_gradient_is_that_of_the_weighted_means(shared: Path, micro: int) -> None:
    config = tiny_config(shared, f"batch.micro_size={micro}", "optimizer.clip_norm=null")
    trainer, batches = make_trainer(config)
    trainer.optimizer.step = lambda *_: None  # type: ignore[assignment,method-assign]
    batch = batches[3]
    plain = method_of(config).build({})
    out = plain(batch.input_ids, batch.type_ids, batch.mask, batch.positions, batch.targets, None)
    states = plain.encoder(batch.input_ids, batch.type_ids, batch.mask)
    size = states[batch.mask].square().sum() / batch.mask.sum()
    (2 * out.mlm_loss_sum / (len(batch.targets) + 1e-5) + size / 4).backward()
    means = trainer.update(3, batch).means(batch.counts())
    assert means["size_loss"] == pytest.approx(size.item(), rel=1e-5)
    for (name, parameter), expected in zip(trainer.model.named_parameters(), plain.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.usefixtures("weighted")
def test_log_lines_go_by_the_names_of_the_terms(shared: Path, tmp_path: Path) -> None:
    folder = run(tiny_config(shared, f"paths.runs={tmp_path}"))
    for line in folder.metrics():
        assert {"mlm_loss", "mlm_accuracy", "size_loss"} <= line.keys()
        assert not {"sentence_loss", "size_accuracy"} & line.keys()


class Dear(MaskedLM):
    """Costs as much again as masked LM."""

    def flops(self) -> float:
        return 2 * super().flops()


def test_what_a_method_costs_is_what_budgets_and_records_count(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(shared, f"paths.runs={tmp_path / 'a'}")
    cheap = step_flops(config)
    monkeypatch.setitem(METHODS, MethodName.MLM, Dear)
    dear = step_flops(config)
    assert dear == pytest.approx(2 * cheap, rel=1e-6)
    folder = run(tiny_config(shared, "budget=flops", f"budget.flops={11 * cheap}", f"paths.runs={tmp_path / 'b'}"))
    assert folder.read("results.json")["training"]["steps"] == 6
    assert folder.read("manifest.json")["flops_per_step"] == dear


class Taught(MaskedLM):
    """Learns beside a run of another seed."""

    seen: ClassVar[list[Mapping[str, Path]]] = []

    def parents(self) -> tuple[Parent, ...]:
        if self.config.seed != 0:
            return ()
        return (Parent("teacher", replace(self.config, seed=7), {"seed": "7"}),)

    def build(self, parents: Mapping[str, Path]) -> Any:
        self.seen.append(parents)
        return super().build(parents)


def test_a_run_that_comes_first_is_trained_first_and_handed_over(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, MethodName.MLM, Taught)
    cells = expand(read_command_line(tiny_overrides(shared, f"paths.runs={tmp_path}")))
    assert [cell.config.seed for cell in cells] == [7, 0]
    run_alone = tiny_config(shared, f"paths.runs={tmp_path}")
    assert start(run_alone) == 0
    teacher, student = sorted(run_folders(tmp_path), key=lambda path: "-s0-" in path.name)
    assert "-s7-" in teacher.name
    (first, second) = Taught.seen
    assert first == {}
    assert second == {"teacher": newest_checkpoint(RunFolder(teacher.parent, teacher.name))}
    assert json.loads((student / "status.json").read_text())["state"] == "finished"


# --- sums -------------------------------------------------------------------------------------------


def test_means_are_over_what_each_term_says() -> None:
    terms: Sequence[Term] = (
        Term("a", torch.tensor(6.0), "masked", torch.tensor(3)),
        Term("b", torch.tensor(8.0), "sequences"),
    )
    sums = Sums()
    for _ in range(2):
        sums.add({"masked": 4, "sequences": 2, "tokens": 9}, Totals.of(terms))
    assert sums.means() == {"a_loss": 1.5, "a_accuracy": 0.75, "b_loss": 4.0}
    again = Sums.from_dict(json.loads(json.dumps(sums.as_dict())), torch.device("cpu"))
    assert again.means() == sums.means()
    assert again.counts == sums.counts


def test_sums_of_older_checkpoints_are_read() -> None:
    older = {"steps": 2, "sequences": 16, "tokens": 90, "masked": 20, "seconds": 1.5, "values": [30.0, 5.0, 8.0, 12.0]}
    sums = Sums.from_dict(older, torch.device("cpu"))
    assert sums.means() == {
        "mlm_loss": 1.5, "mlm_accuracy": 0.25, "sentence_loss": 0.5, "sentence_accuracy": 0.75,
    }  # fmt: skip
    assert (sums.steps, sums.seconds, sums.counts["tokens"]) == (2, 1.5, 90)
    assert Sums.from_dict(older | {"values": None}, torch.device("cpu")).totals is None


# --- CONTRIBUTING's recipe, step by step, in a copy ---------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with the recipe applied."""
    return copied(tmp_path_factory.mktemp("copy"), blocks(RECIPE))


def test_the_recipe_touches_few_files() -> None:
    assert len(touched(blocks(RECIPE))) <= 4


def test_a_new_method_is_trained_scored_and_reported(copy: Path, shared: Path, tmp_path: Path) -> None:
    """One without a masked-LM head: its numbers are absent, with the reason, wherever they would stand."""
    for method in ("mlm", "sentences"):
        for seed in (0, 1):
            given = tiny_overrides(shared, f"method={method}", f"seed={seed}", f"paths.runs={tmp_path / 'runs'}")
            shown = inside(copy, "run.py", *given)
    assert "not trained by this method" in shown
    assert "Sentence order (SOP) is" in shown
    names = sorted(folder.name.rpartition("-")[0] for folder in run_folders(tmp_path / "runs"))
    assert names == [f"e16-all-sop-{arm}nano-s{seed}" for arm in ("", "sentences-") for seed in (0, 1)]
    (one,) = (tmp_path / "runs").glob("*sentences-nano-s0-*")
    results = json.loads((one / "results.json").read_text())
    assert results["masked_lm"] is None
    assert results["sop"]["head"] == "trained"
    assert results["nsp"]["head"] == "fitted on the frozen encoder"
    lines = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    assert all("sentence_accuracy" in line and "mlm_loss" not in line for line in lines)
    assert "held_out_sentence_accuracy" in lines[-1]
    inside(copy, "-m", "analysis.report", str(tmp_path / "runs"), "--out", str(tmp_path / "report"), "--compact")
    report = (tmp_path / "report" / "report.md").read_text()
    costs = report[report.index("## What each arm cost") : report.index("## What is missing")]
    assert "| E=16, all shared, SOP, sentences alone | 2 |" in costs
    runs = pd.read_csv(tmp_path / "report" / "runs.csv")
    assert sorted(runs["method"]) == ["mlm", "mlm", "sentences", "sentences"]
    assert runs.loc[runs["method"] == "sentences", "mlm_loss"].isna().all()
    shown = inside(copy, "-m", "albert_ablate.evaluate", str(one), "evaluation.max_pairs=16")
    assert "not trained by this method" in shown


def test_a_killed_run_of_any_terms_ends_with_the_same_lines(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, MethodName.MLM, Weighted)
    whole = run(tiny_config(shared, f"paths.runs={tmp_path / 'whole'}"))
    config = tiny_config(shared, f"paths.runs={tmp_path / 'parts'}")
    stopped_in(4, config, monkeypatch)
    parts = run(config)
    clock = ("seconds", "tokens_per_second")
    same = [[{k: v for k, v in line.items() if k not in clock} for line in f.metrics()] for f in (whole, parts)]
    assert same[0] == same[1]
