"""WordNet's nouns as facts, from small files in the format of its own."""

import glob
import os
import re
import shlex
from pathlib import Path

import forked
import pytest
from test_readme import ROOT, SHORT

from albert_ablate.commands.wordnet import main
from albert_ablate.tasks.knowledge.facts import Fact, read_facts

#: The licence, then a synset on each line, as in WordNet 3.0. Counts of words are hexadecimal.
DATA = """\
  1 This software and database is being provided to you, the LICENSEE, by
  2 Princeton University under the following license.
00000100 03 n 01 animal 0 001 ~ 00000200 n 0000 | a living thing
00000200 05 n 02 dog 0 domestic_dog 0 003 @ 00000100 n 0000 #m 00000400 n 0000 + 00000900 v 0101 | a pet
00000300 18 n 01 dog 1 001 @ 00000500 n 0000 | a dull person
00000400 14 n 01 pack 1 002 @ 00000600 n 0000 %m 00000200 n 0000 | a group
00000500 18 n 0a person 0 a1 0 a2 0 a3 0 a4 0 a5 0 a6 0 a7 0 a8 0 soul 0 001 @ 00000100 n 0000 | a human
00000600 14 n 01 group 0 000 | things together
00000700 15 n 02 Beijing 0 Peking 0 002 @i 00000800 n 0000 #p 00000900 n 0000 | the capital
00000800 15 n 01 national_capital 0 000 | a seat of government
00000900 15 n 01 China 0 001 %p 00000700 n 0000 | a country
"""
INDEX = """\
  1 This software and database is being provided to you, the LICENSEE, by
animal n 1 1 ~ 1 1 00000100
beijing n 1 2 @ #p 1 1 00000700
china n 1 1 %p 1 1 00000900
dog n 2 2 @ #m 2 1 00000200 00000300
domestic_dog n 1 2 @ #m 1 0 00000200
group n 1 0 1 1 00000600
national_capital n 1 0 1 0 00000800
pack n 1 2 @ %m 1 1 00000400
peking n 1 2 @ #p 1 0 00000700
person n 1 1 @ 1 1 00000500
soul n 1 1 @ 1 1 00000500
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    return tmp_path


def test_facts_of_the_first_sense_of_each_noun(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = folder / "facts.tsv"
    assert main([str(folder), str(table)]) == 0
    assert read_facts(table) == [
        Fact("dog", "is a", "animal"), Fact("dog", "member of", "pack"),
        Fact("domestic dog", "is a", "animal"), Fact("domestic dog", "member of", "pack"),
        Fact("pack", "is a", "group"), Fact("person", "is a", "animal"), Fact("soul", "is a", "animal"),
        Fact("Beijing", "is a", "national capital"), Fact("Beijing", "part of", "China"),
        Fact("Peking", "is a", "national capital"), Fact("Peking", "part of", "China"),
    ]  # fmt: skip
    shown = capsys.readouterr().out
    assert "11 facts" in shown
    assert "licence" in shown
    notice = (folder / "facts.license.txt").read_text()
    assert "Princeton University under the following license." in notice


@pytest.mark.parametrize(("name", "wrong", "message"), [
    ("data.noun", "00000100 03 n 02 animal 0\n", "data.noun, line 1: not a synset of WordNet 3.0"),
    ("index.noun", "animal n x\n", "index.noun, line 1: not a lemma of WordNet 3.0"),
    ("index.noun", None, "no index.noun there"),
])  # fmt: skip
def test_other_files_are_refused_in_words(
    folder: Path, name: str, wrong: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).unlink()
    if wrong is not None:
        (folder / name).write_text(wrong)
    assert main([str(folder), str(folder / "facts.tsv")]) != 0
    said = " ".join(capsys.readouterr())
    assert message in " ".join(said.split())
    assert not (folder / "facts.tsv").exists()


@pytest.mark.slow
def test_the_commands_of_the_page_run(folder: Path) -> None:
    """Those of ``docs/knowledge.md``, in order, with short runs and the small files."""
    (block,) = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / "knowledge.md").read_text(), flags=re.M | re.S)
    few = ["tasks.{}.steps=2", "tasks.{}.dev_examples=40", "tasks.{}.train_examples=80"]
    for line in block.splitlines():
        program, *words = shlex.split(line.replace("/usr/share/wordnet", str(folder)))
        words = [one for word in words for one in (sorted(glob.glob(word, root_dir=folder)) if "*" in word else [word])]
        assert program == "python"
        task = next((word.removeprefix("task=") for word in words if word.startswith("task=")), None)
        if task is not None:
            words += [setting.format(task) for setting in few]
        if words[0] == "run.py":
            words = [str(ROOT / "run.py"), *words[1:], *SHORT]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = forked.python(*words, cwd=folder, environment=environment, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert len(list(folder.glob("runs/*/tasks/*/results.json"))) == 3
