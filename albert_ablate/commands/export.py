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
from albert_ablate.axes import AXES, OBJECTIVE, SENTENCE_TASKS
from albert_ablate.axes.objective import describe_labels
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
    from albert_ablate.interop.huggingface import Exported


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("export"), description="A run for transformers.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("out", type=Path, help="the folder to write: a new one, or an empty one")
    options = parser.parse_args(arguments)
    for remark in remarks(open_run(options.run)):
        print(f"! {remark}", file=sys.stderr)
    exported = export(options.run, options.out)
    print(
        f"{options.out}: {exported.architecture}"
        + (", every layer with blocks of its own" if exported.unrolled else "")
    )
    return 0


def export(run: Path, out: Path) -> "Exported":
    """Write the run's newest weights to the new or empty folder ``out``. Raises UserError."""
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

    from albert_ablate.interop.huggingface import in_order_of, to_huggingface
    from albert_ablate.interop.tokenizer_json import tokenizer_json
    from albert_ablate.model.pretraining import build_model
    from albert_ablate.training.checkpoint import load_weights, newest

    checkpoint = newest(run / "checkpoints")
    model = build_model(config.architecture(), config.seed)
    load_weights(checkpoint, model)
    manifest = read_json(run / "manifest.json") if (run / "manifest.json").is_file() else {}
    exported = to_huggingface(model, manifest.get("imported"))
    word_pieces = config.tokenizer.name == WORDPIECE
    if word_pieces:
        exported = in_order_of(source, exported)
    # An empty folder is kept: it may be the working directory of a process.
    target = out / ".unfinished" if out.exists() else out
    with building(target) as folder:
        save_file(exported.tensors, folder / "model.safetensors", metadata={"format": "pt"})
        _write(folder / "config.json", {"architectures": [exported.architecture], **exported.config})
        _write(folder / "tokenizer_config.json", tokenizer_settings(config))
        if word_pieces:  # rewritten: BertTokenizer would read a byte-order mark as part of the first piece
            (folder / VOCABULARY).write_text("".join(f"{p}\n" for p in read_vocabulary(source)), encoding="utf-8")
        else:
            shutil.copyfile(source, folder / TOKENIZER)
            kept = run / TOKENIZER_JSON  # of an imported run whose text cleaning differs from ours
            exported_tokenizer = read_json(kept) if kept.is_file() else tokenizer_json(source, config.tokenizer)
            _write(folder / TOKENIZER_JSON, exported_tokenizer)
        results = read_json(run / "results.json") if (run / "results.json").is_file() else {}
        _write(folder / "provenance.json", {"run": run.name, "checkpoint": checkpoint.name, **manifest})
        card = _card(config, run, checkpoint.name, exported, manifest, results)
        (folder / "README.md").write_text(card, encoding="utf-8")
    if target != out:
        for file in sorted(target.iterdir()):
            file.replace(out / file.name)
        target.rmdir()
    return exported


def tokenizer_settings(config: RunConfig) -> dict[str, Any]:
    """``tokenizer_config.json``."""
    common = {
        "tokenizer_class": _tokenizer_class(config),
        "model_max_length": config.model.max_positions,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
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


def _card(
    config: RunConfig,
    run: Path,
    checkpoint: str,
    exported: "Exported",
    manifest: dict[str, Any],
    results: dict[str, Any],
) -> str:
    """The model card (README.md): what the model is, how to load it, and the origin of its numbers."""
    source, data = manifest.get("source") or {}, manifest.get("data", {})
    masked = results.get("masked_lm") or {}
    axes = {axis.name: axis.value(config) for axis in AXES}
    training = results.get("training")
    facts = {
        "arm": ", ".join(f"{name} = {value}" for name, value in axes.items()),
        "size": f"H = {config.model.hidden}, {config.model.layers} layers, {config.model.heads} heads",
        "run, checkpoint": f"{run.name}, {checkpoint}",
        "seed": config.seed,
        "commit": (source.get("commit") or "unknown") + (" with uncommitted changes" if source.get("dirty") else ""),
        "corpus": f"{data.get('corpus', 'unknown')}, tokens {data.get('tokens', {}).get('fingerprint', 'unknown')}",
        "trained": f"{training['steps']:,} steps, {training['tokens']:,} tokens" if training else "not finished",
    }
    if masked:
        facts["held-out masked-LM loss"] = f"{masked['loss']:.3f} nats (unigram {masked['unigram_loss']:.3f})"
    for task in SENTENCE_TASKS:
        if scores := results.get(task):
            facts[f"held-out {OBJECTIVE.label_of(task)}"] = f"{scores['accuracy']:.1%}, {scores['head']} head"
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    name = exported.architecture
    case = "The tokenizer lower-cases text" if config.tokenizer.lowercase else "Text keeps its case"
    accents = "drops accents" if config.tokenizer.strip_accents else "keeps accents"
    notes = [
        f"Weights are fp32. Sentence label {describe_labels()}.",
        "The tokenizer cleans text as tokenizer.json says."
        if (run / TOKENIZER_JSON).is_file()
        else f"{case} and {accents}.",
    ]
    if not config.objective.name.trains_sentences:
        notes.append("No sentence objective: the pooler and the sentence head keep their random initial weights.")
    if exported.unrolled:
        notes.append(
            "transformers has no class that shares these blocks: every layer has a copy. Outputs are equal; "
            "fine-tuning lets the copies drift apart."
        )
    if name.startswith("Albert"):
        notes.append("transformers' ALBERT has no dropout after the feed-forward network, which training here had.")
    lines = "\n".join(f"- {note}" for note in notes)
    return (
        "---\nlibrary_name: transformers\ntags: [albert-ablate, masked-lm]\n---\n\n"
        f"# {run.name}\n\nOne arm of an ablation, pretrained with albert-ablate.\n\n"
        f"```python\nfrom transformers import AutoTokenizer, {name}\n\n"
        f'model = {name}.from_pretrained("FOLDER")\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```\n\n'
        f"| | |\n|---|---|\n{rows}\n\n{lines}\n\n`provenance.json` holds the run's whole manifest.\n"
    )


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
