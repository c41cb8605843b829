"""Asks the tasks of a run after its training, where its settings say so (``kshot.ask``)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import ConfigError
from albert_ablate.files import digest
from albert_ablate.prompting.models import predicts_next, room_of
from albert_ablate.prompting.planning import NUMERICS, Asked, plan_asked, plan_units
from albert_ablate.prompting.units import Read, collect, evaluate_all, no_memory, read_all
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.outcome import recorded
from albert_ablate.tasks.masked_words import predicts_masked_words
from albert_ablate.tasks.planning import run_identity
from albert_ablate.training.machine import Machine


@dataclass(frozen=True)
class Asking:
    """The tasks that a run asks after its training: located, not read.

    The names of its evaluations depend on the last checkpoint. So that a sweep knows of them before, ``folder`` holds
    the state of all together.
    """

    asked: tuple[Asked, ...] = ()
    folder: RunFolder | None = None  # None if nothing is asked

    @property
    def folders(self) -> list[RunFolder]:
        """The folder, if anything is asked."""
        return [] if self.folder is None else [self.folder]

    def read(self, config: RunConfig, tokenizer: Tokenizer, again: bool = False) -> dict[str, Read]:
        """Task -> its questions; empty where all is done, except with ``again``. Raises UserError."""
        waiting = [folder for folder in self.folders if again or folder.state() != "finished"]
        return read_all(self.asked, tokenizer, room_of(config)) if waiting else {}

    def ask(
        self, config: RunConfig, run: RunFolder, read: Mapping[str, Read], tokenizer: Tokenizer, machine: Machine
    ) -> None:
        """Score the trained run on every task. Finished evaluations are kept. Raises UserError after the last one."""
        if self.folder is None or self.folder.state() == "finished":
            return
        with recorded(self.folder, no_memory(config), config.runtime.time_limits):
            self.folder.set_status("running")
            evaluate_all(config, run, plan_units(config, run, self.asked), read, tokenizer, machine)
            collect(run)  # also what a process did that ended right after its last evaluation
            self.folder.set_status("finished")


def plan_asking(config: RunConfig, run: RunFolder) -> Asking:
    """What ``config`` asks of ``run``, which need not be trained yet.

    Raises UserError for missing data or templates, and for a method whose models predict no tokens.
    """
    kshot = config.kshot
    if kshot.ask == "command" or not config.has_tasks:
        return Asking()
    if not predicts_next(config) and not predicts_masked_words(config, run):
        raise ConfigError(
            f"kshot.ask={kshot.ask} with method={config.method.name}: its models predict no tokens, so they give no "
            "probability of an option. Use kshot.ask=command."
        )
    asked = plan_asked(config, run)
    settings = [[one.name, one.data, asdict(one.template), one.rules, one.settings] for one in asked]
    values = [NUMERICS, run_identity(run), settings, kshot.k, kshot.seeds, kshot.balanced, kshot.pll, room_of(config)]
    return Asking(tuple(asked), RunFolder(run.path / "kshot", f"asked-{digest(values, 8)}"))
