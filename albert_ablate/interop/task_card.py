"""The model card of an exported fine-tuning (README.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from albert_ablate.axes import AXES
from albert_ablate.config.schema import RunConfig
from albert_ablate.interop.exported import Exported
from albert_ablate.interop.finetuned import TaskHead

_TEXT, _PAIR = '"A text."', '{"text": "A text.", "text_pair": "A second text."}'
#: What the pipeline answers, by the kind of answer.
_SAID = {
    "classes": "the most probable class and its probability",
    "labels": "the probability of each label; a label applies if it is above one half",
    "values": "the numbers, on the scale of the task's files",
    "tags": "a tag for each piece; that of the first piece of a word is the word's",
}
_PIPELINES = {"choices": "multiple-choice", "spans": "question-answering", "tags": "token-classification"}
_BODIES = {
    "choices": (
        "rows = tokenizer([TEXT] * 4, CHOICES, truncation=\"only_first\", padding=True, return_tensors=\"pt\")\n"
        "logits = model(**{name: ids[None] for name, ids in rows.items()}).logits  # (1, 4): the highest is chosen\n"
    ),
    "spans": (
        'row = tokenizer(QUESTION, TEXT, truncation="only_second", return_tensors="pt")\n'
        "answer = model(**row)  # start_logits and end_logits, one for each token\n"
    ),
}  # fmt: skip


def task_card(
    config: RunConfig,
    unit: str,
    exported: Exported,
    head: TaskHead,
    pairs: bool,
    manifest: Mapping[str, Any],
    results: Mapping[str, Any],
) -> str:
    """The model card: the task, its scores, how to load the model, and the origin of the numbers.

    ``unit``: the name of the fine-tuning, with its ``manifest`` and ``results``; ``pairs``: whether it reads two texts.
    """
    source, recipe = manifest.get("source") or {}, results["recipe"]
    axes = {axis.name: axis.value(config) for axis in AXES}
    facts = {
        "task": manifest["task"],
        "fine-tuning": f"{unit}, seed {manifest['seed']}, best of its evaluations (step {results['best']['step']})",
        "pretrained run": manifest.get("run"),
        "arm": ", ".join(f"{name} = {value}" for name, value in axes.items()),
        "size": f"H = {config.model.hidden}, {config.model.layers} layers, {config.model.heads} heads",
        "commit": (source.get("commit") or "unknown") + (" with uncommitted changes" if source.get("dirty") else ""),
        "data": f"fingerprint {manifest['data']['fingerprint']}",
        "tokens of a sequence": f"at most {recipe['max_length']}",
    }
    if head.names:
        facts["answers"] = ", ".join(head.names)
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    scores = "\n".join(_scores(results["best"]["sets"]))
    notes = "\n".join(f"- {note}" for note in _notes(exported, head))
    kind = _PIPELINES.get(head.answers, "text-classification")
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: {kind}\ntags: [albert-ablate, {manifest['task']}]\n---\n\n"
        f"# {manifest['run']}, {manifest['task']}\n\nAn encoder, pretrained and fine-tuned with albert-ablate.\n\n"
        f"```python\n{_example(exported, head, pairs)}```\n\n"
        f"| | |\n|---|---|\n{rows}\n\n"
        f"| set | metric | value | 95% interval | examples |\n|---|---|---|---|---|\n{scores}\n\n"
        f"{notes}\n\n`provenance.json` holds the manifests of the fine-tuning and of the pretraining.\n"
    )


def _example(exported: Exported, head: TaskHead, pairs: bool) -> str:
    if head.answers in _BODIES:
        name = exported.architecture
        return (
            f"from transformers import AutoTokenizer, {name}\n\n"
            f'model = {name}.from_pretrained("FOLDER")\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
            f"{_BODIES[head.answers]}"
        )
    if head.answers == "tags":
        return (
            f'from transformers import pipeline\n\nmodel = pipeline("{_PIPELINES["tags"]}", "FOLDER")\n'
            f"print(model({_TEXT}))  # {_SAID[head.answers]}\n"
        )
    every = "" if head.answers == "classes" else ", top_k=None"
    return (
        'from transformers import pipeline\n\nmodel = pipeline("text-classification", "FOLDER")\n'
        f"print(model({_PAIR if pairs else _TEXT}, truncation=True{every}))  # {_SAID[head.answers]}\n"
    )


def _scores(sets: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A row for each metric of each dev set."""
    for name, metrics in sets.items():
        for metric, found in metrics.items():
            if isinstance(found, Mapping) and "value" in found:
                low, high = found.get("interval") or (None, None)
                between = "" if low is None else f"{low:.4f} to {high:.4f}"
                cells = (name, metric.replace("_", " "), f"{found['value']:.4f}", between, metrics.get("n", ""))
                yield f"| {' | '.join(map(str, cells))} |"


def _notes(exported: Exported, head: TaskHead) -> list[str]:
    """What a reader must know, a sentence or two each."""
    notes = ["Weights are fp32. The scores are of the best evaluation on the set that is reported."]
    if head.answers == "choices":
        notes.append("A choice is the second text: a question with the choice in its gap, or followed by it.")
    if exported.unrolled:
        notes.append(
            "transformers has no class that shares these blocks: every layer has a copy. Outputs are equal; "
            "fine-tuning lets the copies drift apart."
        )
    if head.pooler is None and head.answers not in _PIPELINES:
        notes.append(
            "The head was trained without a dense layer. The class has one: it adds a constant, so that the activation "
            "after it changes nothing, and the last layer subtracts it. Outputs are equal but for rounding."
        )
    if exported.architecture.startswith("Albert"):
        notes.append("transformers' ALBERT has no dropout after the feed-forward network, which training here had.")
    return notes
