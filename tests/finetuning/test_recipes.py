"""Table 14's recipes and what settings change of them."""

import pytest

from albert_ablate.door.compose import compose
from albert_ablate.tasks.recipe import resolve

#: Table 14 of the paper: rate, batch, encoder dropout, steps, warm-up, length, and official training examples.
TABLE14 = {
    "cola": (1e-5, 16, 0, 5336, 320, 512, 8551), "stsb": (2e-5, 16, 0, 3598, 214, 512, 5749),
    "sst2": (1e-5, 32, 0, 20935, 1256, 512, 67349), "mnli": (3e-5, 128, 0, 10000, 1000, 512, 392702),
    "qnli": (1e-5, 32, 0, 33112, 1986, 512, 104743), "qqp": (5e-5, 128, 0.1, 14000, 1000, 512, 363846),
    "rte": (3e-5, 32, 0.1, 800, 200, 512, 2490), "mrpc": (2e-5, 32, 0, 800, 200, 512, 3668),
    "wnli": (2e-5, 16, 0.1, 2000, 250, 512, 635), "squad11": (5e-5, 48, 0, 3649, 365, 384, 87599),
    "squad20": (3e-5, 48, 0, 8144, 814, 512, 130319), "race": (2e-5, 32, 0.1, 12000, 1000, 512, 87866),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE14)
def test_the_paper_preset_is_table_14(name: str) -> None:
    rate, batch, dropout, steps, warmup, length, examples = TABLE14[name]
    config = compose(["scale=paper", f"task={name}"])
    found = resolve(config.tasks[name], config.task.scaling, 123, 512)
    assert (found.learning_rate, found.batch_size, found.dropout) == (rate, batch, dropout)
    assert (found.steps, found.warmup_steps, found.max_length, found.classifier_dropout) == (steps, warmup, length, 0.1)
    recipe = config.tasks[name].recipe
    assert recipe.epochs == pytest.approx(steps * batch / examples, abs=0.006)
    assert recipe.warmup == pytest.approx(warmup / steps, abs=6e-4)
    optimizer = config.task.optimizer
    assert (optimizer.weight_decay, optimizer.epsilon, optimizer.bias_correction) == (0.01, 1e-6, False)
    assert config.task.evaluate_every == 100


def test_small_scales_keep_the_proportions() -> None:
    config = compose(["scale=cpu", "task=[mnli,sst2]"])
    scaling = config.task.scaling
    found = resolve(config.tasks["mnli"], scaling, 25_000, 512)
    assert found.batch_size == scaling.batch_size == 64
    assert found.steps == int(25_000 * 3.26 * scaling.epochs / 64)
    assert found.warmup_steps == int(0.1 * found.steps)
    assert found.learning_rate == pytest.approx(3e-5 * scaling.learning_rate)
    assert resolve(config.tasks["sst2"], scaling, 10, 100).max_length == 100, "no more than the model has positions"


def test_what_the_user_sets_is_not_scaled() -> None:
    own = ["learning_rate=0.001", "steps=77", "batch_size=5", "dropout=0.3", "warmup_steps=7"]
    words = [f"tasks.sst2.{word}" for word in own]
    for scale in ("paper", "demo"):
        config = compose([f"scale={scale}", "task=sst2", *words])
        found = resolve(config.tasks["sst2"], config.task.scaling, 1000, 512)
        assert (found.learning_rate, found.steps, found.batch_size) == (0.001, 77, 5)
        assert (found.dropout, found.warmup_steps) == (0.3, 7)
