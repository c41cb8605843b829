"""Settings: every shipped option composes, every wrong one is refused in words."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runhelpers import command_line, run_folders, start, tiny_overrides, write_corpus

from albert_ablate.axes import Objective, Share
from albert_ablate.config import schema as config_module
from albert_ablate.config.parse import parse
from albert_ablate.config.schema import CONF, RunConfig
from albert_ablate.config.tasks import AUGMENT, DISTIL
from albert_ablate.data.prepare import prepare
from albert_ablate.door.compose import PAPER_MODELS, compose, paper_setup
from albert_ablate.errors import ConfigError, DataError


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


# --- what ships ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", options("model"))
def test_every_axis_option_composes_with_every_model(model: str) -> None:
    hidden = yaml.safe_load((CONF / f"model/{model}.yaml").read_text())["hidden"]
    composed = 0
    base = compose([f"model={model}", "embed=full"])
    assert base.embed.size == base.model.hidden == hidden
    for method in options("method"):
        assert yaml.safe_load((CONF / f"method/{method}.yaml").read_text())["name"] == method
    for embed in options("embed"):
        size = hidden if embed == "full" else int(embed[1:])
        if size > hidden:
            with pytest.raises(ConfigError, match=f"embed.size={size}"):
                compose([f"model={model}", f"embed={embed}"])
            continue
        assert compose([f"model={model}", f"embed={embed}"]).embed.size == size
        values = base.as_dict() | {"embed": {"size": size}}
        for share, objective in itertools.product(options("share"), options("objective")):
            values["share"] = yaml.safe_load((CONF / f"share/{share}.yaml").read_text())
            values["objective"] = yaml.safe_load((CONF / f"objective/{objective}.yaml").read_text())
            made = parse(values)
            assert (made.share.strategy, made.objective.name) == (share, objective)
            assert made.architecture().parameters().encoder > 0
            composed += 1
    assert composed >= 12


@pytest.mark.parametrize("share", options("share"))
@pytest.mark.parametrize("objective", options("objective"))
def test_share_and_objective_reach_the_configuration(share: str, objective: str) -> None:
    made = compose([f"share={share}", f"objective={objective}"])
    assert made.share.strategy is Share(share)
    assert made.objective.name is Objective(objective)
    assert made.architecture().share is Share(share)


@pytest.mark.parametrize(
    "override",
    [f"{group}={name}" for group in ("scale", "optimizer", "tokenizer") for name in options(group)]
    + [f"data={name}" for name in options("data") if name not in ("text", "packed")]
    + [f"model={name}" for name in options("model")],
)
def test_every_option_composes_and_is_the_one_that_was_asked_for(override: str) -> None:
    group, name = override.split("=")
    made = compose([override])
    assert getattr(made, group).name == name


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("scale", options("scale"))
def test_every_scale_has_a_rate_for_every_optimizer(scale: str, optimizer: str) -> None:
    made = compose([f"scale={scale}", f"optimizer={optimizer}"])
    assert made.optimizer.name == optimizer
    assert made.optimizer.learning_rate == getattr(made.scale.learning_rate, optimizer)
    chosen = compose([f"scale={scale}", f"optimizer={optimizer}", "optimizer.learning_rate=0.125"])
    assert chosen.optimizer.learning_rate == 0.125


@pytest.mark.parametrize(("name", "source"), [("text", "files"), ("packed", "packed")])
def test_text_needs_a_path_and_takes_one(name: str, source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is empty"):
        compose([f"data={name}"])
    made = compose([f"data={name}", f"data.path={tmp_path}"])
    assert (made.data.name, made.data.source, made.data.path) == (name, source, str(tmp_path))


def test_names_of_the_axes_agree_with_the_files() -> None:
    assert set(options("share")) == {s.value for s in Share}
    assert set(options("objective")) == {o.value for o in Objective}
    for share in options("share"):
        assert yaml.safe_load((CONF / f"share/{share}.yaml").read_text())["strategy"] == share
    for objective in options("objective"):
        assert yaml.safe_load((CONF / f"objective/{objective}.yaml").read_text()) == {"name": objective}
    for method in options("method"):
        assert yaml.safe_load((CONF / f"method/{method}.yaml").read_text())["name"] == method
    for embed in options("embed"):
        size = yaml.safe_load((CONF / f"embed/{embed}.yaml").read_text())["size"]
        assert embed == (f"e{size}" if isinstance(size, int) else "full")
    for unit in options("budget"):
        assert yaml.safe_load((CONF / f"budget/{unit}.yaml").read_text())["unit"] == unit
    for tracker in options("tracker"):
        assert set(yaml.safe_load((CONF / f"tracker/{tracker}.yaml").read_text())) == {tracker} - {"none"}
    for group in ("model", "data", "tokenizer", "optimizer"):
        for name in options(group):
            assert yaml.safe_load((CONF / group / f"{name}.yaml").read_text())["name"] == name
    for name in options("scale"):
        assert yaml.safe_load((CONF / "scale" / f"{name}.yaml").read_text())["scale"]["name"] == name
    for task in set(options("task")) - {"none", "paper5", "glue", "demo", "minimal_pairs"}:
        (found,) = compose([f"task={task}"]).tasks.items()
        assert found[0] == found[1].name == task


@pytest.mark.parametrize("attention", options("attention"))
def test_every_attention(attention: str) -> None:
    shape = compose([f"attention={attention}"]).architecture()
    assert shape.pattern == attention
    assert (shape.blocks is None) is (attention == "full")


def test_every_group_of_conf_is_looked_at_here() -> None:
    known = {"embed", "share", "objective", "method", "model", "data", "tokenizer", "optimizer", "tracker", "scale"}
    known |= {"budget", "task", "knowledge", "hydra", "attention"}
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == known


@pytest.mark.parametrize("model", options("model"))
def test_the_embedding_sizes_of_the_papers_table_fit_its_models(model: str) -> None:
    hidden = compose([f"model={model}", "embed=full"]).model.hidden
    assert hidden % compose([f"model={model}", "embed=full"]).model.heads == 0
    if model in PAPER_MODELS:
        assert {64, 128, 256, 768} <= {int(e[1:]) for e in options("embed") if e != "full"} | {hidden}
        assert hidden >= 768


def test_the_papers_set_up() -> None:
    made = compose(["scale=paper"])
    assert (made.model.hidden, made.model.layers, made.model.heads, made.model.intermediate) == (768, 12, 12, 3072)
    assert (made.model.hidden_dropout, made.model.attention_dropout, made.model.layer_norm_eps) == (0.1, 0.1, 1e-12)
    assert (made.model.activation, made.model.initializer_range) == ("gelu_tanh", 0.02)
    assert (made.tokenizer.vocab_size, made.pairs.max_length, made.pairs.short_probability) == (30000, 512, 0.1)
    assert (made.masking.probability, made.masking.max_ngram, made.masking.max_predictions) == (0.15, 3, None)
    assert (made.batch.size, made.budget.steps, made.budget.warmup_steps) == (4096, 125000, 3125)
    optimizer = made.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("lamb", 0.00176, 0.01)
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon, optimizer.clip_norm) == (0.9, 0.999, 1e-6, 1.0)
    assert optimizer.bias_correction is False
    assert made.data.name == "wiki_books"


@pytest.mark.parametrize(("steps", "warmup"), [(5, 0), (50, 5), (120, 12), (121, 120), (1200, 120)])
def test_a_short_budget_has_a_short_warm_up(steps: int, warmup: int) -> None:
    """The preset's wherever that leaves something of the steps."""
    assert compose([f"budget.steps={steps}"]).budget.warmup_steps == warmup


def test_a_choice_on_the_command_line_beats_the_scale() -> None:
    made = compose(["scale=paper", "model=large", "data=embedded", "optimizer=adamw", "budget.steps=5000"])
    assert (made.model.name, made.data.name, made.optimizer.name, made.budget.steps) == (
        "large", "embedded", "adamw", 5000,
    )  # fmt: skip
    assert made.batch.size == 4096


@pytest.mark.parametrize(("model", "expected"), [("nano", "base"), ("base", "base"), ("xlarge", "xlarge")])
def test_the_papers_set_up_for_a_run_keeps_its_axes(model: str, expected: str) -> None:
    made = paper_setup(compose([f"model={model}", "embed=e64", "share=ffn", "objective=nsp"]))
    assert (made.scale.name, made.model.name) == ("paper", expected)
    assert (made.share.strategy, made.objective.name) == (Share.FFN, Objective.NSP)


def test_a_configuration_survives_being_written_and_read(tmp_path: Path) -> None:
    made = compose(["share=attention", "data=wiki_books", "masking.copies=40", "optimizer.clip_norm=null"])
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(made.as_dict(), sort_keys=False))
    assert parse(yaml.safe_load(file.read_text())) == made


# --- the code's own rules ------------------------------------------------------------------------


CLASSES = [c for c in vars(config_module).values() if isinstance(c, type) and dataclasses.is_dataclass(c)]


@pytest.mark.parametrize(
    "kind", [c for c in CLASSES if c.__module__ == config_module.__name__], ids=lambda c: c.__name__
)
def test_settings_are_frozen_and_have_no_defaults_in_code(kind: Any) -> None:
    assert kind.__dataclass_params__.frozen
    for field in dataclasses.fields(kind):
        assert field.default is dataclasses.MISSING, field.name
        assert field.default_factory is dataclasses.MISSING, field.name


def test_a_setting_cannot_be_changed_afterwards() -> None:
    made = compose([])
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.seed = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.embed.size = 1  # type: ignore[misc]


def test_every_setting_of_conf_is_a_field_and_the_other_way_round() -> None:
    """A key no code reads, or a field no file sets, would be refused by ``parse``."""
    made = compose([]).as_dict()
    assert set(made) == {f.name for f in dataclasses.fields(RunConfig)}
    for name, value in made.items():
        if isinstance(value, dict) and name != "tasks":  # one entry a chosen task, none by default
            broken = compose([]).as_dict()
            missing = next(iter(value))
            del broken[name][missing]
            with pytest.raises(ConfigError, match=rf"{name}\.{missing}: missing"):
                parse(broken)


# --- wrong settings ------------------------------------------------------------------------------

#: What the rows below change, whatever the presets say.
KNOWN = [
    "model.hidden=192", "model.heads=3", "model.layers=4", "model.max_positions=512", "budget.steps=1500",
    "budget.warmup_steps=150", "batch.size=64", "batch.micro_size=64", "pairs.max_length=64",
]  # fmt: skip

#: (overrides, words the message must contain: the field with the value, and a way out)
WRONG: list[tuple[list[str], list[str]]] = [
    (["embed=e256"], ["embed.size=256", "model.hidden=192", "Choose a smaller embed"]),
    (["embed.size=0"], ["embed.size=0", "greater than or equal to 1"]),
    (["embed.size=big"], ["embed.size='big'", "valid integer"]),
    (["model.heads=5"], ["model.heads=5", "model.hidden=192", "Try model.heads="]),
    (["model.hidden=-8"], ["model.hidden=-8", "greater than or equal to 1"]),
    (["model.hidden_dropout=1.0"], ["model.hidden_dropout=1.0", "less than 1"]),
    (["model.attention_dropout=-0.1"], ["model.attention_dropout=-0.1", "greater than or equal to 0"]),
    (["model.activation=relu"], ["model.activation='relu'", "gelu_tanh", "gelu_erf"]),
    (["model.layer_norm_eps=0"], ["model.layer_norm_eps=0", "greater than 0"]),
    (["pairs.max_length=600"], ["pairs.max_length=600", "model.max_positions=512", "Shorten"]),
    (["pairs.max_length=4"], ["pairs.max_length=4", "greater than or equal to 8"]),
    (["pairs.single_sentence=keep"], ["pairs.single_sentence='keep'", "'extend'", "'skip'", "'released'"]),
    (["pairs.short_probability=1.5"], ["pairs.short_probability=1.5", "less than or equal to 1"]),
    (["share.groups=5"], ["share.groups=5", "model.layers=4", "Use share.groups=4"]),
    (["share=none", "share.groups=2"], ["share.groups=2", "share=none", "Set it to 1"]),
    (["share.strategy=some"], ["share.strategy='some'", "'all'", "'attention'", "'ffn'", "'none'"]),
    (["objective.name=rtd"], ["objective.name='rtd'", "'nsp'", "'sop'", "'none'"]),
    (["budget.steps=5", "budget.warmup_steps=120"], ["budget.warmup_steps=120", "budget.steps=5"]),
    (["budget.warmup_steps=1500"], ["budget.warmup_steps=1500", "budget.steps=1500", "Shorten the warm-up"]),
    (["budget.steps=0"], ["budget.steps=0", "greater than or equal to 1"]),
    (["budget.steps=1.5"], ["budget.steps=1.5", "integer"]),
    (["budget.warmup_steps=-1"], ["budget.warmup_steps=-1", "greater than or equal to 0"]),
    (["batch.micro_size=128"], ["batch.micro_size=128", "batch.size=64", "Use batch.micro_size=64"]),
    (["batch.size=many"], ["batch.size='many'", "valid integer"]),
    (["seed=-1"], ["seed=-1", "greater than or equal to 0"]),
    (["seed=null"], ["seed=None", "valid integer"]),
    (["optimizer.learning_rate=nan"], ["optimizer.learning_rate=nan", "finite number"]),
    (["optimizer.learning_rate=inf"], ["optimizer.learning_rate=inf", "finite number"]),
    (["optimizer.learning_rate=0"], ["optimizer.learning_rate=0", "greater than 0"]),
    (["optimizer.learning_rate=fast"], ["optimizer.learning_rate='fast'", "valid number"]),
    (["optimizer.weight_decay=nan"], ["optimizer.weight_decay=nan", "should be"]),
    (["optimizer.weight_decay=inf"], ["optimizer.weight_decay=inf", "finite number"]),
    (["optimizer.beta2=1.0"], ["optimizer.beta2=1.0", "less than 1"]),
    (["optimizer.clip_norm=0"], ["optimizer.clip_norm=0", "greater than 0"]),
    (["optimizer.decay_from=end"], ["optimizer.decay_from='end'", "'start'", "'warmup_end'"]),
    (["task=sst2", "tasks.sst2.batch_size=0"], ["tasks.sst2.batch_size=0", "greater than or equal to 1"]),
    (["task=squad20", "tasks.squad20.threshold=1"], ["tasks.squad20.threshold=1", "'best_f1'", "'zero'"]),
    (["task=race", "tasks.race.levels=[low]"], ["tasks.race.levels.0='low'", "'middle'", "'high'"]),
    (["task=text_regression", "tasks.text_regression.target_columns=[]"], ["target_columns=[]", "at least 1"]),
    (["task.start=scratch"], ["task.start='scratch'", "'pretrained'", "'random'"]),
    (["task.seeds=[-1]"], ["task.seeds.0=-1", "greater than or equal to 0"]),
    (["task.seeds=[]"], ["task.seeds=[]", "at least 1"]),
    (["task.seeds=[1,1]"], ["task.seeds=[1, 1]", "twice"]),
    (["masking.probability=1"], ["masking.probability=1", "less than 1"]),
    (["masking.max_ngram=0"], ["masking.max_ngram=0", "greater than or equal to 1"]),
    (["masking.copies=0"], ["masking.copies=0", "greater than or equal to 1"]),
    (["tokenizer.vocab_size=8"], ["tokenizer.vocab_size=8", "greater than or equal to 32"]),
    (["runtime.precision=fp16"], ["runtime.precision='fp16'", "'bf16'", "'fp32'"]),
    (["runtime.device=tpu"], ["runtime.device='tpu'", "'cpu'", "'cuda'"]),
    (["runtime.threads=0"], ["runtime.threads=0", "greater than or equal to 1"]),
    (["evaluation.max_pairs=1"], ["evaluation.max_pairs=1", "greater than or equal to 16"]),
    (["data=text"], ["data.path", "data=text", "Give data.path=FILE"]),
    (["data.path=a.txt"], ["data.path=a.txt", "data=embedded", "Use data=text"]),
    (["data.validation_path=b.txt"], ["data.validation_path=b.txt", "data=embedded", "Use data=text"]),
    (["data.validation_fraction=0"], ["data.validation_fraction=0", "greater than 0"]),
    (["data=wikitext", "data.hub=[]"], ["data.hub", "data=wikitext", "Name at least one"]),
    (["+foo=1"], ["foo", "no such setting", "The top level has: seed"]),
    (["+model.foo=1"], ["model.foo", "no such setting", "model has: name, hidden"]),
    (["+optimizer.warmup=1"], ["optimizer.warmup", "no such setting", "learning_rate"]),
    (["embed.size=${model.width}"], ["embed.size", "model.width"]),
    (["~seed"], ["seed", "missing", "conf/"]),
    (["~budget.steps"], ["budget.steps", "missing", "conf/"]),
    (["tracker.mode=maybe"], ["tracker.mode='maybe'", "'offline'", "'online'"]),
]


@pytest.mark.parametrize(("overrides", "words"), WRONG, ids=lambda v: " ".join(v) if "=" in v[0] else None)
def test_wrong_settings_are_refused_in_words(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([*KNOWN, *overrides])
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["seed=-1", "budget.steps=none", "+model.foo=1"])
    assert [problem.split("=")[0].split(":")[0] for problem in caught.value.problems] == [
        "seed", "model.foo", "budget.steps",
    ]  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        compose(["embed=e256", "model.hidden=192", "model.heads=5", "share.groups=50"])
    assert len(caught.value.problems) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.device=cuda.*Use runtime\.device=auto or cpu"):
        start(compose(tiny_overrides(tmp_path, "runtime.device=cuda")))
    assert not run_folders(tmp_path / "runs")


@pytest.mark.parametrize(
    ("heads", "hidden", "advice"), [(5, 192, (4, 6)), (7, 64, (8,)), (200, 192, (192,)), (100, 64, (64,))]
)
def test_the_advised_number_of_heads_divides(heads: int, hidden: int, advice: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([f"model.hidden={hidden}", f"model.heads={heads}", "embed.size=16"])
    found = int(str(caught.value).rpartition("model.heads=")[2].rstrip("."))
    assert found in advice
    assert compose([f"model.hidden={hidden}", f"model.heads={found}", "embed.size=16"]).model.heads == found


# --- wrong data ----------------------------------------------------------------------------------


def _text(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def _reads(folder: Path, name: str, content: str | bytes) -> list[str]:
    return [f"data.path={_text(folder, name, content)}"]


def _one_document(folder: Path) -> Path:
    return write_corpus(folder / "one.txt", documents=1)


def _two_sides(folder: Path) -> list[str]:
    """One training document and three held-out ones."""
    held_out = write_corpus(folder / "held_out.txt", documents=3, seed=9)
    train = write_corpus(folder / "train.txt", documents=1, seed=8)
    return [f"data.path={train}", f"data.validation_path={held_out}", "tokenizer.vocab_size=50"]


def _single_sentences(folder: Path) -> list[str]:
    blocks = write_corpus(folder / "many.txt").read_text().split()
    text = "\n\n".join(f"{a} {b} {c}." for a, b, c in zip(blocks, blocks[1:], blocks[2:], strict=False))
    return [*_reads(folder, "single.txt", text), "data.format=sentences"]


def _whole_alphabet(folder: Path) -> list[str]:
    lines = write_corpus(folder / "few.txt").read_text().replace("a.", "a quick fox jumps by 1234567890 lazy hens.")
    return _reads(folder, "all.txt", lines)


def _mixed(folder: Path) -> list[str]:
    (folder / "mixed").mkdir()
    write_corpus(folder / "mixed" / "a.txt")
    _text(folder / "mixed", "b.txt", "A long line with several sentences. It goes on. And on.\n" * 30)
    return [f"data.path={folder / 'mixed'}"]


def _foreign_tokenizer(folder: Path) -> list[str]:
    _text(folder, "own.model", b"not a model")
    return [f"tokenizer.model_path={folder / 'own.model'}"]


def _smaller_tokenizer(folder: Path) -> list[str]:
    prepared = prepare(compose(tiny_overrides(folder, "tokenizer.vocab_size=150")))
    return [f"tokenizer.model_path={prepared.tokenizer.path}", "tokenizer.vocab_size=200"]


#: (what to make in the folder and override, words of the message)
BAD_DATA: dict[str, tuple[Callable[[Path], list[str]], list[str]]] = {
    "no file": (
        lambda f: [f"data.path={f}/nothing.txt"],
        ["data.path=", "nothing.txt", "no such file", "Give a file"],
    ),
    "no held-out file": (
        lambda f: [f"data.validation_path={f}/nothing.txt"],
        ["data.validation_path=", "nothing.txt", "no such file"],
    ),
    "a pattern that finds nothing": (lambda f: [f"data.path='{f}/*.md'"], ["data.path=", "*.md", "quoted glob"]),
    "an empty file": (lambda f: _reads(f, "empty.txt", ""), ["data=text", "empty"]),
    "blank lines only": (lambda f: _reads(f, "blank.txt", " " * 9), ["data=text", "empty"]),
    "one document": (
        lambda f: [f"data.path={_one_document(f)}", "data.validation_fraction=1e-9"],
        ["data=text", "1 training and 0 held-out", "data.validation_path"],
    ),
    "one document with nsp": (
        lambda f: [*_two_sides(f), "objective=nsp"],
        ["objective=nsp", "data=text has 1", "Use objective=sop"],
    ),
    "one document with the released habit": (
        lambda f: [*_two_sides(f), "pairs.single_sentence=released"],
        ["pairs.single_sentence=released", "document"],
    ),
    "single sentences": (
        lambda f: [*_single_sentences(f)],
        ["data=text", "single sentence", "pairs.single_sentence=released"],
    ),
    "not UTF-8": (
        lambda f: _reads(f, "latin.txt", "Une phrase très courte.".encode("latin-1")),
        ["latin.txt", "UTF-8", "Convert"],
    ),
    "a damaged archive": (lambda f: _reads(f, "bad.txt.xz", b"xz?"), ["bad.txt.xz", "Fetch it again"]),
    "a damaged line": (
        lambda f: _reads(f, "bad.jsonl", "{not json"),
        ["bad.jsonl, line 1", "data.text_column"],
    ),
    "another column": (
        lambda f: _reads(f, "ok.jsonl", '{"body": "A text."}'),
        ["ok.jsonl, line 1", "'text'", "Set data.text_column"],
    ),
    "two formats": (lambda f: _mixed(f), ["data.path=", "one sentence a line", "data.format=sentences"]),
    "more pieces than the text gives": (
        lambda f: ["tokenizer.vocab_size=20000"],
        ["tokenizer.vocab_size=20000", "Set it to", "or less"],
    ),
    "fewer pieces than characters": (
        lambda f: [*_whole_alphabet(f), "tokenizer.vocab_size=32"],
        ["tokenizer.vocab_size=32", "Set it to", "or more"],
    ),
    "a tokenizer of another size": (
        lambda f: _smaller_tokenizer(f),
        ["tokenizer.vocab_size=200", "150", "Set tokenizer.vocab_size=150"],
    ),
    "no tokenizer file": (
        lambda f: [f"tokenizer.model_path={f}/no.model"],
        ["tokenizer.model_path=", "no.model"],
    ),
    "a tokenizer file that is none": (lambda f: _foreign_tokenizer(f), ["tokenizer.model_path=", "own.model"]),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_serve_are_refused_in_words(case: str, tmp_path: Path) -> None:
    make, words = BAD_DATA[case]
    with pytest.raises((DataError, ConfigError)) as caught:
        start(compose(tiny_overrides(tmp_path, *make(tmp_path))))
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)


def test_a_refused_corpus_leaves_nothing_half_made(tmp_path: Path) -> None:
    config = compose(tiny_overrides(tmp_path, "tokenizer.vocab_size=20000"))
    for _ in range(2):  # the second call must not find a broken cache
        with pytest.raises(DataError, match="20000"):
            prepare(config)
    assert not list((tmp_path / "cache").rglob(".*"))


# --- at the command line -------------------------------------------------------------------------

COMMANDS: list[tuple[list[str], list[str]]] = [
    (["embed=e999"], ["embed=e999", "e128", "e64", "full"]),  # the options there are
    (["foo=1"], ["foo"]),
    (["model=nano", "embed=e256"], ["embed.size=256", "model.hidden=", "Choose a smaller embed"]),
    (["data=text", "data.path=nowhere.txt"], ["data.path=nowhere.txt", "no such file"]),
]


@pytest.mark.parametrize(("words", "expected"), COMMANDS, ids=lambda v: " ".join(v) if "=" in v[0] else None)
def test_a_wrong_command_ends_with_2_and_words(tmp_path: Path, words: list[str], expected: list[str]) -> None:
    done = command_line(*words, f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}", cwd=tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert "Traceback" not in output
    for word in expected:
        assert word in output
    assert not run_folders(tmp_path / "runs")


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("task.distil.epochs=3", "task.distil.teacher=RUN"),
        ("task.distil.predictions=gold", "task.distil.teacher=RUN"),
        ("task.augment.probability=0.2", "task.augment.copies=20"),
    ],
)
def test_settings_that_nothing_reads_are_refused(setting: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=rf"{setting}: no effect without \S+\. Give {remedy}, or leave it"):
        compose([setting])


def test_the_defaults_of_distillation_and_augmentation_are_those_of_conf() -> None:
    task = compose([]).task
    assert dataclasses.asdict(task.distil) == {"teacher": None, **DISTIL}
    assert dataclasses.asdict(task.augment) == {"copies": 0, "masked_lm": None, **AUGMENT}
