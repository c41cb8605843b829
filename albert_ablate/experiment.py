"""Runs one cell from text to summary: tokens, training, evaluation, record."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from albert_ablate import console
from albert_ablate.command_line import command_name
from albert_ablate.config.identity import identity, ingredients, readable_name
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import Prepared, prepare
from albert_ablate.errors import ConfigError, DataError, PreemptedError, UserError
from albert_ablate.evaluation.achievable import achievable
from albert_ablate.evaluation.baselines import NgramBaselines
from albert_ablate.evaluation.causal import HeldOutStream, held_out_stream
from albert_ablate.evaluation.generated import GeneratedText
from albert_ablate.evaluation.heldout import HeldOut, build_held_out
from albert_ablate.evaluation.intrinsic import Evaluator
from albert_ablate.evaluation.similarity import layer_similarity
from albert_ablate.evaluation.speed import inference_speed
from albert_ablate.files import require_writable
from albert_ablate.methods import CONTINUED, WARM_START, Parent, method_of
from albert_ablate.methods.batch import StepBatches
from albert_ablate.methods.electra import Corrupting
from albert_ablate.methods.teacher import TEACHER, with_tokenizer_of
from albert_ablate.model.base import EncoderModel
from albert_ablate.prompting.asking import plan_asking
from albert_ablate.record.folder import RunFolder, SilentFolder, standing_of, wanted
from albert_ablate.record.lock import locked
from albert_ablate.record.manifest import Attention, Manifest
from albert_ablate.record.outcome import explaining_disk_errors, recorded
from albert_ablate.record.results import EvaluationTime, Results
from albert_ablate.record.similarity import Similarity
from albert_ablate.record.summary import summary
from albert_ablate.record.warm_start import WarmStart
from albert_ablate.stopping import stoppable
from albert_ablate.tasks.planning import plan_units
from albert_ablate.tasks.teachers import Corpus
from albert_ablate.tasks.units import fine_tune_all, read_units, settle
from albert_ablate.training.attention_choice import ForwardPass, another_kernel, choose_attention
from albert_ablate.training.backend import keep_compiled
from albert_ablate.training.budget import budget_label
from albert_ablate.training.checkpoint import Owner, load_extended, newest, require_device
from albert_ablate.training.continuing import continue_from, said_of
from albert_ablate.training.describe import describe_run, in_all
from albert_ablate.training.distributed import World, joined
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import set_up
from albert_ablate.training.trackers import open_trackers, untracked
from albert_ablate.training.trainer import Trainer

_LONE = (
    "objective=none with pairs.single_sentence=alone takes such text, and pairs.single_sentence=released pairs it with "
    "other documents; data.documents_of=N makes one document of every N sentences of a file."
)


def run_cell(config: RunConfig, paper: RunConfig) -> RunFolder:
    """Run, continue or skip the cell that ``config`` describes: pretraining, then its tasks; returns its folder.

    ``paper`` is the paper's set-up for the same axes; the record lists the deviations from it.

    Raises UserError (settings, data, divergence, memory, a stop signal), after recording it as the
    cell's status where the run folder exists. Any other failure is recorded the same way, with its
    traceback in ``log.txt``, and raised as a UserError that names the file.

    Under torchrun all processes train the cell; only the first one writes and fine-tunes.
    """
    _require_second_segments(config)
    if config.data.validation_fraction == 1 and config.data.validation_path is None:
        raise ConfigError(
            "data.validation_fraction=1: every document would be held out and none left to train on. Give less than 1; "
            f"a run that is finished is scored on a whole text by `{command_name('evaluate')}`."
        )
    if config.kshot.minimal_pairs is not None and config.kshot.ask == "command":
        raise ConfigError(
            "task=minimal_pairs: nothing is fine-tuned on it. Add kshot.ask=after or kshot.ask=instead, and the run is "
            f"asked after its training; or leave it out and use `{command_name('kshot')} RUN task=minimal_pairs`."
        )
    alone = Machine.of(config.runtime)
    with stoppable(), explaining_disk_errors(config.paths.runs, config.paths.cache), joined(alone.device.type) as world:
        if world.size > config.batch.size:
            raise ConfigError(f"batch.size={config.batch.size} is less than the {world.size} processes that share it.")
        return _run_cell(config, paper, replace(alone, world=world))


def _require_second_segments(config: RunConfig) -> None:
    """Raises ConfigError for training a sentence objective on single sentences, which allow only masked LM."""
    if config.pairs.single_sentence == "alone" and config.objective.name.trains_sentences:
        raise ConfigError(
            "pairs.single_sentence=alone: a sentence alone has no second segment for "
            f"objective={config.objective.name} to judge. Use objective=none, or pairs.single_sentence=extend, which "
            "leaves such sentences out."
        )


def _run_cell(config: RunConfig, paper: RunConfig, machine: Machine) -> RunFolder:
    world = machine.world
    set_up(config.runtime)
    keep_compiled(Path(config.paths.cache), machine.backend)
    if not world.main:
        console.silence()
    if not any(Path(config.paths.runs).glob(f"{readable_name(config)}-*")):  # a finished run is only shown
        require_writable(Path(config.paths.runs), Path(config.paths.cache))
    prepared = world.main_first(lambda: prepare(config))
    config = prepared.settled(config)
    folder = run_folder(config, prepared, machine.precision)
    units = plan_units(config, folder, machine.precision, corpus_of(prepared))
    asking = plan_asking(config, folder)
    state, _ = world.from_main(standing_of(folder, [*(unit.folder for unit in units), *asking.folders]))
    if not wanted(config.rerun, state):
        if state == "finished":
            if world.main:
                settle(folder, units)
            console.say(f"\n{folder.path} is finished; nothing to do{_elsewhere(folder, machine)}. Its results:")
            console.show(summary(folder))
        else:
            console.say(f"\n{folder.path} is {state}, not failed: nothing to do with rerun=failed.")
        return folder
    if world.main:  # so that a bad task file is refused before pretraining
        readers = read_units(units, again=config.rerun == "all")
        read = asking.read(config, prepared.tokenizer, again=config.rerun == "all")
        if config.rerun == "all":
            folder.set_aside()
    pretrained = world.from_main(folder.state()) == "finished"
    parents = {} if pretrained else _parents(config, paper, prepared, machine)
    if not world.main:
        silent = SilentFolder(folder.path.parent, folder.name)
        if not pretrained:
            _pretrain(config, paper, prepared, silent, machine, parents)
        return folder
    with locked(folder.path) as lock:
        folder.note = lock.note
        if not pretrained:
            with recorded(folder, _out_of_memory(config), config.runtime.time_limits):
                folder.set_status("running")
                _pretrain(config, paper, prepared, folder, machine, parents)
        failures: list[UserError] = []
        parts: list[Callable[[], None]] = [
            partial(fine_tune_all, config, folder, units, readers, prepared.tokenizer, machine),
            partial(asking.ask, config, folder, read, prepared.tokenizer, machine),
        ]
        for work in parts:
            try:
                work()
            except PreemptedError:
                raise
            except UserError as error:  # no reason to leave the other one out
                failures.append(error)
        if failures:
            raise max(failures, key=lambda error: error.exit_code)
    console.show(summary(folder))
    return folder


def _elsewhere(folder: RunFolder, machine: Machine) -> str:
    """A remark if a finished run was trained on another kind of device than this one."""
    kind, this_kind = folder.load("manifest.json", Manifest).hardware.kind, machine.device.type
    return "" if kind == this_kind else f". It was trained on {kind}; rerun=all trains it on {this_kind}"


def _parents(config: RunConfig, paper: RunConfig, prepared: Prepared, machine: Machine) -> dict[str, RunFolder]:
    """The finished runs that this one needs: role -> folder. Missing ones are trained first."""
    folders = {}
    for parent in method_of(config).parents():
        if parent.folder is not None:
            folders[parent.role] = _named_run(config, parent, parent.folder, prepared)
            continue
        folder = run_folder(parent.config, prepared, machine.precision)
        if machine.world.from_main(folder.state()) != "finished":
            console.say(f"{parent.role}: {folder.name} comes first")
            _run_cell(replace(parent.config.without_tasks(), rerun="missing"), paper, machine)
        folders[parent.role] = folder
    return folders


def _named_run(config: RunConfig, parent: Parent, path: Path, prepared: Prepared) -> RunFolder:
    """The run that the settings name. Raises ConfigError for another run there now, or a teacher of other pieces."""
    folder = RunFolder.at(path)
    manifest = folder.load("manifest.json", Manifest)
    if (manifest.identity or folder.identity) != parent.identity:
        raise ConfigError(
            f"{parent.named_by}={path}: this run was begun with the {parent.role} {parent.identity}, and now another "
            "one lies there. Name its folder."
        )
    if parent.role != TEACHER:
        return folder
    tokenizer = manifest.data.tokenizer
    if tokenizer is None or tokenizer.fingerprint != prepared.tokenizer.fingerprint:
        raise ConfigError(f"method.teacher={path}: it reads another tokenizer's pieces; {with_tokenizer_of(config)}.")
    return folder


def run_folder(config: RunConfig, prepared: Prepared, precision: str) -> RunFolder:
    """The run folder of a cell. Its name ends with the identity; an existing folder keeps its name."""
    run_id = identity(prepared.settled(config), prepared.train.fingerprint, precision)
    runs, name = Path(config.paths.runs), f"{readable_name(config)}-{run_id}"
    known = sorted(path.name for path in runs.glob(f"[!.]*-{run_id}"))
    return RunFolder(runs, name if name in known or not known else known[0])  # a copy never replaces the run


def corpus_of(prepared: Prepared) -> Corpus:
    """What identifies the text that a run reads."""
    return Corpus(prepared.train.fingerprint, prepared.tokenizer.fingerprint)


def _out_of_memory(config: RunConfig) -> str:
    return (
        f"Out of memory with batch.micro_size={config.batch.micro_size} sequences of "
        f"pairs.max_length={config.pairs.max_length} tokens. Lower batch.micro_size first: without dropout the "
        "numbers stay the same. runtime.oom_halving=true does that by itself; runtime.activation_checkpointing=true "
        "needs less memory too."
    )


def _pretrain(
    config: RunConfig,
    paper: RunConfig,
    prepared: Prepared,
    folder: RunFolder,
    machine: Machine,
    parents: Mapping[str, RunFolder],
) -> None:
    """Set up, train, evaluate and record a run."""
    batches, held_out = _batches(config, prepared, machine.world)
    attention = choose_attention(config, ForwardPass.of_pretraining(config), machine)
    owner = _begin(config, paper, prepared, folder, machine, batches, attention, parents)
    model = _model(config, prepared, folder, parents)
    cache = Path(config.paths.cache)
    baselines = NgramBaselines(prepared.train, prepared.tokenizer.vocab_size, cache=cache)
    method = method_of(config)
    evaluator = Evaluator(model, held_out, config.objective.name, baselines, machine, method.measures)
    more: list[GeneratedText | HeldOutStream] = []
    if isinstance(method, Corrupting):
        more.append(GeneratedText(method, model, held_out.plain, prepared.train, baselines, machine))
    if (stream := held_out_stream(model, config, prepared, baselines, machine)) is not None:
        more.append(stream)

    def curve_point() -> dict[str, float]:
        point = evaluator.curve_point(config.evaluation.curve_pairs)
        for scorer in more:
            point |= scorer.curve_point(config.evaluation.curve_pairs)
        return point

    with open_trackers(config if machine.world.main else untracked(config), folder, owner.identity) as trackers:
        trainer = Trainer(
            config, owner, model, batches, folder, machine,
            held_out=curve_point, tracker=trackers,
        )  # fmt: skip
        training = trainer.fit()
        folder.note(phase="evaluating")
        folder.log(f"trained {training['tokens']:,} tokens in {training['seconds']:.0f} s; evaluating")
        measured = _evaluate(config, prepared, evaluator, baselines, more)
        if measured is None:
            return
        results, similarity = measured
        results["training"] = training | in_all(training, folder)
        results["evaluation"]["seconds"] += trainer.curve_seconds
        trackers.record(results, similarity)
    folder.write("similarity.json", Similarity.model_validate(similarity))
    folder.write("results.json", Results.model_validate(results))
    folder.set_status("finished")
    folder.log("finished")


def _batches(config: RunConfig, prepared: Prepared, world: World) -> tuple[StepBatches, HeldOut]:
    """Training batches and held-out pairs. Raises DataError if the text gives none."""
    starts = prepared.tokenizer.word_starts
    batches = method_of(config).batches(prepared.train, starts, (world.rank, world.size))
    held_out = build_held_out(config, prepared.train, prepared.valid, starts)
    if not batches.epoch_size:
        raise DataError(
            f"data={config.data.name} gives no segment pair: every document has a single sentence. "
            f"SOP and none need two sentences of one document. {_LONE}"
        )
    require_pairs(config, held_out)
    return batches, held_out


def _begin(
    config: RunConfig,
    paper: RunConfig,
    prepared: Prepared,
    folder: RunFolder,
    machine: Machine,
    batches: StepBatches,
    attention: Attention | None,
    parents: Mapping[str, RunFolder],
) -> Owner:
    """Write settings, tokenizer and manifest into the run folder; returns the owner of its checkpoints.

    Raises CheckpointError, before anything is written, if the run was begun on another kind of device.
    """
    another_card = require_device(folder.checkpoints, machine.device.type, machine.card)
    differences = [text for text in (another_card, another_kernel(folder, attention)) if text is not None]
    store = prepared.train
    run_id = identity(config, store.fingerprint, machine.precision)
    folder.write("config.yaml", yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True))
    if machine.world.main:
        shutil.copyfile(prepared.tokenizer.path, folder.path / prepared.tokenizer.kept_as)
    data = prepared.record | dict(batches.record)
    manifest = describe_run(config, paper, folder.name, run_id, data, machine, attention, parents)
    folder.write("manifest.json", manifest)
    count = method_of(config).parameters().with_pooler
    folder.say(
        f"{folder.name}: {count / 1e6:.2f} M parameters, {budget_label(config.budget)}, "
        f"steps of {config.batch.size} x {config.pairs.max_length} tokens, on {machine.device.type} in "
        f"{machine.precision}"
    )
    if data.get("tokens_dropped_per_epoch"):
        (read,) = (name for name in ("blocks", "sequences") if f"{name}_per_epoch" in data)
        cut = f"; {data['documents_cut']:,} documents are longer than one" if "documents_cut" in data else ""
        folder.say(
            f"{folder.name}: {data[f'{read}_per_epoch']:,} {read} an epoch{cut}; "
            f"{data['tokens_dropped_per_epoch']:,} tokens after the last one are left out"
        )
    if (blocks := manifest.blocks) is not None:
        seen = f"{blocks.pairs_seen:.1%} of all pairs of positions are seen, {blocks.keys:,.0f} keys a query"
        folder.say(
            f"{folder.name}: {seen if not blocks.is_full else 'all pairs of positions are seen, as in attention=full'}"
        )
    for difference in differences:
        folder.say(f"{folder.name}: {difference}")
    content = ingredients(config, store.fingerprint, machine.precision)
    return Owner(run_id, content, machine.device.type, machine.card)


def _model(config: RunConfig, prepared: Prepared, folder: RunFolder, parents: Mapping[str, RunFolder]) -> EncoderModel:
    """The model with its initial weights. Those of another run are copied, and it is recorded which are new."""
    checkpoints = {role: newest(parent.checkpoints) for role, parent in parents.items()}
    method = method_of(config)
    model = method.build(checkpoints)
    for parent in method.parents() if CONTINUED in parents else ():
        if parent.role == CONTINUED:
            begun = continue_from(parents[CONTINUED], parent.config, model, prepared.tokenizer)
            folder.write("init.json", begun)
            folder.say(said_of(begun))
    if WARM_START in parents:
        start = parents[WARM_START]
        new, repeated = load_extended(checkpoints[WARM_START], model)
        record = WarmStart(from_=start.name, tensors_of_its_own=new)
        if repeated:
            record.tensors_repeated = repeated
        folder.write("warm_start.json", record)
        more = ", its table of positions repeated" if repeated else ""
        folder.say(f"starts with the weights of {start.name}, {len(new)} tensors of its own{more}")
    return model


def _evaluate(
    config: RunConfig,
    prepared: Prepared,
    evaluator: Evaluator,
    baselines: NgramBaselines,
    more: Sequence[GeneratedText | HeldOutStream],
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Held-out results and the change from layer to layer; None except in the process that writes."""
    started = time.perf_counter()
    held_out = evaluator.held_out
    with console.stage("evaluating on held-out documents"):
        results = evaluator.results()
        for scorer in more:
            results |= scorer.results()
        if not evaluator.machine.world.main:
            return None
        if prepared.reference is not None:
            results["achievable"] = achievable(prepared.reference, held_out, prepared.train, baselines)
        pairs = held_out.plain.batches(config.evaluation.similarity_pairs)
        similarity = layer_similarity(evaluator.model.encoder, pairs)
        results["evaluation"] = EvaluationTime(seconds=time.perf_counter() - started).as_json()
        speed = inference_speed(evaluator.model.encoder, config.pairs.max_length, evaluator.machine)
    results["inference"] = speed.as_json()
    return results, similarity


def require_pairs(config: RunConfig, held_out: HeldOut) -> None:
    """Raises DataError if there is nothing to evaluate on."""
    if not len(held_out.plain):
        raise DataError(
            f"data={config.data.name}: the held-out documents give no segment pair. Hold out more text or, where every "
            f"document has a single sentence: {_LONE}"
        )
    for task, reason in held_out.left_out.items():
        console.say(f"{task.upper()} will not be scored: {reason}")
    if not any(len(batch.targets) for batch in held_out.plain.batches()):
        raise DataError(
            f"masking.long_words={config.masking.long_words} masks nothing of the held-out pairs: every word has more "
            "pieces than a row's budget. Use masking.long_words=auto."
        )
