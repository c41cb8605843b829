"""The manifest of a run."""

from typing import Any

from albert_ablate.config.deviations import deviations
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.methods import method_of
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
    Parameters,
    Teacher,
    Vocabulary,
)
from albert_ablate.record.results import Results
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
    teacher: RunFolder | None = None,
) -> Manifest:
    """The manifest: everything that the numbers of this run depend on.

    ``data`` has the fields of ``manifest.Data``; ``paper`` is the paper's set-up for the same axes; ``attention`` is
    None on a CPU; ``teacher`` is the finished run that a student learns from.
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
    if teacher is not None:
        manifest.teacher = _teacher(config, teacher)
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
