"""Exports a run or a fine-tuning as one ONNX graph, with its tokenizer and a card: ``export --onnx``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_ablate.commands.export_folder import (
    filling,
    require_free,
    require_tokenizer,
    write_tokenizer,
    write_values,
)
from albert_ablate.commands.given import is_unit, open_run
from albert_ablate.commands.unit import load_unit
from albert_ablate.config.schema import RunConfig
from albert_ablate.console import stage
from albert_ablate.door.compose import compose_for_run
from albert_ablate.files import read_json

if TYPE_CHECKING:
    from albert_ablate.interop.onnx_file import Traceable

_CARD = """# {name}

`model.onnx`, exported with albert-ablate: {what}.

```python
import json

import numpy as np
import onnxruntime
from transformers import AutoTokenizer

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
names = [given.name for given in session.get_inputs()]
text = AutoTokenizer.from_pretrained("FOLDER")("A text.", {padding})
answer = session.run(None, {{name: np.array([text[name]]) for name in names}})[0]
labels = json.loads(session.get_modelmeta().custom_metadata_map.get("labels", "[]"))
```

| | |
|---|---|
{rows}

Weights are fp32. On made-up texts ONNX Runtime's outputs differ from PyTorch's by at most {difference:.1e},
relative to the largest output if that is above 1.

`provenance.json` holds the whole manifest.
"""
#: Kind of answers -> what the outputs are.
_MEANINGS = {
    "states": "(texts, tokens, H), the states of the last layer; no head",
    "classes": "(texts, classes), the logits of classes, of which one applies",
    "labels": "(texts, labels), the logits of labels, of which any number may apply",
    "values": "(texts, numbers), on the scale of the task's files",
    "choices": "(texts, 1), a score of each text; that of the right option should be the highest",
    "tags": "(texts, tokens, tags), the logits of each token's tag; a word has that of its first token",
    "spans": "(texts, tokens), the scores of each position as the start and as the end of the answer",
}


def export_onnx(path: Path, out: Path, settings: Sequence[str] = (), length: int | None = None) -> str:
    """Write a run's encoder, or a fine-tuning with its head, to the new or empty folder ``out``; returns what it takes.

    ``settings``: as ``export_unit``. ``length``: tokens of every text, for attention in blocks. Raises UserError: a
    package is missing, the answer is no single graph, or ONNX Runtime computes something else.
    """
    from albert_ablate.interop.onnx_file import require_packages

    out = out.resolve()
    require_packages("--onnx")
    require_free(out)
    return _unit(path, out, settings, length) if is_unit(path) else _run(path, out, length)


def _run(path: Path, out: Path, length: int | None) -> str:
    run = open_run(path).path
    require_tokenizer(run)
    config = compose_for_run(run / "config.yaml", [])
    from albert_ablate.interop.onnx_file import states_of
    from albert_ablate.methods import method_of
    from albert_ablate.training.checkpoint import load_weights, newest

    checkpoint = newest(run / "checkpoints")
    model = method_of(config).build({})
    load_weights(checkpoint, model)
    manifest = read_json(run / "manifest.json") if (run / "manifest.json").is_file() else {}
    origin = {"run": run.name, "checkpoint": checkpoint.name, **manifest}
    return _written(states_of(model.eval().encoder), run, config, out, origin, run.name, length)


def _unit(path: Path, out: Path, settings: Sequence[str], length: int | None) -> str:
    opened = load_unit(path, settings, on_cpu=True)
    run, answerer = opened.run.path, opened.answerer
    require_tokenizer(run)
    from albert_ablate.tasks.finetuning import BEST
    from albert_ablate.tasks.traced import traceable

    pretraining = read_json(run / "manifest.json") if (run / "manifest.json").is_file() else {}
    facts = answerer.task.train.sequences.facts is not None
    model = traceable(answerer.task, answerer.model.eval(), facts)
    weights = {"run": run.name, "fine_tuning": opened.unit.name, "weights": BEST}
    origin = {**weights, **opened.manifest, "pretraining": pretraining}
    name, longest = f"{run.name}, {opened.unit.name}", answerer.recipe.max_length
    return _written(model, run, opened.config, out, origin, name, length, longest)


def _written(
    model: "Traceable", run: Path, config: RunConfig, out: Path, origin: dict[str, Any], name: str,
    length: int | None, longest: int | None = None,
) -> str:  # fmt: skip
    """Fill the folder. ``longest``: tokens of the longest text; None: as many as the model has positions."""
    from dataclasses import replace

    from albert_ablate.interop.onnx_file import NAME, fixed_length, write_onnx

    longest = longest or config.model.max_positions
    fixed = fixed_length(model.encoder.shape, length, longest)
    meaning = _MEANINGS[model.facts.get("answers", "states")]
    model = replace(model, facts={**model.facts, "name": name})
    with filling(out) as folder:
        with stage("tracing the model"):
            difference = write_onnx(model, folder / NAME, fixed)
        write_tokenizer(run, config, folder, fixed or longest)
        write_values(folder / "provenance.json", origin)
        takes = f"texts of exactly {fixed:,} tokens, padded or cut" if fixed else f"texts of up to {longest:,} tokens"
        padding = 'padding="max_length", truncation=True' if fixed else "truncation=True"
        rows = {"inputs": f"{', '.join(model.inputs)}: {takes}", f"{', '.join(model.outputs)}": meaning}
        if labels := model.facts.get("labels", "[]").strip("[]"):
            rows["labels"] = labels
        table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
        what = "a fine-tuned encoder with its head" if "fine_tuning" in origin else "a pretrained encoder without heads"
        text = _CARD.format(name=name, what=what, padding=padding, rows=table, difference=difference)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return f"{NAME} takes {takes}; outputs equal PyTorch's to {difference:.1e}"
