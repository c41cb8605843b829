"""Fine-tuning against code like Hugging Face's run_glue and run_qa: ``python -m benchmarks.finetuning``.

    python -m benchmarks.finetuning --sst2 DATA/sst2 --squad DATA/squad

SST-2: an epoch of training with batch 32, tokenising included, and predictions for dev; both sides have the same shape
(nano, E = 128, all shared), vocabulary, precision and optimizer. SQuAD: features of dev-v1.1 at length 384 with
stride 128. Each side has a separate process; they take turns.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AlbertTokenizer,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
)  # fmt: skip

from albert_ablate.config.schema import RunConfig
from albert_ablate.config.tasks import GlueConfig
from albert_ablate.data.prepare import prepare_data
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.door.compose import compose
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.finetuning import FineTuner, build_task_model
from albert_ablate.tasks.load import locate, read
from albert_ablate.tasks.recipe import resolve
from albert_ablate.tasks.squad.data import build_windows, read_squad
from albert_ablate.tasks.texts.examples import limit_sets, read_glue, task_files
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import autocast, choose_precision, set_up
from benchmarks.measure import Build, first_line, report, take_turns
from benchmarks.sides import usual_update

_CPU = torch.device("cpu")


def ours_sst2(config: RunConfig, tokenizer: Tokenizer) -> None:
    """One epoch: reading, tokenising, training."""
    tuner = sst2_tuner(config, tokenizer)
    for step in range(tuner.batches.per_epoch):
        tuner.update(step, tuner.batches[step])


def sst2_tuner(config: RunConfig, tokenizer: Tokenizer) -> FineTuner:
    """Data and model, ready to train; writes no files."""
    task = read(locate(config.task, config.tasks["sst2"]))(tokenizer, 128)
    recipe = resolve(config.tasks["sst2"], config.task.scaling, task.examples, 512)
    model = build_task_model(task, config.architecture(), recipe, config.task, 0, None, 0.02)
    folder = RunFolder(Path(tempfile.gettempdir()), "sst2-s0-benchmark")
    return FineTuner(
        task,
        model,
        recipe,
        config.task,
        0,
        folder,
        Machine(_CPU, _precision(config)),
        replace(config.runtime, log_every=10**9),
    )


def transformers_sst2(config: RunConfig, tokenizer: Tokenizer) -> None:
    """The same epoch with datasets, a padding collator and AlbertForSequenceClassification."""
    rows = read_rows(config)
    hugging = hugging_tokenizer(tokenizer)
    data = datasets.Dataset.from_dict({"sentence": [r[0] for r in rows], "labels": [r[1] for r in rows]})
    data = data.map(lambda e: hugging(e["sentence"], truncation=True, max_length=128), batched=True)
    data = data.remove_columns("sentence")
    model = AlbertForSequenceClassification(hugging_config(config))
    loader = DataLoader(data, 32, shuffle=True, collate_fn=DataCollatorWithPadding(hugging), drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, 100, len(loader))
    model.train()
    for batch in loader:
        usual_update(model, batch, optimizer, schedule, _precision(config))


def read_rows(config: RunConfig) -> list[tuple[str, int]]:
    """The training rows that both sides use."""
    task = config.tasks["sst2"]
    assert isinstance(task, GlueConfig)
    sets = read_glue(task, task_files(config.task, task))
    limit_sets(sets, task)
    return [(example.first, example.target) for example in sets.train]  # type: ignore[misc]


def hugging_tokenizer(tokenizer: Tokenizer) -> Any:
    """The fast ALBERT tokenizer with the same vocabulary."""
    pieces = tokenizer.pieces
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(tokenizer.vocab_size)]
    return AlbertTokenizer(vocab=vocabulary)


def hugging_config(config: RunConfig) -> AlbertConfig:
    """The shape of ``config`` as transformers' configuration."""
    m = config.model
    return AlbertConfig(
        vocab_size=config.tokenizer.vocab_size, embedding_size=config.embed.size, hidden_size=m.hidden,
        num_hidden_layers=m.layers, num_attention_heads=m.heads, intermediate_size=m.intermediate,
        hidden_act="gelu_new", hidden_dropout_prob=0, attention_probs_dropout_prob=0, classifier_dropout_prob=0.1,
        max_position_embeddings=m.max_positions,
    )  # fmt: skip


def ours_squad(path: Path, tokenizer: Tokenizer) -> None:
    """Read the file and build the windows, with gold positions and maximal context."""
    task = compose(["task=squad11"]).tasks["squad11"]
    windows = build_windows(read_squad(path, "1.1"), tokenizer, task, 384)  # type: ignore[arg-type]
    assert windows.features


def transformers_squad(path: Path, tokenizer: Tokenizer) -> None:
    """run_qa's prepare_train_features on the same file."""
    hugging = hugging_tokenizer(tokenizer)
    data = datasets.Dataset.from_list(flat_squad(path))

    def features(examples: dict[str, list[Any]]) -> Any:
        made = hugging(
            [q.lstrip() for q in examples["question"]], examples["context"], truncation="only_second", max_length=384,
            stride=128, return_overflowing_tokens=True, return_offsets_mapping=True, padding=False,
        )  # fmt: skip
        samples, offsets = made.pop("overflow_to_sample_mapping"), made.pop("offset_mapping")
        starts, ends = [], []
        for i, spans in enumerate(offsets):
            sides = made.sequence_ids(i)
            answer = examples["answers"][samples[i]]
            a = answer["answer_start"][0]
            b = a + len(answer["text"][0])
            first, last = sides.index(1), len(sides) - 1
            while sides[last] != 1:
                last -= 1
            if not (spans[first][0] <= a and spans[last][1] >= b):
                starts.append(0)
                ends.append(0)
                continue
            while first < len(spans) and spans[first][0] <= a:
                first += 1
            starts.append(first - 1)
            while spans[last][1] >= b:
                last -= 1
            ends.append(last + 1)
        made["start_positions"], made["end_positions"] = starts, ends
        return made

    rows = data.map(features, batched=True, remove_columns=data.column_names)
    assert len(rows)


def flat_squad(path: Path) -> list[dict[str, Any]]:
    """One row for each question, as on the hub."""
    from albert_ablate.files import open_text

    with open_text(path) as source:
        content = json.load(source)
    return [
        {
            "id": q["id"], "context": p["context"], "question": q["question"],
            "answers": {k: [a[k] for a in q["answers"]] for k in ("text", "answer_start")},
        }
        for article in content["data"] for p in article["paragraphs"] for q in p["qas"]
    ]  # fmt: skip


def _precision(config: RunConfig) -> str:
    return choose_precision(config.runtime, _CPU)


def ours_evaluation(config: RunConfig, tokenizer: Tokenizer) -> Callable[[], Any]:
    """Predictions for every sentence of dev."""
    tuner = sst2_tuner(config, tokenizer)
    (features,) = tuner.task.dev.values()
    return lambda: tuner.predict(features)


def transformers_evaluation(config: RunConfig, tokenizer: Tokenizer) -> Callable[[], Any]:
    """The same predictions with a padding collator, as in Trainer.predict."""
    hugging = hugging_tokenizer(tokenizer)
    task = config.tasks["sst2"]
    assert isinstance(task, GlueConfig)
    (dev,) = read_glue(task, task_files(config.task, task)).dev.values()
    encoded = hugging([e.first for e in dev], truncation=True, max_length=128)
    rows = [{k: encoded[k][i] for k in encoded} for i in range(len(dev))]
    model = AlbertForSequenceClassification(hugging_config(config)).eval()

    @torch.no_grad()
    def step() -> None:
        for batch in DataLoader(rows, 32, collate_fn=DataCollatorWithPadding(hugging)):  # type: ignore[arg-type]
            with autocast(_precision(config), _CPU):
                model(**batch).logits.float().argmax(-1)

    return step


def contender(kind: str, config: RunConfig, model: Path, data: Path | None) -> Callable[[], Any]:
    """One side of a comparison; called in its process."""
    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = Tokenizer(model, config.tokenizer)
    if kind.startswith("ours"):
        set_up(config.runtime)
    if kind.endswith("squad"):
        assert data is not None
        return partial({"ours squad": ours_squad, "transformers squad": transformers_squad}[kind], data, tokenizer)
    if kind.endswith("evaluation"):
        evaluations = {"ours evaluation": ours_evaluation, "transformers evaluation": transformers_evaluation}
        return evaluations[kind](config, tokenizer)
    return partial({"ours training": ours_sst2, "transformers training": transformers_sst2}[kind], config, tokenizer)


def main() -> None:
    """Run the comparisons whose data folders are given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetuning", description=first_line(__doc__))
    parser.add_argument("--sst2", type=Path, help="folder with SST-2's train.tsv and dev.tsv")
    parser.add_argument("--squad", type=Path, help="folder with dev-v1.1.json")
    parser.add_argument("--examples", type=int, default=4000, help="number of SST-2's training examples to use")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    overrides = ["task=sst2", f"task.data_dir={options.sst2 or 'null'}", f"tasks.sst2.max_train={options.examples}"]
    config = compose([*overrides, "embed=e128", "tokenizer.vocab_size=8000", "tasks.sst2.batch_size=32"])
    model = prepare_data(config).tokenizer.path
    work: list[tuple[str, str, Path | None]] = []
    if options.sst2:
        work += [(f"SST-2, {options.examples:,} sentences: read, tokenise, train", "training", None)]
        work += [("SST-2 dev: predict", "evaluation", None)]
    if options.squad:
        path = next(p for p in options.squad.iterdir() if p.name.startswith("dev-v1.1"))
        work += [("SQuAD dev-v1.1: features", "squad", path)]
    if not work:
        raise SystemExit("give --sst2 FOLDER, --squad FOLDER or both")
    rows = []
    for title, kind, data in work:
        sides: dict[str, Build] = {
            side: partial(contender, f"{side} {kind}", config, model, data) for side in ("ours", "transformers")
        }
        measured = take_turns(sides, 0, options.rounds)
        ours, peer = measured["ours"].median, measured["transformers"].median
        rows.append({"work": title, "ours s": ours, "transformers s": peer, "ratio": peer / ours})
    report("finetuning", "Fine-tuning, nano model, bf16", rows, ["medians, in turn"], options.out)


if __name__ == "__main__":
    main()
