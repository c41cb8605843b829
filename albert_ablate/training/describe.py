"""The manifest of a run."""

from collections.abc import Mapping
from typing import Any

from albert_ablate.config.deviations import deviations
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.methods import CONTINUED, method_of
from albert_ablate.methods.teacher import TEACHER
from albert_ablate.model.block_plan import share_seen
from albert_ablate.record import provenance
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.manifest import (
    Attention,
    Blocks,
    Code,
    Data,
    Deviation,
    Hardware,
    Imported,
    Manifest,
    Origin,
    Parameters,
    Teacher,
    Vocabulary,
)
from albert_ablate.record.results import Results, Training
from albert_ablate.training.budget import step_flops
from albert_ablate.training.machine import Machine


def describe_run(
    config: RunConfig,
    paper: RunConfig,
    name: str,
    run_id: str,
    data: dict[str, Any],
    machine: Machine,
    attention: Attention | None,
    parents: Mapping[str, RunFolder] | None = None,
) -> Manifest:
    """The manifest: everything that the numbers of this run depend on.

    ``data`` has the fields of ``manifest.Data``; ``paper`` is the paper's set-up for the same axes; ``attention`` is
    None on a CPU; ``parents``: role -> the finished run, such as a student's teacher.
    """
    per_step = step_flops(config)
    manifest = Manifest(
        identity=run_id,
        name=name,
        source=code(),
        packages=provenance.packages(),
        hardware=hardware(machine),
        precision=machine.precision,
        processes=machine.world.size,
        data=Data.model_validate(data),
        parameters=_parameters(config),
        flops_per_step=per_step,
        flops_per_step_dense=step_flops(config, "dense"),
        training_flops=per_step * config.budget.steps if config.budget.unit == "steps" else None,
        deviations_from_paper=[Deviation.model_validate(entry) for entry in deviations(config, paper)],
    )
    if machine.backend is not None:
        manifest.backend = str(machine.backend)
    if attention is not None:
        manifest.attention = attention
    if (teacher := (parents or {}).get(TEACHER)) is not None:
        manifest.teacher = _teacher(config, teacher)
    if (parent := (parents or {}).get(CONTINUED)) is not None:
        manifest.continued_from = _origin(parent)
    if (blocks := _blocks(config)) is not None:
        manifest.blocks = blocks
    return manifest


def _blocks(config: RunConfig) -> Blocks | None:
    """The entry of attention in blocks; None for full attention."""
    shape, length = config.architecture(), config.pairs.max_length
    if shape.blocks is None:
        return None
    return Blocks(
        pairs_seen=share_seen(shape.blocks, shape.layers, shape.heads, length, shape.max_positions),
        keys=shape.blocks.keys(length),
        is_full=shape.blocks.is_full(length),
    )


def _teacher(config: RunConfig, folder: RunFolder) -> Teacher:
    """The entry of a student's teacher, from the record of that run."""
    manifest, training = folder.load("manifest.json", Manifest), folder.load("results.json", Results).training
    spent = None if training is None else training.flops
    if spent is not None and manifest.teacher is not None:
        above = manifest.teacher.training_flops
        spent = None if above is None else spent + above
    return Teacher(
        run=folder.name,
        identity=manifest.identity or folder.identity,
        parameters=manifest.parameters.with_pooler,
        flops_per_step=round(method_of(config).teacher_flops()) * config.batch.size,
        training_flops=spent,
    )


def _origin(folder: RunFolder) -> Origin:
    """The entry of the run that a run continues, from the record of that run."""
    manifest, training = folder.load("manifest.json", Manifest), folder.load("results.json", Results).training
    origin = Origin(run=folder.name, identity=manifest.identity or folder.identity)
    if training is not None:
        before, teacher = manifest.continued_from or Origin(run="", tokens=0, flops=0), manifest.teacher
        taught = 0 if teacher is None else teacher.training_flops
        origin.tokens = _sum(training.tokens, before.tokens)
        origin.flops = _sum(training.flops, before.flops, taught)
    return origin


def _sum(*numbers: Any) -> Any:
    """The sum; None if a number is not known."""
    return None if None in numbers else sum(numbers)


def in_all(training: Mapping[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Fields of ``Training``: what a run used together with the runs that it continues; empty for any other run."""
    origin = folder.load("manifest.json", Manifest).continued_from
    if origin is None:
        return {}
    own = Training.model_validate(training)
    totals = {"tokens_in_all": _sum(own.tokens, origin.tokens), "flops_in_all": _sum(own.flops, origin.flops)}
    return {name: value for name, value in totals.items() if value is not None}


def describe_import(config: RunConfig, name: str, identity: str, origin: Imported, tokenizer: Tokenizer) -> Manifest:
    """The manifest of a model trained elsewhere. Its text is unknown; ``evaluate`` adds one."""
    return Manifest(
        identity=identity,
        name=name,
        imported=origin,
        source=code(),
        packages=provenance.packages(),
        precision="fp32",
        data=Data(tokenizer=Vocabulary(fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size)),
        parameters=_parameters(config),
        deviations_from_paper=[],
    )


def _parameters(config: RunConfig) -> Parameters:
    return Parameters.model_validate(method_of(config).parameters().as_dict())


def code() -> Code:
    """The current commit of the code."""
    return Code.model_validate(provenance.commit())


def hardware(machine: Machine) -> Hardware:
    """The hardware of ``machine``."""
    return Hardware.model_validate(provenance.hardware(machine.device))
