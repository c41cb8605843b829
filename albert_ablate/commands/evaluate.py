"""Score a run on any corpus: ``python -m albert_ablate.evaluate runs/NAME data=text data.path=FILE``.

Measures masked LM or causal LM, NSP, SOP, replaced tokens and the change from layer to layer on held-out documents,
for trained and imported runs, with the run's tokenizer. On a text that the run was not trained on, the baselines are
computed from that text (``evaluation.foreign``) and there is no verdict on the length of training. The
record is kept in ``RUN/evaluations/``, or with ``--out FILE`` only in that file. The first evaluation of
an imported run also becomes its results.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_ablate import console
from albert_ablate.arguments import Parser
from albert_ablate.axes import SENTENCE_TASKS, Objective
from albert_ablate.command_line import program
from albert_ablate.commands.given import open_run, refuse_paths_runs, remarks, require_cache
from albert_ablate.config.schema import RunConfig
from albert_ablate.console import command
from albert_ablate.door.compose import compose_evaluation
from albert_ablate.errors import RunFolderError
from albert_ablate.files import digest, require_writable
from albert_ablate.record.evaluation import EvaluationRecord
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.manifest import Data, Manifest
from albert_ablate.record.part import write_record
from albert_ablate.record.results import EvaluationTime, Results, Scored
from albert_ablate.record.similarity import Similarity

if TYPE_CHECKING:  # they load torch
    from albert_ablate.data.prepare import Prepared
    from albert_ablate.data.store import TokenStore
    from albert_ablate.evaluation.heldout import HeldOut


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("evaluate"), description="Score a run on any corpus.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument(
        "settings", nargs="*", help="of data, evaluation, pairs and runtime; others as recorded with the run"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the record only to this file, not to the run folder"
    )
    options = parser.parse_intermixed_args(arguments)
    folder = open_run(options.run)
    refuse_paths_runs(options.settings)
    config = compose_evaluation(folder.path / "config.yaml", options.settings)
    target = folder.path / "evaluations" if options.out is None else _folder_of(options.out)
    _require_writable(target)
    require_cache(config)
    for remark in remarks(folder):
        console.say(f"  ! {remark}.")
    from albert_ablate.record.outcome import explaining_disk_errors  # after the checks: torch loads slowly

    with explaining_disk_errors(str(folder.path.parent), config.paths.cache):
        record = evaluate(folder, config)
    _show(record)
    file = options.out or target / _name(record)
    with explaining_disk_errors(str(folder.path.parent), config.paths.cache):
        write_record(file, record)
        if options.out is None:
            _adopt(folder, record)
    console.say(f"\n  {file}")
    return 0


def _folder_of(out: Path) -> Path:
    """The folder of the file ``out``. Raises RunFolderError if ``out`` exists already."""
    if out.exists():
        raise RunFolderError(
            f"--out {out}: this {'folder' if out.is_dir() else 'file'} exists already. Give a new name."
        )
    return out.parent


def _require_writable(folder: Path) -> None:
    """Raises RunFolderError, before any work, if the record could not be written to ``folder``."""
    try:
        require_writable(folder)
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be written ({error.strerror}). Keep the record elsewhere: --out FILE.json"
        ) from error


def _show(record: EvaluationRecord) -> None:
    from albert_ablate.record.summary import held_out

    results = record.results
    for part in held_out(results.as_json()):
        console.show(part)
    scored = [getattr(results, task) for task in SENTENCE_TASKS]
    sentences = "fitted heads stand in" if any(scored) else "the sentence tasks were not scored"
    instead = {
        "masked-LM head": "the masked-LM numbers are of a random one",
        "replaced-token head": "a random one stands in, which no number here reads",
    }
    for head in record.missing:
        console.say(f"  ! It has no {head}: {instead.get(head, sentences)}.")


def _name(record: EvaluationRecord) -> str:
    """File name of a record: the same for the same settings, tokens, precision and checkpoint."""
    key = digest([record.settings, record.data.tokens.fingerprint, record.precision, record.checkpoint], 8)
    return f"{record.settings['data']['name']}-{key}.json"


def evaluate(folder: RunFolder, config: RunConfig) -> EvaluationRecord:
    """Evaluate the run's newest checkpoint with the settings of ``config``. Raises UserError."""
    from albert_ablate.data.prepare import prepare_data
    from albert_ablate.data.vocabulary import tokenizer_file
    from albert_ablate.evaluation.achievable import achievable
    from albert_ablate.evaluation.baselines import NgramBaselines
    from albert_ablate.evaluation.causal import held_out_stream
    from albert_ablate.evaluation.foreign import bars_of, of_this_text, seen_in_training
    from albert_ablate.evaluation.heldout import build_held_out
    from albert_ablate.evaluation.intrinsic import Evaluator
    from albert_ablate.evaluation.similarity import layer_similarity
    from albert_ablate.evaluation.speed import inference_speed
    from albert_ablate.experiment import require_pairs
    from albert_ablate.methods import method_of
    from albert_ablate.training.checkpoint import load_weights, newest
    from albert_ablate.training.machine import Machine
    from albert_ablate.training.precision import set_up

    checkpoint = newest(folder.checkpoints)
    missing = list((_imported(folder) or {}).get("missing", []))
    machine = Machine.of(config.runtime)
    set_up(config.runtime)
    tokenizer = replace(config.tokenizer, model_path=str(tokenizer_file(folder.path)))
    prepared = prepare_data(replace(config, tokenizer=tokenizer), trains=False)
    config = prepared.settled(config)
    objective = Objective.NONE if "sentence head" in missing else config.objective.name
    starts = prepared.tokenizer.word_starts
    held_out = build_held_out(config, prepared.train, prepared.valid, starts, objective)
    require_pairs(config, held_out)
    model = method_of(config).build({}).to(machine.device)
    load_weights(checkpoint, model)
    measures = method_of(config).measures
    started = time.perf_counter()
    on_training_text = _is_training_text(folder, prepared.record)
    pieces = config.tokenizer.vocab_size
    baselines = (
        NgramBaselines(prepared.train, pieces, cache=Path(config.paths.cache))
        if on_training_text
        else of_this_text(prepared.valid, prepared.train, pieces)
    )
    with console.stage("evaluating on held-out documents"):
        results = Evaluator(model, held_out, objective, baselines, machine, measures).results()
        if (stream := held_out_stream(model, config, prepared, baselines, machine)) is not None:
            results |= stream.results()
        # The best scores need a training side, which shows how often pairs are cut at each position.
        if prepared.reference is not None and baselines is not None and prepared.train.document_count:
            results["achievable"] = achievable(prepared.reference, held_out, prepared.train, baselines)
        similarity = layer_similarity(model.encoder, held_out.plain.batches(config.evaluation.similarity_pairs))
        results["inference"] = inference_speed(model.encoder, config.pairs.max_length, machine).as_json()
    scored = _scored(config, held_out, prepared)
    if not on_training_text:
        trained_on, reason = _training_tokens(folder, config)
        scored.seen_in_training = seen_in_training(held_out.plain, trained_on)
        bars_of(results, held_out.plain, trained_on, reason, pieces, stream)
    measured = Results.model_validate(results)
    measured.scored = scored
    measured.evaluation = EvaluationTime(seconds=time.perf_counter() - started)
    groups = ("data", "evaluation", "pairs", "masking")
    settings = {group: config.as_dict()[group] for group in groups}
    return EvaluationRecord(
        run=folder.name,
        state=folder.state(),
        checkpoint=checkpoint.name,
        precision=machine.precision,
        settings=settings,
        data=Data.model_validate(prepared.record),
        missing=missing,
        results=measured,
        similarity=Similarity.model_validate(similarity),
    )


def _is_training_text(folder: RunFolder, data: dict[str, Any]) -> bool:
    """Whether a text is the run's training text, divided into the same two sides."""
    if _imported(folder) is not None or not (folder.path / "manifest.json").is_file():
        return False
    trained = folder.read("manifest.json").get("data", {}).get("text", {}).get("fingerprint")
    return bool(trained == data["text"]["fingerprint"])


def _training_tokens(folder: RunFolder, config: RunConfig) -> tuple["TokenStore | None", str]:
    """The tokens that the run was trained on, if a cache still has them; else None and the reason."""
    from albert_ablate.data.store import find_training

    if _imported(folder) is not None:
        return None, "that of an imported model is not known"
    trained = compose_evaluation(folder.path / "config.yaml", [])
    manifest = folder.read("manifest.json") if (folder.path / "manifest.json").is_file() else {}
    fingerprint = manifest.get("data", {}).get("tokens", {}).get("fingerprint", "")
    for cache in dict.fromkeys([config.paths.cache, trained.paths.cache]):
        tokens = find_training(Path(cache), fingerprint, trained.data.fraction)
        if tokens is not None:
            return tokens, ""
    return None, f"the run's own text is not in {config.paths.cache}; scoring the run on it once puts it there"


def _scored(config: RunConfig, held_out: "HeldOut", prepared: "Prepared") -> Scored:
    """How much of the text the masked-LM numbers cover, and what limited them."""
    sides = [prepared.train, prepared.valid]
    return Scored(
        **held_out.plain.scored(),
        of_documents=sum(side.document_count for side in sides),
        of_tokens=sum(len(side.tokens) for side in sides),
        held_out_by=prepared.held_out_by,
        stopped=len(held_out.plain) == config.evaluation.max_pairs,
        max_length=config.pairs.max_length,
    )


def _imported(folder: RunFolder) -> dict[str, Any] | None:
    """Origin of an imported run; None for a run that was trained."""
    origin: dict[str, Any] | None = None
    if (folder.path / "results.json").is_file():
        origin = folder.read("results.json").get("imported")
    return origin


def _adopt(folder: RunFolder, record: EvaluationRecord) -> None:
    """Make the first evaluation of an imported run its results; the record of its tokenizer is kept."""
    if _imported(folder) is None or "masked_lm" in folder.read("results.json"):
        return
    folder.amend("results.json", record.results)
    folder.write("similarity.json", record.similarity)
    data = record.data.model_copy()
    data.tokenizer = folder.load("manifest.json", Manifest).data.tokenizer
    folder.amend("manifest.json", Manifest(data=data))
