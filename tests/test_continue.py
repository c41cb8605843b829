"""A run that continues a finished one: its model, weights and tokenizer on another text."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
import yaml
from runhelpers import (
    ROOT,
    newest_checkpoint,
    read_json,
    run,
    run_folders,
    start,
    stopped_in,
    timeless,
    tiny_config,
    tiny_overrides,
    weights_of,
    write_corpus,
)  # fmt: skip
from safetensors.torch import load_file, save_file
from test_import import PIECES, bert

from albert_ablate.commands.export import main as export
from albert_ablate.commands.import_hf import main as import_model
from albert_ablate.config.identity import identity
from albert_ablate.config.labels import arm_labels, settings_of
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.door.compose import compose
from albert_ablate.door.words import readable
from albert_ablate.errors import ConfigError, UserError
from albert_ablate.methods import method_of
from albert_ablate.record.folder import RunFolder
from albert_ablate.training.checkpoint import load_weights
from albert_ablate.training.continuing import take
from albert_ablate.training.trainer import Trainer
from analysis.read.arms import full_names
from analysis.read.cells import select
from analysis.read.runs import load_runs
from analysis.recount import columns
from analysis.recount.arms import required_settings
from analysis.recount.runs import Run

WORD, BIAS = "encoder.embedding.word.weight", "mlm_head.bias"
POSITIONS = "encoder.embedding.position.weight"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("continue")


@pytest.fixture(scope="module")
def parent(place: Path) -> RunFolder:
    """A run of a model that no preset has, with shared layers."""
    return run(tiny_config(place, runs="parents"))


@pytest.fixture(scope="module")
def unshared(place: Path) -> RunFolder:
    return run(tiny_config(place, "share=none", "objective=none", "budget.steps=4", runs="unshared"))


def words(place: Path, folder: Path | str, *more: str, runs: str = "runs") -> list[str]:
    """``init=FOLDER`` on another text; of the model nothing is said."""
    said = tiny_overrides(place, runs=runs, corpus=write_corpus(place / "novels.txt", seed=5))
    kept = [word for word in said if not word.startswith(("model.", "embed.", "tokenizer."))]
    return [f"init={folder}", *kept, *more]


@pytest.fixture(scope="module")
def continued(place: Path, parent: RunFolder) -> RunFolder:
    return run(compose(words(place, parent.path, runs="continued")))


@pytest.fixture(scope="module")
def scratch(place: Path, parent: RunFolder) -> RunFolder:
    return run(compose(words(place, parent.path, "init.weights=random", runs="scratch")))


class BegunError(UserError):
    """Ends a run before its first step."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunConfig], tuple[Trainer, dict[str, Any], Path]]:
    """The trainer of a run before its first step, its ``init.json``, and its folder."""

    def begin(config: RunConfig) -> tuple[Trainer, dict[str, Any], Path]:
        seen: list[Trainer] = []

        def fit(self: Trainer) -> Any:
            seen.append(self)
            raise BegunError("as far as the first step")

        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "fit", fit)
            with pytest.raises(BegunError):
                start(config)
        folder = seen[0].folder.path
        return seen[0], read_json(folder / "init.json"), folder

    return begin


def stored(folder: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(newest_checkpoint(folder) / "model.safetensors")


def test_model_and_tokenizer_are_the_parents_and_the_rest_is_the_users(place: Path, parent: RunFolder) -> None:
    theirs = yaml.safe_load((parent.path / "config.yaml").read_text())
    ours = compose(words(place, parent.path)).as_dict()
    for group in ("model", "embed", "share", "objective", "method", "attention", "block"):
        assert ours[group] == theirs[group]
    assert ours["tokenizer"] == theirs["tokenizer"] | {"model_path": str(parent.path / "spiece.model")}
    assert ours["data"]["path"].endswith("novels.txt")
    assert ours["init"] == {
        "run": str(parent.path), "run_id": parent.identity, "tokenizer": "parent", "weights": "parent",
    }  # fmt: skip


def test_what_the_user_names_counts(place: Path, parent: RunFolder, unshared: RunFolder) -> None:
    config = compose(
        words(place, parent.path, "model.max_positions=64", "objective=none", "scale=cpu", "model.layers=3")
    )
    assert (config.model.max_positions, config.model.layers, config.model.hidden) == (64, 3, 32)
    assert config.objective.name == "none"
    full = compose(words(place, unshared.path, "embed=full", "init.weights=random"))
    assert (full.embed.size, full.share.strategy) == (32, "none")  # H of the parent, not of the preset
    assert readable(["init=runs/mine", "init=a,b"]) == ["init.run=runs/mine", "init.run=a,b"]


def test_training_begins_with_the_weights_and_the_loss_of_the_parent(
    place: Path, parent: RunFolder, begun: Callable[..., Any]
) -> None:
    trainer, record, _ = begun(compose(words(place, parent.path, runs="begun")))
    state, theirs = trainer.model.state_dict(), stored(parent)
    assert state.keys() == theirs.keys()
    assert all(torch.equal(state[name], theirs[name]) for name in theirs)
    assert record == {
        "from": parent.name, "identity": parent.identity, "tensors_taken": sorted(theirs), "tensors_new": [],
        "tensors_left": [],
    }  # fmt: skip
    config = trainer.config
    model = method_of(config).build({})
    load_weights(newest_checkpoint(parent), model)
    batch: Any = trainer.batches[0]
    for ours, other in zip(
        trainer.method.terms(trainer.model.eval(), batch), trainer.method.terms(model.eval(), batch), strict=True
    ):
        assert ours.loss_sum.item() == other.loss_sum.item()


def test_every_table_of_pieces_is_matched(tmp_path: Path) -> None:
    """MobileBERT's head has a matrix with a row for each piece, too."""
    form = ["block=mobilebert", "model.lm_head=extended", "embed.size=8"]
    ours, theirs = (method_of(tiny_config(tmp_path, *form, f"seed={seed}")).build({}) for seed in (0, 1))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    before = ours.state_dict()["mlm_head.extra"].clone()
    rows = np.roll(np.arange(len(before)), 3)
    rows[5] = -1
    take(tmp_path, ours, ours.encoder.shape, (), rows)
    wanted = theirs.state_dict()["mlm_head.extra"][torch.from_numpy(rows)]
    wanted[5] = before[5]
    assert torch.equal(ours.state_dict()["mlm_head.extra"], wanted)


def test_rows_of_another_tokenizer_are_matched_by_piece(
    place: Path, parent: RunFolder, begun: Callable[..., Any]
) -> None:
    config = compose(words(place, parent.path, "init.tokenizer=own", "tokenizer.vocab_size=230", runs="own"))
    trainer, record, folder = begun(config)
    ours, theirs = (
        sentencepiece.SentencePieceProcessor(model_file=str(path / "spiece.model")) for path in (folder, parent.path)
    )
    known = {theirs.id_to_piece(n): n for n in range(200)}
    state, old, fresh = trainer.model.state_dict(), stored(parent), method_of(config).build({}).state_dict()
    matched = 0
    for n in range(230):
        piece = ours.id_to_piece(n)
        for name in (WORD, BIAS):
            expected = old[name][known[piece]] if piece in known else fresh[name][n]
            assert torch.equal(state[name][n], expected), piece
        matched += piece in known
    assert 50 < matched < 200
    assert record["pieces"] == {"matched": matched, "new": 230 - matched}
    assert WORD in record["tensors_taken"]
    assert f"{matched} of 230 pieces are known to it" in (folder / "log.txt").read_text()


def test_positions_are_repeated_and_cut(place: Path, parent: RunFolder, begun: Callable[..., Any]) -> None:
    table = stored(parent)[POSITIONS]
    for positions, expected, key in (
        (72, torch.cat([table, table, table[:8]]), "repeated"), (16, table[:16], "cut"),
    ):  # fmt: skip
        more = [f"model.max_positions={positions}", "pairs.max_length=16"]
        trainer, record, _ = begun(compose(words(place, parent.path, *more, runs=f"positions{positions}")))
        assert torch.equal(trainer.model.state_dict()[POSITIONS], expected)
        assert record[f"tensors_{key}"] == [POSITIONS]


def test_layers_of_their_own_begin_with_copies_of_shared_ones(
    place: Path, parent: RunFolder, begun: Callable[..., Any]
) -> None:
    trainer, record, _ = begun(compose(words(place, parent.path, "share=none", "model.layers=3", runs="copies")))
    state, theirs = trainer.model.state_dict(), stored(parent)
    for layer in range(3):
        for bank in ("attention", "ffn"):
            names = [name for name in theirs if name.startswith(f"encoder.{bank}.0.")]
            assert names
            assert all(torch.equal(state[n.replace(".0.", f".{layer}.", 1)], theirs[n]) for n in names)
    assert record["tensors_new"] == []
    assert {name.split(".")[2] for name in record["tensors_copied"]} == {"1", "2"}


def test_heads_that_the_parent_lacks_are_new_and_said(
    place: Path, parent: RunFolder, begun: Callable[..., Any]
) -> None:
    config = compose(words(place, parent.path, "method=electra", "method.generator_width=0.5", runs="electra"))
    trainer, record, folder = begun(config)
    state, theirs, fresh = trainer.model.state_dict(), stored(parent), method_of(config).build({}).state_dict()
    for name in state:
        head = name.startswith(("replaced_head.", "generator."))
        assert torch.equal(state[name], fresh[name] if head else theirs[name]), name
        assert (name in record["tensors_new"]) == head
    assert {name.split(".")[0] for name in record["tensors_left"]} == {"mlm_head"}
    assert "initialised anew: generator, replaced_head" in (folder / "log.txt").read_text()


def test_a_continued_run_that_was_stopped_ends_with_the_same_bits(
    place: Path, parent: RunFolder, continued: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(words(place, parent.path, runs="parts"))
    stopped_in(6, config, monkeypatch)
    again = run(config)
    assert again.identity == continued.identity
    assert weights_of(again) == weights_of(continued)
    assert timeless(again.metrics()) == timeless(continued.metrics())


def test_the_record_names_the_parent_and_the_tokens_of_both(
    place: Path, parent: RunFolder, continued: RunFolder, scratch: RunFolder, tmp_path: Path
) -> None:
    own, theirs = (folder.read("results.json")["training"] for folder in (continued, parent))
    entry = {"run": parent.name, "identity": parent.identity, "tokens": theirs["tokens"], "flops": theirs["flops"]}
    assert continued.read("manifest.json")["continued_from"] == entry
    assert own["tokens_in_all"] == own["tokens"] + theirs["tokens"]
    assert own["flops_in_all"] == own["flops"] + theirs["flops"]
    again = compose(words(place, continued.path, "budget.steps=2", "budget.warmup_steps=1", runs="twice"))
    assert run(again).read("manifest.json")["continued_from"]["tokens"] == own["tokens_in_all"]
    assert "continued_from" not in scratch.read("manifest.json")
    assert not (scratch.path / "init.json").exists()
    assert export([str(continued.path), str(tmp_path / "out")]) == 0
    assert f"| continues | {parent.name} ({parent.identity}) |" in (tmp_path / "out" / "README.md").read_text()


def test_a_student_may_continue_a_run_and_its_teacher_does_not(place: Path, parent: RunFolder) -> None:
    said = words(place, parent.path, "method=distilbert", "objective=none")
    with pytest.raises(ConfigError, match=r"method\.start=teacher: the student would begin with layers of its teacher"):
        method_of(compose(said)).parents()
    teacher, own = method_of(compose([*said, "method.start=random"])).parents()
    assert (own.role, own.folder, own.identity) == ("parent", parent.path, parent.identity)
    assert (teacher.config.init.weights, teacher.config.init.run_id) == ("random", None)
    changed = [f"{key}={value}" for key, value in teacher.changed.items()]
    dropped = [word for word in (*said, "method.start=random") if word.partition("=")[0] not in teacher.changed]
    again = compose([*dropped, *changed])
    assert identity(again, "store", "fp32") == identity(teacher.config, "store", "fp32")


# --- identity, labels and tables --------------------------------------------------------------------


def test_the_parent_is_part_of_the_identity(place: Path, parent: RunFolder, unshared: RunFolder) -> None:
    def of(*more: str, folder: RunFolder = parent) -> str:
        return identity(compose(words(place, folder.path, *more)), "store", "fp32")

    moved = place / "moved" / parent.name
    shutil.copytree(parent.path, moved)
    assert of() == identity(compose(words(place, moved)), "store", "fp32")  # its place does not count
    other = shutil.copytree(parent.path, place / "other" / parent.name)
    manifest = (other / "manifest.json").read_text().replace(parent.identity, "0123456789ab")
    (other / "manifest.json").write_text(manifest)
    assert of() != identity(compose(words(place, other)), "store", "fp32")
    assert of() == of("init.tokenizer=own"), "its tokens stand for a tokenizer"
    plain = tiny_config(place, corpus=place / "novels.txt")
    assert of("init.weights=random") == identity(plain, "store", "fp32")
    assert of() != identity(plain, "store", "fp32")


def test_arms_are_told_apart_by_the_parent(
    place: Path, parent: RunFolder, continued: RunFolder, scratch: RunFolder
) -> None:
    settings = [yaml.safe_load((folder.path / "config.yaml").read_text()) for folder in (scratch, continued)]
    assert arm_labels(settings) == ["from scratch", f"from {parent.name}"]
    imported = {**settings[1], "init": settings[1]["init"] | {"run": "runs/bert"}}
    assert arm_labels([settings[0], imported])[1] == f"from bert-{parent.identity}"
    runs = load_runs(scratch.path, continued.path)
    assert {name.rpartition(", ")[2] for name in full_names(runs)} == {"from scratch", f"from {parent.name}"}
    arms = {"scratch": {"init.weights": "random"}, "continued": {"init.weights": "parent"}}
    chosen = select(runs, arms)
    assert {arm: list(frame["run"]) for arm, frame in chosen.runs.items()} == {
        "scratch": [scratch.name], "continued": [continued.name],
    }  # fmt: skip
    assert chosen.other_setups == 0
    for name, folder in (("scratch", scratch), ("continued", continued)):
        kept = [arm for arm, terms in arms.items() if required_settings(Run(folder.path), terms) is not None]
        assert kept == [name]
    assert settings_of(settings[1])["init.run_id"] == parent.identity


def test_the_columns_of_a_continued_run_are_recounted(
    place: Path, parent: RunFolder, continued: RunFolder, scratch: RunFolder
) -> None:
    table = load_runs(scratch.path, continued.path)
    names = ["run", "state", "identity", "continued_from", "tokens_in_all", "flops_in_all"]
    file = place / "runs.csv"
    table[names].to_csv(file, index=False)
    row = table.set_index("run").loc[continued.name]
    assert row["continued_from"] == parent.name
    assert row["tokens_in_all"] > row["tokens"]
    rows = list(csv.DictReader(file.read_text().splitlines()))
    runs = [Run(folder.path) for folder in (scratch, continued)]
    checks = columns.check(rows, runs)
    assert {check.state for check in checks} == {"agrees"}
    rows[0]["tokens_in_all"] = rows[1]["tokens_in_all"] = "7"
    assert "disagrees" in {check.state for check in columns.check(rows, runs)}


def test_the_sweep_has_the_model_of_the_parent_in_both_arms(place: Path, parent: RunFolder) -> None:
    cells = expand(read_command_line(["sweep=continued", *words(place, parent.path, "seed=0,1")]))
    assert [(c.config.seed, c.config.init.weights, c.config.init.run_id, c.reference) for c in cells] == [
        (seed, weights, run_id, weights == "random")
        for seed in (0, 1)
        for weights, run_id in (("random", None), ("parent", parent.identity))
    ]
    assert {cell.config.model for cell in cells} == {compose(words(place, parent.path)).model}
    assert {cell.config.budget.steps for cell in cells} == {12}


def test_the_commands_of_the_page_are_read(place: Path, parent: RunFolder) -> None:
    page = (ROOT / "docs" / "continue.md").read_text()
    commands = re.findall(r"^    python run\.py (.*)$", page, flags=re.M)
    assert len(commands) == 5
    bert(place / "page-bert", vocab_size=len(PIECES), max_position_embeddings=128)
    for line in commands:
        said = line.replace("runs/NAME", str(parent.path)).replace("bert-folder", str(place / "page-bert"))
        if "-m " in line:
            assert len(expand(read_command_line([*said.split()[1:], "pairs.max_length=32"]))) == 6
            continue
        more = [] if "max_positions" in line or "bert" in said else ["pairs.max_length=32"]
        config = compose([*said.split(), *more, f"paths.cache={place / 'cache'}"])
        assert config.init.continues
        method_of(config).parents()


# --- folders in transformers' format -----------------------------------------------------------------


def test_a_folder_of_transformers_is_imported_once_and_is_the_imported_run(
    place: Path, begun: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bert(place / "mybert", vocab_size=len(PIECES))
    assert import_model([str(place / "mybert"), str(place / "imported-bert")]) == 0
    capsys.readouterr()
    said = [word for word in words(place, "") if not word.startswith("init=")] + ["objective=none"]
    direct = compose([f"init={place / 'mybert'}", *said, f"paths.runs={place / 'direct'}"])
    assert "imported into" in capsys.readouterr().out
    assert compose([f"init={place / 'mybert'}", *said, f"paths.runs={place / 'direct'}"]) == direct
    assert capsys.readouterr().out == ""
    by_run = compose([f"init={place / 'imported-bert'}", *said, f"paths.runs={place / 'by-run'}"])
    assert direct.init.run_id == by_run.init.run_id
    assert identity(direct, "store", "fp32") == identity(by_run, "store", "fp32")
    assert direct.tokenizer.name == "wordpiece"
    weights = [begun(config)[0].model.state_dict() for config in (direct, by_run)]
    theirs = stored(RunFolder.at(place / "imported-bert"))
    assert weights[0].keys() == weights[1].keys() == theirs.keys()
    assert all(torch.equal(weights[i][name], theirs[name]) for i in (0, 1) for name in theirs)


def test_rows_that_no_piece_belongs_to_are_left_behind(place: Path, begun: Callable[..., Any]) -> None:
    """A vocabulary padded to 200 rows, as some checkpoints have: a new run would draw their pieces as replacements."""
    bert(place / "padded")
    trainer, record, _ = begun(compose(words(place, place / "padded", "objective=none", runs="padded")))
    assert record["pieces"] == {"matched": len(PIECES), "new": 0}
    assert record["tensors_new"] == []
    theirs = stored(RunFolder.at(Path(trainer.config.init.run or "")))
    assert torch.equal(trainer.model.state_dict()[WORD], theirs[WORD][: len(PIECES)])


# --- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["model.hidden=64"], r"model\.hidden=64: the model of init\.run=\S+ has 32\. Leave it out"),
        (["embed.size=8"], "embed.size=8: .* has 16"),
        (["model.heads=4"], "model.heads=4: .* has 2"),
        (["model.intermediate=32"], "model.intermediate=32: .* has 64"),
        (["model.norm=pre"], "model.norm=pre: .* has post"),
        (["block=mobilebert"], "block=mobilebert: .* has standard"),
        (["model.norm_type=no_norm"], "model.norm_type=no_norm: .* has layer_norm"),
        (["model.trigram=true"], "model.trigram=true: .* has false"),
    ],
)
def test_weights_that_do_not_fit_are_refused(place: Path, parent: RunFolder, more: list[str], said: str) -> None:
    config = compose(words(place, parent.path, *more))
    with pytest.raises(ConfigError, match=said):
        start(config)
    assert not run_folders(place / "runs") if (place / "runs").exists() else True


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["share=all"], "share=all .*: layers would share a block that is not the same"),
        (["model.layers=4"], "model.layers=4: .* has 2 layers, which differ"),
        (["model.layers=1"], "model.layers=1: .* has 2 layers, which differ"),
    ],
)
def test_layers_that_differ_cannot_become_others(place: Path, unshared: RunFolder, more: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        start(compose(words(place, unshared.path, *more)))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["tokenizer.vocab_size=300"], r"tokenizer\.vocab_size=300: .* has 200\. .*init\.tokenizer=own"),
        (["tokenizer=bpe"], r"tokenizer\.name=bpe: .* has unigram"),
        (["warm_start.layers=[1]"], r"warm_start\.layers=\[1\] with init\.run=\S+: a run starts from one other run"),
        (["init.weights=zero"], r"init\.weights='zero'"),
    ],
)
def test_settings_that_contradict_a_parent_are_refused(
    place: Path, parent: RunFolder, more: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(words(place, parent.path, *more))


def test_what_is_no_finished_run_is_refused(place: Path, parent: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"init\.run=\S+: no run folder, and no checkpoint"):
        compose(words(place, tmp_path / "nothing"))
    stopped = RunFolder.at(shutil.copytree(parent.path, tmp_path / parent.name))
    stopped.set_status("preempted", "stopped")
    with pytest.raises(ConfigError, match=r"that run is preempted\. A run to continue must be finished"):
        compose(words(place, stopped.path))
    for word in ("init.weights=random", "init.tokenizer=own", "init.run_id=0123456789ab"):
        with pytest.raises(ConfigError, match=r"no effect without a run to continue\. Give init=RUN"):
            tiny_config(place, word)


def test_another_run_in_the_parents_place_is_refused(place: Path, parent: RunFolder, tmp_path: Path) -> None:
    folder = shutil.copytree(parent.path, tmp_path / "parent")
    config = compose(words(place, folder, runs="swapped"))
    manifest = (folder / "manifest.json").read_text().replace(parent.identity, "0123456789ab")
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(ConfigError, match=r"begun with the parent .* now another one lies there"):
        start(config)


def test_the_parents_tokenizer_reads_the_other_text(place: Path, parent: RunFolder) -> None:
    theirs = parent.read("manifest.json")["data"]["tokenizer"]["fingerprint"]
    assert prepare(compose(words(place, parent.path))).tokenizer.fingerprint == theirs
