"""Score a run on any corpus: ``python -m albert_ablate.evaluate runs/NAME data=text data.path=FILE``.

Masked LM, NSP, SOP and the change from layer to layer on held-out documents, for runs trained here
and for imported ones, with their own tokenizer. On another text than the run's own the bars are of that
text (``evaluation.foreign``), and nothing is said of how long the run was trained. Kept in
``RUN/evaluations/``, or with ``--out FILE`` there and nowhere else; an imported run that was not
evaluated yet takes the numbers as its results.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_ablate import console
from albert_ablate.axes import SENTENCE_TASKS, Objective
from albert_ablate.config import RunConfig
from albert_ablate.console import command, program
from albert_ablate.errors import RunFolderError
from albert_ablate.files import digest, require_writable
from albert_ablate.given import open_run, remarks, require_cache, require_no_place_for_runs
from albert_ablate.hydra_compose import compose_evaluation
from albert_ablate.record.evaluation import EvaluationRecord
from albert_ablate.record.manifest import Data, Manifest
from albert_ablate.record.part import write_record
from albert_ablate.record.results import EvaluationTime, Results, Scored
from albert_ablate.record.similarity import Similarity
from albert_ablate.runs import RunFolder

if TYPE_CHECKING:  # they load torch
    from albert_ablate.data.prepare import Prepared
    from albert_ablate.data.store import TokenStore
    from albert_ablate.evaluation.heldout import HeldOut


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog=program("albert_ablate.evaluate"), description="Score a run on any corpus.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("settings", nargs="*", help="of data, evaluation, pairs and runtime; the rest is the run's own")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the record there and nothing in the run folder")
    options = parser.parse_intermixed_args(arguments)
    folder = open_run(options.run)
    require_no_place_for_runs(options.settings)
    config = compose_evaluation(folder.path / "config.yaml", options.settings)
    place = folder.path / "evaluations" if options.out is None else _place_of(options.out)
    _require_place(place)
    require_cache(config)
    for remark in remarks(folder):
        console.say(f"  ! {remark}.")
    from albert_ablate.outcome import disk_in_words  # after the settings are found good: torch loads slowly

    with disk_in_words(str(folder.path.parent), config.paths.cache):
        record = evaluate(folder, config)
    _show(record)
    file = options.out or place / _name(record)
    with disk_in_words(str(folder.path.parent), config.paths.cache):
        write_record(file, record)
        if options.out is None:
            _adopt(folder, record)
    console.say(f"\n  {file}")
    return 0


def _place_of(out: Path) -> Path:
    """The folder of a file that is to be written. Raises RunFolderError where something has its name."""
    if out.exists():
        raise RunFolderError(f"--out {out}: there is {'a folder' if out.is_dir() else 'a file'} of that name already.")
    return out.parent


def _require_place(place: Path) -> None:
    """Raise RunFolderError where no record could be written: before the work, not after it."""
    try:
        require_writable(place)
    except OSError as error:
        raise RunFolderError(
            f"{place} cannot be written ({error.strerror}). Keep the record elsewhere: --out FILE.json"
        ) from error


def _show(record: EvaluationRecord) -> None:
    from albert_ablate.summary import held_out

    results = record.results
    for part in held_out(results.as_json()):
        console.show(part)
    scored = [getattr(results, task) for task in SENTENCE_TASKS]
    sentences = "fitted heads stand in" if any(scored) else "the sentence tasks were not scored"
    for head in record.missing:
        random = "the masked-LM numbers are of a random one" if head == "masked-LM head" else sentences
        console.say(f"  ! It has no {head}: {random}.")


def _name(record: EvaluationRecord) -> str:
    """Of a record in the run folder: the same for the same settings, tokens, precision and checkpoint."""
    key = digest([record.settings, record.data.tokens.fingerprint, record.precision, record.checkpoint], 8)
    return f"{record.settings['data']['name']}-{key}.json"


def evaluate(folder: RunFolder, config: RunConfig) -> EvaluationRecord:
    """The record of the run's newest checkpoint, evaluated as ``config`` says. Raises UserError."""
    from albert_ablate.data.prepare import prepare_data
    from albert_ablate.data.vocabulary import tokenizer_file
    from albert_ablate.evaluation.achievable import achievable
    from albert_ablate.evaluation.baselines import NgramBaselines
    from albert_ablate.evaluation.foreign import bars_of, of_this_text, seen_in_training
    from albert_ablate.evaluation.heldout import build_held_out
    from albert_ablate.evaluation.intrinsic import Evaluator
    from albert_ablate.evaluation.similarity import layer_similarity
    from albert_ablate.experiment import require_pairs
    from albert_ablate.methods import method_of
    from albert_ablate.training.checkpoint import load_weights, newest
    from albert_ablate.training.machine import Machine
    from albert_ablate.training.precision import set_up

    checkpoint = newest(folder.checkpoints)
    missing = list((_imported(folder) or {}).get("missing", []))
    machine = Machine.of(config.runtime)
    set_up(config.runtime)
    own = replace(config.tokenizer, model_path=str(tokenizer_file(folder.path)))
    prepared = prepare_data(replace(config, tokenizer=own), trains=False)
    config = prepared.settled(config)
    objective = Objective.NONE if "sentence head" in missing else config.objective.name
    starts = prepared.tokenizer.word_starts
    held_out = build_held_out(config, prepared.train, prepared.valid, starts, objective)
    require_pairs(config, held_out)
    model = method_of(config).build({}).to(machine.device)
    load_weights(checkpoint, model)
    measures = method_of(config).measures
    started = time.perf_counter()
    at_home = _is_own(folder, prepared.record)
    pieces = config.tokenizer.vocab_size
    baselines = (
        NgramBaselines(prepared.train, pieces, cache=Path(config.paths.cache))
        if at_home
        else of_this_text(prepared.valid, prepared.train, pieces)
    )
    with console.stage("evaluating on held-out documents"):
        results = Evaluator(model, held_out, objective, baselines, machine, measures).results()
        # Without a training side nothing says how often pairs are cut where.
        if prepared.reference is not None and baselines is not None and prepared.train.document_count:
            results["achievable"] = achievable(prepared.reference, held_out, prepared.train, baselines)
        similarity = layer_similarity(model.encoder, held_out.plain.batches(config.evaluation.similarity_pairs))
    scored = _scored(config, held_out, prepared)
    if not at_home:
        trained_on, reason = _own_tokens(folder, config)
        scored.seen_in_training = seen_in_training(held_out.plain, trained_on)
        bars_of(results, held_out.plain, trained_on, reason, pieces)
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


def _is_own(folder: RunFolder, data: dict[str, Any]) -> bool:
    """Whether a text is the one that the run was trained on, divided into the same two sides."""
    if _imported(folder) is not None or not (folder.path / "manifest.json").is_file():
        return False
    trained = folder.read("manifest.json").get("data", {}).get("text", {}).get("fingerprint")
    return bool(trained == data["text"]["fingerprint"])


def _own_tokens(folder: RunFolder, config: RunConfig) -> tuple["TokenStore | None", str]:
    """The tokens that the run was trained on, where a cache still has them; else None, and why."""
    from albert_ablate.data.store import find_training

    if _imported(folder) is not None:
        return None, "that of an imported model is not known"
    trained = compose_evaluation(folder.path / "config.yaml", [])
    manifest = folder.read("manifest.json") if (folder.path / "manifest.json").is_file() else {}
    fingerprint = manifest.get("data", {}).get("tokens", {}).get("fingerprint", "")
    for cache in dict.fromkeys([config.paths.cache, trained.paths.cache]):
        found = find_training(Path(cache), fingerprint, trained.data.fraction)
        if found is not None:
            return found, ""
    return None, f"the run's own text is not in {config.paths.cache}; scoring the run on it once puts it there"


def _scored(config: RunConfig, held_out: "HeldOut", prepared: "Prepared") -> Scored:
    """How much of the text the masked-LM numbers cover, and what keeps them from all of it."""
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
    """Where an imported run comes from; None for one that was trained here."""
    found: dict[str, Any] | None = None
    if (folder.path / "results.json").is_file():
        found = folder.read("results.json").get("imported")
    return found


def _adopt(folder: RunFolder, record: EvaluationRecord) -> None:
    """The first evaluation of an imported run becomes its results; its tokenizer's record stays."""
    if _imported(folder) is None or "masked_lm" in folder.read("results.json"):
        return
    folder.amend("results.json", record.results)
    folder.write("similarity.json", record.similarity)
    data = record.data.model_copy()
    data.tokenizer = folder.load("manifest.json", Manifest).data.tokenizer
    folder.amend("manifest.json", Manifest(data=data))


if __name__ == "__main__":
    sys.exit(main())
