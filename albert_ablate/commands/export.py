"""Export a run or a fine-tuning to transformers: ``python -m albert_ablate.export runs/NAME OUT``.

Writes a folder that ``from_pretrained`` loads: weights (safetensors), configuration, tokenizer, and a
model card that states the origin of the run. A fine-tuning (``runs/NAME/tasks/NAME``) goes out with its head and its
best weights. One of an older version has not recorded its labels: they are read from the files of its task, and
``task.data_dir=DATA`` says where these are if they were moved.
``--sentence-transformers`` makes the folder of a run a model of that package, which embeds texts. ``--onnx`` writes one
ONNX graph in place of a model of transformers: of a run's encoder, or of a fine-tuning with its head.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.commands.export_folder import (
    Pool,
    filling,
    require_free,
    require_tokenizer,
    write_model,
    write_pooling,
    write_tokenizer,
    write_values,
)
from albert_ablate.commands.export_onnx import export_onnx
from albert_ablate.commands.given import is_unit, open_run, remarks
from albert_ablate.commands.unit import load_unit
from albert_ablate.console import command
from albert_ablate.data.wordpiece import NAME as WORDPIECE
from albert_ablate.door.compose import compose_for_run
from albert_ablate.errors import ConfigError
from albert_ablate.files import read_json

if TYPE_CHECKING:
    from albert_ablate.interop.exported import Exported

#: The subfolder of a run's generator.
GENERATOR = "generator"
#: What the model card says of sentence embeddings.
_EMBEDDING = """
## Sentence embeddings

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("FOLDER").encode(["A text.", "Another one."])
```

No loss trained these vectors: they are pooled states of the last layer.
"""


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = Parser(prog=program("export"), description="A run or a fine-tuning for transformers.")
    parser.add_argument("run", type=Path, help="a run folder, or the folder of a fine-tuning, RUN/tasks/NAME")
    parser.add_argument("out", type=Path, help="the folder to write: a new one, or an empty one")
    parser.add_argument(
        "settings",
        nargs="*",
        help="of a fine-tuning of an older version: where its task's files are: task.data_dir=DATA",
    )
    parser.add_argument(
        "--sentence-transformers",
        nargs="?",
        const="mean",
        choices=("mean", "cls"),
        help="of a run: also the files of this package; a text's vector is the mean of its states, or that of [CLS]",
    )
    parser.add_argument("--onnx", action="store_true", help="one ONNX graph in place of a model of transformers")
    parser.add_argument(
        "--length", type=int, metavar="N", help="of attention in blocks, with --onnx: the tokens of every text"
    )
    options = parser.parse_intermixed_args(arguments)
    pool = options.sentence_transformers
    _require_one_form(options.onnx, pool, options.length)
    if not is_unit(options.run) and options.settings:
        raise ConfigError(f"{options.settings[0]}: no effect on a run; only the export of a fine-tuning takes it.")
    if options.onnx:
        print(f"{options.out}: {export_onnx(options.run, options.out, options.settings, options.length)}")
        return 0
    if is_unit(options.run):
        if pool is not None:
            raise ConfigError("--sentence-transformers: no effect on a fine-tuning, whose head answers. Give its run.")
        models = {".": export_unit(options.run, options.out, options.settings)}
    else:
        for remark in remarks(open_run(options.run)):
            print(f"! {remark}", file=sys.stderr)
        models = export(options.run, options.out, pool)
    for folder, exported in models.items():
        blocks = ", every layer with blocks of its own" if exported.unrolled else ""
        without = f"; left out, which it lacks: {', '.join(exported.left_out)}" if exported.left_out else ""
        print(f"{options.out / folder}: {exported.architecture}{blocks}{without}")
    return 0


def _require_one_form(onnx: bool, pool: Pool | None, length: int | None) -> None:
    """Raise ConfigError for options that exclude each other."""
    if onnx and pool is not None:
        raise ConfigError("--sentence-transformers: it reads a model of transformers. Export twice, to two folders.")
    if length is not None and not onnx:
        raise ConfigError(f"--length {length}: no effect without --onnx.")


def export(run: Path, out: Path, pool: Pool | None = None) -> "dict[str, Exported]":
    """Write the run's newest weights to the new or empty folder ``out``; returns subfolder -> the model in it.

    The subfolder of the run's encoder is ``.``; that of its generator, if it has one, is ``GENERATOR``. ``pool``: also
    write the files of sentence-transformers. Raises UserError.
    """
    run, out = open_run(run).path, out.resolve()
    require_free(out)
    source = require_tokenizer(run)
    config = compose_for_run(run / "config.yaml", [])
    if pool is not None and config.method.name.predicts_next:
        raise ConfigError(
            "--sentence-transformers: a causal run is exported to write texts, with a tokenizer that lacks the marks "
            "which embed reads. Leave it out; aa.load(RUN).embed gives the vectors."
        )
    from albert_ablate.data.tokenizer import CLS, SEP  # after the checks: torch loads slowly
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
    with filling(out) as folder:
        for name, exported in models.items():
            write_model(folder / name, exported)
            write_tokenizer(run, config, folder / name)
        results = read_json(run / "results.json") if (run / "results.json").is_file() else {}
        write_values(folder / "provenance.json", {"run": run.name, "checkpoint": checkpoint.name, **manifest})
        text = card(config, run, checkpoint.name, models, manifest, results)
        if pool is not None:
            write_pooling(folder, config, pool)
            text += _EMBEDDING
        (folder / "README.md").write_text(text, encoding="utf-8")
    return models


def export_unit(unit: Path, out: Path, settings: Sequence[str] = ()) -> "Exported":
    """Write the best weights of a fine-tuning to the new or empty folder ``out``; returns the model in it.

    ``settings`` say where files of it are, if they were moved. Raises UserError.
    """
    out = out.resolve()
    require_free(out)
    opened = load_unit(unit, settings, on_cpu=True)
    run, config, answerer = opened.run.path, opened.config, opened.answerer
    source = require_tokenizer(run)
    from albert_ablate.interop.finetuned import to_finetuned
    from albert_ablate.interop.huggingface import in_order_of
    from albert_ablate.interop.task_card import task_card
    from albert_ablate.tasks.finetuning import BEST
    from albert_ablate.tasks.leaving import head_of
    from albert_ablate.tasks.task import AnswersTexts

    pretraining = read_json(run / "manifest.json") if (run / "manifest.json").is_file() else {}
    encoder, head = head_of(answerer.task, answerer.model, answerer.task.train.sequences.facts is not None)
    exported = to_finetuned(encoder, head, config.method.name.discriminates, pretraining.get("imported"))
    if config.tokenizer.name == WORDPIECE:
        exported = in_order_of(source, exported)
    results = opened.unit.read("results.json")
    with filling(out) as folder:
        write_model(folder, exported)
        write_tokenizer(run, config, folder, answerer.recipe.max_length)
        origin = {"run": run.name, "fine_tuning": opened.unit.name, "weights": BEST}
        write_values(folder / "provenance.json", {**origin, **opened.manifest, "pretraining": pretraining})
        pairs = isinstance(answerer.task, AnswersTexts) and len(answerer.task.columns) > 1
        text = task_card(config, opened.unit.name, exported, head, pairs, opened.manifest, results)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return exported
