"""The door: the only module that imports hydra and omegaconf.

``main`` is what ``run.py`` calls. A cell's failure is reported in words and kept in its status;
it never stops the other cells of a multirun, and the process ends with the worst exit code.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from albert_ablate.config import RunConfig, parse
from albert_ablate.errors import ConfigError, PreemptedError, UserError

#: The four sizes of the paper's Table 1.
PAPER_MODELS = ("base", "large", "xlarge", "xxlarge")

CONF = Path(__file__).resolve().parent.parent / "conf"


def to_run_config(composed: DictConfig) -> RunConfig:
    """Composed Hydra config -> typed, validated dataclasses. Raises ConfigError."""
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from None
    assert isinstance(values, dict)
    return parse({str(k): v for k, v in values.items()})


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration that ``python run.py`` would run with these overrides."""
    if GlobalHydra.instance().is_initialized():
        return to_run_config(hydra_compose("config", list(overrides)))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_run_config(hydra_compose("config", list(overrides)))


def paper_setup(config: RunConfig) -> RunConfig:
    """The paper preset with the axes of ``config``, in its own size where that is one of the paper's."""
    model = config.model.name if config.model.name in PAPER_MODELS else "base"
    share, objective = config.share.strategy.value, config.objective.name.value
    return compose(["scale=paper", f"model={model}", f"share={share}", f"objective={objective}"])


def main() -> None:
    """Entry point of ``run.py``. Exit code 0, or that of the worst failure (2: wrong settings)."""
    codes: list[int] = []

    def task(composed: DictConfig) -> Any:
        try:
            config = to_run_config(composed)
            from albert_ablate.experiment import run_cell  # after the settings are found good: torch loads slowly

            codes.append(run_cell(config, paper_setup(config)))
        except UserError as error:
            print(f"\n{_words(error)}\n", file=sys.stderr)
            codes.append(error.exit_code)
            if isinstance(error, PreemptedError):
                sys.exit(error.exit_code)  # asked to stop: ends a multirun too
        except KeyboardInterrupt:
            print("\nInterrupted before training; what is cached stays.", file=sys.stderr)
            sys.exit(PreemptedError.exit_code)

    entry = hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(task)
    try:
        entry()
    except SystemExit as stop:
        # Hydra refused the command line itself (an unknown group, option or key) before any cell.
        sys.exit(2 if stop.code == 1 and not codes else stop.code)
    sys.exit(max(codes, default=0))


def _words(error: UserError) -> str:
    if isinstance(error, ConfigError):
        return "Nothing was run; the settings need a change:\n" + "\n".join(f"  - {p}" for p in error.problems)
    return str(error)
