"""Overrides -> ``RunConfig``, composed alone or on top of a run's recorded settings (part of the door)."""

import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from albert_ablate.axes import AXES, MethodName
from albert_ablate.config.parse import parse
from albert_ablate.config.recorded import completed, read_recorded
from albert_ablate.config.schema import CONF, RunConfig
from albert_ablate.door.parent import from_parent
from albert_ablate.door.teacher import with_identity
from albert_ablate.door.words import REFUSALS, explained, initialised, readable, short_message
from albert_ablate.errors import ConfigError, RunFolderError, did_you_mean

#: The four sizes of the paper's Table 1.
PAPER_MODELS = ("base", "large", "xlarge", "xxlarge")


#: The settings of an imported checkpoint that it does not say itself.
IMPORTED = ("scale=paper", "data=embedded")

_ABSENT = object()
#: Where words shorten a budget to less than the preset's warm-up, and say nothing of that: its share of the steps.
_SHORT_WARMUP = 0.1


def to_run_config(composed: DictConfig, words: Sequence[str]) -> RunConfig:
    """Hydra's config, composed of ``words`` -> typed, validated dataclasses. Raises ConfigError."""
    try:
        values = OmegaConf.to_container(_continuing(composed, words), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from None
    assert isinstance(values, dict)
    _shorten_warmup(values["budget"], words)
    if values["method"].get("name") in [name.value for name in MethodName if name.distils]:
        values["method"] = with_identity(values["method"])
    config = parse({str(k): v for k, v in values.items()})
    if config.kshot.ask != "command" and not config.has_tasks:
        raise ConfigError(
            f"kshot.ask={config.kshot.ask}: there is no task to ask. Give one, such as task=minimal_pairs or task=sst2."
        )
    if config.knowledge.reads_facts and not config.fine_tuned:
        raise ConfigError(
            f"knowledge={config.knowledge.name}: facts are read in fine-tuning only, and there is no task. Give a "
            "task, such as task=facts."
        )
    return config


def _continuing(composed: DictConfig, words: Sequence[str]) -> DictConfig:
    """``composed`` with the settings of the run that it continues. Raises UserError."""
    if OmegaConf.select(composed, "init.run") is None:
        return composed
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    taken = from_parent({str(k): v for k, v in plain.items()}, words, lambda: compose(IMPORTED))
    continued = deepcopy(composed)
    for name, value in taken.items():  # before it is resolved: embed=full means the width of the parent
        OmegaConf.update(continued, name, value)
    return continued


def _shorten_warmup(budget: Any, words: Sequence[str]) -> None:
    """Shorten the warm-up of the group ``budget`` if ``words`` shorten the budget alone."""
    said = {word.partition("=")[0].lstrip("+~") for word in words}
    steps, warmup = budget.get("steps"), budget.get("warmup_steps")
    if "budget.warmup_steps" not in said and isinstance(steps, int) and isinstance(warmup, int) and warmup >= steps:
        budget["warmup_steps"] = int(_SHORT_WARMUP * steps)


def shown(overrides: Sequence[str], path: Sequence[str], package: str | None, resolve: bool) -> str:
    """The settings of a run as YAML, whole or only the ``package``: the text of ``--cfg job``.

    ``path`` comes from ``searchpath``. Raises ConfigError for wrong overrides and an unknown package.
    """
    with initialised():
        try:
            composed = _continuing(hydra_compose("config", [*path, *overrides]), overrides)
            _shorten_warmup(composed.budget, overrides)
            part = composed if package in (None, "_global_") else OmegaConf.select(composed, package, default=_ABSENT)
            if part is _ABSENT:
                hint = did_you_mean(str(package), map(str, composed))
                raise ConfigError(f"--package {package}: there is no such group. {hint}".strip())
            return OmegaConf.to_yaml(part, resolve=resolve) if OmegaConf.is_config(part) else f"{part}\n"
        except REFUSALS as error:
            raise explained(overrides, error, path) from None


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration that ``python run.py`` would run with these overrides. Raises ConfigError."""
    return to_run_config(_composed(overrides), overrides)


def _composed(overrides: Sequence[str]) -> DictConfig:
    with initialised():
        try:
            return hydra_compose("config", readable(overrides))
        except REFUSALS as error:
            raise explained(overrides, error) from None


#: Groups that a fine-tuning composes anew; the rest is recorded with the run.
_TASK_KEYS = ("task", "tasks", "knowledge", "runtime", "tracker", "rerun")
FINE_TUNING_GROUPS = (*_TASK_KEYS, "paths")


def compose_for_run(recorded: Path, overrides: Sequence[str]) -> RunConfig:
    """A finished run's recorded settings, with the task settings of ``overrides``. Raises ConfigError."""
    taken = [*_TASK_KEYS, "kshot", *({_group(override) for override in overrides} & {"paths"})]
    return _composed_over(recorded, overrides, FINE_TUNING_GROUPS, taken, "Settings of a fine-tuning are")


#: Groups that a zero-, one- or few-shot evaluation composes anew.
_KSHOT_KEYS = ("task", "tasks", "kshot", "runtime", "rerun")
KSHOT_GROUPS = (*_KSHOT_KEYS, "paths")
#: A setting of several values that is given one.
_LISTED = re.compile(r"(kshot\.(?:k|seeds|rules))=(\w+)")


def compose_for_kshot(recorded: Path, overrides: Sequence[str]) -> RunConfig:
    """A finished run's recorded settings, with the settings of k-shot evaluation of ``overrides``. Raises ConfigError.

    ``kshot.k=4`` means ``kshot.k=[4]``.
    """
    if asking := next((override for override in overrides if override.partition("=")[0] == "kshot.ask"), None):
        raise ConfigError(
            f"{asking}: no effect on a finished run, whose tasks are asked by this command. Leave it out."
        )
    listed = [_LISTED.sub(r"\1=[\2]", override) if _LISTED.fullmatch(override) else override for override in overrides]
    if not any(override.startswith("task.pool=") for override in overrides):
        listed.append("task.pool=last")  # no head reads it, and with causal LM the default is refused
    taken = [*_KSHOT_KEYS, *({_group(override) for override in overrides} & {"paths"})]
    return _composed_over(recorded, listed, KSHOT_GROUPS, taken, "Settings of a k-shot evaluation are")


#: Groups that an evaluation of a finished run may compose anew.
_EVALUATION_KEYS = ("data", "evaluation", "pairs", "runtime", "paths")


def compose_evaluation(recorded: Path, overrides: Sequence[str]) -> RunConfig:
    """A finished run's recorded settings, with the groups of ``overrides`` composed anew. Raises ConfigError."""
    named = {_group(override) for override in overrides} | {"runtime"}
    return _composed_over(recorded, overrides, _EVALUATION_KEYS, sorted(named), "Settings of an evaluation are")


def _group(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").split(".")[0]


def _composed_over(
    recorded: Path, overrides: Sequence[str], allowed: Sequence[str], taken: Sequence[str], subject: str
) -> RunConfig:
    """The recorded settings, with the groups ``taken`` composed from ``overrides``. Raises ConfigError."""
    refused = [override for override in overrides if _group(override) not in allowed]
    if refused:
        known = ", ".join(f"{key}" if key in ("task", "rerun", "knowledge") else f"{key}.*" for key in allowed)
        raise ConfigError(f"{refused[0]}: the run is trained already. {subject} {known}.")
    run_settings = read_recorded(recorded)
    name = run_settings["scale"]["name"]
    scale = [f"scale={name}"] if (CONF / "scale" / f"{name}.yaml").is_file() else []
    try:
        composed = OmegaConf.to_container(_composed([*scale, *overrides]), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {short_message(error)}") from None
    assert isinstance(composed, dict)
    values = completed(run_settings, {str(k): v for k, v in composed.items()})
    try:
        return parse(values | {str(k): composed[k] for k in (*taken, "rerun")})
    except ConfigError as error:
        if any(re.split(r"\W", problem)[0] in taken for problem in error.problems):
            raise
        raise RunFolderError(
            f"{recorded}: this version cannot use the settings of the run: {' '.join(error.problems)} "
            "The commit that its manifest.json names can."
        ) from None


def paper_setup(config: RunConfig) -> RunConfig:
    """The paper preset with the axes of ``config``, at the size of ``config`` if the paper has it, else base."""
    model = config.model.name if config.model.name in PAPER_MODELS else "base"
    axes = [f"{axis.group}={axis.value(config)}" for axis in AXES if axis.labels]  # E is that of the paper's scale
    return compose(["scale=paper", f"model={model}", *axes])
