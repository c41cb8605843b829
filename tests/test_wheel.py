"""The wheel, installed: one package that needs nothing of the checkout, wherever it is called from."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from runhelpers import ROOT, one_thread, run_folders, tiny_overrides

pytestmark = pytest.mark.slow

#: What a wheel is built from.
SOURCES = ("albert_ablate", "analysis", "conf", "hydra_plugins", "sweeps", "LICENSE", "MANIFEST.in", "README.md",
           "pyproject.toml", "setup.py")  # fmt: skip


def called(*command: str | Path, cwd: Path) -> str:
    """What a command prints that must succeed; the checkout is not on its path."""
    environment = {name: value for name, value in one_thread().items() if name != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([str(Path(command[0]).parent), environment.get("PATH", "")])
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder: Path, *packages: str | Path) -> Path:
    """The commands of a new environment with ``packages``, which finds their requirements where the tests do."""
    called(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    (site / "requirements.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    commands = Path(sysconfig.get_path("scripts", "venv", paths))
    called(
        sys.executable, "-m", "pip", "--python", commands / "python", "install", "--quiet", "--no-deps", "--no-index",
        "--no-build-isolation", *packages, cwd=folder.parent,
    )  # fmt: skip
    return commands


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit."""
    place = tmp_path_factory.mktemp("source") / "repository"
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (place / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, place / name)
    shutil.copy(ROOT / ".gitignore", place)
    called("git", "init", "--quiet", cwd=place)
    called("git", "add", "--all", cwd=place)
    called("git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "all", cwd=place)
    return place


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the archive of sources, as for an index."""
    place = tmp_path_factory.mktemp("dist")
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(place)!r})"
    called(sys.executable, "-c", build, cwd=source)
    (archive,) = place.glob("*.tar.gz")
    called(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
           "--wheel-dir", place, archive, cwd=place)  # fmt: skip
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the wheel."""
    return environment(tmp_path_factory.mktemp("installed") / "venv", wheel)


def test_the_wheel_holds_the_package_and_hydras_plug_in(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"albert_ablate", "hydra_plugins", "albert_ablate-0.1.0.dist-info"}
    assert "albert_ablate/py.typed" in names
    for folder in ("analysis", "conf", "sweeps"):
        files = [file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
        assert len(files) > 10
        assert {f"albert_ablate/{file.relative_to(ROOT).as_posix()}" for file in files} <= set(names)


def test_a_cell_a_sweep_and_a_report_in_another_folder(commands: Path, tmp_path: Path) -> None:
    program = commands / "albert-ablate"
    summary = called(program, "run", *tiny_overrides(tmp_path), cwd=tmp_path)
    assert "held-out documents" in summary
    called(program, "sweep", *tiny_overrides(tmp_path), "embed.size=8,16", cwd=tmp_path)
    assert len(run_folders(tmp_path / "runs")) == 2
    assert "finished" in called(program, "status", "runs", cwd=tmp_path)
    called(program, "report", "runs", "--out", "report", cwd=tmp_path)
    assert (tmp_path / "report" / "index.html").stat().st_size > 100_000
    assert set(pd.read_csv(tmp_path / "report" / "runs.csv")["state"]) == {"finished"}


def test_messages_name_the_installed_command(commands: Path, tmp_path: Path) -> None:
    helped = called(commands / "albert-ablate", "run", "--help", cwd=tmp_path)
    assert "albert-ablate sweep sweep=table4" in helped
    assert "python " not in helped


def test_nothing_is_read_from_the_checkout(commands: Path, tmp_path: Path) -> None:
    asked = """
import importlib.util, json
import albert_ablate, albert_ablate.analysis
from albert_ablate.config.schema import CONF
from albert_ablate.sweeping.definition import SWEEPS, sweep_names
beside = [name for name in ("analysis", "conf", "sweeps", "run", "tests") if importlib.util.find_spec(name)]
places = [albert_ablate.__file__, albert_ablate.analysis.__file__, str(CONF), str(SWEEPS)]
print(json.dumps([*places, albert_ablate.load_runs.__module__, beside, sweep_names()]))
"""
    *places, door, beside, sweeps = json.loads(called(commands / "python", "-c", asked, cwd=tmp_path))
    assert all(Path(place).is_relative_to(commands.parent) for place in places)
    assert (door, beside) == ("albert_ablate.api", [])
    assert "table5" in sweeps


def test_installed_from_a_repository_it_knows_its_commit(source: Path, tmp_path: Path) -> None:
    commands = environment(tmp_path / "venv", f"git+file://{source}")
    asked = "from albert_ablate.record.provenance import commit; import json; print(json.dumps(commit()))"
    head = called("git", "rev-parse", "HEAD", cwd=source).strip()
    assert json.loads(called(commands / "python", "-c", asked, cwd=tmp_path)) == {"commit": head, "dirty": False}
