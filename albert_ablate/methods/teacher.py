"""The teacher of a student: a finished run, or masked LM with the student's settings, which is trained first."""

from dataclasses import replace
from pathlib import Path

from albert_ablate.axes import METHOD, MethodName
from albert_ablate.config.parse import parse
from albert_ablate.config.recorded import completed, read_recorded
from albert_ablate.config.schema import RunConfig
from albert_ablate.errors import ConfigError
from albert_ablate.methods.parents import Parent, as_word, named_after
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.manifest import Manifest

#: The run that a student learns from.
TEACHER = "teacher"


def teacher_of(config: RunConfig) -> Parent:
    """The teacher of a student with the settings ``config``. Raises UserError for a run that cannot be read."""
    folder = config.method.teacher
    if folder is None:
        return _trained_first(config)
    path = Path(folder).expanduser()
    settings = recorded_settings(path / "config.yaml", config)
    return Parent(TEACHER, settings, {}, path, "method.teacher", config.method.teacher_run)


def recorded_settings(path: Path, others: RunConfig) -> RunConfig:
    """The settings of a run from its ``config.yaml``, without tasks; what it lacks comes from ``others``.

    Raises RunFolderError if the file is damaged, ConfigError for settings that this version cannot use.
    """
    values = completed(read_recorded(path), others.as_dict())
    return parse(values | {group: others.as_dict()[group] for group in ("task", "runtime", "tracker")} | {"tasks": {}})


def _trained_first(config: RunConfig) -> Parent:
    """Masked LM with the student's settings, ``teacher_depth`` and ``teacher_width`` as large."""
    method, m = config.method, config.model
    layers, hidden = round(m.layers * method.teacher_depth), round(m.hidden * method.teacher_width)
    size = config.embed.size
    model = replace(
        m,
        name=named_after(m, layers, hidden),
        layers=layers,
        hidden=hidden,
        intermediate=round(m.intermediate * method.teacher_width),
        block_width=None if m.block_width is None else round(m.block_width * method.teacher_width),
    )
    settings = {path.partition(".")[2]: value for path, value in METHOD.beside.items()}
    masking = (
        replace(config.masking, draw="spans", smoothing=0.7) if config.masking.draw == "smoothed" else config.masking
    )
    embed = replace(config.embed, size=hidden if size == m.hidden else size)  # E = H stays E = H
    groups = min(config.share.groups, layers)
    teacher = replace(
        config,
        method=replace(method, **settings, name=MethodName.MLM),
        model=model,
        embed=embed,
        masking=masking,
        share=replace(config.share, groups=groups),
        init=replace(config.init, weights="random", run_id=None) if config.init.continues else config.init,
    )
    changed = {"method": str(MethodName.MLM), "masking.draw": masking.draw, "masking.smoothing": str(masking.smoothing)}
    changed |= {f"model.{key}": str(getattr(model, key)) for key in ("name", "layers", "hidden", "intermediate")}
    changed |= {} if m.block_width is None else {"model.block_width": str(model.block_width)}
    changed |= {f"method.{key}": as_word(value) for key, value in settings.items()}
    changed |= {"init.weights": "random"} if config.init.continues else {}
    changed |= {"embed": "full"} if embed.size == hidden else {"embed.size": str(embed.size)}
    return Parent(TEACHER, teacher, changed)


def require_same_text(config: RunConfig, teacher: RunConfig) -> None:
    """Raise ConfigError unless the teacher knows as many pieces, and enough positions for the student's pairs."""
    ours, theirs = config.tokenizer.vocab_size, teacher.tokenizer.vocab_size
    if ours != theirs:
        raise ConfigError(
            f"tokenizer.vocab_size={ours}: the teacher has {theirs} pieces. Student and teacher need one tokenizer; "
            f"{with_tokenizer_of(config)}."
        )
    if config.pairs.max_length > teacher.model.max_positions:
        raise ConfigError(
            f"pairs.max_length={config.pairs.max_length}: the teacher has only {teacher.model.max_positions} "
            "positions. Shorten the sequences."
        )


def has_masked_lm_head(teacher: Parent) -> bool:
    """Whether the teacher has a masked-LM head that was trained on masked text."""
    if not teacher.config.method.name.reads_masks:
        return False
    if teacher.folder is None:
        return True
    return RunFolder.at(teacher.folder).load("manifest.json", Manifest).came_with_masked_lm_head


def with_tokenizer_of(config: RunConfig) -> str:
    """What the user may do about a student that has another tokenizer than its teacher."""
    return (
        f"give the student the file in {config.method.teacher} (tokenizer.model_path) with the settings of the group "
        "tokenizer in its config.yaml, or another teacher"
    )
