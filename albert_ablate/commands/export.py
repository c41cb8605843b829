"""Export a run to transformers: ``python -m albert_ablate.export runs/NAME OUT``.

Writes a folder that ``from_pretrained`` loads: weights (safetensors), configuration, tokenizer, and a
model card that states the origin of the run.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.commands.given import open_run, remarks
from albert_ablate.config.schema import RunConfig
from albert_ablate.console import command
from albert_ablate.data.vocabulary import tokenizer_file
from albert_ablate.data.wordpiece import NAME as WORDPIECE
from albert_ablate.data.wordpiece import VOCABULARY, read_vocabulary
from albert_ablate.door.compose import compose_for_run
from albert_ablate.errors import RunFolderError
from albert_ablate.files import building, read_json, require_writable
from albert_ablate.record.folder import TOKENIZER, TOKENIZER_JSON

if TYPE_CHECKING:
    from albert_ablate.interop.exported import Exported

#: The subfolder of a run's generator.
GENERATOR = "generator"


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("export"), description="A run for transformers.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("out", type=Path, help="the folder to write: a new one, or an empty one")
    options = parser.parse_args(arguments)
    for remark in remarks(open_run(options.run)):
        print(f"! {remark}", file=sys.stderr)
    for folder, exported in export(options.run, options.out).items():
        blocks = ", every layer with blocks of its own" if exported.unrolled else ""
        without = f"; left out, which it lacks: {', '.join(exported.left_out)}" if exported.left_out else ""
        print(f"{options.out / folder}: {exported.architecture}{blocks}{without}")
    return 0


def export(run: Path, out: Path) -> "dict[str, Exported]":
    """Write the run's newest weights to the new or empty folder ``out``; returns subfolder -> the model in it.

    The subfolder of the run's encoder is ``.``; that of its generator, if it has one, is ``GENERATOR``. Raises
    UserError.
    """
    run, out = open_run(run).path, out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problem = "exists already and is not empty" if out.is_dir() else "is a file that exists already"
        raise RunFolderError(f"{out} {problem}. Give the name of a new or an empty folder.")
    try:
        require_writable(out if out.exists() else out.parent)
    except OSError as error:
        raise RunFolderError(f"{out} cannot be written ({error.strerror}). Give a folder of your own.") from error
    source = tokenizer_file(run)
    if not source.is_file():
        raise RunFolderError(f"{run}: it keeps no {source.name}, so its tokenizer cannot be exported.")
    config = compose_for_run(run / "config.yaml", [])
    from safetensors.torch import save_file  # after the checks: torch loads slowly

    from albert_ablate.data.tokenizer import CLS, SEP
    from albert_ablate.interop.card import card
    from albert_ablate.interop.huggingface import generator_to_huggingface, in_order_of, to_huggingface
    from albert_ablate.methods import Measure, method_of
    from albert_ablate.training.checkpoint import load_weights, newest

    checkpoint = newest(run / "checkpoints")
    method = method_of(config)
    model = method.build({})
    load_weights(checkpoint, model)
    manifest = read_json(run / "manifest.json") if (run / "manifest.json").is_file() else {}
    first = SEP if config.method.reads_documents else CLS
    models = {".": to_huggingface(model, manifest.get("imported"), Measure.MASKED_LM in method.measures, first)}
    generator = generator_to_huggingface(model)
    if generator is not None:
        models[GENERATOR] = generator
    if config.tokenizer.name == WORDPIECE:
        models = {name: in_order_of(source, exported) for name, exported in models.items()}
    # An empty folder is kept: it may be the working directory of a process.
    target = out / ".unfinished" if out.exists() else out
    with building(target) as folder:
        for name, exported in models.items():
            (folder / name).mkdir(exist_ok=True)
            save_file(exported.tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
            _write(folder / name / "config.json", {"architectures": [exported.architecture], **exported.config})
            _write_tokenizer(run, config, folder / name)
        results = read_json(run / "results.json") if (run / "results.json").is_file() else {}
        _write(folder / "provenance.json", {"run": run.name, "checkpoint": checkpoint.name, **manifest})
        text = card(config, run, checkpoint.name, models, manifest, results)
        (folder / "README.md").write_text(text, encoding="utf-8")
    if target != out:
        for file in sorted(target.iterdir()):
            file.replace(out / file.name)
        target.rmdir()
    return models


def _write_tokenizer(run: Path, config: RunConfig, folder: Path) -> None:
    from albert_ablate.interop.tokenizer_json import tokenizer_json

    source = tokenizer_file(run)
    _write(folder / "tokenizer_config.json", tokenizer_settings(config))
    if config.tokenizer.name == WORDPIECE:  # rewritten: BertTokenizer reads a byte-order mark as part of a piece
        (folder / VOCABULARY).write_text("".join(f"{p}\n" for p in read_vocabulary(source)), encoding="utf-8")
        return
    shutil.copyfile(source, folder / TOKENIZER)
    kept = run / TOKENIZER_JSON  # of an imported run whose text cleaning differs from ours
    made = (
        read_json(kept) if kept.is_file() else tokenizer_json(source, config.tokenizer, config.method.reads_documents)
    )
    _write(folder / TOKENIZER_JSON, made)


def tokenizer_settings(config: RunConfig) -> dict[str, Any]:
    """``tokenizer_config.json``."""
    types = ["token_type_ids"] if config.method.token_types else []
    common = {
        "tokenizer_class": _tokenizer_class(config),
        "model_max_length": config.model.max_positions,
        "model_input_names": ["input_ids", *types, "attention_mask"],
        "do_lower_case": config.tokenizer.lowercase,
    }
    if config.tokenizer.name == WORDPIECE:
        return common | {"strip_accents": config.tokenizer.strip_accents}
    marks = {"bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "sep": "[SEP]", "mask": "[MASK]"}
    marks |= {"pad": "<pad>", "unk": "<unk>"}
    named = {f"{name}_token": mark for name, mark in marks.items()}
    cleaning = {
        "keep_accents": not config.tokenizer.strip_accents,
        "split_digit_commas": config.tokenizer.split_digit_commas,
    }
    return common | cleaning | named


def _tokenizer_class(config: RunConfig) -> str:
    """A class that keeps tokenizer.json unchanged: AlbertTokenizer's own cleaning drops Indic vowels."""
    return "BertTokenizer" if config.tokenizer.name == WORDPIECE else "PreTrainedTokenizerFast"


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
