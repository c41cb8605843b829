"""One cell, end to end: text to tokens, training, evaluation, record, summary."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from albert_ablate import console
from albert_ablate.axes import Objective
from albert_ablate.config import RunConfig
from albert_ablate.data.batches import PairBatches
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.marks import dropped_marks
from albert_ablate.data.masked_share import settle
from albert_ablate.data.reference import Reference
from albert_ablate.data.segments import lone_sentences
from albert_ablate.data.store import TokenStore, get_stores
from albert_ablate.data.text import prepare_text, text_info
from albert_ablate.data.tokenizer import Tokenizer, get_tokenizer
from albert_ablate.data.wordpiece import NAME as WORDPIECE
from albert_ablate.data.wordpiece import require_whole
from albert_ablate.distributed import World, joined
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.evaluation.achievable import achievable
from albert_ablate.evaluation.baselines import NgramBaselines
from albert_ablate.evaluation.heldout import HeldOut, build_held_out
from albert_ablate.evaluation.intrinsic import Evaluator
from albert_ablate.evaluation.similarity import layer_similarity
from albert_ablate.files import require_writable
from albert_ablate.identity import identity, ingredients, readable_name
from albert_ablate.lock import locked
from albert_ablate.model.pretraining import build_model
from albert_ablate.outcome import disk_in_words, recorded
from albert_ablate.record.describe import describe_run
from albert_ablate.record.results import EvaluationTime, Results
from albert_ablate.record.similarity import Similarity
from albert_ablate.record.warm_start import WarmStart
from albert_ablate.runs import RunFolder, SilentFolder, standing_of, wanted
from albert_ablate.stopping import stoppable
from albert_ablate.summary import summary
from albert_ablate.tasks.units import fine_tune_all, plan_units, read_units
from albert_ablate.trackers import open_trackers, untracked
from albert_ablate.training.budget import budget_words
from albert_ablate.training.checkpoint import Owner, load_matching, newest
from albert_ablate.training.precision import choose_device, choose_precision, set_up
from albert_ablate.training.trainer import Trainer
from albert_ablate.warm_start import start_of

#: Share of unknown tokens from which on a user is warned.
_MANY_UNKNOWN = 0.01
_LONE = (
    "objective=none with pairs.single_sentence=alone takes such text, and pairs.single_sentence=released pairs it with "
    "other documents; data.documents_of=N makes one document of every N sentences of a file."
)


@dataclass(frozen=True)
class Prepared:
    """The corpus as a run uses it."""

    train: TokenStore
    valid: TokenStore
    tokenizer: Tokenizer
    record: dict[str, Any]  # for the manifest
    reference: Reference | None = None  # what can be achieved, of a corpus that knows

    @property
    def measured(self) -> TokenStore:
        """What a text is judged by: its training side, or all of a text that is scored whole."""
        return self.train if self.train.document_count else self.valid

    def settled(self, config: RunConfig) -> RunConfig:
        """``config`` with what ``masking.long_words=auto`` means for this text."""
        masking, _ = settle(config.masking, config.pairs, self.measured, self.tokenizer, Path(config.paths.cache))
        return replace(config, masking=masking)


def run_cell(config: RunConfig, paper: RunConfig) -> int:
    """Run, continue or skip the cell that ``config`` describes: pretraining, then its tasks; returns 0.

    ``paper`` is the paper's set-up for the same axes: what the record states deviations from.

    Raises UserError (settings, data, divergence, memory, a stop signal), after recording it as the
    cell's status where the run folder exists. Any other failure is recorded the same way, with its
    traceback in ``log.txt``, and raised as a UserError that names the file.

    Under torchrun all its processes work on the cell; the first one writes, and fine-tunes alone.
    """
    _require_second_segments(config)
    if config.data.validation_fraction == 1 and config.data.validation_path is None:
        raise ConfigError(
            "data.validation_fraction=1: every document would be held out and none left to train on. Give less than 1; "
            "a run that is finished is scored on a whole text by `python -m albert_ablate.evaluate`."
        )
    device = choose_device(config.runtime)
    with stoppable(), disk_in_words(config.paths.runs, config.paths.cache), joined(device.type) as world:
        if world.size > config.batch.size:
            raise ConfigError(f"batch.size={config.batch.size} is less than the {world.size} processes that share it.")
        return _run_cell(config, paper, device, world)


def _require_second_segments(config: RunConfig) -> None:
    """A run of any objective may be evaluated on sentences alone; trained on them is masked LM only."""
    if config.pairs.single_sentence == "alone" and config.objective.name is not Objective.NONE:
        raise ConfigError(
            "pairs.single_sentence=alone: a sentence alone has no second segment for "
            f"objective={config.objective.name} to judge. Use objective=none, or pairs.single_sentence=extend, which "
            "leaves such sentences out."
        )


def _run_cell(config: RunConfig, paper: RunConfig, device: torch.device, world: World) -> int:
    precision = choose_precision(config.runtime, device)
    set_up(config.runtime)
    if not world.main:
        console.silence()
    if not any(Path(config.paths.runs).glob(f"{readable_name(config)}-*")):  # nothing that is finished and only shown
        require_writable(Path(config.paths.runs), Path(config.paths.cache))
    prepared = world.main_first(lambda: prepare(config))
    config = prepared.settled(config)
    folder = run_folder(config, prepared, precision)
    units = plan_units(config, folder, precision)
    state, _ = world.from_main(standing_of(folder, [unit.folder for unit in units]))
    if not wanted(config.rerun, state):
        if state == "finished":
            console.say(f"\n{folder.path} is finished; nothing to do. Its results:")
            console.show(summary(folder))
        else:
            console.say(f"\n{folder.path} is {state}, not failed: nothing to do with rerun=failed.")
        return 0
    if world.main:  # so that a bad task file is refused before pretraining
        readers = read_units(units, again=config.rerun == "all")
        if config.rerun == "all":
            folder.set_aside()
    pretrained = world.from_main(folder.state()) == "finished"
    start = None if pretrained else _start(config, paper, prepared, precision, device, world)
    if not world.main:
        silent = SilentFolder(folder.path.parent, folder.name)
        if not pretrained:
            _train_and_evaluate(config, paper, prepared, silent, device, precision, start, world)
        return 0
    with locked(folder.path) as lock:
        folder.note = lock.note
        if not pretrained:
            with recorded(folder, _out_of_memory(config), config.runtime.time_limits):
                folder.set_status("running")
                _train_and_evaluate(config, paper, prepared, folder, device, precision, start, world)
        fine_tune_all(config, folder, units, readers, prepared.tokenizer, device, precision)
    console.show(summary(folder))
    return 0


def _start(
    config: RunConfig, paper: RunConfig, prepared: Prepared, precision: str, device: torch.device, world: World
) -> RunFolder | None:
    """The finished run whose weights this one begins with; it is trained first where it is missing."""
    before = start_of(config)
    if before is None:
        return None
    folder = run_folder(before, prepared, precision)
    if world.from_main(folder.state()) != "finished":
        console.say(f"warm start: {folder.name} comes first")
        _run_cell(replace(before, rerun="missing", tasks={}), paper, device, world)
    return folder


def run_folder(config: RunConfig, prepared: Prepared, precision: str) -> RunFolder:
    """Where the cell's record lies; its name ends with the identity, and a folder that is there keeps its name."""
    run_id = identity(prepared.settled(config), prepared.train.fingerprint, precision)
    runs, name = Path(config.paths.runs), f"{readable_name(config)}-{run_id}"
    known = sorted(path.name for path in runs.glob(f"[!.]*-{run_id}"))
    return RunFolder(runs, name if name in known or not known else known[0])  # a copy never stands for the run


def _out_of_memory(config: RunConfig) -> str:
    return (
        f"Out of memory with batch.micro_size={config.batch.micro_size} sequences of "
        f"pairs.max_length={config.pairs.max_length} tokens. Lower batch.micro_size first: without dropout the "
        "numbers stay the same. runtime.oom_halving=true does that by itself; runtime.activation_checkpointing=true "
        "needs less memory too."
    )


def prepare(config: RunConfig) -> Prepared:
    """Corpus -> sentences -> tokenizer -> token stores, each cached by its content and settings.

    Raises DataError where the corpus cannot serve the configuration.
    """
    prepared = prepare_data(config)
    require_documents(config, prepared)
    require_whole(prepared.tokenizer)
    return prepared


def prepare_data(config: RunConfig, trains: bool = True) -> Prepared:
    """``prepare`` for every objective. A text that is only scored (not ``trains``) may be held out whole."""
    cache = Path(config.paths.cache)
    started = time.perf_counter()
    with console.stage("reading documents and splitting sentences"):
        corpus = open_corpus(config.data)
        text = prepare_text(corpus, config.data.language, config.data.validation_fraction, cache, trains)
        info = text_info(text)
    with console.stage("training the tokenizer"):
        tokenizer = get_tokenizer(config.tokenizer, text, cache)
        reference = corpus.reference(tokenizer) if corpus.reference is not None else None
    with console.stage("turning sentences into tokens"):
        whole, valid = get_stores(text, tokenizer, cache)
        train = whole.part(config.data.fraction)
    prepared = Prepared(train, valid, tokenizer, {})
    unknown = prepared.measured.unknown_share()
    record = {
        "corpus": config.data.name,
        "source": info["source"],
        "text": {k: info[k] for k in ("fingerprint", "train", "valid", "duplicates_dropped")},
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
        "tokens": {"fingerprint": train.fingerprint, "train": len(train.tokens), "valid": len(valid.tokens)},
        "unknown_share": unknown,
    }
    seconds = time.perf_counter() - started
    sides = info["train"], info["valid"]
    console.say(
        f"data {config.data.name}: {sides[0]['documents']:,} documents, {sides[0]['words'] / 1e6:.2f} M words, "
        f"{len(train.tokens) / 1e6:.2f} M tokens of {tokenizer.vocab_size:,} pieces; "
        f"{sides[1]['documents']:,} documents held out ({console.duration(seconds)})"
    )
    stated = info["met"].get("unknown_words", 0) / (len(train.tokens) + len(valid.tokens))  # the source says so itself
    if unknown - stated > _MANY_UNKNOWN:
        console.say(
            f"data {config.data.name}: ! {unknown:.1%} of the tokens are unknown: the vocabulary has no piece for "
            "them. Train a tokenizer on this text (tokenizer=unigram or bpe, without tokenizer.model_path), or raise "
            "tokenizer.character_coverage. WordPiece knows no word of more than 100 characters."
        )
    masking, share = settle(config.masking, config.pairs, prepared.measured, tokenizer, cache)
    if share is not None:
        console.say(share.line(masking.long_words))
        record["masking"] = share.record(masking.long_words)
    if config.tokenizer.strip_accents:
        marks = dropped_marks(text, config.tokenizer, cache)
        record["marks_dropped"] = marks.scripts
        if (warning := marks.words(config.data.language, config.tokenizer.name == WORDPIECE)) is not None:
            console.say(warning)
    return replace(prepared, record=record, reference=reference)


def require_documents(config: RunConfig, prepared: Prepared) -> None:
    """Raise DataError where a random second segment has no other document to come from."""
    train, valid = prepared.train, prepared.valid
    released = config.pairs.single_sentence == "released"
    fewest = min(train.document_count, valid.document_count) if released else train.document_count
    if fewest < 2 and (released or config.objective.name is Objective.NSP):
        cause = "pairs.single_sentence=released" if released else "objective=nsp"
        raise DataError(
            f"{cause} needs at least two documents, data={config.data.name} has {fewest}: a random second segment "
            "must come from another document. Use objective=sop with pairs.single_sentence=extend, or a corpus with "
            "more documents."
        )


def _train_and_evaluate(
    config: RunConfig,
    paper: RunConfig,
    prepared: Prepared,
    folder: RunFolder,
    device: torch.device,
    precision: str,
    start: RunFolder | None,
    world: World,
) -> None:
    run_id = identity(config, prepared.train.fingerprint, precision)
    owner = Owner(run_id, ingredients(config, prepared.train.fingerprint, precision))
    shape, objective = config.architecture(), config.objective.name
    starts = prepared.tokenizer.word_starts
    batches = PairBatches(
        prepared.train, starts, objective, config.pairs, config.masking, config.batch.size, config.seed,
        (world.rank, world.size),
    )  # fmt: skip
    held_out = build_held_out(config, prepared.train, prepared.valid, starts)
    if not batches.epoch_size:
        raise DataError(
            f"data={config.data.name} gives no segment pair: every document has a single sentence. "
            f"SOP and none need two sentences of one document. {_LONE}"
        )
    require_pairs(config, held_out)
    folder.write("config.yaml", yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True))
    if world.main:
        shutil.copyfile(prepared.tokenizer.path, folder.path / prepared.tokenizer.kept_as)
    lone = lone_sentences(prepared.train, objective, config.pairs, config.seed, epoch=0)
    data = prepared.record | {"pairs_per_epoch": batches.epoch_size, "lone_sentences_left_out": lone}
    folder.write("manifest.json", describe_run(config, paper, folder.name, run_id, data, device, precision, world.size))
    folder.say(
        f"{folder.name}: {shape.parameters().with_pooler / 1e6:.2f} M parameters, {budget_words(config.budget)}, "
        f"steps of {config.batch.size} x {config.pairs.max_length} tokens, on {device.type} in {precision}"
    )
    model = build_model(shape, config.seed)
    if start is not None:
        new = load_matching(newest(start.checkpoints), model)
        folder.write("warm_start.json", WarmStart(from_=start.name, tensors_of_its_own=new))
        folder.say(f"starts with the weights of {start.name}, {len(new)} tensors of its own")
    baselines = NgramBaselines(prepared.train, shape.vocab_size)
    evaluator = Evaluator(model, held_out, objective, baselines, precision, world)
    with open_trackers(config if world.main else untracked(config), folder, run_id) as trackers:
        trainer = Trainer(
            config, owner, model, batches, folder, device, precision,
            held_out=lambda: evaluator.curve_point(config.evaluation.curve_pairs), tracker=trackers, world=world,
        )  # fmt: skip
        training = trainer.fit()
        folder.note(phase="evaluating")
        folder.log(f"trained {training['tokens']:,} tokens in {training['seconds']:.0f} s; evaluating")
        started = time.perf_counter()
        with console.stage("evaluating on held-out documents"):
            results = evaluator.results() | {"training": training}
            if not world.main:
                return
            if prepared.reference is not None:
                results["achievable"] = achievable(prepared.reference, held_out, prepared.train, baselines)
            similarity = layer_similarity(model.encoder, held_out.plain.batches(config.evaluation.similarity_pairs))
        spent = EvaluationTime(seconds=trainer.curve_seconds + time.perf_counter() - started)
        results["evaluation"] = spent.as_json()
        trackers.record(results, similarity)
    folder.write("similarity.json", Similarity.model_validate(similarity))
    folder.write("results.json", Results.model_validate(results))
    folder.set_status("finished")
    folder.log("finished")


def require_pairs(config: RunConfig, held_out: HeldOut) -> None:
    """Raise DataError where there is nothing to evaluate on."""
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
