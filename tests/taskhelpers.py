"""Small files in the official forms, and a run to fine-tune."""

import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

from runhelpers import run, tiny_config, tiny_overrides

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.door.compose import compose
from albert_ablate.record.folder import TOKENIZER, RunFolder

PLACES = ["Paris", "Oslo", "Lima", "Cairo", "Quito", "Dakar"]
GOOD, BAD = ["fine", "lovely", "great", "superb"], ["awful", "dull", "bad", "poor"]


def write_tsv(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(header), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def sentiment(count: int, seed: int) -> list[list[Any]]:
    """[sentence, label] rows that a word decides."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        label = draw.randint(0, 1)
        filler = draw.choices(["film", "the", "a", "story", "plot", "very", "it"], k=draw.randint(2, 8))
        filler.insert(draw.randint(0, len(filler)), draw.choice(GOOD if label else BAD))
        rows.append([" ".join(filler), label])
    return rows


def write_sst2(folder: Path, train: int = 64, dev: int = 32) -> Path:
    write_tsv(folder / "SST-2" / "train.tsv", ["sentence", "label"], sentiment(train, 1))
    write_tsv(folder / "SST-2" / "dev.tsv", ["sentence", "label"], sentiment(dev, 2))
    return folder


def squad_content(questions: int, seed: int, impossible: bool = False) -> dict[str, Any]:
    """The official layout, two questions a paragraph."""
    draw = random.Random(seed)
    paragraphs = []
    for p in range(questions // 2):
        place, other = draw.sample(PLACES, 2)
        context = f"Anna lives in {place} near the sea. Ben moved to {other} last year, and he likes it."
        qas: list[dict[str, Any]] = []
        for who, answer in (("Anna", place), ("Ben", other)):
            question: dict[str, Any] = {"id": f"{seed}-{p}-{who}", "question": f"Where does {who} live?"}
            given = [{"text": answer, "answer_start": context.index(answer)}]
            if impossible:
                missing = draw.random() < 0.5
                question |= {"is_impossible": missing, "answers": [] if missing else given}
            else:
                question |= {"answers": given}
            qas.append(question)
        paragraphs.append({"context": context, "qas": qas})
    return {"version": "x", "data": [{"title": "Homes", "paragraphs": paragraphs}]}


def write_squad(folder: Path, version: str = "1.1", train: int = 16, dev: int = 8) -> Path:
    for side, count, seed in (("train", train, 1), ("dev", dev, 2)):
        path = folder / f"{side}-v{version}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(squad_content(count, seed, version == "2.0")), encoding="utf-8")
    return folder


def write_race(folder: Path, train: int = 8, dev: int = 4) -> Path:
    draw = random.Random(3)
    for side, count in (("train", train), ("dev", dev)):
        for level in ("middle", "high"):
            for n in range(count):
                options = draw.sample(PLACES, 4)
                right = draw.randrange(4)
                passage = {
                    "id": f"{level}{n}.txt", "article": f"Anna lives in {options[right]}. It is warm there.",
                    "questions": ["Anna lives in _ .", "Where does Anna live?"], "options": [options, options],
                    "answers": ["ABCD"[right]] * 2,
                }  # fmt: skip
                path = folder / "RACE" / side / level / f"{n}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(passage), encoding="utf-8")
    return folder


#: A fine-tuning of a second.
TINY = ["task.scaling.batch_size=8", "task.scaling.learning_rate=50", "task.evaluations=3", "runtime.log_every=2"]


@lru_cache
def pretrained(folder: Path, *more: str) -> tuple[RunConfig, RunFolder]:
    """A finished tiny run."""
    config = tiny_config(folder, *more)
    return config, run(config)


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer of the tiny corpus."""
    config, done = pretrained(folder)
    return Tokenizer(done.path / TOKENIZER, config.tokenizer)


def task_config(name: str, *more: str) -> Any:
    """One task's settings."""
    return compose([f"task={name}", *more]).tasks[name.strip("[]")]


def with_tasks(folder: Path, *words: str) -> RunConfig:
    """The tiny run with tasks."""
    return compose([*tiny_overrides(folder), *TINY, *words])
