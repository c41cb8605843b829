"""Figure 1 of any run on any text: ``python -m analysis.similarity runs/NAME ... --text FILE``.

L2 distance and angle between the input and output of every layer, as in the paper's section 3.1,
averaged over the real tokens of the first sequences of the text.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from albert_ablate.axes import Objective
from albert_ablate.config import RunConfig
from albert_ablate.console import command
from albert_ablate.data.corpora import read_file
from albert_ablate.data.store import TokenStore, write_side
from albert_ablate.data.text import divided, split_sentences, without_control
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file
from albert_ablate.errors import DataError, UserError
from albert_ablate.evaluation.heldout import pair_set
from albert_ablate.evaluation.similarity import layer_similarity
from albert_ablate.files import read_json
from albert_ablate.hydra_app import compose_for_run
from albert_ablate.import_hf import import_checkpoint
from albert_ablate.model.pretraining import build_model
from albert_ablate.runs import RunFolder
from albert_ablate.training.checkpoint import WEIGHTS, load_weights, newest
from analysis import style
from analysis.paper_figures import draw_layers, layers_of
from analysis.places import inside, require_ours, require_writable

_SEQUENCES = 256


def measure(place: Path, text: Path, sequences: int = _SEQUENCES) -> dict[str, Any]:
    """``layer_similarity`` on ``text`` of a run's newest checkpoint, a checkpoint folder in it, or an ALBERT or BERT.

    The last is a folder of transformers or a name on the hub. Raises DataError where the text gives
    no sequence, CheckpointError or DataError where a folder is none of them.
    """
    if (place / "config.json").is_file() or not place.exists():
        with tempfile.TemporaryDirectory() as scratch:
            run = Path(scratch) / place.name
            import_checkpoint(str(place), run)
            return measure(run, text, sequences)
    run, checkpoint = _found(place)
    status = RunFolder(run.parent, run.name).status() or {}
    config = compose_for_run(run / "config.yaml", [])
    model = build_model(config.architecture(), config.seed)
    load_weights(checkpoint, model)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = open_tokenizer(tokenizer_file(run), config.tokenizer)
        store = _tokens(text, tokenizer, config, Path(scratch))
        pairs = pair_set(config, store, tokenizer.word_starts, Objective.NONE, sequences)
        if not len(pairs):
            raise DataError(f"--text {text}: no two sentences in one document; nothing to measure on.")
        found = layer_similarity(model.encoder, pairs.batches())
    share = config.share.strategy.value
    return found | {
        "run": run.name, "checkpoint": checkpoint.name, "share": share, "seed": config.seed,
        "finished": status.get("state") == "finished",
    }  # fmt: skip


def _found(place: Path) -> tuple[Path, Path]:
    """(run folder, checkpoint folder) of either: what is measured is the place itself or nothing."""
    of_run = place.parent.name == "checkpoints"
    run = place.parent.parent if of_run else place
    if not (run / "config.yaml").is_file():
        runs = inside(place)
        more = f" It is a folder of {len(runs)} runs: name them, such as {runs[0]}." if runs else ""
        raise DataError(
            f"{place}: neither a run folder (with config.yaml), nor one of its checkpoints/step_..., nor a model of "
            f"transformers (with config.json).{more}"
        )
    if of_run and not (place / WEIGHTS).is_file():
        raise DataError(f"{place}: no complete checkpoint (it has no {WEIGHTS}).")
    if not tokenizer_file(run).is_file():
        raise DataError(
            f"{run}: it keeps no {tokenizer_file(run).name}, so its tokenizer is not known; an older version made it."
        )
    return run, place if of_run else newest(run / "checkpoints")


def _tokens(text: Path, tokenizer: Tokenizer, config: RunConfig, scratch: Path) -> TokenStore:
    if not text.is_file():
        raise DataError(f"--text {text}: no such file.")
    documents = [
        [part for sentence in split_sentences(without_control(document)[0], config.data.language)
         for part in divided(sentence)]
        for document in read_file(text, config.data)
    ]  # fmt: skip
    source, folder = scratch / "text.txt", scratch / "tokens"
    source.write_text("".join("\n".join(sentences) + "\n\n" for sentences in documents), encoding="utf-8")
    write_side(source, tokenizer, folder)
    arrays = [np.load(folder / f"{name}.npy") for name in ("tokens", "sentences", "documents")]
    return TokenStore(arrays[0], arrays[1], arrays[2], fingerprint="")


def _once(places: Sequence[Path]) -> list[Path]:
    """The places without those that are the same checkpoint of the same run: a copy is no second run."""
    known: dict[tuple[str, ...], Path] = {}
    for place in places:
        run = place.parent.parent if place.parent.name == "checkpoints" else place
        key: tuple[str, ...] = (str(place.resolve()),)
        if (run / "config.yaml").is_file() and (run / "manifest.json").is_file():
            checkpoint = _found(place)[1]
            key = (str(read_json(run / "manifest.json").get("identity")), checkpoint.name)
        if key in known:
            print(f"{place}: the same checkpoint of the same run as {known[key]}; shown once", file=sys.stderr)
        known.setdefault(key, place)
    return list(known.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the layers of every run; with ``--out`` draw them. Exit code 2 for a place or text that will not do."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.similarity", description="What each layer does to its input, on your text."
    )
    parser.add_argument("places", type=Path, nargs="+", metavar="RUN_OR_CHECKPOINT", help="or a name on the hub")
    parser.add_argument("--text", type=Path, required=True, help="prose, sentences, .jsonl or .parquet; may be packed")
    parser.add_argument(
        "--sequences", type=int, default=_SEQUENCES, help=f"how many, from the start (default: {_SEQUENCES})"
    )
    parser.add_argument("--out", type=Path, help="folder for figure1.png, .svg, .pdf, .csv")
    options = parser.parse_args(arguments)
    try:
        if options.out:
            require_writable("--out", options.out)
            require_ours("--out", options.out, style.files("figure1"), "figure1.csv", "")
        found = [measure(place, options.text, options.sequences) for place in _once(options.places)]
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for name in ("run", "layer", "L2", "degrees"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for one in found:
        for layer, (distance, angle) in enumerate(zip(one["l2"], one["degrees"], strict=True), 1):
            table.add_row(Text(one["run"] if layer == 1 else ""), str(layer), f"{distance:.2f}", f"{angle:.1f}")
    console = Console(highlight=False)
    console.print(table)
    for one in found:
        if not one.get("finished", True):
            console.print(f"{one['run']}: the run is not finished; measured at {one['checkpoint']}", soft_wrap=True)
    console.print(f"{found[0]['tokens']:,} tokens of {found[0]['sequences']} sequences", style="dim")
    if options.out:
        names = [one["run"] for one in found]
        labels = [
            name if names.count(name) == 1 else f"{name}, {one['checkpoint']}"
            for name, one in zip(names, found, strict=True)
        ]
        data = layers_of({label: pd.DataFrame([one]) for label, one in zip(labels, found, strict=True)})
        drawing = style.Drawing("figure1", "What each layer does to its input", "", draw_layers(data), data)
        try:
            style.write(drawing, options.out)
        except OSError as error:
            print(f"--out {options.out}: cannot be written ({error.strerror}).", file=sys.stderr)
            return 1
        console.print(f"{options.out / 'figure1'}.png, .svg, .pdf and .csv", soft_wrap=True)
    return 0


if __name__ == "__main__":
    command(main)
