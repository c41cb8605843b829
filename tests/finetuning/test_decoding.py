"""From a model's outputs to answers."""

import json
from pathlib import Path

import numpy as np
import pytest
from finetunehelpers import gold_outputs, make
from taskhelpers import (
    with_tasks,
)

from albert_ablate.tasks.squad.task import SquadTask


@pytest.mark.parametrize("name", ["squad11", "squad20"])
def test_a_model_that_knows_the_answers_is_right(folder: Path, name: str) -> None:
    config = with_tasks(folder, f"task={name}", f"task.data_dir={folder / 'data'}", f"tasks.{name}.max_answer=40")
    task = make(config, name, folder)
    assert isinstance(task, SquadTask)
    found = task.scores("dev", gold_outputs(task))
    lost = 1 - found.metrics["exact"]["value"]
    assert found.metrics["f1"]["value"] >= 0.85, "some answers lie across two windows' edges at 32 tokens"
    assert lost <= 0.25
    files = task.files("dev", gold_outputs(task))
    assert set(json.loads(files["predictions.json"])) == {q.id for q in task.dev_questions.questions}


def test_decoding_equals_a_plain_loop(folder: Path) -> None:
    """Against the released rule, candidate by candidate, on random scores."""
    config = with_tasks(folder, "task=squad11", f"task.data_dir={folder / 'data'}", "tasks.squad11.max_answer=4")
    task = make(config, "squad11", folder)
    assert isinstance(task, SquadTask)
    w, draw = task.windows, np.random.default_rng(0)
    t = 32
    starts = np.stack([draw.permutation(t)[:20] for _ in w.question])
    ends = np.repeat(np.stack([draw.permutation(t)[:20] for _ in w.question])[:, None], 20, axis=1)
    scores = draw.normal(size=(len(starts), 20, 20)).astype(np.float32)
    found = task.candidates({"starts": starts, "ends": ends, "scores": scores, "null": np.zeros(len(starts))}, 20)
    for number, question in enumerate(task.dev_questions.questions):
        document, text = w.pieces[question.paragraph], task.dev_questions.paragraphs[question.paragraph]
        mine = [row for row in range(len(w.question)) if w.question[row] == number]
        spans = [(int(w.offset[r]), int(w.length[r])) for r in mine]
        options = []
        for index, row in enumerate(mine):
            for i, s in enumerate(starts[row]):
                for j, e in enumerate(ends[row, i]):
                    first, last = int(s - w.first[row]), int(e - w.first[row])
                    if not (0 <= first < w.length[row] and first <= last < w.length[row] and last - first + 1 <= 4):
                        continue
                    place = first + int(w.offset[row])
                    context = [
                        min(place - b, b + n - 1 - place) + 0.01 * n if b <= place < b + n else -1.0 for b, n in spans
                    ]
                    if context.index(max(context)) != index:
                        continue
                    a, b = document.start[place], document.end[last + int(w.offset[row])]
                    options.append((float(scores[row, i, j]), text[a:b].strip()))
        options.sort(key=lambda option: -option[0])
        best = list(dict.fromkeys(answer for _, answer in options))[:20]
        assert [answer for answer, _ in found[number]] == (best or [""])
