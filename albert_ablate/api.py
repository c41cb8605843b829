"""The Python interface: the names of ``import albert_ablate as aa``, described in ``docs/python.md``.

Mistakes that the user can fix, such as a wrong setting, are raised as ``UserError``. Its ``message`` says what to do.
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
    """A run and the files in its folder."""

    folder: Path

    @property
    def _files(self) -> RunFolder:
        return RunFolder(self.folder.parent, self.folder.name)

    @property
    def state(self) -> str:
        """The state, such as ``finished`` or ``failed``; ``missing`` if the run was never started."""
        return self._files.state()

    @property
    def results(self) -> Results:
        """Every measurement, as in ``results.json``. Raises FileNotFoundError if the run is not finished."""
        return self._files.load("results.json", Results)

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each log line of ``metrics.jsonl``: losses in nats, tokens, seconds."""
        return pd.DataFrame(self._files.metrics())

    def load(self) -> "LoadedRun":
        """The trained model with its tokenizer; the same as ``load(run.folder)``."""
        return load(self.folder)


def compose(*settings: str) -> RunConfig:
    """The configuration that these settings give on the command line: ``compose("embed=e64", "share=all")``.

    Raises ConfigError.
    """
    from albert_ablate.door.compose import compose

    return compose(settings)


def run(config: RunConfig) -> Run:
    """Train and evaluate one cell. An interrupted run is continued; a finished run is returned as it is.

    Raises UserError for faults in settings or data, divergence, lack of memory, and stop signals (Ctrl-C saves first).
    """
    from albert_ablate.door.compose import paper_setup
    from albert_ablate.experiment import run_cell

    return Run(run_cell(config, paper_setup(config)).path)


def sweep(*arguments: str) -> list[Run]:
    """Run the cells of a sweep one after another, each in a separate process; returns the runs in order of the cells.

    ``arguments`` are those of ``python run.py -m``. An argument without ``=`` names a sweep file:
    ``sweep("table5", "scale=cpu", "seed=0,1")`` or ``sweep("embed=e64,e128", "share=all,none")``.

    A cell that fails does not stop the others. Raises ConfigError before the first cell if a setting is wrong, and
    UserError after the last cell if not all are finished. A script must call this below
    ``if __name__ == "__main__":``, because the processes of the cells import the script.
    """
    from albert_ablate.door.cells import expand, read_command_line

    launching = [argument for argument in arguments if argument.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if launching:
        raise ConfigError(f"{launching[0]}: in Python, cells run one after another. Launchers: albert-ablate sweep.")
    files = [argument for argument in arguments if "=" not in argument]
    named = [f"sweep={','.join(files)}"] if files else []
    line = read_command_line([*named, *(argument for argument in arguments if "=" in argument)])
    cells = expand(line)
    # Imported after the settings are checked, because torch loads slowly.
    from albert_ablate.record.outcome import explaining_disk_errors
    from albert_ablate.sweeping.engine import run_sweep
    from albert_ablate.sweeping.gpus import local_precision
    from albert_ablate.sweeping.record import records, standings

    name, paths = line.name or f"grid-{len(cells)}", cells[0].config.paths
    with explaining_disk_errors(paths.runs, paths.cache):
        code = run_sweep(name, cells, line.rerun, _launched, True, local_precision, line.title, line.words)
    record = next(file for file in reversed(records(Path(paths.runs))) if read_json(file)["name"] == name)
    if code:
        reasons = [f"{cell.label}: {cell.reason}" for cell in standings(record) if cell.state != "finished"]
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
    """The model of a trained or imported run, from its newest checkpoint. Raises UserError."""
    from albert_ablate.commands.given import open_run
    from albert_ablate.loading import LoadedRun

    return LoadedRun(open_run(Path(run_folder)), device)


def load_runs(*folders: Path | str) -> pd.DataFrame:
    """A row for each run under ``folders``; ``docs/analysis.md`` describes the columns. Raises NoRunsError."""
    from albert_ablate.analysis.read.runs import load_runs

    return load_runs(*folders)


def report(path: Path | str, out: Path | str) -> Path:
    """Write tables, figures and verdicts of the runs under ``path`` to the folder ``out``; returns the page to open.

    Raises UserError if there are no runs, or if ``out`` cannot be written or holds other files.
    """
    from albert_ablate.analysis.report import report_on

    return report_on([path], Path(out))[1]
