"""One identity is one run: copies of folders, results set aside, folders given twice; and runs of several set-ups."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reporthelpers import cells, write_cell

from analysis import compare, report
from analysis.draw.arms import seed_spread
from analysis.judge.claims import judge, load_claims
from analysis.read.cells import main_setup
from analysis.read.runs import load_runs
from analysis.report import gather
from analysis.write.costs import costs
from analysis.write.page import markdown

ARMS = cells("table5")


def sweep(root: Path, seeds: int = 2, **more: Any) -> list[Path]:
    return [write_cell(root, arm, seed, **more) for seed in range(seeds) for arm in ARMS]


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def identified(identity: str) -> Callable[[dict[str, Any]], None]:
    """Give a manifest another identity."""
    return lambda manifest: manifest.update(identity=identity)


def replaced(folder: Path) -> Path:
    """The folder set aside as ``rerun=all`` does."""
    target = folder.parent / ".replaced" / f"{folder.name}-20261127T000000000000"
    target.parent.mkdir(exist_ok=True)
    return Path(shutil.copytree(folder, target))


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """Six runs, and the same again in a second folder, once renamed and once by a link to a folder."""
    sweep(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = min((tmp_path / "b").iterdir())
    first.rename(first.with_name("my-best-run"))
    (tmp_path / "a" / "link").symlink_to(max((tmp_path / "a").iterdir()))
    return tmp_path


def test_two_folders_with_the_same_runs_count_each_once(twice: Path) -> None:
    once, both = load_runs(twice / "a"), load_runs(twice / "a", twice / "b")
    assert len(once) == 6
    assert len(both) == 12
    assert both["state"].value_counts().to_dict() == {"finished": 6, "copy": 6}
    assert (both["copy_of"].notna() == (both["state"] == "copy")).all()
    assert len(main_setup(both)) == 6
    assert costs(both)["runs"].tolist() == [2, 2, 2]
    drawing = seed_spread(both)
    assert len(drawing.data) == 6
    pd.testing.assert_frame_equal(
        drawing.data.sort_values(["arm", "seed"])[["arm", "seed", "value"]].reset_index(drop=True),
        seed_spread(once).data.sort_values(["arm", "seed"])[["arm", "seed", "value"]].reset_index(drop=True),
    )
    one, two = (judge(runs, load_claims()) for runs in (once, both))
    assert [(v.verdict, v.effect, v.adjusted) for v in one] == [(v.verdict, v.effect, v.adjusted) for v in two]
    text = markdown(gather(both, load_claims()))
    assert "6 of 6 runs finished" in text
    assert "6 finished runs of one set-up" in text
    assert "6 of 12 run folders are copies of a run that is counted once, with the same numbers." in text
    assert len(compare.compare(both)) == 6


@pytest.mark.parametrize("newer", [True, False])
def test_the_finished_one_counts_then_the_newest(newer: bool, tmp_path: Path) -> None:
    kept = write_cell(tmp_path / "a", ARMS[0], 0)
    other = Path(shutil.copytree(kept, tmp_path / "b" / kept.name))
    edit(kept / "status.json", lambda s: s.update(updated=f"2026-11-2{8 if newer else 1}T10:00:00+00:00"))
    edit(other / "status.json", lambda s: s.update(updated="2026-11-25T10:00:00+00:00"))
    runs = load_runs(tmp_path / "a", tmp_path / "b").set_index("path")
    counts, copy = (kept, other) if newer else (other, kept)
    assert runs.at[str(counts), "state"] == "finished"
    assert runs.at[str(copy), "note"] == f"of {counts.parent.name}/{counts.name}, which counts: it is newer"
    edit(counts / "status.json", lambda s: s.update(state="preempted"))
    runs = load_runs(tmp_path / "a", tmp_path / "b").set_index("path")
    assert runs.at[str(copy), "state"] == "finished"
    assert "which counts: it is finished, this one preempted" in str(runs.at[str(counts), "note"])


def test_a_damaged_copy_does_not_count(tmp_path: Path) -> None:
    kept = write_cell(tmp_path / "b", ARMS[0], 0)
    for number, name in enumerate(("results.json", "config.yaml", "manifest.json")):
        folder = Path(shutil.copytree(kept, tmp_path / "a" / f"{number}-{kept.name}"))
        (folder / name).write_text("{")
    runs = load_runs(tmp_path / "a", tmp_path / "b").set_index("path")
    assert runs["state"].tolist().count("finished") == 1
    assert runs.at[str(kept), "state"] == "finished"
    assert runs["note"].str.contains("its records are whole").sum() == 3


def test_copies_that_contradict_each_other_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = write_cell(tmp_path / "a", ARMS[0], 0, tasks=("sst2",))
    other = Path(shutil.copytree(kept, tmp_path / "b" / kept.name))
    edit(other / "results.json", lambda r: r["masked_lm"].update(loss=1.5))
    edit(other / "results.json", lambda r: r["tasks"][0].update(score=0.25))
    runs = load_runs(tmp_path / "a", tmp_path / "b")
    (note,) = runs[runs["state"] == "copy"]["note"]
    assert "same identity, other numbers: mlm_loss " in note
    assert "sst2 " in note
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]) == 0
    words = "1 of 2 run folders are copies of a run that is counted once, 1 of them with other numbers"
    assert words in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
    for name in ("index.html", "report.md"):
        assert words in (out / name).read_text()


def test_what_was_set_aside_is_a_copy_too(tmp_path: Path) -> None:
    kept = write_cell(tmp_path, ARMS[0], 0)
    old = replaced(kept)
    edit(old / "status.json", lambda s: s.update(updated="2026-11-01T10:00:00+00:00"))
    assert len(load_runs(tmp_path)) == 1
    runs = load_runs(tmp_path, tmp_path / ".replaced").set_index("path")
    assert runs.at[str(kept), "state"] == "finished"
    assert runs.at[str(old), "state"] == "copy"


def test_a_manifest_of_another_run_makes_no_copy(tmp_path: Path) -> None:
    one, other = (write_cell(tmp_path, ARMS[0], seed) for seed in range(2))
    shutil.copyfile(one / "manifest.json", other / "manifest.json")
    assert load_runs(tmp_path)["state"].tolist() == ["finished", "finished"]


def test_a_condition_chooses_before_copies_are_left_out(tmp_path: Path) -> None:
    """Two machines trained the same run: a setting that is no part of the identity chooses one of them."""
    kept = write_cell(tmp_path / "a", ARMS[0], 0)
    other = Path(shutil.copytree(kept, tmp_path / "b" / kept.name))
    for folder, device in ((kept, "cpu"), (other, "cuda")):
        with (folder / "config.yaml").open("a") as file:
            file.write(f"runtime: {{device: {device}}}\n")
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        words = ["--where", f"runtime.device={device}", "--out", str(out)]
        assert report.main([str(tmp_path / "a"), str(tmp_path / "b"), *words]) == 0
        assert pd.read_csv(out / "runs.csv")["state"].tolist() == ["finished"]


def test_a_repeated_seed_of_another_identity_is_one_observation(tmp_path: Path) -> None:
    """With dropout a run's micro-batch is part of its identity and not of the set-up."""
    for seed in range(2):
        for number in range(2):
            folder = write_cell(tmp_path / str(number), ARMS[0] | {"dropout": 0.1}, seed)
            if number:
                renamed = folder.rename(folder.with_name(folder.name[:-12] + f"{seed:012x}"))
                edit(renamed / "manifest.json", identified(f"{seed:012x}"))
                text = (renamed / "config.yaml").read_text()
                (renamed / "config.yaml").write_text(text.replace("micro_size: 64", "micro_size: 8"))
    runs = load_runs(tmp_path / "0", tmp_path / "1")
    assert runs["state"].tolist() == ["finished"] * 4
    assert main_setup(runs)["seed"].tolist() == [0, 1]


def test_two_collections_say_which_runs_are_in_both(twice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(twice / "a"), str(twice / "b")]) == 0
    assert "in both: 6 runs are the same run in A and in B" in capsys.readouterr().out
    assert compare.main([str(twice)[:-1] + "?"]) == 2, "no such folder"


# --- several set-ups and commits ---------------------------------------------------------------------------


def other_corpus(folder: Path) -> None:
    edit(
        folder / "manifest.json", lambda m: m["data"].update(corpus="wikitext", tokens={"fingerprint": "beefbeefbeef"})
    )


def test_which_corpus_was_taken_is_said_also_where_they_tie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "a")
    for folder in sweep(tmp_path / "b"):
        renamed = folder.rename(folder.with_name(folder.name[:-12] + f"{abs(hash(folder.name)) % 16**12:012x}"))
        edit(renamed / "manifest.json", identified(renamed.name[-12:]))
        other_corpus(renamed)
    runs = load_runs(tmp_path / "a", tmp_path / "b")
    assert (runs["state"] == "finished").all()
    text = markdown(gather(runs, load_claims()))
    pattern = (
        r"Left out: 6 runs of the same cells in another set-up \(data: (embedded|wikitext) \(tokens \w+\), elsewhere "
        r"(embedded|wikitext) \(tokens \w+\)\)\. Taken: the set-up named first, because of several alike it comes first"
    )
    found = re.findall(pattern, text)
    assert len(found) >= 2, "above the scorecard and under Table 5"
    assert len(set(found)) == 1, "the same one everywhere"
    assert "claims runs of several set-ups fit the arms" in text
    edit(next((tmp_path / "b").iterdir()) / "status.json", lambda s: s.update(updated="2027-01-01T00:00:00+00:00"))
    text = markdown(gather(load_runs(tmp_path / "a", tmp_path / "b"), load_claims()))
    assert "(data: wikitext (tokens beefbeef), elsewhere embedded (tokens feed))" in text
    assert "because of several with as many runs it has the latest" in text
    write_cell(tmp_path / "a", ARMS[0], 2)
    text = markdown(gather(load_runs(tmp_path / "a", tmp_path / "b"), load_claims()))
    assert "(data: embedded (tokens feed), elsewhere wikitext (tokens beefbeef))" in text
    assert "because it has most runs" in text


def test_several_commits_are_told_above_the_scorecard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a grid of one's own, which fills no table."""
    folders = [write_cell(tmp_path / "runs", ARMS[0] | {"embedding": "H/3"}, seed) for seed in range(4)]
    edit(folders[0] / "manifest.json", lambda m: m["source"].update(commit="b" * 40))
    edit(folders[1] / "manifest.json", lambda m: m["source"].update(commit=None, dirty=None))
    edit(folders[2] / "manifest.json", lambda m: m["source"].update(dirty=True))
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert compare.main([str(tmp_path / "runs")]) == 0
    places = [printed, capsys.readouterr().out, *((out / name).read_text() for name in ("index.html", "report.md"))]
    for text in places:
        assert "The runs come from 2 commits of the code (aaaaaaaaaa, bbbbbbbbbb)." in text
        assert "Of 1 of 4 runs the commit of the code is not known." in text
        assert "1 of 4 runs come from code with uncommitted changes." in text
    head = (out / "report.md").read_text().split("## What the paper claims")[0]
    assert "2 commits" in head
