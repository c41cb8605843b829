"""Runs and fine-tunings as ONNX graphs: the same outputs as in PyTorch."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from modelhelpers import blocks_of
from runhelpers import ROOT, run, tiny_config
from taskhelpers import TINY, sentiment, write_tsv
from test_mobilebert_interop import RUN as MOBILEBERT
from torch import nn
from transformers import AutoTokenizer

import albert_ablate as aa
from albert_ablate.commands import export, finetune
from albert_ablate.commands.unit import load_unit
from albert_ablate.interop import onnx_file
from albert_ablate.interop.onnx_file import OnnxError, States, check, example, states_of, write_onnx
from albert_ablate.model.encoder import Encoder
from albert_ablate.tasks.ner.generated import generated_sentences

#: Without norms, larger initial weights would give states of hundreds.
FORMS = {
    "albert": ("share=all", "model.initializer_range=0.4"),
    "mobilebert": (*MOBILEBERT, "model.initializer_range=0.15"),
    "bigbird": ("attention=bigbird", "attention.block=2", "attention.random=1", "model.initializer_range=0.4"),
    "causal": ("method=causal", "objective=none", "method.token_types=false", "model.initializer_range=0.4"),
}


@pytest.fixture(scope="module", params=["bigbird", "causal"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A finished run."""
    place = tmp_path_factory.mktemp(request.param)
    return request.param, finished(place, request.param)


def finished(place: Path, form: str) -> Path:
    words = [*FORMS[form], "budget.steps=2", "budget.warmup_steps=1"]
    return run(tiny_config(place, *dict.fromkeys(words))).path


def outputs(folder: Path, **grids: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    given = {one.name: grids[one.name].long().numpy() for one in session.get_inputs()}
    found: list[np.ndarray] = session.run(None, given)
    return found


def test_a_runs_states_are_pytorchs(
    trained: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batch and length may vary, except the length of attention in blocks."""
    form, path = trained
    out = tmp_path / "out"
    assert "    python -m albert_ablate.export runs/NAME out --onnx\n" in (ROOT / "docs" / "interop.md").read_text()
    words = ["--length", "24"] if form == "bigbird" else []
    assert export.main([str(path), str(out), "--onnx", *words]) == 0
    said = capsys.readouterr().out
    assert ("of exactly 24 tokens" in said) == (form == "bigbird")
    loaded = aa.load(path)
    texts = ["Bade fogo.", "Kanse bade? Fogo kanse bade fogo bade.", "Fogo."]
    for lines in (texts, texts[:1]):
        batch = loaded.encode(lines)
        grids = {"input_ids": batch.input_ids, "attention_mask": batch.mask, "token_type_ids": batch.type_ids}
        if form == "bigbird":
            grids = {
                name: nn.functional.pad(grid[:, :24], (0, 24 - min(24, grid.shape[1]))) for name, grid in grids.items()
            }
        with torch.no_grad():
            mine = loaded.model.encoder(grids["input_ids"], grids["token_type_ids"], grids["attention_mask"])
        (theirs,) = outputs(out, **grids)
        real = grids["attention_mask"] != 0
        torch.testing.assert_close(torch.from_numpy(theirs)[real], mine[real], atol=1e-4, rtol=0)
        assert mine.std() > 0.05
    code = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)[0].replace("FOLDER", str(out))
    if form != "causal":  # its tokenizer has token types only if the model has
        exec(code, {})
    assert json.loads((out / "provenance.json").read_text())["run"] == path.name


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fine-tunings of runs with blocks of attention, and with MobileBERT's layers."""
    place = tmp_path_factory.mktemp("units")
    rows = [[t, 2 * a + 0.5, a] for t, a in sentiment(60, 3)]
    file = write_tsv(place / "rows.tsv", ["text", "stars", "label"], rows)
    found = {}
    for form, task, target in (
        ("albert", "ner_generated", ""),
        ("albert", "text_classification", "label"),
        ("bigbird", "text_classification", "label"),
        ("mobilebert", "text_regression", "stars"),
    ):
        path = finished(place / form, form)
        if task == "ner_generated":
            words = [f"task={task}", "tasks.ner_generated.sentences=60", "runtime.precision=fp32", *TINY]
            assert finetune.main([str(path), *words]) == 0
            (found["tags"],) = path.glob("tasks/*-s0-*")
            continue
        named = f"tasks.{task}"
        words = [f"task={task}", f"{named}.train_file={file}", f"{named}.text_columns=[text]"]
        words += [f"{named}.target_columns=[{target}]", "runtime.precision=fp32", *TINY]
        words += ["task.head=bare", "task.pool=mean"] if form == "albert" else []
        assert finetune.main([str(path), *words]) == 0
        (found[form],) = path.glob("tasks/text_*-s0-*")
    return found


@pytest.mark.parametrize("form", ["albert", "bigbird", "mobilebert"])
def test_a_fine_tuning_answers_rows_of_text_as_pytorch(form: str, units: dict[str, Path], tmp_path: Path) -> None:
    """One is pooled as no class of transformers does it, and numbers are on the scale of the file."""
    out = tmp_path / "out"
    assert export.main([str(units[form]), str(out), "--onnx"]) == 0
    answerer = load_unit(units[form], []).answerer
    task: Any = answerer.task
    texts = [(text,) for text, _ in sentiment(40, 8)]
    batch = task.from_columns(texts).batch(np.arange(len(texts)))
    if form == "bigbird":
        batch = batch.widened(32, 32)
    tokens = AutoTokenizer.from_pretrained(out)([text for (text,) in texts], padding=True, truncation=True)
    assert tokens["input_ids"][0][: int(batch.mask[0].sum())] == batch.input_ids[0, batch.mask[0]].tolist()
    (theirs,) = outputs(out, input_ids=batch.input_ids, attention_mask=batch.mask, token_type_ids=batch.type_ids)
    with torch.no_grad():
        mine = answerer.model.eval()(batch).numpy()
    if form == "mobilebert":
        mine = mine * task.meaning.deviation + task.meaning.mean
    np.testing.assert_allclose(theirs, mine, atol=1e-4, rtol=0)
    assert mine.std() > 1e-3
    facts = onnxruntime.InferenceSession(out / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == (["stars"] if form == "mobilebert" else ["0", "1"])
    assert facts["answers"] == ("values" if form == "mobilebert" else "classes")
    exec(re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)[0].replace("FOLDER", str(out)), {})


def test_every_token_gets_its_tag(units: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export.main([str(units["tags"]), str(out), "--onnx"]) == 0
    answerer = load_unit(units["tags"], []).answerer
    task: Any = answerer.task
    batch = task.features(generated_sentences(60)["dev"]).batch(np.arange(12))
    (theirs,) = outputs(out, input_ids=batch.input_ids, attention_mask=batch.mask, token_type_ids=batch.type_ids)
    with torch.no_grad():
        mine = answerer.model.eval()(batch).numpy()
    assert theirs.shape == (12, batch.input_ids.shape[1], len(task.tags))
    np.testing.assert_allclose(theirs[batch.mask], mine[batch.mask], atol=1e-4, rtol=0)
    facts = onnxruntime.InferenceSession(out / "model.onnx").get_modelmeta().custom_metadata_map
    assert (json.loads(facts["labels"]), facts["answers"]) == (list(task.tags), "tags")


def test_what_has_no_effect_or_no_graph_is_refused_in_words(
    units: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, path = tmp_path / "out", units["albert"].parent.parent

    def refused(*words: object) -> str:
        capsys.readouterr()
        assert export.main([*map(str, words)]) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert not out.exists()
        return said

    assert "--length 16: no effect without --onnx" in refused(path, out, "--length", "16")
    assert "--length 16: no effect, since this model takes texts of any length" in refused(
        path, out, "--onnx", "--length", "16"
    )
    longer = refused(units["bigbird"], out, "--onnx", "--length", "33")
    assert "--length 33: the model has positions for 2 to 32 tokens" in longer
    assert "Export twice" in refused(path, out, "--onnx", "--sentence-transformers")
    assert "no effect on a run" in refused(path, out, "--onnx", "task.data_dir=x")
    found = importlib.util.find_spec
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    said = refused(path, out, "--onnx")
    assert "--onnx needs the packages onnxscript. Run `pip install -e '.[onnx]'`" in said


def test_a_graph_that_computes_something_else_is_found(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    model = states_of(Encoder(config.architecture()))
    for parameter in model.module.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert write_onnx(model, tmp_path / "model.onnx", None) < 1e-5
    assert not model.encoder.plain
    with torch.no_grad():
        blocks_of(model.encoder, "ffn")[0].inner.weight[3, 3] += 0.1
    with pytest.raises(OnnxError, match="other outputs than PyTorch"):
        check(model, tmp_path / "model.onnx", None)
    assert isinstance(model.module, States)
    grids = example(model, 3, 8)
    assert grids["attention_mask"].sum(1).tolist() == [8, 6, 4]
    assert int(grids["token_type_ids"].sum(1).min()) > 0
