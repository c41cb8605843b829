"""``import albert_ablate as aa``: what Python users get, against the commands and the model itself."""

import csv
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from runhelpers import ROOT, one_thread, read_json, tiny_overrides
from taskhelpers import TINY, pretrained, sentiment, write_squad, write_sst2, write_tsv
from test_readme import SHORT, SHORT_TASKS

import albert_ablate as aa
from albert_ablate import api
from albert_ablate.data.tokenizer import CLS, MASK, SEP
from albert_ablate.door import compose as hydra_compose
from albert_ablate.methods.mlm import MaskedLM

SENTENCE = "Bada bede bodo."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("door")


@pytest.fixture(scope="module")
def run(folder: Path) -> aa.Run:
    """A finished run, fine-tuned on two tasks with texts and one with questions."""
    rows = [[text, label, 2 * label + 0.5] for text, label in sentiment(60, 3)]
    file = write_tsv(folder / "reviews.tsv", ["text", "good", "stars"], rows)
    write_squad(write_sst2(folder / "data"))
    words = ["task=[sst2,squad11,text_regression]", f"task.data_dir={folder / 'data'}"]
    words += [f"tasks.text_regression.train_file={file}", "tasks.text_regression.target_columns=[stars]"]
    return aa.run(aa.compose(*tiny_overrides(folder), *TINY, *words, "runtime.checkpoint_every=100"))


@pytest.fixture(scope="module")
def loaded(run: aa.Run) -> aa.LoadedRun:
    return run.load()


def test_the_import_alone_loads_no_library() -> None:
    code = "import albert_ablate, sys; print([m for m in ('torch', 'hydra', 'pandas', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=one_thread())
    assert done.stdout == "[]\n", done.stderr


def test_every_name_is_there_and_no_other() -> None:
    assert all(inspect.getdoc(getattr(aa, name)) for name in aa.__all__)
    assert {*aa.__all__, "__version__"} == {*dir(aa)}
    with pytest.raises(AttributeError, match="'train'"):
        _ = aa.train


def test_compose_is_the_command_lines(folder: Path) -> None:
    words = [*tiny_overrides(folder), "embed=e64", "share=none"]
    assert aa.compose(*words) == hydra_compose.compose(words)
    with pytest.raises(aa.UserError, match="Did you mean share=all") as caught:
        aa.compose("share=al")
    assert caught.value.exit_code == 2


def test_a_run_is_its_folder(folder: Path, run: aa.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.folder.parent == folder / "runs"
    assert run.state == "finished"
    assert run.results.as_json() == read_json(run.folder / "results.json")
    assert run.metrics["step"].iloc[-1] == 12
    assert run.metrics["mlm_loss"].notna().all()
    assert aa.run(aa.compose(*tiny_overrides(folder))) == run
    assert "is finished; nothing to do" in capsys.readouterr().out


def test_batches_are_padded(loaded: aa.LoadedRun) -> None:
    batch = loaded.encode([SENTENCE, ("Ba.", "Be bo.")])
    one, first, second = loaded.tokenizer.encode([SENTENCE, "Ba.", "Be bo."])
    rows = [[CLS, *one, SEP], [CLS, *first, SEP, *second, SEP]]
    for row, ids, mask in zip(rows, batch.input_ids.tolist(), batch.mask.tolist(), strict=True):
        assert ids == row + [0] * (len(ids) - len(row))
        assert mask == [True] * len(row) + [False] * (len(ids) - len(row))
    assert batch.type_ids[1].tolist().index(1) == len(first) + 2
    assert batch.type_ids.sum() == len(second) + 1


def test_long_texts_are_cut_to_the_positions(loaded: aa.LoadedRun) -> None:
    long = " ".join(["bada"] * 60)
    batch = loaded.encode([long, (long, "Ba."), ("Ba.", long)])
    assert batch.input_ids.shape == (3, 32)
    assert (batch.input_ids == SEP).sum(1).tolist() == [1, 2, 2]
    assert batch.input_ids[:, -1].tolist() == [SEP] * 3


def test_hidden_states_do_not_depend_on_the_padding(loaded: aa.LoadedRun) -> None:
    states = loaded.hidden_states([SENTENCE, f"{SENTENCE} {SENTENCE}"])
    (alone,) = {tuple(x.shape) for x in loaded.hidden_states([SENTENCE])}
    assert len(states) == 1 + loaded.config.model.layers
    for padded, single in zip(states, loaded.hidden_states([SENTENCE]), strict=True):
        torch.testing.assert_close(padded[:1, : alone[1]], single)


def test_embeddings_are_pooled_states(loaded: aa.LoadedRun) -> None:
    texts = [f"{SENTENCE} {SENTENCE}", "Ba.", SENTENCE]
    last, mask = loaded.hidden_states(texts)[-1], loaded.encode(texts).mask
    torch.testing.assert_close(loaded.embed(texts), last[:, 0])
    means = torch.stack([state[real].mean(0) for state, real in zip(last, mask, strict=True)])
    torch.testing.assert_close(loaded.embed(texts, pool="mean"), means)


def test_a_mask_is_filled_by_the_masked_lm_head(loaded: aa.LoadedRun) -> None:
    (ids,) = loaded.encode([f"{SENTENCE} [MASK] ba [MASK]"]).input_ids.tolist()
    assert ids.count(MASK) == 2
    found = loaded.fill_mask(f"{SENTENCE} [MASK] ba [MASK]", top=3)
    last = loaded.hidden_states([f"{SENTENCE} [MASK] ba [MASK]"])[-1][0]
    for place, answers in zip([i for i, one in enumerate(ids) if one == MASK], found, strict=True):
        wanted = loaded.model.token_logits(last[place][None]).softmax(-1)[0]  # type: ignore[operator]
        best = wanted.argsort(descending=True)[:3]
        assert [piece for piece, _ in answers] == [loaded.tokenizer.piece(number) for number in best.tolist()]
        assert [chance for _, chance in answers] == pytest.approx(wanted[best].tolist(), rel=1e-4)


def test_a_mask_in_a_word_is_followed_by_the_rest_of_it(loaded: aa.LoadedRun) -> None:
    inside, apart = loaded.tokenizer.encode_masked(["ba[MASK]ba", "ba [MASK] ba"])
    pieces = [[loaded.tokenizer.piece(number) for number in row] for row in (inside, apart)]
    assert not pieces[0][pieces[0].index("[MASK]") + 1].startswith("▁")
    assert pieces[1][pieces[1].index("[MASK]") + 1].startswith("▁")


def test_predictions_are_those_of_the_fine_tuning(folder: Path, run: aa.Run, loaded: aa.LoadedRun) -> None:
    with (folder / "data" / "SST-2" / "dev.tsv").open() as dev:
        texts = [row["sentence"] for row in csv.DictReader(dev, delimiter="\t")]
    (unit,) = run.folder.glob("tasks/sst2-s0-*")
    written = pd.read_csv(unit / "predictions" / "SST-2.tsv", sep="\t", dtype=str)["prediction"].tolist()
    assert loaded.predict("sst2", texts) == loaded.predict(unit.name, texts) == written
    assert set(written) <= {"0", "1"}


def test_a_predicted_number_is_on_the_scale_of_the_file(run: aa.Run, loaded: aa.LoadedRun, folder: Path) -> None:
    (unit,) = run.folder.glob("tasks/text_regression-s0-*")
    written = pd.read_csv(unit / "predictions" / "dev.tsv", sep="\t")
    rows = (folder / "reviews.tsv").read_text().splitlines()
    texts = [rows[line - 1].split("\t")[0] for line in written["id"]]
    assert loaded.predict("text_regression", texts) == pytest.approx(written["stars"].tolist(), rel=1e-4)


def test_a_fine_tuning_of_an_older_version_reads_its_files(run: aa.Run, loaded: aa.LoadedRun) -> None:
    (unit,) = run.folder.glob("tasks/sst2-s0-*")
    manifest = unit / "manifest.json"
    content, mine = manifest.read_text(), loaded.predict("sst2", ["a", "b"], "task.data_dir=/nowhere")
    try:
        manifest.write_text(json.dumps({key: value for key, value in json.loads(content).items() if key != "answers"}))
        assert loaded.predict("sst2", ["a", "b"]) == mine
        with pytest.raises(aa.UserError, match="/nowhere"):
            loaded.predict("sst2", ["a", "b"], "task.data_dir=/nowhere")
    finally:
        manifest.write_text(content)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda run: run.encode([]), "at least one"),
        (lambda run: run.encode("A text."), 'such as \\["A text."\\]'),
        (lambda run: run.embed(["a"], pool="max"), "pool=max: say cls or mean"),
        (lambda run: run.fill_mask("No mask."), r"no \[MASK\] in it"),
        (lambda run: run.predict("mnli", ["a"]), r"no finished fine-tuning mnli. There are: squad11-s0-.*sst2-s0"),
        (lambda run: run.predict("squad11", ["a"]), "squad11: its examples are more than texts"),
        (lambda run: run.predict("sst2", [("a", "b")]), "sst2 takes single texts"),
        (lambda run: aa.load(run.folder.parent), "but a folder of 1 run"),
        (lambda run: aa.load_runs(run.folder / "checkpoints"), "no run"),
        (lambda run: aa.sweep("tabel5"), "Did you mean sweep=table5"),
        (lambda run: aa.sweep("table5", "hydra/launcher=joblib"), "one after another"),
    ],
)
def test_mistakes_are_said_in_words(ask: object, words: str, loaded: aa.LoadedRun) -> None:
    with pytest.raises(aa.UserError, match=words):
        ask(loaded)  # type: ignore[operator]


def test_a_model_without_the_head_fills_no_mask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = aa.load(pretrained(folder / "other")[1].path)
    monkeypatch.setattr(MaskedLM, "measures", frozenset())
    with pytest.raises(aa.UserError, match="no trained masked-LM head"):
        loaded.fill_mask("A [MASK].")


@pytest.mark.slow
def test_a_sweep_its_failures_and_a_report(folder: Path, tmp_path: Path) -> None:
    words = tiny_overrides(folder, runs="swept")
    runs = aa.sweep(*words, "embed.size=8,16")
    assert [run.folder.name.split("-")[0] for run in runs] == ["e8", "e16"]
    assert {run.state for run in runs} == {"finished"}
    with pytest.raises(aa.UserError, match="1 of 2 cells are not finished") as caught:
        aa.sweep(*words, "embed.size=8", "optimizer.learning_rate=0.002,1000000")
    assert "diverged" in caught.value.message
    table = aa.load_runs(folder / "swept")
    assert sorted(table["state"]) == ["diverged", "finished", "finished"]
    page = aa.report(folder / "swept", tmp_path / "report")
    assert page == tmp_path / "report" / "index.html"
    assert page.stat().st_size > 100_000


@pytest.mark.slow
def test_the_examples_of_the_docs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, in one folder, with settings that make a run short."""
    compose, sweep = api.compose, api.sweep
    monkeypatch.setattr(api, "compose", lambda *words: compose(*words, *SHORT, *(SHORT_TASKS * ("task=demo" in words))))
    monkeypatch.setattr(api, "sweep", lambda *words: sweep(*words, *SHORT))
    monkeypatch.chdir(tmp_path)
    text = "".join((ROOT / name).read_text() for name in ("README.md", "docs/python.md"))
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(block, names)
    assert len(blocks) >= 6
    assert (tmp_path / "report" / "index.html").is_file()
