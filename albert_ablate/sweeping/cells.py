"""A sweep's cells, their labels and their run folders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from albert_ablate.config.identity import readable_name
from albert_ablate.config.labels import run_labels
from albert_ablate.config.schema import RunConfig, RuntimeConfig
from albert_ablate.errors import UserError
from albert_ablate.files import digest
from albert_ablate.record.folder import RunFolder, standing_of


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    config: RunConfig
    overrides: tuple[str, ...]  # what ``python run.py`` needs to run this cell alone
    rows: tuple[str, ...]  # the sweep files that list it
    reference: bool = False  # whether it belongs to the arm that a report compares the others with


@dataclass(frozen=True)
class Stand:
    """Progress of a cell."""

    state: str
    saved: tuple[tuple[bool, int], ...]  # pretraining and each fine-tuning: (finished, step of the newest checkpoint)
    status: dict[str, Any] | None  # ``status.json`` of the run or unit that determines the state

    @property
    def reason(self) -> str:
        """Reason of a failure or a stop, or empty."""
        return str((self.status or {}).get("reason") or "")

    def asked_since(self, before: "Stand") -> bool:
        """Whether its process has recorded a stop signal after ``before``."""
        return self.status != before.status and (self.status or {}).get("state") == "preempted"


@dataclass(frozen=True)
class Placed:
    """A cell with its run folder, known once its data are prepared, or with the reason why it has none."""

    cell: Cell
    label: str
    folder: RunFolder | None
    units: tuple[RunFolder, ...] = ()  # its fine-tunings, and what it asks
    problem: UserError | None = None

    def state(self) -> str:
        """State of pretraining and fine-tunings together; ``failed`` for a cell that cannot run."""
        return "failed" if self.folder is None else standing_of(self.folder, self.units)[0]

    def stand(self) -> Stand:
        """Current progress of the cell."""
        assert self.folder is not None
        folders = (self.folder, *self.units)
        saved = tuple((folder.state() == "finished", folder.saved_step()) for folder in folders)
        state, status = standing_of(self.folder, self.units)
        return Stand(state, saved, status)


def labels(cells: Sequence[Cell]) -> list[str]:
    """A distinct label for each cell: the settings that vary; the readable name of its run where none does."""
    shown = run_labels([cell.config.as_dict() for cell in cells])
    return [label or readable_name(cell.config) for label, cell in zip(shown, cells, strict=True)]


def assign_folders(cells: Sequence[Cell], precision_of: Callable[[RuntimeConfig], str]) -> list[Placed]:
    """Prepare each distinct corpus and tokenizer once and determine every cell's run folder.

    Raises ConfigError if ``precision_of`` does, as a missing device concerns the whole sweep.
    """
    from albert_ablate.data.prepare import Prepared, prepare_data, require_documents
    from albert_ablate.experiment import corpus_of, run_folder
    from albert_ablate.prompting.asking import plan_asking
    from albert_ablate.tasks.planning import plan_units

    precisions = [precision_of(cell.config.runtime) for cell in cells]
    known: dict[str, Prepared | UserError] = {}

    def prepared_for(config: RunConfig) -> Prepared:
        values = config.as_dict()
        key = digest([values["data"], values["tokenizer"]])
        if key not in known:
            try:
                known[key] = prepare_data(config)
            except UserError as error:
                known[key] = error
        prepared = known[key]
        if isinstance(prepared, UserError):
            raise prepared
        require_documents(config, prepared)
        return prepared

    placed = []
    for cell, label, precision in zip(cells, labels(cells), precisions, strict=True):
        try:
            prepared = prepared_for(cell.config)
            config = prepared.settled(cell.config)
            folder = run_folder(config, prepared, precision)
            units = [unit.folder for unit in plan_units(config, folder, precision, corpus_of(prepared))]
            placed.append(Placed(cell, label, folder, (*units, *plan_asking(config, folder).folders)))
        except UserError as error:
            placed.append(Placed(cell, label, None, problem=error))
    return placed


def for_launch(cell: Cell, threads: int | None) -> list[str]:
    """Overrides of a cell's job. ``threads``: its share of the cores if several jobs divide them, else None."""
    overrides = list(cell.overrides)
    if threads is not None and cell.config.runtime.threads is None:
        overrides.append(f"runtime.threads={threads}")
    return overrides
