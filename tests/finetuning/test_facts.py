"""Fine-tunings that read facts: settings, identities, records, and the generated task."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetunehelpers import entries, make, run_of, tuner
from taskhelpers import PLACES, pretrained, tokenizer_of, with_tasks, write_sst2, write_tsv

from albert_ablate.config.identity import identity
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError, PreemptedError
from albert_ablate.loading import LoadedRun
from albert_ablate.tasks.finetuning import FineTuner
from albert_ablate.tasks.knowledge.generated import CLASSES, generated_examples, generated_table
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.units import fine_tune_all, read_units

#: Subjects that the tiny run's tokenizer has the letters of.
ROWS = [
    ["plot", "has", "parts"],
    ["great", "means", "good"],
    ["Oslo", "has", "a port"],
    ["plot", "needs", "a"],
]


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    return write_tsv(tmp_path / "facts.tsv", ["subject", "predicate", "object"], ROWS)


def unit_name(folder: Path, *words: str) -> str:
    config = with_tasks(folder, "task=sst2", f"task.data_dir={folder / 'data'}", *words)
    (unit,) = plan_units(config, run_of(folder), "fp32")
    return unit.folder.name


def test_identity_of_a_unit_with_facts(folder: Path, facts: Path, tmp_path: Path) -> None:
    given = f"knowledge.file={facts}"
    plain = unit_name(folder)
    assert plain == unit_name(folder, "knowledge=none"), "older fine-tunings keep their names"
    changed: list[list[str]] = [
        [], ["knowledge.max_triples=1"], ["knowledge.relation_text=false"], ["knowledge.soft_positions=false"],
        ["knowledge.visible_matrix=false"], ["knowledge.shuffle_seed=0"], ["knowledge.shuffle_seed=1"],
    ]  # fmt: skip
    names = [unit_name(folder, "knowledge=inject", given, *words) for words in changed]
    names.append(unit_name(folder, "knowledge=text", given))
    assert len({plain, *names}) == 1 + len(names)
    copy = tmp_path / "elsewhere.tsv"
    copy.write_bytes(facts.read_bytes())
    assert unit_name(folder, "knowledge=inject", f"knowledge.file={copy}") == names[0], (
        "its content counts, not its name"
    )
    facts.write_text(facts.read_text() + "dull\tis\tbad\n")
    assert unit_name(folder, "knowledge=inject", given) != names[0]


def test_a_run_is_the_same_with_and_without_facts(folder: Path) -> None:
    names = {identity(compose(["task=facts", *words]), "feed", "fp32") for words in ([], ["knowledge=inject"])}
    assert len(names) == 1


@pytest.mark.parametrize(("words", "message"), [
    (["knowledge=inject", "task=sst2"], r"knowledge\.file is empty: knowledge=inject needs facts for task=sst2\. Give"),
    (["knowledge=inject"], r"knowledge=inject: facts are read in fine-tuning only, and there is no task"),
    (["knowledge.file=x", "task=sst2"], r"knowledge\.file=x: no effect with knowledge=none"),
    (["knowledge.soft_positions=false", "knowledge=text", "task=facts"], r"no effect with knowledge=text"),
    (["knowledge=inject", "task=squad11", "knowledge.file=x"], r"knowledge=inject with task=squad11: facts are read"),
    (["knowledge=inject", "task=facts", "method=causal", "objective=none"], r"no fact would reach the sentence"),
    (["knowledge=inject", "task=facts", "task.distil.teacher=x"], r"task\.distil\.teacher=x: the teacher does not"),
    (["knowledge=inject", "task=facts", "task.augment.copies=2"], r"a copy may lose the words"),
    (["knowledge=inject", "task=facts", "knowledge.max_triples=0"], r"knowledge\.max_triples"),
    (["knowledge=kbert", "task=facts"], r"knowledge=kbert"),
])  # fmt: skip
def test_wrong_settings_are_refused_in_words(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(words)


def test_text_suits_a_causal_model() -> None:
    assert compose(["knowledge=text", "task=facts", "method=causal", "objective=none", "task.pool=last"])


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"knowledge\.file=/nowhere\.tsv: no such file"):
        unit_name(folder, "knowledge=inject", "knowledge.file=/nowhere.tsv")


@pytest.mark.parametrize("name", ["inject", "text"])
def test_a_unit_records_its_facts_and_answers_with_them(tmp_path: Path, facts: Path, name: str) -> None:
    write_sst2(tmp_path / "data")
    words = [
        "task=sst2", f"task.data_dir={tmp_path / 'data'}", "tasks.sst2.steps=4", f"knowledge={name}",
        f"knowledge.file={facts}", "task.bag_of_words=false",
    ]  # fmt: skip
    run = pretrained(tmp_path)[1]
    config = with_tasks(tmp_path, *words)
    from albert_ablate.training.machine import Machine

    units = plan_units(config, run, "fp32")
    fine_tune_all(config, run, units, read_units(units), tokenizer_of(tmp_path), Machine(torch.device("cpu"), "fp32"))
    unit = units[0].folder
    record = unit.read("results.json")
    assert set(record["facts"]) == {"train", "dev"}
    for counts in record["facts"].values():
        assert counts["matched"] == counts["injected"] + counts["dropped"] > 0
        assert counts["mentions"] > 0
    assert record["set_up"]["all_tasks"]["knowledge"]["name"] == name
    manifest = unit.read("manifest.json")
    assert manifest["settings"]["knowledge"]["file"] == str(facts)
    assert manifest["data"]["facts"] == record["set_up"]["all_tasks"]["knowledge"]["facts"]
    assert entries(run)["sst2"]["set_up"]["all_tasks"]["knowledge"]["name"] == name

    loaded = LoadedRun(run)
    texts = ["the film was fine", "a dull story"]
    assert len(loaded.predict("sst2", texts)) == 2
    facts.write_text("plot\tis a\tbird\n")
    with pytest.raises(DataError, match="these are not the facts that sst2 was fine-tuned with"):
        loaded.predict("sst2", texts)


def test_a_stopped_fine_tuning_with_facts_ends_with_the_same_bits(folder: Path, tmp_path: Path, facts: Path) -> None:
    words = ["tasks.sst2.steps=6", "knowledge=inject", f"knowledge.file={facts}", "knowledge.shuffle_seed=3"]
    whole = tuner(folder, "sst2", tmp_path / "whole", *words)
    expected = whole.fit()
    halted = tuner(folder, "sst2", tmp_path / "parts", *words)
    update = halted.update

    def interrupted(step: int, *rest: Any) -> Any:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(step, *rest)

    halted.update = interrupted  # type: ignore[assignment,method-assign]
    with pytest.raises(PreemptedError, match="after step 3 of 6"):
        halted.fit()
    again = tuner(folder, "sst2", tmp_path / "parts", *words)
    found = again.fit()
    assert {k: v for k, v in found.items() if k != "training"} == {k: v for k, v in expected.items() if k != "training"}
    for made in (whole, again):
        made.keep_weights()
    assert (whole.folder.path / "last.safetensors").read_bytes() == (
        again.folder.path / "last.safetensors"
    ).read_bytes()


def losses(made: FineTuner) -> torch.Tensor:
    with torch.no_grad():
        made.model.eval()
        return made.task.outputs(made.model, made.task.train.batch(np.arange(8)))["logits"]


def test_facts_that_match_nothing_leave_a_fine_tuning_as_it_is(folder: Path, tmp_path: Path) -> None:
    none = write_tsv(tmp_path / "none.tsv", ["subject", "predicate", "object"], [["zebra", "is a", "horse"]])
    plain = tuner(folder, "sst2", tmp_path / "a", "tasks.sst2.steps=4")
    with_facts = tuner(
        folder, "sst2", tmp_path / "b", "tasks.sst2.steps=4", "knowledge=inject", f"knowledge.file={none}"
    )
    assert torch.equal(losses(plain), losses(with_facts))
    first, second = plain.fit(), with_facts.fit()
    assert first["last"] == second["last"]


@pytest.mark.parametrize("name", ["inject", "text"])
def test_choices_and_pairs_read_facts(folder: Path, tmp_path: Path, name: str) -> None:
    table = write_tsv(
        tmp_path / "places.tsv", ["subject", "predicate", "object"], [[p, "is a", "city"] for p in PLACES]
    )
    config = with_tasks(
        folder, "task=race", f"task.data_dir={folder / 'data'}", f"knowledge={name}", f"knowledge.file={table}"
    )
    task = make(config, "race", folder)
    counts = task.train.sequences.facts
    assert counts is not None
    assert counts.counts["matched"] > 0
    assert counts.counts["dropped"] == counts.counts["matched"], "an article fills all 32 tokens, and is not cut"
    assert task.train.lengths.max() <= 32


def test_the_table_of_the_generated_task_tells_the_answer() -> None:
    """Each noun has one fact; those of dev occur in no training example; the noun that is asked about comes first."""
    lines = [line.split("\t") for line in generated_table().splitlines()[1:]]
    known = {noun: word for noun, _, word in lines}
    assert len(known) == len(lines)
    task = compose(["task=facts"]).tasks["facts"]
    sets = generated_examples(task)  # type: ignore[arg-type]
    nouns: dict[str, set[str]] = {}
    classes: dict[str, set[int]] = {}
    for side, examples in {"train": sets.train, **sets.dev}.items():
        for example in examples:
            found = [word.strip(".") for word in example.first.split() if word.strip(".") in known]
            assert len(found) == 2
            nouns.setdefault(side, set()).update(found)
            classes.setdefault(known[found[0]], set()).add(int(example.target))  # type: ignore[arg-type]
        targets = [example.target for example in examples]
        assert targets.count(0) == targets.count(1)
    assert not nouns["train"] & nouns["dev"]
    assert all(len(own) == 1 for own in classes.values()), "a word tells the class"
    assert sets.names == CLASSES


def test_the_generated_task_reads_its_own_table(folder: Path, tmp_path: Path) -> None:
    config = with_tasks(folder, "task=facts", "knowledge=inject", f"paths.cache={tmp_path}")
    task = make(config, "facts", folder)
    counts = task.train.sequences.facts
    assert counts is not None
    assert counts.counts["mentions"] > 0
    (table,) = (tmp_path / "tasks").glob("facts-*.tsv")
    assert table.read_text() == generated_table()
