"""The model card of an exported run (README.md)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_ablate.axes import AXES, CAUSAL_LM, OBJECTIVE, SENTENCE_TASKS
from albert_ablate.axes.objective import describe_labels
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.wordpiece import NAME as WORDPIECE
from albert_ablate.interop.exported import Exported
from albert_ablate.record.folder import TOKENIZER_JSON


def card(
    config: RunConfig,
    run: Path,
    checkpoint: str,
    models: Mapping[str, Exported],
    manifest: Mapping[str, Any],
    results: Mapping[str, Any],
) -> str:
    """The model card: what the model is, how to load it, and the origin of its numbers.

    ``models``: subfolder -> the model in it, with the run's encoder in ``.``; the rest are its generators.
    """
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
    if parent := manifest.get("continued_from"):
        facts["continues"] = f"{parent['run']} ({parent.get('identity')})"
        if training and training.get("tokens_in_all"):
            facts["trained, with the runs before"] = f"{training['tokens_in_all']:,} tokens"
    if masked:
        facts["held-out masked-LM loss"] = f"{masked['loss']:.3f} nats (unigram {masked['unigram_loss']:.3f})"
    if causal := results.get(CAUSAL_LM):
        low, high = causal["bits_per_byte_interval"]
        facts["held-out bits per byte"] = f"{causal['bits_per_byte']:.3f} (95% interval {low:.3f} to {high:.3f})"
        facts["held-out next-piece loss"] = f"{causal['loss']:.3f} nats (unigram {causal['unigram_loss']:.3f})"
    for task in SENTENCE_TASKS:
        if scores := results.get(task):
            facts[f"held-out {OBJECTIVE.label_of(task)}"] = f"{scores['accuracy']:.1%}, {scores['head']} head"
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    name = models["."].architecture
    lines = "\n".join(f"- {note}" for note in _notes(config, run, models))
    head = "causal-lm" if models["."].predicts_next else "masked-lm"
    trained = "feature-extraction" if models["."].bare else head
    kind = "replaced-token-detection" if name == "ElectraForPreTraining" else trained
    return (
        f"---\nlibrary_name: transformers\ntags: [albert-ablate, {kind}]\n---\n\n"
        f"# {run.name}\n\nOne arm of an ablation, pretrained with albert-ablate.\n\n"
        f"```python\nfrom transformers import AutoTokenizer, {name}\n\n"
        f'model = {name}.from_pretrained("FOLDER")\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```\n\n'
        f"| | |\n|---|---|\n{rows}\n\n{lines}\n\n`provenance.json` holds the run's whole manifest.\n"
    )


def _notes(config: RunConfig, run: Path, models: Mapping[str, Exported]) -> list[str]:
    """What a reader must know, a sentence or two each."""
    exported = models["."]
    case = "The tokenizer lower-cases text" if config.tokenizer.lowercase else "Text keeps its case"
    accents = "drops accents" if config.tokenizer.strip_accents else "keeps accents"
    judges = config.has_pooler and "sentence head" not in exported.left_out
    labels = f" Sentence label {describe_labels()}." if judges else ""
    notes = [
        f"Weights are fp32.{labels}",
        "The tokenizer cleans text as tokenizer.json says."
        if (run / TOKENIZER_JSON).is_file()
        else f"{case} and {accents}.",
    ]
    if exported.left_out:
        notes.append(f"{exported.architecture} lacks heads that the run has: {', '.join(exported.left_out)}.")
    if not config.objective.name.trains_sentences and config.has_pooler and "pooler" not in exported.left_out:
        untrained = "the pooler and the sentence head keep their" if judges else "the pooler keeps its"
        notes.append(f"No sentence objective: {untrained} random initial weights.")
    if exported.unrolled:
        notes.append(
            "transformers has no class that shares these blocks: every layer has a copy. Outputs are equal; "
            "fine-tuning lets the copies drift apart."
        )
    if exported.bare:
        notes.append("No masked-LM head was trained, so there is none.")
        if not config.has_pooler:
            notes.append("The run has no pooler; the one that transformers adds is random.")
    if not config.method.token_types:
        zero = any("token_type_embeddings" in name for name in exported.tensors)
        notes.append(
            "No token types: the two segments of a pair differ only by their place around [SEP]."
            + (" The class has a table of types; it is zero, and fine-tuning there would train it." if zero else "")
        )
    if config.method.reads_documents:
        notes.append(
            "A text begins with [SEP], which stood before each document in training. "
            + ("Put it there and leave special tokens out: transformers' BertTokenizer adds [CLS] and a last [SEP]."
               if config.tokenizer.name == WORDPIECE else "The tokenizer puts it there.")
        )  # fmt: skip
    if exported.architecture.startswith("BigBird"):
        notes.append(
            "After a text of (5 + 2 num_random_blocks) block_size tokens or fewer, transformers' BigBird stays with "
            'full attention; `model.set_attention_type("block_sparse")` brings the blocks back. In training it drops '
            "no attention probabilities in blocks; training here did where it dropped any."
        )
    if exported.architecture.startswith("DistilBert"):
        notes.append("transformers' DistilBERT has no dropout after the attention block.")
    if exported.architecture.startswith("OPT"):
        notes.append("transformers' OPT has no dropout on the embedding, which training here may have had.")
    if exported.architecture.startswith("Albert"):
        notes.append("transformers' ALBERT has no dropout after the feed-forward network, which training here had.")
    notes += [
        f"`{folder}/` holds the generator whose samples the encoder read: "
        f'`{model.architecture}.from_pretrained("FOLDER", subfolder="{folder}")`.'
        for folder, model in models.items()
        if folder != "."
    ]
    return notes
