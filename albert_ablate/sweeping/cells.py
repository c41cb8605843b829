"""A sweep's cells, their names for people, and their run folders."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from albert_ablate.axes import AXES
from albert_ablate.config.identity import readable_name
from albert_ablate.config.schema import RunConfig, RuntimeConfig
from albert_ablate.errors import UserError
from albert_ablate.files import digest
from albert_ablate.record.folder import RunFolder, standing_of

_ALIASES = {"warm_start.layers": "after"}
_SHAPE = ("model.name", "model.hidden", "model.layers", "model.heads", "model.intermediate")
#: Override keys that a run's readable name already shows; one dropout rate stands for both.
_IN_NAME = (*(key for axis in AXES for key in (axis.group, axis.path)), "seed", "model", "model.attention_dropout")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    config: RunConfig
    overrides: tuple[str, ...]  # what ``python run.py`` needs to run this cell alone
    rows: tuple[str, ...]  # the sweep files that list it


@dataclass(frozen=True)
class Stand:
    """How far a cell is."""

    state: str
    saved: tuple[
        tuple[bool, int], ...
    ]  # of pretraining and of each fine-tuning: finished, step of the newest checkpoint
    status: dict[str, Any] | None  # what the state is of

    @property
    def reason(self) -> str:
        """Of a failure or a stop."""
        return str((self.status or {}).get("reason") or "")

    def asked_since(self, before: "Stand") -> bool:
        """Whether its process has said since then that it was asked to stop."""
        return self.status != before.status and (self.status or {}).get("state") == "preempted"


@dataclass(frozen=True)
class Placed:
    """A cell whose data are prepared, so that its identity and folder are known, or why they are not."""

    cell: Cell
    label: str
    folder: RunFolder | None
    units: tuple[RunFolder, ...] = ()  # its fine-tunings
    problem: UserError | None = None

    def state(self) -> str:
        """Of pretraining and fine-tunings together; a cell that cannot run has failed."""
        return "failed" if self.folder is None else standing_of(self.folder, self.units)[0]

    def stand(self) -> Stand:
        """How far the cell is now."""
        assert self.folder is not None
        folders = (self.folder, *self.units)
        saved = tuple((folder.state() == "finished", folder.saved_step()) for folder in folders)
        state, status = standing_of(self.folder, self.units)
        return Stand(state, saved, status)


def labels(cells: Sequence[Cell]) -> list[str]:
    """A short name for each cell, no two alike: axes, model and seed, then what else tells it from the others."""
    settings = [dict(word.split("=", 1) for word in cell.overrides if "=" in word) for cell in cells]
    keys = {key: None for found in settings for key in found}
    varying = [k for k in keys if k not in _IN_NAME and len({found.get(k) for found in settings}) > 1]
    hidden = _SHAPE if "model.name" in varying else ()  # a model's name says what its shape is
    named: list[str] = []
    seen: Counter[str] = Counter()
    for cell, found in zip(cells, settings, strict=True):
        more = [
            f"{_ALIASES.get(k, k.rpartition('.')[2])}={found[k]}" for k in varying if k in found and k not in hidden
        ]
        label = " ".join([readable_name(cell.config), *more])
        seen[label] += 1
        named.append(f"{label} #{seen[label]}" if seen[label] > 1 else label)
    return named


def place(cells: Sequence[Cell], precision_of: Callable[[RuntimeConfig], str]) -> list[Placed]:
    """Prepare each distinct corpus and tokenizer once and find every cell's folder.

    Raises ConfigError where ``precision_of`` does: a device that is not there is wrong for the sweep.
    """
    from albert_ablate.data.prepare import Prepared, prepare_data, require_documents
    from albert_ablate.experiment import run_folder
    from albert_ablate.tasks.units import plan_units

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
        found = known[key]
        if isinstance(found, UserError):
            raise found
        require_documents(config, found)
        return found

    placed = []
    for cell, label, precision in zip(cells, labels(cells), precisions, strict=True):
        try:
            folder = run_folder(cell.config, prepared_for(cell.config), precision)
            units = tuple(unit.folder for unit in plan_units(cell.config, folder, precision))
            placed.append(Placed(cell, label, folder, units))
        except UserError as error:
            placed.append(Placed(cell, label, None, problem=error))
    return placed


def for_launch(cell: Cell, threads: int | None) -> list[str]:
    """Overrides of a job. ``threads`` are its share of the processor where several jobs divide it."""
    words = list(cell.overrides)
    if threads is not None and cell.config.runtime.threads is None:
        words.append(f"runtime.threads={threads}")
    return words
