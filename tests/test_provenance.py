"""The commit in a manifest is the project's own or none, wherever the package lies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reporthelpers import cells, write_cell

from analysis.read.runs import load_runs
from analysis.write.sources import facts

ROOT = Path(__file__).resolve().parent.parent
#: Calls ``commit`` of the package in a folder without loading torch, which it needs for other things.
PROBE = (
    "import json, sys, types; sys.modules['torch'] = types.ModuleType('torch'); sys.modules['torch'].device = None;"
    "sys.path.insert(0, sys.argv[1]); from albert_ablate.record.provenance import commit; print(json.dumps(commit()))"
)
FILES = ("pyproject.toml", ".gitattributes", ".git_archival.txt", "albert_ablate/__init__.py",
         "albert_ablate/record/provenance.py", "conf/config.yaml", "README.md")  # fmt: skip


def git(folder: Path, *words: str, **more: str) -> str:
    names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *words],
        env=clean | names | more, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


def tree(folder: Path, *files: str) -> Path:
    """The files of the project that matter here."""
    for name in files or FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def repository(folder: Path) -> str:
    """Everything in ``folder`` as one commit, which is returned."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return git(folder, "rev-parse", "HEAD")


def commit(place: Path, **environment: str) -> dict[str, Any]:
    """What the package at ``place`` says of its code, in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(place)], cwd=place.parent, env=clean | environment,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, str]:
    folder = tree(tmp_path / "checkout")
    return folder, repository(folder)


def test_a_checkout_knows_its_commit(checkout: tuple[Path, str]) -> None:
    folder, head = checkout
    assert commit(folder) == {"commit": head, "dirty": False}


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("my_corpus.txt", False), ("runs/x/config.yaml", False), ("notes.py", False), ("albert_ablate/notes.md", False),
        ("albert_ablate/more.py", True), ("albert_ablate/data/more.py", True), ("conf/model/mine.yaml", True),
        ("README.md", True), ("albert_ablate/record/provenance.py", True),
    ],
)  # fmt: skip
def test_dirty_is_what_may_change_numbers(name: str, dirty: bool, checkout: tuple[Path, str]) -> None:
    folder, head = checkout
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a") as out:
        out.write("\n")
    assert commit(folder) == {"commit": head, "dirty": dirty}
    if name == "README.md":
        git(folder, "add", name)
        assert commit(folder)["dirty"] is True, "staged"


@pytest.mark.parametrize("place", ["venv/lib/site-packages", ".", "third_party/albert"])
def test_inside_another_repository_there_is_no_commit(place: str, tmp_path: Path) -> None:
    """A virtual environment in it, the package copied to its top, and copied into a folder of it, tracked."""
    theirs = tmp_path / "theirs"
    files = ["albert_ablate/__init__.py", "albert_ablate/record/provenance.py"]
    tree(theirs / place, *(FILES if place.startswith("third") else files))
    if place == ".":
        (theirs / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    repository(theirs)
    found = commit(theirs / place)
    assert found["commit"] is None
    assert found["dirty"] is None
    assert "neither its checkout nor an installation" in found["unknown"] or "outside a git" in found["unknown"]


def test_an_exported_tree_in_a_repository_that_does_not_track_it(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a.txt").write_text("a")
    repository(tmp_path / "theirs")
    tree(tmp_path / "theirs")
    found = commit(tmp_path / "theirs")
    assert found["commit"] is None
    assert "provenance.py" in found["unknown"]


def test_a_broken_git_folder_does_not_reach_the_repository_above(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    inner = tree(tmp_path / "theirs" / "ours")
    repository(tmp_path / "theirs")
    (inner / ".git").mkdir()
    assert commit(inner)["commit"] is None


def test_an_exported_tree_names_the_commit_it_was_exported_from(checkout: tuple[Path, str], tmp_path: Path) -> None:
    folder, head = checkout
    out = tmp_path / "export"
    out.mkdir()
    git(folder, "archive", "--format=tar", "-o", str(tmp_path / "a.tar"), "HEAD")
    shutil.unpack_archive(tmp_path / "a.tar", out)
    found = commit(out)
    assert found["commit"] == head
    assert found["dirty"] is None
    assert "exported tree" in found["unknown"]
    shutil.copyfile(ROOT / ".git_archival.txt", out / ".git_archival.txt")  # copied, not exported
    assert commit(out)["commit"] is None


def test_a_stamped_copy_names_its_commit_and_knows_whether_it_was_changed(
    checkout: tuple[Path, str], tmp_path: Path
) -> None:
    folder, head = checkout
    (folder / "COMMIT").write_text(commit_stamp(folder))
    assert commit(folder) == {"commit": head, "dirty": False}, "git is asked where there is a repository"
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".git"))
    assert commit(copy) == {"commit": head, "dirty": False}
    (copy / "README.md").write_text("other")
    (copy / "albert_ablate" / "__pycache__").mkdir(exist_ok=True)
    (copy / "albert_ablate" / "__pycache__" / "a.pyc").write_text("")
    assert commit(copy)["dirty"] is False, "a run reads none of these"
    (copy / "conf" / "config.yaml").write_text("seed: 1\n")
    assert commit(copy) == {"commit": head, "dirty": True}
    (folder / "albert_ablate" / "more.py").write_text("")
    (copy / "COMMIT").write_text(commit_stamp(folder))
    assert commit(copy) == {"commit": head, "dirty": True}, "it was changed before it was copied"
    for damaged in ("", "{}", '{"commit": "main", "dirty": false, "read": ""}', '{"commit": null, "dirty": null}'):
        (copy / "COMMIT").write_text(damaged)
        assert commit(copy)["commit"] is None


def commit_stamp(place: Path) -> str:
    """What the package at ``place`` writes for copies of it."""
    probe = PROBE.replace("import commit; print(json.dumps(commit()))", "import stamp; print(stamp(), end='')")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, "-c", probe, str(place)], env=clean, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_worktrees_submodules_shallow_clones_and_links(checkout: tuple[Path, str], tmp_path: Path) -> None:
    folder, head = checkout
    git(folder, "worktree", "add", "-q", str(tmp_path / "worktree"))
    git(tmp_path, "clone", "-q", "--depth=1", folder.as_uri(), "shallow")
    (tmp_path / "theirs").mkdir()
    git(tmp_path / "theirs", "init", "-q")
    git(tmp_path / "theirs", "submodule", "add", "-q", folder.as_uri(), "ours")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "albert_ablate").symlink_to(folder / "albert_ablate")
    for place in ("worktree", "shallow", "theirs/ours", "linked"):
        assert commit(tmp_path / place) == {"commit": head, "dirty": False}, place


def test_variables_of_a_hook_do_not_mislead(checkout: tuple[Path, str], tmp_path: Path) -> None:
    folder, head = checkout
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a.txt").write_text("a")
    repository(tmp_path / "theirs")
    hook = {"GIT_DIR": str(tmp_path / "theirs" / ".git"), "GIT_WORK_TREE": str(tmp_path / "theirs"),
            "GIT_INDEX_FILE": str(tmp_path / "nothing"), "GIT_PREFIX": "x/"}  # fmt: skip
    assert commit(folder, **hook) == {"commit": head, "dirty": False}


def test_why_git_says_nothing(checkout: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = checkout
    found = commit(folder, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert found["commit"] is None
    assert "dubious ownership" in found["unknown"]
    (tmp_path / "bin").mkdir()
    assert commit(folder, PATH=str(tmp_path / "bin"))["unknown"] == "git is not installed"
    empty = tree(tmp_path / "empty")
    git(empty, "init", "-q")
    assert commit(empty)["commit"] is None


def installed(site: Path, origin: dict[str, Any] | None) -> Path:
    """The package as pip leaves it in ``site``."""
    import base64
    import hashlib

    names = ["albert_ablate/__init__.py", "albert_ablate/record/provenance.py"]
    tree(site, *names)
    info = site / "albert_ablate-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: albert-ablate\nVersion: 0.1.0\n")
    hashes = {n: base64.urlsafe_b64encode(hashlib.sha256((site / n).read_bytes()).digest()) for n in names}
    (info / "RECORD").write_text("".join(f"{n},sha256={h.decode().rstrip('=')},1\n" for n, h in hashes.items()))
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))
    return site


def test_an_installation_from_git_knows_its_commit(tmp_path: Path) -> None:
    url, id_ = "https://example.org/albert.git", "c" * 40
    vcs = {"url": url, "vcs_info": {"vcs": "git", "commit_id": id_}}
    site = installed(tmp_path / "theirs" / "venv" / "site-packages", vcs)
    repository(tmp_path / "theirs")
    assert commit(site) == {"commit": id_, "dirty": False}
    with (site / "albert_ablate" / "__init__.py").open("a") as out:
        out.write("\n")
    assert commit(site)["dirty"] is True, "not as it was installed"


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (None, "version 0.1.0 was installed as a wheel, which names no commit"),
        ({"url": "file:///home/x/albert", "dir_info": {}}, "installed from file:///home/x/albert"),
        ({"url": "https://x.org/a.zip", "archive_info": {}}, "installed from https://x.org/a.zip"),
    ],
)
def test_an_installation_from_elsewhere_says_so(origin: dict[str, Any] | None, words: str, tmp_path: Path) -> None:
    found = commit(installed(tmp_path / "site", origin))
    assert found["commit"] is None
    assert words in found["unknown"]


def test_the_record_of_another_installation_is_not_taken(tmp_path: Path) -> None:
    """A copy of the package that hides an installed one."""
    vcs = {"url": "u", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}
    site = installed(tmp_path / "site", vcs)
    copy = tree(tmp_path / "copy", "albert_ablate/__init__.py", "albert_ablate/record/provenance.py")
    assert commit(copy, PYTHONPATH=str(site))["commit"] is None


def test_a_report_says_why_a_commit_is_not_known(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, cells("table5")[0], 0)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["source"] = {"commit": None, "dirty": None, "unknown": "git is not installed"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (run,) = load_runs(tmp_path).to_dict("records")
    assert facts(run)["commit"] == "unknown (git is not installed)"
