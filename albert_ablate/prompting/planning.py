"""The units of k-shot evaluation that a run's settings ask for, before anything is scored."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from albert_ablate.config.kshot import RuleName
from albert_ablate.config.schema import RunConfig
from albert_ablate.config.tasks import TaskConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import ConfigError
from albert_ablate.files import digest
from albert_ablate.prompting.bigram import Bigram, bigram_of
from albert_ablate.prompting.models import predicts_next, room_of
from albert_ablate.prompting.pairs import NAME, locate_pairs, read_pairs
from albert_ablate.prompting.template import Template, load_template, require_fitting
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.load import locate
from albert_ablate.tasks.planning import run_identity
from albert_ablate.tasks.questions import Questions, read_questions
from albert_ablate.tasks.texts.examples import limited
from albert_ablate.training.checkpoint import newest

#: Raise when the same settings would give other scores.
NUMERICS = 1
#: Settings of a task that only its fine-tuning reads, or that name its files, whose content counts.
_UNREAD = (
    "name", "hub", "train_file", "dev_file", "recipe", "learning_rate", "batch_size", "epochs", "steps", "warmup_steps",
    "max_length", "dropout", "classifier_dropout", "class_weights", "choose_by",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A task whose questions are asked: located, not read."""

    name: str
    template: Template
    rules: tuple[RuleName, ...]
    data: str  # fingerprint
    settings: dict[str, Any]  # of the task, as far as they count
    #: (tokenizer, most tokens of an option) -> its questions, and how many were left out. Raises UserError.
    read: Callable[[Tokenizer, int], tuple[Questions, dict[str, int]]]
    demonstrates: bool = True  # whether there are training questions
    #: The bigram model whose preferences are shown beside those of the run's, from the run's tokenizer; None without.
    bigram: Callable[[Tokenizer], Bigram | None] = lambda _: None


@dataclass(frozen=True)
class Unit:
    """One task with one number of demonstrations and one seed of their drawing."""

    asked: Asked
    k: int
    seed: int | None  # None without demonstrations
    folder: RunFolder
    group: str
    counted: dict[str, Any]  # the settings that change the scores


def plan_asked(config: RunConfig, run: RunFolder) -> list[Asked]:
    """Every task of ``config``, with its data located. Raises UserError for missing data or templates."""
    kshot = config.kshot
    if kshot.template is not None and len(config.tasks) + (kshot.minimal_pairs is not None) > 1:
        raise ConfigError(f"kshot.template={kshot.template}: a template fits one task. Ask the tasks one at a time.")
    asked = [_of_task(config, task) for task in config.tasks.values()]
    if kshot.minimal_pairs is not None:
        asked.append(_of_pairs(config, run))
    for one in asked:
        _demonstrations(config, one)
    return asked


def _demonstrations(config: RunConfig, asked: Asked) -> list[int]:
    """The numbers of demonstrations that the task allows. Raises ConfigError if there is none."""
    counts = [k for k in dict.fromkeys(config.kshot.k) if k == 0 or asked.demonstrates]
    if not counts:
        raise ConfigError(f"kshot.k={list(config.kshot.k)}: task={asked.name} has no demonstrations. Use kshot.k=[0].")
    return counts


def plan_units(config: RunConfig, run: RunFolder, asked: Sequence[Asked]) -> list[Unit]:
    """Every number of demonstrations and seed of each task, for a run that is trained."""
    units = []
    for one in asked:
        for k in _demonstrations(config, one):
            seeds = dict.fromkeys(config.kshot.seeds) if k else (None,)
            units += [_unit(config, run, one, k, seed) for seed in seeds]
    return units


def _unit(config: RunConfig, run: RunFolder, asked: Asked, k: int, seed: int | None) -> Unit:
    further = [rule for rule in ("null", "calibrated") if rule in asked.rules]  # they need passes of their own
    counted: dict[str, Any] = {"task": asked.settings, "further": further}
    if k:
        counted["balanced"] = config.kshot.balanced
    if not predicts_next(config):
        counted["pll"] = config.kshot.pll
    values = [NUMERICS, run_identity(run), newest(run.checkpoints).name, asked.name, asked.data, asdict(asked.template)]
    values += [k, counted, room_of(config)]
    name = f"{asked.name}-k{k}" + ("" if seed is None else f"-s{seed}")
    folder = RunFolder(run.path / "kshot", f"{name}-{digest([*values, seed], 8)}")
    return Unit(asked, k, seed, folder, digest(values, 8), counted)


def _of_task(config: RunConfig, task: TaskConfig) -> Asked:
    template = load_template(task.name, config.kshot.template)  # wrong ones are refused before files are looked for
    source, limit = locate(config.task, task), config.kshot.examples
    where = f"task={task.name}" if config.kshot.template is None else f"kshot.template={config.kshot.template}"

    def read(tokenizer: Tokenizer, room: int) -> tuple[Questions, dict[str, int]]:
        found = read_questions(source)
        require_fitting(template, found.fields, found.classes, where)
        return Questions(found.training, limited(list(found.dev), limit, "kshot"), found.classes), {}

    settings = {key: value for key, value in asdict(task).items() if key not in _UNREAD} | {"examples": limit}
    return Asked(task.name, template, _rules(config, template, where), source.fingerprint, settings, read)


def _of_pairs(config: RunConfig, run: RunFolder) -> Asked:
    assert config.kshot.minimal_pairs is not None
    source = locate_pairs(config.kshot.minimal_pairs, config, run)
    template = load_template(NAME, config.kshot.template)
    require_fitting(template, (), (), f"task={NAME}")

    def read(tokenizer: Tokenizer, room: int) -> tuple[Questions, dict[str, int]]:
        return read_pairs(source, tokenizer, room)

    def bigram(tokenizer: Tokenizer) -> Bigram | None:
        return bigram_of(config, run, tokenizer)

    settings = {key: value for key, value in asdict(source.settings).items() if key != "file"}
    rules = _rules(config, template, f"task={NAME}")
    return Asked(NAME, template, rules, source.fingerprint, settings, read, False, bigram)


def _rules(config: RunConfig, template: Template, where: str) -> tuple[RuleName, ...]:
    """The rules that the template allows. Raises ConfigError if there is none."""
    unused = {"null": template.neutral is None, "calibrated": not template.fields}
    rules = tuple(rule for rule in dict.fromkeys(config.kshot.rules) if not unused.get(rule))
    if not rules:
        raise ConfigError(
            f"kshot.rules={list(config.kshot.rules)}: {where} has a template without "
            f"{'a neutral prompt' if template.neutral is None else 'fields'}. Add sum, token or byte."
        )
    return rules
