"""The files of a run folder are described once: what is written, and what analysis reads, are the same types."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import ValidationError
from reporthelpers import cells, write_cell
from runhelpers import read_json, run, start, tiny_config, write_corpus
from taskhelpers import TINY, write_sst2
from test_import import bert
from test_planted import planted_config

from albert_ablate.commands import evaluate, import_hf, kshot
from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import DamagedFileError
from albert_ablate.record.evaluation import EvaluationRecord
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.kshot import KShotManifest, KShotUnit
from albert_ablate.record.manifest import Data, Manifest, Parameters
from albert_ablate.record.metrics import Line
from albert_ablate.record.part import Part
from albert_ablate.record.results import Achievable, MaskedLM, Results, Training
from albert_ablate.record.settings import Settings
from albert_ablate.record.similarity import Similarity
from albert_ablate.record.status import Status
from albert_ablate.record.tasks import SetMetrics, UnitManifest, UnitResults
from albert_ablate.record.warm_start import WarmStart
from analysis import compare, report
from analysis.judge.claims import load_claims
from analysis.read.records import read_record
from analysis.read.runs import load_runs

FORMS: dict[str, type[Part]] = {
    "status.json": Status, "manifest.json": Manifest, "results.json": Results, "similarity.json": Similarity,
}  # fmt: skip
UNIT_FORMS: dict[str, type[Part]] = {"status.json": Status, "manifest.json": UnitManifest, "results.json": UnitResults}
ASKED_FORMS: dict[str, type[Part]] = {"status.json": Status, "manifest.json": KShotManifest, "results.json": KShotUnit}
SHORT = [
    "evaluation.max_pairs=16", "evaluation.probe_pairs=16", "evaluation.similarity_pairs=8", "runtime.threads=1",
    "runtime.precision=fp32", "runtime.device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on planted text with a fine-tuning, of ELECTRA, of causal LM, on plain text, and imported."""
    place = tmp_path_factory.mktemp("schema")
    cache, data = f"paths.cache={place / 'cache'}", write_sst2(place / "data")
    task = [*TINY, "task=sst2", f"task.data_dir={data}", "tasks.sst2.steps=2"]
    assert start(planted_config(place, "evaluation.max_pairs=64", "budget.steps=20", *task)) == 0
    plain = run(tiny_config(place, runs="plain")).path
    electra = run(tiny_config(place, "method=electra", "method.generator_width=0.5", runs="electra")).path
    electra.rename(place / "runs" / electra.name)
    causal = run(tiny_config(place, "method=causal", "objective=none", runs="causal")).path
    causal.rename(place / "runs" / causal.name)
    bert(place / "bert")
    imported = place / "runs" / "imported"
    assert import_hf.main([str(place / "bert"), str(imported)]) == 0
    corpus = write_corpus(place / "other.txt", seed=9)
    text = ["data=text", f"data.path={corpus}", "data.validation_fraction=0.2", "pairs.max_length=32", *SHORT, cache]
    for folder in (plain.rename(place / "runs" / plain.name), imported):
        assert evaluate.main([str(folder), *text]) == 0
    pairs = ["task=minimal_pairs", "kshot.minimal_pairs.pairs=2", "kshot.minimal_pairs.rules=[swap]"]
    assert kshot.main([str(place / "runs" / plain.name), *pairs]) == 0
    return place / "runs"


def written(runs: Path) -> Iterator[tuple[Path, type[Part]]]:
    """Every JSON file in the run folders that a schema describes."""
    for folder in (path for path in runs.iterdir() if not path.name.startswith(".")):
        yield from ((folder / name, form) for name, form in FORMS.items())
        yield from ((file, EvaluationRecord) for file in folder.glob("evaluations/*.json"))
        for unit in folder.glob("tasks/[!.]*"):
            yield from ((unit / name, form) for name, form in UNIT_FORMS.items())
        for unit in folder.glob("kshot/[!.]*"):
            yield from ((unit / name, form) for name, form in ASKED_FORMS.items())


def test_every_file_is_what_its_schema_says_to_the_last_key(runs: Path) -> None:
    files = dict(written(runs))
    assert len(files) == 5 * len(FORMS) + len(UNIT_FORMS) + len(ASKED_FORMS) + 2
    for file, form in files.items():
        content = read_json(file)
        assert json.dumps(form.model_validate(content).as_json()) == json.dumps(content), file
    lines = [json.loads(line) for file in runs.glob("**/metrics.jsonl") for line in file.read_text().splitlines()]
    assert lines
    for line in lines:
        assert Line.model_validate(line).as_json().keys() == line.keys()


def test_the_runs_hold_what_only_some_runs_hold(runs: Path) -> None:
    """The test above would see nothing of a measurement that none of its runs has."""
    results = [read_json(file) for file in runs.glob("*/results.json")]
    evaluations = [read_json(file)["results"] for file in runs.glob("*/evaluations/*.json")]
    held = {key for record in (*results, *evaluations) for key in record}
    assert held >= set(Results.model_fields) - {"left_out", "average"}
    assert all("bars" in record["masked_lm"] for record in evaluations)


def all_parts(form: type[Part] = Part) -> list[type[Part]]:
    found = [form] if form is not Part else []
    return found + [part for inner in form.__subclasses__() for part in all_parts(inner)]


def is_open(form: type[Part]) -> bool:
    return form.model_config.get("extra") == "allow"


@pytest.mark.parametrize("form", [part for part in all_parts() if not is_open(part)])
def test_a_field_that_was_invented_is_refused_in_writing_and_ignored_in_reading(form: type[Part]) -> None:
    def invented(check: Callable[[Any], Any]) -> list[str]:
        try:
            check({"invented": 1} | arm)
        except ValidationError as error:
            return [str(problem["loc"][-1]) for problem in error.errors() if problem["type"] == "extra_forbidden"]
        return []

    arm = {"share": {"strategy": "all"}, "objective": {"name": "sop"}, "embed": {"size": 8}} if form is Settings else {}
    assert "invented" in invented(form.model_validate)
    assert invented(form.read) == []


def test_open_parts_hold_numbers_and_metrics_alone() -> None:
    assert {part for part in all_parts() if is_open(part)} == {Line, Parameters, SetMetrics}
    metric = {"value": 0.5, "interval": [0.4, 0.6]}
    assert SetMetrics.model_validate({"n": 9, "an_f_score": metric}).as_json() == {"n": 9, "an_f_score": metric}
    for form, words in ((Line, {"step": 1, "note": "x"}), (Parameters, {"gate": -1}), (SetMetrics, {"note": "x"})):
        with pytest.raises(ValidationError):
            form.model_validate(words)
    with pytest.raises(ValidationError, match="invented"):
        SetMetrics.model_validate({"accuracy": metric | {"invented": 1}})


def test_what_is_wrong_is_not_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    folder.set_status("running")
    before = folder.read("status.json")
    with pytest.raises(ValidationError):
        folder.set_status("done")  # type: ignore[arg-type]
    assert folder.read("status.json") == before
    with pytest.raises(ValidationError):
        folder.append_metrics({"step": 1, "loss": "high"})
    assert not (folder.path / "metrics.jsonl").exists()
    training = Training(steps=1)
    with pytest.raises(ValidationError):
        training.seconds = float("nan")


def test_numbers_are_written_as_they_were_computed_and_absent_fields_stay_absent(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    folder.write("results.json", Results(training=Training(flops=3, seconds=0.1 + 0.2, tokens_per_second=None)))
    numbers = ['"flops": 3', '"seconds": 0.30000000000000004', '"tokens_per_second": null']
    inner = ",\n".join(f"    {number}" for number in numbers)
    assert (folder.path / "results.json").read_text() == f'{{\n  "training": {{\n{inner}\n  }}\n}}\n'


def test_a_number_without_bounds_is_kept_by_a_writer_and_refused_by_a_reader() -> None:
    astray = MaskedLM(loss=1e35).as_json()
    assert astray == {"loss": 1e35}
    with pytest.raises(ValidationError, match="from -1e\\+30 to 1e\\+30"):
        MaskedLM.read(astray)


def test_an_amended_file_keeps_what_another_version_wrote(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    folder.path.mkdir()
    (folder.path / "manifest.json").write_text('{"later": 1, "data": {}, "name": "run"}')
    folder.amend("manifest.json", Manifest(data=Data(corpus="text")))
    assert json.dumps(folder.read("manifest.json")) == '{"later": 1, "data": {"corpus": "text"}, "name": "run"}'


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"name": 3}', "(name: Input"), ("[]", "(Input should"), ("{", "(Expecting")],
)
def test_a_record_that_a_command_needs_is_called_damaged_with_its_field(
    content: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "run" / "manifest.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(DamagedFileError, match=re.escape(f"{file} is damaged {words}")):
        RunFolder(tmp_path, "run").load("manifest.json", Manifest)


# --- what analysis reads ---------------------------------------------------------------------------


class Watched(dict[str, Any]):
    """The content of a file that notes which of its fields are asked for."""

    def __init__(self, values: dict[str, Any], asked: set[tuple[str, ...]], path: tuple[str, ...]) -> None:
        super().__init__({key: self._inner(value, asked, (*path, key)) for key, value in values.items()})
        self._asked, self._path = asked, path

    @staticmethod
    def _inner(value: Any, asked: set[tuple[str, ...]], path: tuple[str, ...]) -> Any:
        return Watched(value, asked, path) if isinstance(value, dict) else value

    def get(self, key: str, default: Any = None) -> Any:
        self._asked.add((*self._path, key))
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self._asked.add((*self._path, key))
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._asked.add((*self._path, str(key)))
        return super().__contains__(key)


def records_in(annotation: Any) -> list[Any]:
    """The record, or the group of settings, of a field that may be None."""
    types = [inner for inner in (annotation, *get_args(annotation)) if isinstance(inner, type)]
    return [inner for inner in types if dataclasses.is_dataclass(inner) or issubclass(inner, Part)]


def fields_of(record: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(record):
        return get_type_hints(record)
    return {field.alias or name: field.annotation for name, field in record.model_fields.items()}


def lacks(record: Any, path: tuple[str, ...]) -> bool:
    """Whether there is no field at ``path``. Below what is no record, such as the packages, any key is the writer's."""
    if not path:
        return False
    fields = fields_of(record)
    return path[0] not in fields or any(lacks(inner, path[1:]) for inner in records_in(fields[path[0]]))


def test_every_field_that_analysis_asks_for_is_one_that_is_written(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[tuple[str, ...]] = set()
    monkeypatch.setattr("analysis.read.runs.read_record", lambda file: Watched(read_record(file), asked, (file.name,)))
    assert set(load_runs(runs)["note"]) == {""}
    forms = FORMS | {"config.yaml": RunConfig}
    assert {path[0] for path in asked} == set(forms)
    assert ("results.json", "nsp", "own_head", "interval") in asked, "inner fields are watched, too"
    assert [path for path in sorted(asked) if lacks(forms[path[0]], path[1:])] == []
    assert lacks(Results, ("masked_lm", "invented"))
    assert lacks(RunConfig, ("model", "invented"))


def test_the_settings_that_analysis_needs_are_settings_of_a_run() -> None:
    def paths(record: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, annotation in fields_of(record).items():
            yield (*above, name)
            for inner in records_in(annotation):
                yield from paths(inner, (*above, name))

    found = list(paths(Settings))
    assert ("data", "planted", "topic") in found
    assert [path for path in found if lacks(RunConfig, path)] == []


def test_a_run_without_masked_lm_is_read_and_reported(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path / "runs", cells("table5")[0], seed) for seed in range(2)]
    results = read_json(folders[0] / "results.json")
    del results["masked_lm"]
    (folders[0] / "results.json").write_text(json.dumps(results))
    (folders[1] / "results.json").write_text(json.dumps(read_json(folders[1] / "results.json") | {"masked_lm": None}))
    found = load_runs(tmp_path / "runs")
    assert found["note"].tolist() == ["", ""]
    assert found["mlm_loss"].isna().all()
    assert found["sop"].notna().all()
    compare.compare(found)
    report.write(report.gather(found, load_claims(), "none"), tmp_path / "out")
    assert (tmp_path / "out" / "report.md").is_file()
    assert Achievable.read({"sop": {"accuracy": 0.9}}).masked_lm is None


def test_a_warm_start_names_its_run_as_files_do() -> None:
    assert WarmStart(from_="shallow", tensors_of_its_own=["a"]).as_json() == {
        "from": "shallow", "tensors_of_its_own": ["a"],
    }  # fmt: skip
    assert WarmStart.read({"from": "shallow", "tensors_of_its_own": []}).from_ == "shallow"
