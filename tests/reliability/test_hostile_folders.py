"""Run folders, checkpoints and claims that are cut, swapped, foreign or malicious; HTML in whatever a report shows."""

import importlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from reporthelpers import cells, write_cell
from runhelpers import newest_checkpoint, read_json, run, start, tiny_config

from albert_ablate.errors import CheckpointError, UserError
from albert_ablate.files import sha256_file
from albert_ablate.interop.weights import read_tensors
from albert_ablate.record.folder import RunFolder
from analysis import compare, report
from analysis.compare import changes, compare_tasks
from analysis.judge.claims import load_claims
from analysis.read.runs import load_metrics, load_runs


class Payload:
    """An object whose pickle, when it is opened, makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)

    def pickled(self) -> bytes:
        return pickle.dumps(self)

    def opened(self) -> bool:
        return self.mark.exists()


def test_the_payload_works(tmp_path: Path) -> None:
    payload = Payload(tmp_path / "opened")
    pickle.loads(payload.pickled())
    assert payload.opened()


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    place = tmp_path_factory.mktemp("finished")
    return place, run(tiny_config(place))


@pytest.fixture
def unfinished(finished: tuple[Path, RunFolder], tmp_path: Path) -> tuple[Path, Path]:
    """A copy in which the run is not over; returns (folder of everything, newest checkpoint)."""
    place = tmp_path / "place"
    shutil.copytree(finished[0], place)
    folder = RunFolder(place / "runs", finished[1].name)
    folder.set_status("preempted")
    (folder.path / "results.json").unlink()
    return place, newest_checkpoint(folder)


def rehash(checkpoint: Path) -> None:
    """Make the hashes those of the files: what an attacker would do."""
    meta = read_json(checkpoint / "meta.json")
    meta["sha256"] = {name: sha256_file(checkpoint / name) for name in meta["sha256"]}
    (checkpoint / "meta.json").write_text(json.dumps(meta))


def test_a_malicious_pickle_in_a_checkpoint_is_never_opened(unfinished: tuple[Path, Path], tmp_path: Path) -> None:
    place, checkpoint = unfinished
    for name in ("state.pt", "model.safetensors"):
        payload = Payload(tmp_path / f"opened-{name}")
        kept = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(payload.pickled())
        rehash(checkpoint)
        with pytest.raises(UserError):
            start(tiny_config(place))
        assert not payload.opened()
        (checkpoint / name).write_bytes(kept)
        rehash(checkpoint)
    assert start(tiny_config(place)) == 0


def test_a_malicious_pickle_for_import_is_never_opened(tmp_path: Path) -> None:
    payload = Payload(tmp_path / "opened")
    (tmp_path / "pytorch_model.bin").write_bytes(payload.pickled())
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: not a readable weights file"):
        read_tensors(tmp_path)
    torch.save({"weight": payload}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: not a readable weights file"):
        read_tensors(tmp_path)
    assert not payload.opened()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", ".."])
def test_shards_outside_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    index = {"weight_map": {"a": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="which the folder does not hold"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["state.pt", "model.safetensors", "meta.json"])
def test_a_cut_checkpoint_gives_way_to_the_one_before(name: str, unfinished: tuple[Path, Path]) -> None:
    place, checkpoint = unfinished
    os.truncate(checkpoint / name, (checkpoint / name).stat().st_size // 2)
    assert start(tiny_config(place)) == 0
    assert "step_" in (checkpoint.parent.parent / "log.txt").read_text()


def test_a_checkpoint_of_another_configuration_is_refused_and_kept(
    unfinished: tuple[Path, Path], tmp_path: Path
) -> None:
    place, checkpoint = unfinished
    other = run(tiny_config(tmp_path / "other", "seed=5"))
    shutil.rmtree(checkpoint)
    shutil.copytree(newest_checkpoint(other), checkpoint)
    with pytest.raises(CheckpointError, match=rf"belongs to run {other.identity}, not to"):
        start(tiny_config(place))
    assert (checkpoint / "model.safetensors").is_file(), "nothing is lost"


# --- run folders through the analysis ------------------------------------------------------------

DEEP = "[" * 100_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(8)
)
RECORDS = ("config.yaml", "manifest.json", "results.json", "similarity.json", "status.json")
#: Content of a file -> what is wrong with it. Every file is given every one.
BROKEN: dict[str, str | bytes] = {
    "nothing": "", "cut": '{"state": "fin', "not UTF-8": b"\xff\xfe\x00", "NUL bytes": b"\0" * 100, "a list": "[1, 2]",
    "a word": '"finished"', "null": "null", "too deep": DEEP, "a number too long": '{"state": ' + "9" * 5000 + "}",
    "every value a word": json.dumps(dict.fromkeys(
        ("state", "seed", "model", "embed", "share", "objective", "parameters", "data", "source", "masked_lm", "nsp",
         "training", "tasks", "l2", "degrees", "deviations_from_paper"), "x")),
    "every value a list": json.dumps({key: [["x"]] for key in ("state", "model", "data", "masked_lm", "tasks", "l2")}),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_of_a_run_is_noted_and_the_others_are_read(name: str, kind: str, tmp_path: Path) -> None:
    arm = cells("table5")[0]
    broken, _ = write_cell(tmp_path, arm, 0), write_cell(tmp_path, arm, 1)
    content = BROKEN[kind]
    (broken / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    runs = load_runs(tmp_path).set_index("run")
    assert len(runs) == 2
    assert f"{name} is broken" in str(runs.at[broken.name, "note"])
    assert runs["note"].ne("").sum() == 1
    assert runs.at[broken.name, "state"] == ("unknown" if name == "status.json" else "finished")
    frame = runs.reset_index()
    compare.compare(frame)
    compare_tasks(frame)
    changes(frame, frame)


#: File, what is changed in it, and the words of the note.
WRONG_VALUES: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("results.json", lambda r: r["masked_lm"].update(loss="low"), "results.json is broken: masked_lm.loss"),
    ("results.json", lambda r: r["masked_lm"].update(loss=float("nan")), "NaN is no number"),
    ("results.json", lambda r: r["nsp"].update(interval=[0.1]), "nsp.interval"),
    ("results.json", lambda r: r["training"].update(steps=True), "training.steps"),
    ("results.json", lambda r: r["training"].update(tokens=-5), "training.tokens"),
    ("results.json", lambda r: r.update(tasks=[{"task": "sst2"}]), "tasks.0.start"),
    ("results.json", lambda r: r["tasks"][0]["sets"]["dev"].update(accuracy="good"), "tasks.0.sets.dev"),
    ("results.json", lambda r: r["tasks"][0]["sets"]["dev"]["accuracy"].update(interval=None), "tasks.0.sets.dev"),
    ("config.yaml", lambda c: c["model"].update(hidden="wide"), "model.hidden"),
    ("config.yaml", lambda c: c["model"].update(heads=0), "model.heads"),
    ("config.yaml", lambda c: c["share"].update(strategy="some"), "share.strategy"),
    ("config.yaml", lambda c: c.pop("objective"), "objective"),
    ("manifest.json", lambda m: m["parameters"].update(encoder="many"), "parameters.encoder"),
    ("manifest.json", lambda m: m.update(deviations_from_paper=[{}]), "deviations_from_paper.0.field"),
    ("similarity.json", lambda s: s.update(l2=["x"]), "l2.0"),
    ("status.json", lambda s: s.update(state="done"), "state"),
]


@pytest.mark.parametrize("case", range(len(WRONG_VALUES)))
def test_a_value_of_the_wrong_kind_is_named(case: int, tmp_path: Path) -> None:
    name, change, words = WRONG_VALUES[case]
    folder = write_cell(tmp_path, cells("table5")[0], 0, tasks=("sst2",))
    text = (folder / name).read_text()
    values = yaml.safe_load(text) if name.endswith("yaml") else json.loads(text)
    change(values)
    (folder / name).write_text(yaml.safe_dump(values) if name.endswith("yaml") else json.dumps(values))
    (note,) = load_runs(tmp_path)["note"]
    assert f"{name} is broken" in note
    assert words in note


def test_a_manifest_of_another_run_is_told(tmp_path: Path) -> None:
    one, other = (write_cell(tmp_path, cells("table5")[0], seed) for seed in range(2))
    shutil.copyfile(one / "manifest.json", other / "manifest.json")
    notes = load_runs(tmp_path).set_index("run")["note"]
    assert notes[other.name] == f"manifest.json is that of run {one.name.rpartition('-')[2]}"
    assert notes[one.name] == ""


def test_yaml_that_makes_objects_or_grows_is_not_followed(tmp_path: Path) -> None:
    mark = tmp_path / "opened"
    for text in (
        f"!!python/object/apply:os.mkdir ['{mark}']",
        f"seed: !!python/name:os.system\n{BOMB}",
        BOMB,
        "&a [*a]",
    ):
        folder = write_cell(tmp_path / "runs", cells("table5")[0], 0)
        (folder / "config.yaml").write_text(text)
        (note,) = load_runs(tmp_path / "runs")["note"]
        assert "config.yaml is broken" in note
        shutil.rmtree(folder)
        (tmp_path / "claims.yaml").write_text(text)
        with pytest.raises(UserError, match=r"claims\.yaml"):
            load_claims(tmp_path / "claims.yaml")
    assert not mark.exists()


def test_broken_lines_of_the_metrics_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, cells("table5")[0], 0)
    with (folder / "metrics.jsonl").open("ab") as out:
        out.write(b'[1]\nnull\n{"step": "x"}\n\xff\n{"step": 1, "tokens": []}\n' + DEEP.encode())
    assert len(load_metrics(folder)) == 7
    assert load_runs(tmp_path)["note"].tolist() == ["metrics.jsonl: 6 broken lines left out"]


def test_a_name_of_a_model_that_is_a_path_reads_no_other_file(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, cells("table5")[0], 0)
    for name in ("../data/text", "../../x", "/etc/passwd", "x" * 5000, "a\0b"):
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        settings["model"]["name"] = name
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        assert load_runs(tmp_path)["base_hidden"].tolist() == [settings["model"]["hidden"]]


def test_one_run_without_settings_changes_no_name_of_the_others(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, cells("table5")[0], seed) for seed in range(3)]
    (folders[0] / "config.yaml").unlink()
    runs = load_runs(tmp_path)
    assert [str(found) for found in runs["E"].dropna()] == ["32", "32"]
    assert [str(found) for found in runs["seed"].dropna()] == ["1", "2"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": {"x": {"corpus": "none"}, "y": {}}}, "claim own: arm x"),
        ({"arms": {"x": {"size": [1]}, "y": {}}}, "claim own: arm x"),
        ({"arms": {"x": {"embedding": "big"}, "y": {}}}, "embedding=big"),
        ({"arms": {"x": {"dropout": "high"}, "y": {}}}, "claim own: arm x"),
        ({"arms": {"x": "table3.99", "y": {}}}, "no row table3.99"),
        ({"arms": []}, "arms"),
        ({"effect": {"x": float("nan"), "y": 1}}, "effect.x"),
        ({"above": float("inf")}, "above"),
        ({"above": None, "between": [1, 0]}, "between"),
        ({"scores": ["task:"]}, "scores"),
        ({"paper_curves": {"x": "no", "y": "no"}}, "paper_curves"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused_in_words(
    change: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {
        "id": "own", "claim": "x is more", "arms": {"x": "table4.8", "y": "table4.5"}, "effect": {"x": 1, "y": -1},
        "scores": ["MLM"], "above": 0,
    }  # fmt: skip
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump([good]))
    assert load_claims(file)[0].id == "own"
    file.write_text(yaml.safe_dump([good | change]))
    write_cell(tmp_path / "runs", cells("table5")[0], 0)
    assert report.main([str(tmp_path / "runs"), "--claims", str(file), "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- what a report shows -------------------------------------------------------------------------

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>[/b] ![a](javascript:alert(3)) | $\\frac{ &lt;"


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.handlers: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and data.strip():
            self.scripts.append(data)


def spoil(folder: Path, failed: bool) -> Path:
    """Hostile words wherever a run folder holds words."""
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["data"]["name"] = settings["scale"]["name"] = EVIL
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    manifest, results = read_json(folder / "manifest.json"), read_json(folder / "results.json")
    manifest |= {
        "identity": EVIL, "precision": EVIL, "source": {"commit": EVIL, "dirty": True}, "hardware": {"device": EVIL},
        "packages": {"torch": EVIL}, "deviations_from_paper": [{"field": EVIL, "ours": EVIL, "paper": EVIL}],
        "data": {"corpus": EVIL, "text": {"fingerprint": EVIL}, "tokens": {"fingerprint": EVIL}},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    results["nsp"]["head"] = results["tasks"][0]["task"] = results["tasks"][0]["metric"] = EVIL
    (folder / "results.json").write_text(json.dumps(results))
    if failed:
        reason = EVIL + "\ud800\0\x1b[31m"
        (folder / "status.json").write_text(json.dumps({"state": "failed", "reason": reason}))
    return folder.rename(folder.with_name(f"{folder.name}-{EVIL.replace('/', '')}"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of hostile runs, with a hostile title and claim; plain words beside it in ``plain``."""
    root = tmp_path_factory.mktemp("hostile")
    for place in ("plain", "runs"):
        for seed in range(2):
            for arm in cells("table5"):
                folder = write_cell(root / place, arm, seed, tasks=("sst2",))
                if place == "runs":
                    spoil(folder, failed=seed == 1 and arm is cells("table5")[0])
    claim = {
        "id": EVIL, "claim": EVIL, "source": EVIL, "arms": {EVIL: "table5.2", "y": "table5.3"},
        "effect": {EVIL: 1, "y": -1}, "scores": ["MLM"], "above": 0,
    }  # fmt: skip
    (root / "claims.yaml").write_text(yaml.safe_dump([claim]))
    for place, title in (("plain", "Plain"), ("runs", EVIL)):
        claims = [*load_claims(), *(load_claims(root / "claims.yaml") if place == "runs" else [])]
        found = report.gather(load_runs(root / place), claims, title)
        report.write(found, root / f"{place}-out")
    return root


def page(file: Path) -> Page:
    found = Page()
    found.feed(file.read_text(encoding="utf-8"))
    return found


def test_nothing_of_a_run_becomes_part_of_the_page(hostile: Path) -> None:
    plain, spoiled = page(hostile / "plain-out" / "index.html"), page(hostile / "runs-out" / "index.html")
    assert spoiled.tags.count("script") == plain.tags.count("script")
    assert "img" not in spoiled.tags
    assert set(spoiled.tags) == set(plain.tags)
    assert spoiled.handlers == []
    assert not [link for link in spoiled.links if not link.startswith(("#", "data:,", "data:text/csv;", "figures/"))]
    assert json.loads(spoiled.scripts[0])["runs"], "the numbers' sources are still JSON"
    assert spoiled.scripts[1:] == plain.scripts[1:]


def test_the_words_themselves_are_shown(hostile: Path) -> None:
    text = (hostile / "runs-out" / "index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\x1b" not in text
    assert "\0" not in text


@pytest.mark.parametrize("pattern", ["*.md", "tables/*.md"])
def test_markdown_holds_no_tag_link_or_broken_row(hostile: Path, pattern: str) -> None:
    files = list((hostile / "runs-out").glob(pattern))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        for word in ("<script", "<img", "](javascript"):
            assert word not in text
        for block in text.split("\n\n"):
            rows = [line for line in block.splitlines() if line.startswith("|")]
            bars = {line.replace("\\|", "").count("|") for line in rows}
            assert len(bars) <= 1, block


def test_no_drawing_holds_a_script(hostile: Path) -> None:
    for file in (hostile / "runs-out" / "figures").glob("*.svg"):
        assert not {"script", "img", "foreignobject"} & set(page(file).tags)


def test_marks_in_names_do_not_break_the_terminal(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(hostile / "runs")]) == 0
    assert compare.main([str(hostile / "runs"), str(hostile / "plain")]) == 0
    assert "\x1b[31m" not in capsys.readouterr().out


@pytest.mark.parametrize("module", ["report", "figures"])
def test_an_output_that_cannot_be_written_ends_with_words(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(tmp_path / "runs", cells("table5")[0], 0)
    (tmp_path / "file").touch()
    command = importlib.import_module(f"analysis.{module}")
    more = ["--only", "cost"] if module == "figures" else []
    assert command.main([str(tmp_path / "runs"), "--out", str(tmp_path / "file" / "out"), *more]) == 1
    assert "cannot be written" in capsys.readouterr().err
