"""Score a run on any corpus: ``python -m albert_ablate.evaluate runs/NAME data=text data.path=FILE``.

Masked LM, NSP, SOP and the change from layer to layer on held-out documents, for runs trained here
and for imported ones, with their own tokenizer. Kept in ``RUN/evaluations/``; an imported run that
was not evaluated yet takes the numbers as its results.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from albert_ablate import console
from albert_ablate.config import RunConfig
from albert_ablate.errors import RunFolderError, UserError
from albert_ablate.files import digest, read_json, write_json
from albert_ablate.hydra_app import compose_evaluation, words_of
from albert_ablate.runs import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m albert_ablate.evaluate", description="Score a run on any corpus.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("settings", nargs="*", help="of data, evaluation, pairs and runtime; the rest is the run's own")
    options = parser.parse_args(arguments)
    try:
        if not (options.run / "config.yaml").is_file():
            raise RunFolderError(f"{options.run}: no run folder (it has no config.yaml). Runs lie in runs/.")
        config = compose_evaluation(options.run / "config.yaml", options.settings)
        record = evaluate(options.run, config)
    except UserError as error:
        print(f"\n{words_of(error)}\n", file=sys.stderr)
        return error.exit_code
    from albert_ablate.summary import held_out

    for part in held_out(record["results"]):
        console.show(part)
    for head in record["missing"]:
        random = "the masked-LM numbers are of a random one" if head == "masked-LM head" else "fitted heads stand in"
        console.say(f"  ! It has no {head}: {random}.")
    console.say(f"\n  {record['file']}")
    return 0


def evaluate(run: Path, config: RunConfig) -> dict[str, Any]:
    """Evaluate the newest checkpoint of ``run`` as ``config`` says and keep the record. Raises UserError."""
    from albert_ablate.axes import Objective
    from albert_ablate.data.vocabulary import tokenizer_file
    from albert_ablate.evaluation.baselines import NgramBaselines
    from albert_ablate.evaluation.heldout import build_held_out
    from albert_ablate.evaluation.intrinsic import Evaluator
    from albert_ablate.evaluation.similarity import layer_similarity
    from albert_ablate.experiment import prepare_data, require_pairs
    from albert_ablate.model.pretraining import build_model
    from albert_ablate.training.checkpoint import load_weights, newest
    from albert_ablate.training.precision import choose_device, choose_precision, set_up

    folder = RunFolder(run.parent, run.name)
    checkpoint = newest(run / "checkpoints")
    device = choose_device(config.runtime)
    precision = choose_precision(config.runtime, device)
    set_up(config.runtime)
    own = replace(config.tokenizer, model_path=str(tokenizer_file(run)))
    prepared = prepare_data(replace(config, tokenizer=own))
    config = prepared.settled(config)
    held_out = build_held_out(config, prepared.train, prepared.valid, prepared.tokenizer.word_starts)
    require_pairs(config, held_out)
    model = build_model(config.architecture(), config.seed).to(device)
    load_weights(checkpoint, model)
    imported = folder.read("results.json").get("imported") if (run / "results.json").is_file() else None
    missing = list(imported["missing"]) if imported else []
    objective = Objective.NONE if "sentence head" in missing else config.objective.name
    started = time.perf_counter()
    baselines = NgramBaselines(prepared.train, config.tokenizer.vocab_size)
    with console.stage("evaluating on held-out documents"):
        results = Evaluator(model, held_out, objective, baselines, precision).results()
        similarity = layer_similarity(model.encoder, held_out.plain.batches(config.evaluation.similarity_pairs))
    results["evaluation"] = {"seconds": time.perf_counter() - started}
    groups = ("data", "evaluation", "pairs", "masking")
    settings = {group: config.as_dict()[group] for group in groups}
    record = {
        "checkpoint": checkpoint.name, "precision": precision, "settings": settings, "data": prepared.record,
        "missing": missing, "results": results, "similarity": similarity,
    }  # fmt: skip
    key = digest([settings, prepared.train.fingerprint, precision, checkpoint.name], 8)
    file = run / "evaluations" / f"{config.data.name}-{key}.json"
    file.parent.mkdir(exist_ok=True)
    write_json(file, record)
    if imported and "masked_lm" not in folder.read("results.json"):
        _adopt(folder, prepared.record, results, similarity)
    return record | {"file": str(file)}


def _adopt(folder: RunFolder, data: dict[str, Any], results: dict[str, Any], similarity: dict[str, Any]) -> None:
    """The first evaluation of an imported run becomes its results; its tokenizer's record stays."""
    folder.write("results.json", folder.read("results.json") | results)
    folder.write("similarity.json", similarity)
    manifest = read_json(folder.path / "manifest.json")
    folder.write("manifest.json", manifest | {"data": data | {"tokenizer": manifest["data"]["tokenizer"]}})


if __name__ == "__main__":
    sys.exit(main())
