"""The Python door: what ``import albert_ablate as aa`` offers, described in ``docs/python.md``.

What a user can change, a wrong setting above all, is raised as a ``UserError`` whose ``message`` says it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import ConfigError, UserError
from albert_ablate.files import read_json
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.results import Results

if TYPE_CHECKING:  # they load torch
    from albert_ablate.loading import LoadedRun
    from albert_ablate.sweeping.cells import Cell
    from albert_ablate.sweeping.process import Outcome


@dataclass(frozen=True)
class Run:
    """A run and what it left in its folder."""

    folder: Path

    @property
    def _files(self) -> RunFolder:
        return RunFolder(self.folder.parent, self.folder.name)

    @property
    def state(self) -> str:
        """Such as ``finished`` or ``failed``; ``missing`` where it was never started."""
        return self._files.state()

    @property
    def results(self) -> Results:
        """Every measurement, as in ``results.json``. Raises FileNotFoundError where the run is not finished."""
        return self._files.load("results.json", Results)

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each log step, as in ``metrics.jsonl``: losses in nats, tokens, seconds."""
        return pd.DataFrame(self._files.metrics())

    def load(self) -> "LoadedRun":
        """The trained model with its tokenizer: ``load`` of the folder."""
        return load(self.folder)


def compose(*settings: str) -> RunConfig:
    """The configuration that the command line would run: ``compose("embed=e64", "share=all")``. Raises ConfigError."""
    from albert_ablate.door.compose import compose

    return compose(settings)


def run(config: RunConfig) -> Run:
    """Train and evaluate one cell, or continue it; a finished one is only returned.

    Raises UserError: the settings, the data, divergence, memory, a stop signal (Ctrl-C saves first).
    """
    from albert_ablate.door.compose import paper_setup
    from albert_ablate.experiment import run_cell

    return Run(run_cell(config, paper_setup(config)).path)


def sweep(*words: str) -> list[Run]:
    """Run every cell of a sweep, one after another, each in a process of its own; returns them in their order.

    ``words`` are those of ``python run.py -m``; one without ``=`` is a sweep file:
    ``sweep("table5", "scale=cpu", "seed=0,1")`` or ``sweep("embed=e64,e128", "share=all,none")``.

    A cell that fails does not stop the others. Raises ConfigError before the first cell for what is wrong, and
    UserError after the last one where not all are finished. A script calls this below
    ``if __name__ == "__main__":``, since its processes import the script.
    """
    from albert_ablate.door.cells import expand, read_command_line

    launching = [word for word in words if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if launching:
        raise ConfigError(f"{launching[0]}: in Python, cells run one after another. Launchers: albert-ablate sweep.")
    files = [word for word in words if "=" not in word]
    named = [f"sweep={','.join(files)}"] if files else []
    read = read_command_line([*named, *(word for word in words if "=" in word)])
    cells = expand(read)
    from albert_ablate.record.outcome import (
        explaining_disk_errors,
    )  # after the settings are found good: torch loads slowly
    from albert_ablate.sweeping.engine import run_sweep
    from albert_ablate.sweeping.gpus import local_precision
    from albert_ablate.sweeping.record import records, standings

    name, paths = read.name or f"grid-{len(cells)}", cells[0].config.paths
    with explaining_disk_errors(paths.runs, paths.cache):
        code = run_sweep(name, cells, read.rerun, _launched, True, local_precision)
    record = next(file for file in reversed(records(Path(paths.runs))) if read_json(file)["name"] == name)
    if code:
        reasons = [f"{one.label}: {one.reason}" for one in standings(record) if one.state != "finished"]
        raise UserError(
            f"{len(reasons)} of {len(cells)} cells are not finished; the same call runs them again. The first is "
            f"{reasons[0]}"
        )
    return [Run(Path(paths.runs) / cell["folder"]) for cell in read_json(record)["cells"]]


def _launched(cells: "Sequence[Cell]") -> "list[Outcome]":
    from albert_ablate.door.compose import paper_setup
    from albert_ablate.sweeping.process import run_in_process

    return [run_in_process(cell.config, paper_setup(cell.config)) for cell in cells]


def load(run_folder: Path | str, device: Literal["cpu", "cuda", "auto"] = "cpu") -> "LoadedRun":
    """The newest checkpoint of a run, trained here or imported, ready to be asked. Raises UserError."""
    from albert_ablate.commands.given import open_run
    from albert_ablate.loading import LoadedRun

    return LoadedRun(open_run(Path(run_folder)), device)


def load_runs(*places: Path | str) -> pd.DataFrame:
    """Every run under the given folders, a row each; ``docs/analysis.md`` has the columns. Raises NoRunsError."""
    from albert_ablate.analysis.read.runs import load_runs

    return load_runs(*places)


def report(path: Path | str, out: Path | str) -> Path:
    """Write tables, figures and verdicts of the runs under ``path`` to the folder ``out``; returns the page to open.

    Raises UserError: no runs, or a folder that cannot be written or holds something else.
    """
    from albert_ablate.analysis.report import report_on

    return report_on([path], Path(out))[1]
