"""What makes two runs the same run: everything that changes the numbers, and nothing else."""

from pathlib import Path

import pytest
from runhelpers import tiny_config, write_corpus

from albert_ablate.config.identity import BEFORE, INCIDENTAL, comparable, identity, readable_name
from albert_ablate.config.parse import parse
from albert_ablate.data.prepare import prepare
from albert_ablate.door.compose import compose
from analysis.read.setups import settings_of_run

#: What the tests below change, whatever the presets say.
KNOWN = [
    "embed.size=128", "model.hidden=192", "model.heads=3", "model.layers=4", "model.intermediate=768",
    "model.hidden_dropout=0", "model.attention_dropout=0", "model.initializer_range=0.05", "budget.steps=1500",
    "budget.warmup_steps=150", "batch.size=64", "batch.micro_size=64", "pairs.max_length=64",
    "optimizer.learning_rate=0.002", "evaluation.max_pairs=2048", "evaluation.probe_pairs=4096",
    "evaluation.curve_every=250", "data.validation_fraction=0.08",
]  # fmt: skip


def name_of(*overrides: str, tokens: str = "0123456789abcdef", precision: str = "fp32") -> str:
    return identity(compose([*KNOWN, *overrides]), tokens, precision)


@pytest.fixture(scope="module")
def default() -> str:
    return name_of()


def test_form(default: str) -> None:
    assert len(default) == 12
    assert set(default) <= set("0123456789abcdef")
    assert name_of() == default


@pytest.mark.parametrize(
    "override",
    [
        "seed=1", "embed.size=64", "share=none", "share=ffn", "share=attention", "share.groups=2", "objective=nsp",
        "objective=none", "model.hidden=384", "model.layers=5", "model.heads=6", "model.intermediate=1000",
        "model.max_positions=256", "model.hidden_dropout=0.2", "model.attention_dropout=0.2",
        "model.activation=gelu_erf", "model.initializer_range=0.01", "model.layer_norm_eps=1e-6",
        "optimizer=adamw", "optimizer.learning_rate=0.001", "optimizer.weight_decay=0.02", "optimizer.beta1=0.8",
        "optimizer.beta2=0.99", "optimizer.epsilon=1e-8", "optimizer.bias_correction=true", "optimizer.clip_norm=2",
        "optimizer.clip_norm=null", "optimizer.decay_from=warmup_end", "budget.steps=1501", "budget.warmup_steps=151",
        "batch.size=65", "masking.probability=0.2", "masking.max_ngram=1", "masking.max_predictions=5",
        "masking.copies=40", "pairs.max_length=65", "pairs.short_probability=0.2", "pairs.single_sentence=skip",
        "pairs.nsp_tail=drop", "evaluation.max_pairs=100", "evaluation.probe_pairs=100", "evaluation.curve_every=50",
    ],
)  # fmt: skip
def test_changes_with_what_changes_the_numbers(default: str, override: str) -> None:
    assert name_of(override) != default


def test_changes_with_the_tokens_and_the_precision(default: str) -> None:
    assert name_of(tokens="fedcba9876543210") != default
    assert name_of(precision="bf16") != default


@pytest.mark.parametrize(
    "overrides",
    [
        ["runtime.threads=3"], ["runtime.workers=4"], ["runtime.device=cpu"], ["runtime.log_every=7"],
        ["runtime.checkpoint_every=7"], ["runtime.keep_checkpoints=9"], ["paths.runs=elsewhere"],
        ["paths.cache=elsewhere"], ["tracker=wandb"], ["tracker.mode=online"], ["tracker.project=other"],
        ["batch.micro_size=16"], ["model.name=renamed"], ["scale.name=renamed"], ["tokenizer=bpe"],
        ["data.name=renamed"], ["data=text", "data.path=moved.txt", "data.validation_fraction=0.08"],
        ["tokenizer.model_path=moved.model"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_does_not_change_with_where_and_how(default: str, overrides: list[str]) -> None:
    assert name_of(*overrides) == default


def test_a_default_spelled_out_is_the_same_run(default: str) -> None:
    config = compose(KNOWN)
    spelled = [
        f"embed.size={config.embed.size}", f"seed={config.seed}", f"model.hidden={config.model.hidden}",
        f"optimizer.learning_rate={config.optimizer.learning_rate}", f"budget.steps={config.budget.steps}",
        f"masking.max_ngram={config.masking.max_ngram}", "optimizer.weight_decay=1e-2", "optimizer.clip_norm=1",
        "share=all", "objective=sop", "scale=demo", "optimizer=lamb", "masking.copies=null",
    ]  # fmt: skip
    assert name_of(*spelled) == default
    plain = identity(compose([]), "t", "fp32")
    named = ["embed=e128", "model=nano", "share=all", "objective=sop", "data=embedded", "tokenizer=unigram"]
    assert identity(compose(named), "t", "fp32") == plain


def test_an_equal_embedding_size_is_the_same_run_whatever_it_is_called() -> None:
    full, size = compose(["embed=full"]), compose([f"embed.size={compose([]).model.hidden}"])
    assert identity(full, "t", "fp32") == identity(size, "t", "fp32")
    assert identity(compose(["embed=e64"]), "t", "fp32") != identity(full, "t", "fp32")


def test_the_order_of_keys_does_not_matter(default: str) -> None:
    values = compose(KNOWN).as_dict()
    turned = {k: dict(reversed(v.items())) if isinstance(v, dict) else v for k, v in reversed(values.items())}
    assert list(turned) != list(values)
    assert identity(parse(turned), "0123456789abcdef", "fp32") == default


def test_the_order_of_overrides_does_not_matter() -> None:
    words = ["seed=3", "embed=e64", "share=none", "budget.steps=20", "budget.warmup_steps=2"]
    forth, back = compose(words), compose(words[::-1])
    assert identity(forth, "t", "fp32") == identity(back, "t", "fp32")


def test_the_folders_name_says_the_axes() -> None:
    config = compose(["embed=e64", "share=attention", "objective=none", "model=mini", "seed=4"])
    assert readable_name(config) == "e64-attention-none-mini-s4"


# --- the tokens' fingerprint ---------------------------------------------------------------------


def fingerprint(folder: Path, *overrides: str, corpus: Path | None = None) -> str:
    return prepare(tiny_config(folder, *overrides, corpus=corpus)).train.fingerprint


def test_one_more_sentence_is_another_corpus(tmp_path: Path) -> None:
    first = fingerprint(tmp_path)
    file = tmp_path / "corpus.txt"
    file.write_text(file.read_text() + "Bade fila kupo.\n")
    assert fingerprint(tmp_path) != first


def test_a_file_may_move(tmp_path: Path) -> None:
    first = fingerprint(tmp_path)
    (tmp_path / "corpus.txt").rename(tmp_path / "moved.txt")
    assert fingerprint(tmp_path, "data.name=moved", corpus=tmp_path / "moved.txt") == first


@pytest.mark.parametrize(
    "override",
    ["tokenizer.vocab_size=180", "tokenizer.lowercase=false", "tokenizer.split_digit_commas=false",
     "data.validation_fraction=0.3"],
)  # fmt: skip
def test_changes_with_the_tokenizer_and_the_split(tmp_path: Path, override: str) -> None:
    assert fingerprint(tmp_path, override) != fingerprint(tmp_path)


def test_an_empty_cache_gives_the_same_run_again(tmp_path: Path) -> None:
    """The same text and settings are the same run in another folder or on another machine."""
    corpus = write_corpus(tmp_path / "corpus.txt")
    first = prepare(tiny_config(tmp_path / "a", corpus=corpus))
    second = prepare(tiny_config(tmp_path / "b", corpus=corpus))
    assert first.train.tokens.tolist() == second.train.tokens.tolist()
    assert first.tokenizer.fingerprint == second.tokenizer.fingerprint
    assert first.train.fingerprint == second.train.fingerprint


@pytest.mark.parametrize("setting", [name for name in BEFORE if name.split(".")[0] not in INCIDENTAL])
def test_a_setting_that_came_later_leaves_older_runs_their_identity(setting: str) -> None:
    """At the value that runs had before there was the setting it is as if it were missing; at any other it counts."""
    values = compose([*KNOWN, "masking.long_words=whole", "budget=flops", "budget.flops=1e12"]).as_dict()
    group, _, name = setting.partition(".")
    assert values[group][name] == BEFORE[setting]
    older = values | {group: {k: v for k, v in values[group].items() if k != name}}
    assert comparable(older) == comparable(values)
    changed = values | {group: values[group] | {name: "another"}}
    # Folders of runs, whose identities count instead: method.teacher_run, init.run_id. Tokens stand for a tokenizer.
    moves = setting in ("method.teacher", "init.run", "init.tokenizer", "init.weights")
    assert (comparable(changed) == comparable(values)) is moves


def test_one_rule_for_identities_and_for_set_ups() -> None:
    """Budgets in tokens with one share of warm-up are one set-up; micro-batches under dropout are two."""

    def setups(*overrides: str) -> set[str]:
        runs = [{"config": compose([*KNOWN, *words.split()]).as_dict(), "base_hidden": 192, "base_layers": 4}
                for words in overrides]  # fmt: skip
        return {str(settings_of_run(run)) for run in runs}

    for overrides in (
        ("budget=tokens budget.tokens=1000 budget.steps=1000 budget.warmup_steps=100",
         "budget=tokens budget.tokens=1000 budget.steps=2000 budget.warmup_steps=200"),
        ("model.hidden_dropout=0.1 batch.micro_size=64", "model.hidden_dropout=0.1 batch.micro_size=32"),
        ("batch.micro_size=64", "batch.micro_size=32"),
    ):  # fmt: skip
        identities = {name_of(*words.split()) for words in overrides}
        assert len(setups(*overrides)) == len(identities)
