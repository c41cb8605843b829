"""The run whose fine-tuning teaches another run's: which one it is, with which settings, and whether it fits."""

from dataclasses import dataclass, replace
from pathlib import Path

from albert_ablate.config.identity import identity, readable_name
from albert_ablate.config.parse import parse
from albert_ablate.config.schema import RunConfig
from albert_ablate.config.tasks import (  # fmt: skip
    AUGMENT,
    DISTIL,
    AugmentConfig,
    DistilConfig,
    GlueConfig,
    QuestConfig,
    TaskConfig,
    TextConfig,
)
from albert_ablate.errors import ConfigError
from albert_ablate.methods import method_of
from albert_ablate.methods.teacher import TEACHER, recorded_settings
from albert_ablate.model.imitation import has_scores
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.manifest import Manifest
from albert_ablate.tasks.recipe import max_length
from albert_ablate.tasks.texts.glue import GLUE

#: The value of ``task.distil.teacher`` that means the teacher of the pretraining.
PRETRAINING = "pretraining"


@dataclass(frozen=True)
class Corpus:
    """What a run that is not trained yet will read; a finished run's manifest says it too."""

    tokens: str  # fingerprint of the training tokens
    tokenizer: str  # fingerprint


@dataclass(frozen=True)
class TeacherRun:
    """A pretrained run that is fine-tuned as a teacher."""

    config: RunConfig  # with the student's tasks, without distillation and augmentation
    run: RunFolder


def locate_teacher(config: RunConfig, run: RunFolder, precision: str, corpus: Corpus | None) -> TeacherRun | None:
    """The teacher of the fine-tunings of ``run``, which has the settings ``config``; None without distillation.

    ``precision`` is that of the pretraining of a run that is not trained yet, and ``corpus`` its text. Raises
    ConfigError if there is no such teacher, or if the student cannot learn from it.
    """
    named = config.task.distil.teacher
    if named is None:
        return None
    if named == PRETRAINING:
        settings, folder = teacher_of_pretraining(config, run, precision, corpus, f"task.distil.teacher={named}")
    else:
        folder = RunFolder.at(Path(named))
        settings = _finished(folder, f"task.distil.teacher={named}", config)
    try:
        teacher = TeacherRun(_as_teacher(settings, config), folder)
    except ConfigError as error:
        raise ConfigError([f"the teacher {folder.name}: {problem}" for problem in error.problems]) from None
    _require_fit(config, teacher.config, named)
    _require_same_tokenizer(teacher, _recorded(run, precision, corpus)[0], named)
    return teacher


def teacher_of_pretraining(
    config: RunConfig, run: RunFolder, precision: str, corpus: Corpus | None, field: str
) -> tuple[RunConfig, RunFolder]:
    """The teacher that ``run`` learned from in pretraining, whose folder lies beside it unless the settings name it.

    Raises ConfigError, which begins with ``field``, if there is none. A teacher that ``run`` itself will train first
    need not exist.
    """
    parent = next((parent for parent in method_of(config).parents() if parent.role == TEACHER), None)
    if parent is None:
        raise ConfigError(f"{field}: method={config.method.name} has no teacher. Name a run, or leave it empty.")
    if parent.folder is not None:
        folder = RunFolder.at(parent.folder)
        return _finished(folder, f"method.teacher={config.method.teacher}", config), folder
    corpus, trained_in = _recorded(run, precision, corpus)
    if corpus is None:
        raise ConfigError(f"{field}: {run.name} does not record its text, so its teacher is not known. Name a run.")
    found = identity(parent.config, corpus.tokens, trained_in)
    names = sorted(path.name for path in run.path.parent.glob(f"[!.]*-{found}"))
    folder = RunFolder(run.path.parent, names[0] if names else f"{readable_name(parent.config)}-{found}")
    if run.state() == "finished" and folder.state() != "finished":
        raise ConfigError(
            f"{field}: the teacher of {run.name} is not beside it: {folder.path} is {folder.state()}. Copy it there, "
            "or name a run."
        )
    return parent.config, folder


def _recorded(run: RunFolder, precision: str, corpus: Corpus | None) -> tuple[Corpus | None, str]:
    """Corpus and number format of the run's pretraining: as recorded, or as given for a run that is not trained yet."""
    if not (run.path / "manifest.json").is_file():
        return corpus, precision
    manifest = run.load("manifest.json", Manifest)
    tokens, tokenizer = manifest.data.tokens.fingerprint, manifest.data.tokenizer
    if tokens and tokenizer is not None:
        corpus = Corpus(tokens, str(tokenizer.fingerprint))
    return corpus, manifest.precision or precision


def _finished(folder: RunFolder, field: str, config: RunConfig) -> RunConfig:
    """The settings of a finished run. Raises ConfigError if it is none."""
    if not (folder.path / "config.yaml").is_file():
        raise ConfigError(f"{field}: no run folder. Name one, such as runs/e128-all-sop-nano-s0-..., or pretraining.")
    if folder.state() != "finished":
        raise ConfigError(f"{field}: that run is {folder.state()}. A teacher must be finished; run it first.")
    return recorded_settings(folder.path / "config.yaml", config)


def _as_teacher(settings: RunConfig, config: RunConfig) -> RunConfig:
    """``settings`` with the tasks of the student ``config``, fine-tuned in the usual way, with its lowest seed.

    Raises ConfigError if the student's settings of tasks do not suit the teacher.
    """
    common = replace(
        config.task,
        start="pretrained",
        seeds=(min(config.task.seeds),),
        keep_weights=True,
        distil=DistilConfig(teacher=None, **DISTIL),
        augment=AugmentConfig(copies=0, masked_lm=None, **AUGMENT),
    )
    teacher = replace(
        settings.without_tasks(), task=common, tasks=config.tasks, paths=config.paths, runtime=config.runtime,
        tracker=config.tracker, rerun="missing",
    )  # fmt: skip
    return parse(teacher.as_dict())


def _require_fit(config: RunConfig, teacher: RunConfig, named: str) -> None:
    """Raise ConfigError if the student cannot learn from the teacher.

    Its layers, heads or sequences have no counterpart there, or its task gives nothing to learn.
    """
    field, distil = f"task.distil.teacher={named}", config.task.distil
    ours, theirs = config.model, teacher.model
    if distil.epochs and (distil.hidden_weight or distil.attention_weight):
        if theirs.layers < ours.layers or (distil.layer_map == "uniform" and theirs.layers % ours.layers):
            raise ConfigError(
                f"{field}: it has {theirs.layers} layers, and the student {ours.layers}. "
                f"task.distil.layer_map={distil.layer_map} needs "
                f"{'a multiple' if distil.layer_map == 'uniform' else 'as many or more'}. Take another teacher, "
                "task.distil.layer_map=top, or task.distil.epochs=0."
            )
        if distil.attention_weight and not (has_scores(config.architecture()) and has_scores(teacher.architecture())):
            raise ConfigError(
                f"{field}: layers of this type have no attention scores that can be compared, in the student or in the "
                "teacher. Set task.distil.attention_weight=0."
            )
        if distil.attention_weight and theirs.heads != ours.heads:
            raise ConfigError(
                f"{field}: it has {theirs.heads} attention heads, and the student {ours.heads}. Attention is compared "
                "head by head. Take another teacher, or task.distil.attention_weight=0."
            )
    for task in config.tasks.values():
        if not distil.epochs and _has_numbers(task):
            raise ConfigError(
                f"task.distil.epochs=0 with task={task.name}: numbers are learned from their gold values, so nothing "
                "is learned from the teacher. Give the first stage epochs, or leave task.distil.teacher empty."
            )
        length = max_length(task, config.task.scaling, ours.max_positions)
        if length > theirs.max_positions:
            raise ConfigError(
                f"{field}: it has only {theirs.max_positions} positions for the {length} tokens of {task.name}. Set "
                f"tasks.{task.name}.max_length={theirs.max_positions}."
            )


def _has_numbers(task: TaskConfig) -> bool:
    """Whether the targets of a task are numbers."""
    if isinstance(task, GlueConfig):
        return GLUE[task.name].labels is None
    return isinstance(task, QuestConfig) or (isinstance(task, TextConfig) and task.kind == "text_regression")


def _require_same_tokenizer(teacher: TeacherRun, corpus: Corpus | None, named: str) -> None:
    """Raise ConfigError if the teacher reads other pieces than the student."""
    if not (teacher.run.path / "manifest.json").is_file():
        return  # it is trained first, on the student's text
    theirs = teacher.run.load("manifest.json", Manifest).data.tokenizer
    if corpus is None or theirs is None or theirs.fingerprint == corpus.tokenizer:
        return
    raise ConfigError(
        f"task.distil.teacher={named}: it reads another tokenizer's pieces. Student and teacher need one tokenizer: "
        f"pretrain the student with that of the teacher (tokenizer.model_path), or take another teacher."
    )
