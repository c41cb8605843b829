"""Opens a fine-tuning with its best weights, for commands that take it further."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_ablate.commands.finetune import tokenizer_of
from albert_ablate.commands.given import open_unit, refuse_paths_runs
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.compose import compose_for_run
from albert_ablate.errors import ConfigError
from albert_ablate.record.folder import RunFolder

if TYPE_CHECKING:
    from albert_ablate.tasks.answering import Answerer

#: Settings that say where files are and what computes; all others are recorded with the fine-tuning.
_OPEN = ("task.source", "task.data_dir", "knowledge.file", "runtime.", "paths.cache")
_OPEN_OF_TASK = ("hub", "train_file", "dev_file", "test_file")


@dataclass(frozen=True)
class OpenUnit:
    """A finished fine-tuning in memory."""

    run: RunFolder
    unit: RunFolder
    config: RunConfig  # of the run
    manifest: dict[str, Any]  # of the fine-tuning
    answerer: "Answerer"  # with the best weights


def load_unit(path: Path, settings: Sequence[str], on_cpu: bool = False) -> OpenUnit:
    """The fine-tuning in the folder ``path``; ``settings`` say where files of it are, if they were moved.

    Files of its task are read only for one of an older version. Raises UserError: it is none, it has no weights, or the
    files are not there or are not those of the fine-tuning.
    """
    run, unit = open_unit(path)
    refuse_paths_runs(settings)
    # After the checks: torch loads slowly.
    from albert_ablate.tasks.answering import answerer_of
    from albert_ablate.tasks.reread import manifest_of, settings_of
    from albert_ablate.training.machine import Machine
    from albert_ablate.training.precision import set_up

    manifest = manifest_of(unit)
    name = manifest["task"]
    allowed = (*_OPEN, *(f"tasks.{name}.{key}" for key in _OPEN_OF_TASK))
    for setting in settings:
        if not setting.lstrip("+~").startswith(allowed):
            raise ConfigError(
                f"{setting}: the settings of {unit.path} are recorded. Only files that were moved are named, such as "
                "task.data_dir=FOLDER, and runtime.* can be set."
            )
    config = compose_for_run(run.path / "config.yaml", [*settings_of(manifest), *settings])
    if on_cpu:
        config = replace(config, runtime=replace(config.runtime, device="cpu", precision="fp32"))
    set_up(config.runtime)
    given = {word.partition("=")[0].lstrip("+~") for word in settings}
    machine = Machine.of(config.runtime)
    answerer = answerer_of(config, unit, given.__contains__, tokenizer_of(run, config), machine)
    return OpenUnit(run, unit, config, manifest, answerer)
