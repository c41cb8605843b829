"""CONTRIBUTING's recipes, applied to a copy of the tree as they stand there."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import forked

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^   ```(\w+) (\S+)\n(.*?)^   ```$", re.MULTILINE | re.DOTALL)
#: (kind, file, text): a file to write, or a diff of one place in it.
Block = tuple[str, str, str]


def blocks(heading: str) -> list[Block]:
    """Every block of a section."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = [
        (kind, file, re.sub(r"^   ", "", body, flags=re.MULTILINE)) for kind, file, body in _BLOCK.findall(section)
    ]
    assert len(found) == section.count("```") // 2
    return found


def touched(recipe: Sequence[Block]) -> set[str]:
    """The files that a recipe writes or changes; a folder of conf/ counts once."""
    return {str(Path(file).parent) if file.startswith("conf/") and "/" in file[5:] else file for _, file, _ in recipe}


def copied(root: Path, recipe: Sequence[Block]) -> Path:
    """A copy of the tree in ``root``, with a recipe applied."""
    for name in ("albert_ablate", "analysis", "conf", "sweeps", "hydra_plugins", "tests", "docs/results/cpu"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    for block in recipe:
        _apply(root, *block)
    return root


def _apply(root: Path, kind: str, file: str, text: str) -> None:
    path = root / file
    if kind != "diff":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    lines = text.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+")) + "\n"
    after = "\n".join(line[1:] for line in lines if not line.startswith("-")) + "\n"
    old = path.read_text(encoding="utf-8")
    assert old.count(before) == 1, (file, before)
    path.write_text(old.replace(before, after), encoding="utf-8")


def inside(root: Path, *words: str) -> str:
    """What ``python WORDS`` prints in the copy; it must succeed."""
    environment = {"PYTHONPATH": f"{root}:{root / 'tests'}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = forked.python(*words, cwd=root, environment=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
