"""The rules of the house that an import can break: every import counts, those in functions and for types alone, too."""

import re
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from runhelpers import ROOT
from sourcehelpers import imports

#: All that may know Hydra.
DOOR = {"albert_ablate.door.app", "albert_ablate.door.completion", "albert_ablate.door.compose",
        "albert_ablate.door.launchers", "albert_ablate.door.options", "albert_ablate.door.words"}  # fmt: skip
#: All of the framework that may know the analysis: what Python users import. Commands are a table of names.
PYTHON_DOOR = ["albert_ablate.api"]
#: What the analysis is called in an installation, where it lies inside the package.
INSTALLED = "albert_ablate.analysis"


def sources(root: Path) -> dict[str, Path]:
    """Module name -> file of both packages and of ``run.py``; ``albert_ablate.model`` is its ``__init__``."""
    files = [root / "run.py", *(root / "albert_ablate").rglob("*.py"), *(root / "analysis").rglob("*.py")]
    dotted = {file: ".".join(file.relative_to(root).with_suffix("").parts) for file in files if file.is_file()}
    return {name.removesuffix(".__init__"): file for file, name in sorted(dotted.items())}


def module_of(name: str, known: dict[str, Path]) -> str | None:
    """The module that an imported name is, or is taken from; None for one of a library."""
    name = name.removeprefix("albert_ablate.") if f"{name}.".startswith(f"{INSTALLED}.") else name
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def graph(root: Path) -> dict[str, set[str]]:
    """Module -> the modules that it imports.

    That Python loads the ``__init__`` of the packages around an imported module does not count.
    """
    known = sources(root)
    named = {module: {module_of(name, known) for name in imports(file, root)} for module, file in known.items()}
    return {module: {name for name in names if name} - {module} for module, names in named.items()}


def circle(root: Path) -> list[str]:
    """The modules of a circle, each importing the next, the first again at the end; empty where there is none."""
    try:
        TopologicalSorter(graph(root)).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def upward(root: Path) -> list[str]:
    """Modules of ``albert_ablate`` that import ``analysis``."""
    return [
        module
        for module, file in sources(root).items()
        if module.startswith("albert_ablate")
        and any(f"{name}.".startswith(("analysis.", f"{INSTALLED}.")) for name in imports(file, root))
    ]


def knowing_hydra(root: Path) -> set[str]:
    """Modules that import Hydra or OmegaConf."""
    return {
        module
        for module, file in sources(root).items()
        if any(name.split(".")[0] in ("hydra", "omegaconf") for name in imports(file, root))
    }


def test_no_modules_import_each_other() -> None:
    assert len(sources(ROOT)) > 150
    assert " -> ".join(circle(ROOT)) == ""


def test_only_the_python_door_imports_the_analysis() -> None:
    assert upward(ROOT) == PYTHON_DOOR


def test_only_the_door_imports_hydra_and_omegaconf() -> None:
    assert knowing_hydra(ROOT) == DOOR


def test_the_picture_names_every_room_and_no_import_goes_up() -> None:
    rank = {name: number for number, line in enumerate(layers()) for name in line}
    entrances = {"albert_ablate", "albert_ablate.__main__"}  # they hand on to rooms
    modules = {m: uses - entrances for m, uses in graph(ROOT).items() if m not in entrances and not starts_a_command(m)}
    rooms = {room(module, ROOT) for module in modules}
    assert rooms == set(rank)
    upwards = [
        f"{module} imports {used}"
        for module, uses in modules.items()
        for used in uses
        if room(used, ROOT) != room(module, ROOT) and rank[room(used, ROOT)] <= rank[room(module, ROOT)]
    ]
    assert upwards == []


BACK = {
    "at the top": "from albert_ablate.low import x",
    "in a function": "def f():\n    import albert_ablate.low\n",
    "relative": "from ..low import x",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from albert_ablate import low\n",
}


def room(module: str, root: Path) -> str:
    """The package that a module lies in, or the module itself; a package of ``albert_ablate`` without that prefix."""
    first, *rest = module.split(".")
    if not rest:
        return first
    if first == "analysis":
        return f"analysis.{rest[0]}" if (root / first / rest[0]).is_dir() else first
    return rest[0]


def layers() -> list[list[str]]:
    """The picture of ``docs/house.md``: the rooms of each line, the highest line first."""
    block = re.search(r"```layers\n(.*?)```", (ROOT / "docs" / "house.md").read_text(encoding="utf-8"), re.S)
    assert block is not None
    return [line.split() for line in block[1].strip().splitlines()]


def starts_a_command(module: str) -> bool:
    """Whether a module is the one line that lets ``python -m albert_ablate.NAME`` start ``commands/NAME``."""
    return (ROOT / "albert_ablate" / "commands" / f"{module.rpartition('.')[2]}.py").is_file() and module.count(
        "."
    ) == 1


def planted(root: Path, files: dict[str, str]) -> Path:
    """A tree with these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("text", BACK.values(), ids=BACK.keys())
def test_a_circle_is_seen_wherever_the_import_stands(text: str, tmp_path: Path) -> None:
    files = {"__init__": "", "low": "import albert_ablate.deep.middle", "deep/__init__": "", "deep/middle": "import os"}
    root = planted(tmp_path, {f"albert_ablate/{name}.py": content for name, content in files.items()})
    assert circle(root) == []
    planted(root, {"albert_ablate/deep/middle.py": text})
    assert sorted(set(circle(root))) == ["albert_ablate.deep.middle", "albert_ablate.low"]


@pytest.mark.parametrize(
    ("look", "text", "seen"),
    [
        (upward, "def f():\n    from analysis import runs\n", ["albert_ablate.low"]),
        (upward, "def f():\n    from albert_ablate.analysis import runs\n", ["albert_ablate.low"]),
        (knowing_hydra, "def f():\n    from omegaconf import OmegaConf\n", {"albert_ablate.low"}),
        (knowing_hydra, "import hydra.errors", {"albert_ablate.low"}),
    ],
)
def test_a_wrong_import_is_seen(look: Callable[[Path], object], text: str, seen: object, tmp_path: Path) -> None:
    assert look(planted(tmp_path, {"albert_ablate/low.py": text, "run.py": "import os"})) == seen
